"""Run as a program: steps in forked children, and beside a DataLoader's. Prints a line of JSON for
every optimizer of the table, with fingerprints that should be equal by twos."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cosmic import Cosmic
from helpers import digest, normal, parameter
from optimizers import ROWS, Row, params_of

#: Enough elements that the step runs on several threads.
SHAPE = (300, 401)
#: After so many seconds a child is taken to hang, and killed.
PATIENCE = 20.0


def large(row: Row) -> Cosmic:
    return row.make([parameter(k, *SHAPE) for k in range(2)])


def with_gradients(optimizer: Cosmic, several: list[list[Tensor]]) -> str:
    """Fingerprint after a step on each of these."""
    for gradients in several:
        for p, g in zip(params_of(optimizer), gradients, strict=True):
            p.grad = g
        optimizer.step()
    return digest(optimizer)


def in_a_child(optimizer: Cosmic, several: list[list[Tensor]]) -> str:
    """What ``with_gradients`` gives in a forked child; ``"hang"`` if it never comes back. The child
    does nothing else with tensors of this size: torch's own operators would hang."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, with_gradients(optimizer, several).encode())
        os._exit(0)
    os.close(writing)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            with os.fdopen(reading) as pipe:
                return pipe.read()
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hang"


class Numbers(Dataset[Tensor]):
    """Batches that depend on nothing but their index."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return normal(index, 300)


def trained(row: Row, workers: int) -> str:
    """Two epochs of a model on batches of a DataLoader, whose workers are forked."""
    model = nn.Linear(300, 401)
    with torch.no_grad():
        model.weight.copy_(normal(1, 401, 300))
        model.bias.zero_()
    optimizer = row.make(model.parameters())
    how: dict[str, Any] = {"multiprocessing_context": "fork"} if workers else {}
    for _ in range(2):
        for batch in DataLoader(Numbers(), batch_size=2, num_workers=workers, **how):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
    return digest(optimizer)


def main() -> None:
    torch.set_num_threads(3)
    torch.zeros(1_000_000).add_(1)  # torch has started threads before the first fork
    several = [[normal(10 * step + k, *SHAPE) for k in range(2)] for step in range(3)]
    for row in ROWS:
        optimizer = large(row)
        first_child = in_a_child(optimizer, several[:1])
        first_parent = with_gradients(optimizer, several[:1])
        child = in_a_child(optimizer, several[1:])
        found = {
            "row": row.name,
            "first in child": first_child,
            "first in parent": first_parent,
            "child": child,
            "parent": with_gradients(optimizer, several[1:]),
            "workers": trained(row, 2),
            "no workers": trained(row, 0),
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
