"""The digest of a GPT-2 of 10 million parameters after 50 exact steps.

Two builds or two machines agree where the lines that they print are equal. It takes the weights
from a counter, so that nothing but the release, torch and transformers need be the same.

    python bench/exact_digest.py
    COSMIC_ISA=scalar python bench/exact_digest.py --threads 1
    python bench/exact_digest.py --accumulate fp32 --steps 10
"""

from __future__ import annotations

import argparse
import hashlib

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from cosmic import exact
from cosmic._core import build_info
from shared.harness import machine

SEQUENCES, LENGTH, VOCABULARY = 2, 64, 8192
SPOKEN = 256  # tokens of the vocabulary that occur


def made(accumulate: str) -> nn.Module:
    """A converted GPT-2 with dropout, its weights drawn from a counter."""
    config = GPT2Config(
        n_layer=6, n_embd=320, n_head=5, vocab_size=VOCABULARY, n_positions=LENGTH,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model: nn.Module = exact.convert(GPT2LMHeadModel(config), accumulate=accumulate).train()
    for key, param in enumerate(model.parameters()):
        if param.ndim > 1:
            exact.normal_(param.detach(), std=0.02, key=key)
    return model


def batch(step: int) -> Tensor:
    """Tokens of which each follows from the one before and a random number below 4."""
    random = exact.uniform_(torch.empty(SEQUENCES, LENGTH, dtype=torch.float64), key=step)
    tokens = (random * SPOKEN).floor()
    for k in range(1, LENGTH):
        tokens[:, k] = (5 * tokens[:, k - 1] + (4 * random[:, k]).floor()) % SPOKEN
    return tokens.long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--accumulate", default="fp64", choices=("fp32", "fp64"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)  # of dropout's keys
    model = made(arguments.accumulate)
    optimizer = exact.VerityAdam(model.parameters(), lr=1e-3)
    loss = torch.zeros(())
    for step in range(arguments.steps):
        optimizer.zero_grad()
        ids = batch(step)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
    found = hashlib.sha256()
    for param in model.parameters():
        found.update(param.detach().numpy().tobytes())
    count = sum(param.numel() for param in model.parameters())
    build = build_info()
    print(
        f"{machine()['cpu']}, {build['isa']} of {', '.join(build['isa_available'])}, "
        f"{arguments.threads} threads, torch {torch.__version__}"
    )
    print(
        f"{count:,} parameters, {arguments.steps} steps, {arguments.accumulate}: "
        f"loss {loss.item():.9g}, digest {found.hexdigest()}"
    )


if __name__ == "__main__":
    main()
