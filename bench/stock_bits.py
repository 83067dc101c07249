"""Which settings change the bits of a training: torch's own switches, and cosmic.exact.

One small GPT is trained for 20 steps in a process of its own for each setting and number of
threads, from the same weights on the same tokens, made of integers. Runs that end with the same
bits of all weights have the same letter.

    python bench/stock_bits.py
    python bench/stock_bits.py --only stock
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosmic import exact
from shared.harness import machine

VOCABULARY, WIDTH, HEADS, LAYERS, TOKENS, BATCH, STEPS = 512, 128, 4, 2, 64, 8, 20


class Block(nn.Module):
    """Causal attention and a feed-forward network, each after a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.queries = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        parts = self.queries(self.norms[0](x)).chunk(3, -1)
        q, k, v = (part.view(*x.shape[:2], HEADS, -1).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        y: Tensor = x + self.down(self.act(self.up(self.norms[1](x))))
        return y


class Model(nn.Module):
    """Half a million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        with torch.no_grad():
            for index, (name, parameter) in enumerate(self.named_parameters()):
                if parameter.ndim == 2:
                    shape = parameter.shape
                    parameter.copy_(scattered(parameter.numel(), index).view(shape) * 0.125)
                elif name.endswith("bias"):
                    parameter.zero_()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))[:, :-1].reshape(-1, VOCABULARY)
        loss: Tensor = F.cross_entropy(logits, ids[:, 1:].reshape(-1))
        return loss


def scattered(count: int, seed: int) -> Tensor:
    """Numbers between -1 and 1 that are multiples of 2^-15: no rounding, no generator."""
    index = torch.arange(count) + 7919 * (seed + 1)
    return ((index * 40503 % 65536) * 40503 % 65536 - 32768).float() / 32768


def train(*, exactly: bool) -> str:
    """The digest of all weights after the last step."""
    model: nn.Module = Model()
    if exactly:
        model = exact.convert(model)
        optimizer: torch.optim.Optimizer = exact.VerityAdam(model.parameters(), lr=1e-3)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    ids = (scattered(STEPS * BATCH * TOKENS, 99) * 32768).long() % VOCABULARY
    for batch in ids.view(STEPS, BATCH, TOKENS):
        optimizer.zero_grad()
        model(batch).backward()
        optimizer.step()
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Setting:
    """A row of the table: variables of the environment, and torch's deterministic algorithms."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    deterministic: bool = False
    exactly: bool = False

    def digest(self, threads: int) -> str:
        """Of a process of its own."""
        more = ["--deterministic"] * self.deterministic + ["--exactly"] * self.exactly
        command = [sys.executable, __file__, "--train", "--threads", str(threads), *more]
        run = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True
        )
        if run.returncode:
            return "failed"
        return run.stdout.split()[-1]


#: All that is said to help, together.
TOGETHER = {
    "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41",
}  # fmt: skip
STOCK = (
    Setting("as it is"),
    Setting("once more"),
    Setting("use_deterministic_algorithms(True)", deterministic=True),
    Setting("ATEN_CPU_CAPABILITY=default", {"ATEN_CPU_CAPABILITY": "default"}),
    Setting("ATEN_CPU_CAPABILITY=avx2", {"ATEN_CPU_CAPABILITY": "avx2"}),
    Setting("MKL_CBWR=COMPATIBLE", {"MKL_CBWR": "COMPATIBLE"}),
    Setting("MKL_CBWR=AVX2", {"MKL_CBWR": "AVX2"}),
    Setting("MKL_CBWR=AVX2,STRICT", {"MKL_CBWR": "AVX2,STRICT"}),
    Setting("ONEDNN_MAX_CPU_ISA=SSE41", {"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    Setting("ONEDNN_MAX_CPU_ISA=AVX2", {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    Setting("all of the lowest, deterministic", TOGETHER, deterministic=True),
)
EXACT = (
    Setting("cosmic.exact", exactly=True),
    Setting("cosmic.exact, once more", exactly=True),
    Setting("cosmic.exact, COSMIC_ISA=scalar", {"COSMIC_ISA": "scalar"}, exactly=True),
    Setting("cosmic.exact, all of the lowest", TOGETHER, exactly=True),
)


def table(settings: Sequence[Setting], threads: Sequence[int], letters: dict[str, str]) -> None:
    """Print a row a setting, a letter a run."""
    for setting in settings:
        found = [setting.digest(count) for count in threads]
        names = [letters.setdefault(digest, chr(ord("A") + len(letters))) for digest in found]
        print(f"| {setting.name} | {' | '.join(names)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("stock", "exact"), help="half of the table")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 3], metavar="N")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--deterministic", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--exactly", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        torch.set_num_threads(options.threads)
        torch.use_deterministic_algorithms(options.deterministic)
        print(train(exactly=options.exactly))
        return
    facts = machine()
    print(f"{facts['cpu']}, {facts['cores']} cores, torch {facts['torch']}\n")
    print(f"| threads | {' | '.join(map(str, options.counts))} |")
    print(f"|---|{'--|' * len(options.counts)}")
    letters: dict[str, str] = {}
    if options.only != "exact":
        table(STOCK, options.counts, letters)
    if options.only != "stock":
        table(EXACT, options.counts, letters)


if __name__ == "__main__":
    main()
