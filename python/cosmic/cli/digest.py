"""`cosmic digest`: a small training, and whether its bits are those of this release."""

import argparse
import json
import time

import torch

from cosmic._core import build_info
from cosmic.errors import UsageError
from cosmic.exact import reference

#: Beyond what a machine starts, the OpenMP runtime ends the process.
MOST_THREADS = 1024


def run(arguments: argparse.Namespace) -> bool:
    """Print the digest and what it was made with; False: another one is expected."""
    if arguments.steps < 0:
        raise UsageError(f"--steps is {arguments.steps}; expected 0 or more")
    if arguments.threads is not None and not 1 <= arguments.threads <= MOST_THREADS:
        raise UsageError(f"--threads is {arguments.threads}; expected 1 to {MOST_THREADS}")
    before = torch.get_num_threads()
    torch.set_num_threads(arguments.threads or before)
    try:
        start = time.perf_counter()
        digest = reference.digest_of(reference.train(arguments.accumulate, arguments.steps))
        seconds = time.perf_counter() - start
        facts = {"digest": digest, **_facts(arguments), "seconds": round(seconds, 2)}
    finally:
        torch.set_num_threads(before)
    print(json.dumps(facts, indent=2) if arguments.json else _line(facts))
    return facts["expected"] in (None, digest)


def _facts(arguments: argparse.Namespace) -> dict[str, str | int | float | None]:
    known = reference.EXPECTED if arguments.steps == reference.STEPS else {}
    build = build_info()
    return {
        "expected": known.get(arguments.accumulate),
        "release": build["version"],
        "accumulate": arguments.accumulate,
        "steps": arguments.steps,
        "isa": build["isa"],
        "threads": torch.get_num_threads(),
    }


def _line(facts: dict[str, str | int | float | None]) -> str:
    expected = facts["expected"]
    verdict = "as expected of this release"
    if expected is None:
        verdict = f"no digest of {facts['accumulate']} after {facts['steps']} steps is on record"
    elif expected != facts["digest"]:
        verdict = f"NOT this release's, which is {expected}"
    return (
        f"{facts['digest']}  cosmic {facts['release']}, {facts['accumulate']}, {facts['isa']}, "
        f"{facts['threads']} threads, {facts['seconds']} s: {verdict}"
    )
