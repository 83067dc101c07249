"""What exact bits cost: a training step by cosmic.exact over one by torch.

Forward, backward and the optimizer's step of GPT-2 models: converted, with VerityAdam, over torch's
own with AdamW(fused=True), in turn in one process.

    python bench/exact.py
    python bench/exact.py --models 1.6 10 --threads 1 --cpu
    python bench/exact.py --models 10 --profile
"""

from __future__ import annotations

import argparse
import copy
import cProfile
import pstats
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from cosmic import exact
from shared.harness import machine, paired, print_table, write_json

LENGTH = 128


@dataclass(frozen=True)
class Size:
    """A GPT-2 and its batch."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    sequences: int

    def model(self) -> nn.Module:
        config = GPT2Config(
            n_layer=self.layers, n_embd=self.width, n_head=self.heads, vocab_size=self.vocabulary,
            n_positions=LENGTH, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        model: Any = GPT2LMHeadModel(config)
        model.loss_type = "ForCausalLM"
        out: nn.Module = model.train()
        return out


#: By millions of parameters.
SIZES = {
    "1.6": Size(4, 160, 4, 2048, 16),
    "10": Size(6, 320, 5, 8192, 16),
    "120": Size(12, 768, 12, 50257, 8),
}


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    model: str
    parameters: int
    tokens: int
    accumulate: str
    torch: float
    exact: float
    ratio: float
    pairs: int


def step_of(model: nn.Module, optimizer: torch.optim.Optimizer, ids: Tensor) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad()
        loss: Any = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()

    return step


def exact_step(plain: nn.Module, accumulate: str, ids: Tensor) -> Callable[[], None]:
    model = exact.convert(copy.deepcopy(plain), accumulate)
    return step_of(model, exact.VerityAdam(model.parameters(), 1e-4), ids)


def measure(name: str, accumulate: str, pairs: int, clock: Callable[[], float]) -> Row:
    size = SIZES[name]
    torch.manual_seed(0)
    plain = size.model()
    count = sum(parameter.numel() for parameter in plain.parameters())
    ids = torch.randint(size.vocabulary, (size.sequences, LENGTH))
    ours = exact_step(plain, accumulate, ids)
    theirs = step_of(plain, torch.optim.AdamW(plain.parameters(), 1e-4, fused=True), ids)
    timed = paired(theirs, ours, pairs=pairs, clock=clock)
    return Row(
        name, count, ids.numel(), accumulate, timed.torch, timed.variant, timed.ratio, timed.pairs
    )


def profile(name: str, accumulate: str) -> None:
    """Print where the time of three steps goes, the core's functions by name."""
    size = SIZES[name]
    ids = torch.randint(size.vocabulary, (size.sequences, LENGTH))
    step = exact_step(size.model(), accumulate, ids)
    step()
    with cProfile.Profile() as seen:
        for _ in range(3):
            step()
    print(f"{name} M, {accumulate}")
    pstats.Stats(seen).sort_stats("tottime").print_stats(16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--accumulate", nargs="+", default=["fp32", "fp64"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: torch's choice")
    parser.add_argument("--cpu", action="store_true", help="CPU time, on a machine that is shared")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    each = [(name, word) for name in options.models for word in options.accumulate]
    if options.profile:
        for name, word in each:
            profile(name, word)
        return
    clock = time.process_time if options.cpu else time.perf_counter
    rows = [measure(name, word, options.pairs, clock) for name, word in each]
    facts = machine()
    print(f"{facts['cpu']}, {facts['isa']}, {facts['threads']} threads, torch {facts['torch']}")
    print_table(
        rows,
        {"model": "", "parameters": ",", "tokens": ",", "accumulate": "", "torch": ".3f",
         "exact": ".3f", "ratio": ".2f", "pairs": ""},
    )  # fmt: skip
    write_json(options.json, rows, clock="cpu" if options.cpu else "wall")


if __name__ == "__main__":
    main()
