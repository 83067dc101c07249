"""Tensors that are cut into shards, each of them a row of a plan of its own in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cosmic import Cosmic, Rung, _core
from cosmic.parts import GATES
from cosmic.rungs import Geometry
from helpers import UNUSUAL

BLOCK = 128
#: Where the first block lies, blocks of a row here and in the whole tensor, elements before the
#: shard in its first block, elements and rows of the whole tensor: as of `cosmic.state.shards`.
Place = tuple[int, int, int, int, int, int]
#: The matrix here, the whole one, and how it is cut.
Matrix = tuple[tuple[int, int], tuple[int, int], str]
Exchange = Callable[[Any, list[tuple[int, int]]], None]

INDEX, SEED = 5, 77


@dataclass
class Stepped:
    """One tensor with its state, stepped by a plan of its own."""

    param: Tensor
    rung: Rung
    place: Place | None = None
    matrix: Matrix | None = None
    gate: str = "none"
    exact: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    #: Whose group it is in, where that is of a preset, and what the gate keeps of the group.
    preset: Cosmic | None = None
    memory: _core.GateMemory | None = None
    master: bool = False
    steps: int = 0

    def __post_init__(self) -> None:
        self.plan = _core.Plan(SEED)
        of = self.preset or Cosmic([torch.zeros(1, requires_grad=True)], **UNUSUAL)
        self.group = of.param_groups[0]
        self.group.update(self.options, params=[self.param])
        self.state = self._zeros()
        r = self.rung
        self.plan.add_row(
            self.param, "it", 0, INDEX, r.rule, r.m, r.m_slow, r.v, self.gate, self.exact,
            self.state, place=self.place, matrix=self.matrix,
        )  # fmt: skip
        self.states = {self.param: self.state}
        if self.memory is not None:
            self.plan.set_memory(0, self.memory)

    def _zeros(self) -> dict[str, Any]:
        geometry = Geometry.of(self.param)
        if self.matrix:
            geometry = geometry._replace(matrix=self.matrix[0])
        state: dict[str, Any] = {"step": torch.zeros((), dtype=torch.int64)}
        for key, (_, dtype, count, shaped, _) in self.rung.planes(geometry).items():
            shape = self.param.shape if shaped else (count,)
            state[key] = torch.zeros(shape, dtype=getattr(torch, dtype))
        if self.master:
            state["master_low"] = torch.zeros(self.param.shape, dtype=torch.int8)
        kept = [GATES[name].numbers for name in self.gate.split("+") if name != "none"]
        for numbers in (*self.rung.numbers, *kept):
            if numbers:
                start = torch.tensor(numbers.initial, dtype=numbers.dtype)
                state[numbers.key] = start.reshape(numbers.shape)
        return state

    def step(
        self, gradient: Tensor, threads: int = 1, copy: Tensor | None = None
    ) -> list[Tensor] | None:
        self.param.grad = gradient
        copies: list[Tensor | None] | None = None if copy is None else [copy]
        done = self.plan.step([self.group], self.states, threads, self.steps, copies)
        self.steps += 1
        return done


def by_rows(shape: Sequence[int], cuts: Sequence[int], lead: bool = False) -> list[Place]:
    """Places of the shards that end at these rows."""
    rows, inner = shape[0], int(torch.Size(shape[1:]).numel())
    places = []
    for first, last in spans(rows, cuts):
        before, far = first * inner, max(last - first, 1)
        places.append(
            (before // BLOCK, far, far, before % BLOCK if lead else 0, rows * inner, rows)
        )
    return places


def by_columns(shape: tuple[int, int], cuts: Sequence[int]) -> list[Place]:
    """Places of the shards that end at these columns, multiples of a block."""
    rows, columns = shape
    return [
        (first // BLOCK, (last - first) // BLOCK, columns // BLOCK, 0, rows * columns, rows)
        for first, last in spans(columns, cuts)
    ]


def spans(size: int, cuts: Sequence[int]) -> list[tuple[int, int]]:
    ends = [*cuts, size]
    return list(zip([0, *cuts], ends, strict=True))


def side_by_side(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """What they return, each in a thread of its own; raises what one of them raised."""
    found: list[Any] = [None] * len(works)
    raised: list[BaseException | None] = [None] * len(works)

    def run(k: int) -> None:
        try:
            found[k] = works[k]()
        except BaseException as error:
            raised[k] = error

    threads = [threading.Thread(target=run, args=(k,), daemon=True) for k in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a rank waits for ever"
    for error in raised:
        if error is not None:
            raise error
    return found


class Ranks:
    """Exchanges of ranks that are threads: sums in the order of the ranks, in double."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, timeout=60)
        self.given: list[Tensor | None] = [None] * count
        self.calls: list[list[list[tuple[int, int]]]] = [[] for _ in range(count)]

    def exchange(self, rank: int) -> Exchange:
        def run(sums: Any, rows: list[tuple[int, int]]) -> None:
            mine = torch.frombuffer(sums, dtype=torch.float64)
            self.calls[rank].append(rows)
            self.given[rank] = mine.clone()
            self.barrier.wait()
            total = torch.zeros_like(mine)
            for given in self.given:
                assert given is not None
                total += given
            self.barrier.wait()
            mine.copy_(total)

        return run
