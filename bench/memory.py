"""Peak resident memory of a few steps, beside what `cosmic.estimate_memory` said before.

Random weights of a known shape, made in a process of their own; each way to train is one line.

    python bench/memory.py                       # 0.4 billion parameters
    python bench/memory.py --model tinyllama-1.1b --dtype bf16 --block-size 64
"""

import argparse
import contextlib
import json
import subprocess
import sys
from typing import Any

import torch

from cosmic import Cosmic, compress_activations, estimate_memory, load_model
from cosmic.models.building import DTYPES
from cosmic.models.configs import silence_transformers
from cosmic.planning.machine import PROCESS_BYTES
from cosmic.train.memory import PeakRss, rss_bytes

WAYS: dict[str, dict[str, Any]] = {
    "all gradients": {},
    "gradients released": {"release_gradients": True},
    "... and activations in 8 bits": {"release_gradients": True, "activations": "q8"},
}


def run(model_name: str, dtype: str, batch: tuple[int, int], steps: int, way: str) -> int:
    """Train, and return the process's peak in bytes."""
    silence_transformers()
    options = WAYS[way]
    with PeakRss() as peak:
        model = load_model(model_name, dtype, from_scratch=True)
        optimizer = Cosmic(model.parameters(), lr=1e-4, rung="tier1:factored")
        ids = torch.randint(0, 1000, batch)
        codec = options.get("activations")
        with contextlib.ExitStack() as within:
            if options.get("release_gradients"):
                within.enter_context(optimizer.step_in_backward(model))
            for _ in range(steps):
                packed = compress_activations(codec) if codec else contextlib.nullcontext()
                with packed:
                    loss = model(input_ids=ids, labels=ids).loss
                loss.backward()
                del loss
                optimizer.step()
                optimizer.zero_grad()
    return max(peak.bytes, rss_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="pythia-410m", metavar="NAME")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="fp32")
    parser.add_argument("--batch-size", type=int, default=2, metavar="N")
    parser.add_argument("--block-size", type=int, default=128, metavar="N")
    parser.add_argument("--steps", type=int, default=2, metavar="N")
    parser.add_argument(
        "--run", choices=WAYS, help="one way, in this process; for the bench itself"
    )
    arguments = parser.parse_args()
    batch = (arguments.batch_size, arguments.block_size)
    asked = (arguments.model, arguments.dtype, batch, arguments.steps)
    if arguments.run:
        print(json.dumps(run(*asked, arguments.run)))
        return
    silence_transformers()
    print("| way | estimate, GB | peak RSS, GB | peak over estimate |")
    print("|---|---|---|---|")
    for way, options in WAYS.items():
        found = estimate_memory(
            arguments.model,
            batch=batch,
            dtype=DTYPES[arguments.dtype],
            rung="tier1:factored",
            **options,
        )
        said = found.total_bytes + PROCESS_BYTES
        command = [sys.executable, __file__, *sys.argv[1:], "--run", way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peak = json.loads(done.stdout)
        print(f"| {way} | {said / 1e9:.2f} | {peak / 1e9:.2f} | {peak / said:.2f} |", flush=True)


if __name__ == "__main__":
    main()
