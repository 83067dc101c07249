"""Writes a small checkpoint of every optimizer of the table, and the bits that follow from it.

    PYTHONPATH=tests/support python tests/conformance/make_golden.py

Made at a release, in a folder of its version, and never again: what it wrote is what later releases
must load. Files that are there are left alone, so that a new row of the table gets its own.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cosmic import Cosmic
from helpers import bits
from optimizers import ROWS, Row, params_of

GOLDEN = Path(__file__).parent / "golden"
VERSION = "0.2.0"

#: Of codecs: three blocks, the last one with a rest; of stochastic rounding: bfloat16.
TENSORS = (((16, 17), torch.float32), ((40,), torch.bfloat16), ((), torch.float32))
SAVED, LAST = 3, 5


def numbers(seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """From whole numbers, exact in every dtype: no library's sine or logarithm is in them."""
    count = torch.empty(shape).numel()
    whole = (torch.arange(count) * 7919 + seed * 104729) % 251 - 125
    return (whole.to(torch.float64) / 64).to(dtype).view(shape)


def fresh(row: Row) -> Cosmic:
    """The row's optimizer, with codecs on tensors of any size."""
    params = [nn.Parameter(numbers(k, *tensor)) for k, tensor in enumerate(TENSORS)]
    return row.make(params, **dict.fromkeys(row.sizes, 0))


def run(optimizer: Cosmic, first: int, last: int) -> None:
    """Steps first..last - 1."""
    for step in range(first, last):
        for k, (p, tensor) in enumerate(zip(params_of(optimizer), TENSORS, strict=True)):
            p.grad = numbers(100 * (step + 1) + k, *tensor)
        optimizer.step()


def fingerprint(optimizer: Cosmic) -> str:
    """Of parameters alone: a later release may keep state in another form."""
    found = hashlib.sha256()
    for p in params_of(optimizer):
        found.update(bits(p).numpy().tobytes())
    return found.hexdigest()


def saved(optimizer: Cosmic) -> dict[str, Any]:
    """A checkpoint as a user would write it."""
    return {
        "params": [p.detach().clone() for p in params_of(optimizer)],
        "optimizer": optimizer.state_dict(),
    }


def write(folder: Path) -> None:
    """The checkpoints that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    about = folder / "bits.json"
    found: dict[str, str] = json.loads(about.read_text()) if about.exists() else {}
    for row in ROWS:
        file = folder / f"{row.name}.pt"
        if file.exists():
            continue
        optimizer = fresh(row)
        run(optimizer, 0, SAVED)
        torch.save(saved(optimizer), file)
        run(optimizer, SAVED, LAST)
        found[row.name] = fingerprint(optimizer)
    about.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    write(GOLDEN / VERSION)
