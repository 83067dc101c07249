"""State that one step makes for the parameters of GPT-2 (124 million), by rung.

    python bench/gpt2_state.py [--state-dtype u4+factored] [--model gpt2]

Weights are random, in bfloat16, and gradients too: only shapes matter.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import torch

from cosmic import Cosmic
from cosmic.capital.budget import ADAMW_BYTES
from cosmic.models.building import build_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state-dtype", help="default: the optimizer's own")
    parser.add_argument("--model", default="gpt2", help="an architecture of `cosmic finetune`")
    args = parser.parse_args()
    model = build_model(args.model, from_scratch=True, seed=0, dtype="bf16")
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    options = {"state_dtype": args.state_dtype} if args.state_dtype else {}
    optimizer = Cosmic(model.named_parameters(), lr=1e-3, **options)
    optimizer.step()
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for info in optimizer.tiers():
        for k, x in enumerate((1, info.numel, info.nbytes)):
            totals[info.rung][k] += x
    numel = sum(elements for _, elements, _ in totals.values())
    for rung, (tensors, elements, nbytes) in totals.items():
        print(f"{rung:24} {tensors:4} tensors {elements:12,} elements {nbytes:12,} bytes")
    total = optimizer.state_bytes()
    print(f"in all {numel:,} parameters, {total:,} bytes, {8 * total / numel:.3f} bits a parameter")
    print(f"AdamW's two fp32 moments: {ADAMW_BYTES * numel:,} bytes")


if __name__ == "__main__":
    main()
