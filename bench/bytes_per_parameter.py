"""Bytes a parameter of weights, gradients, state and activations: AdamW beside COSMIC, as markdown.

Computed by `cosmic.estimate_memory`; nothing is trained, and no weights are made.

    python bench/bytes_per_parameter.py
    python bench/bytes_per_parameter.py --batch-size 4 --block-size 512
"""

import argparse
from collections.abc import Iterator
from typing import Any

import torch

from cosmic import MemoryEstimate, estimate_memory
from cosmic.models.configs import silence_transformers

MODELS = ("tinyllama-1.1b", "pythia-2.8b", "llama-7b")
FP32, BF16 = torch.float32, torch.bfloat16
WAYS: dict[str, dict[str, Any]] = {
    "AdamW, fp32": {"dtype": FP32},
    "AdamW, bf16, moments too": {"dtype": BF16},
    "Cosmic, fp32": {"dtype": FP32},
    "Cosmic, bf16": {"dtype": BF16},
    "... gradients released": {"dtype": BF16, "release_gradients": True},
    "... state by rows and columns": {
        "dtype": BF16,
        "release_gradients": True,
        "rung": "tier1:factored",
    },
    "... activations in 8 bits, vocabulary in blocks": {
        "dtype": BF16,
        "release_gradients": True,
        "rung": "tier1:factored",
        "activations": "q8",
        "chunk_vocabulary": True,
    },
}


def rows(model: str, batch: tuple[int, int]) -> Iterator[str]:
    """Lines of the table, one a way to train."""
    for way, options in WAYS.items():
        found = estimate_memory(model, batch=batch, **options)
        yield row(way, found, adamw=options["dtype"].itemsize if way.startswith("AdamW") else 0)


def row(way: str, found: MemoryEstimate, *, adamw: int) -> str:
    """A line: bytes a parameter of each kind, and GB in all. `adamw`: bytes of one of its moments,
    which torch keeps in the parameters' type; 0: Cosmic."""
    state = found.adamw_bytes * adamw // 4 if adamw else found.state_bytes + found.scratch_bytes
    sizes = (
        found.weight_bytes,
        found.gradient_bytes,
        state,
        found.activation_bytes + found.loss_bytes,
    )
    cells = [f"{size / found.parameters:.3g}" for size in sizes]
    total = sum(sizes)
    return f"| {way} | {' | '.join(cells)} | {total / found.parameters:.3g} | {total / 1e9:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N")
    parser.add_argument("--block-size", type=int, default=128, metavar="N")
    arguments = parser.parse_args()
    silence_transformers()
    for model in arguments.model:
        parameters = estimate_memory(model).parameters
        size = f"{arguments.batch_size} x {arguments.block_size} tokens"
        print(f"{model}, {parameters / 1e9:.3f} billion parameters, {size}:\n")
        print("| bytes a parameter | weights | gradients | state | activations | all | GB |")
        print("|---|---|---|---|---|---|---|")
        for line in rows(model, (arguments.batch_size, arguments.block_size)):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
