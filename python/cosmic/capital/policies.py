"""Policies: what a byte of state is worth, tensor by tensor and rung by rung.

A policy only names worths; ``allocation.py`` buys the most of them that the budget holds. A policy
of your own is any object with the three members of ``Policy``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ..parts import RULES
from ..rungs import Geometry, Rung, matrix_codecs
from ..state.gates import GateUse, gate_bytes
from ..state.roles import Role

__all__ = [
    "Candidate",
    "Policy",
    "RolePolicy",
    "SignalPolicy",
    "UniformPolicy",
]


@dataclass(frozen=True)
class Candidate:
    """One tensor whose rung a policy may choose.

    Attributes:
        index: of the parameter in the optimizer.
        numel: real elements.
        ladder: the rungs it may have; the first costs least.
        current: the rung it has, or None.
        role: what the tensor is to the model.
        signal: mean absolute gradient, averaged over steps; 0 before the first step, and for
            policies that do not use it.
        matrix: rows and columns that the tensor can be seen as, or None.
        gate: the group's, or ``"none"``; its numbers are part of a rung's price.
        dims: numbers that say where packed codes belong, as of ``Geometry``; part of a price, too.
        shards: of a tensor that processes share, how many shards there are of each geometry, whose
            prices together are its own.
    """

    index: int
    numel: int
    ladder: tuple[Rung, ...]
    current: Rung | None
    role: Role
    signal: float = 0.0
    matrix: tuple[int, int] | None = None
    gate: str = "none"
    dims: int = 1
    shards: tuple[tuple[int, Geometry], ...] = ()

    def price(self, rung: Rung) -> int:
        """Exact bytes of the tensor's state on a rung."""
        of_gate = gate_bytes(rung, GateUse(self.gate))
        shards = self.shards or ((1, Geometry(self.numel, self.matrix, dims=self.dims)),)
        return sum(times * (rung.nbytes(shard) + of_gate) for times, shard in shards)


@runtime_checkable
class Policy(Protocol):
    """Anything that says what state is worth.

    A policy may also have a method ``matrix_rule(sides)``, which gives the rule that is to step a
    hidden matrix of so many rows and columns, or None; it is asked where the group's option
    ``matrix_rule`` is None, and obeyed where the weights had not been trained before. Without the
    method no rule is. It may have a mapping ``lr_scale`` of roles to factors on the learning rate,
    for tensors whose rung the budget chooses and whose group's option ``lr_scale`` is None; and a
    method ``why(candidate, rung)``, which says in text what led to a rung.

    Attributes:
        name: for logs and messages.
        uses_signal: whether ``Candidate.signal`` is to be kept, at 8 bytes a tensor of the budget.
    """

    @property
    def name(self) -> str: ...

    @property
    def uses_signal(self) -> bool: ...

    def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
        """The worth of each rung of each candidate's ladder, in any unit; only differences count.

        Deterministic: equal candidates have equal worths.
        """
        ...


def _matrix_worths(least: float, more: float) -> dict[str, float]:
    """Of the rungs of rules that step whole matrices, from the fewest bits of momentum on: bits add
    little to what orthogonalizing brings."""
    variants = [rule.variant for rule in RULES.values() if rule.matrix]
    return {Rung(1, variant=variant).name: least - more for variant in variants} | {
        Rung(2, codec, variant=variant).name: least + more * k
        for variant in variants
        for k, codec in enumerate(reversed(matrix_codecs(variant)))
    }


#: How near a rung comes to AdamW in fp32, whatever the tensor.
_FIDELITY: Mapping[str, float] = {
    "tier0": 0.0, "tier1": 0.02, "none": 0.60, "u1": 0.70, "u2": 0.90, "u4": 0.96, "q8": 0.985,
    "bf16": 0.990, "fp32": 0.995, "fp64": 1.0, **_matrix_worths(0.97, 0.005),
}  # fmt: skip
#: What a rung saves an element, by role; only differences count. The order in which bytes are
#: spent follows from them, and was measured (docs/budget.md). A table without a second moment takes
#: steps of one size on rows that every batch reaches and on rows that few reach, which nothing
#: makes up for. Then its momentum pays, of four bits at best, one bit being worse than none.
#: Hidden matrices do best with a second moment and no momentum, vectors with two scalars.
_BY_ROLE: Mapping[Role, Mapping[str, float]] = {
    "table": {
        "tier0": 0.0, "tier1": 0.01, "none": 1.0, "u1": 0.98, "u2": 1.045, "u4": 1.10,
        "q8": 1.108, "bf16": 1.120, "fp32": 1.145, "fp64": 1.145, **_matrix_worths(1.0, 0.01),
    },
    "matrix": {
        "tier0": 0.0, "tier1": 0.0002, "none": 0.0040, "u1": 0.0030, "u2": 0.0032, "u4": 0.0036,
        "q8": 0.00362, "bf16": 0.00364, "fp32": 0.00366, "fp64": 0.0041,
        **_matrix_worths(0.05, 0.0003),
    },
    "vector": {
        "tier0": 0.0, "tier1": 0.50, "none": 0.49, "u1": 0.44, "u2": 0.45, "u4": 0.46,
        "q8": 0.461, "bf16": 0.462, "fp32": 0.463, "fp64": 0.463, **_matrix_worths(0.46, 0.001),
    },
}  # fmt: skip
#: What a second moment adds to that beyond rows and columns, as a share.
_SECOND: Mapping[str, float] = {"v4": 0.003, "q8": 0.004, "bf16": 0.006, "fp32": 0.008}


#: Codecs of the first moment that were not measured on their own, as the nearest that was.
_NEAREST: Mapping[str, str] = {"ustate": "u2", "costate": "u1"}


def worth(rung: Rung, role: Role | None = None) -> float:
    """What a rung brings an element of a tensor: in a role, or whatever the role; 0 for sign."""
    first = rung.name if rung.v == "none" else rung.m
    firsts = _FIDELITY if role is None else _BY_ROLE[role]
    return firsts[_NEAREST.get(first, first)] * (1.0 + _SECOND.get(rung.v, 0.0))


@dataclass(frozen=True)
class RolePolicy:
    """History to embeddings and heads; a second moment to hidden matrices, scalars to vectors.

    It buys nothing that did not pay in any run that was measured: bytes may be left.
    """

    name: str = "role"
    uses_signal: bool = False

    def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
        return [[c.numel * worth(rung, c.role) for rung in c.ladder] for c in candidates]


@dataclass(frozen=True)
class UniformPolicy:
    """The same codec for all: an element counts the same wherever it is."""

    name: str = "uniform"
    uses_signal: bool = False

    def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
        return [[c.numel * worth(rung) for rung in c.ladder] for c in candidates]


@dataclass(frozen=True)
class SignalPolicy:
    """COSMIC's first idea: bytes go where the gradient is largest.

    An element counts for the mean absolute gradient of its tensor, averaged over steps. Before the
    first step all tensors count the same.
    """

    name: str = "signal"
    uses_signal: bool = True

    def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
        unseen = not any(c.signal > 0 for c in candidates)
        return [
            [(1.0 if unseen else c.signal) * c.numel * worth(rung) for rung in c.ladder]
            for c in candidates
        ]
