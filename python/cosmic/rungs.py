"""Rungs: what state a tensor can hold, and its exact price in bytes."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from . import _core
from .parts import CODECS, GATES, HISTORY_RULES, RULES, Numbers, Rule, rule_for

__all__ = [
    "LEAST_COLUMNS",
    "Geometry",
    "Rung",
    "combinations",
    "matrix_codecs",
    "matrix_rungs",
    "parse_matrix_dtype",
    "parse_state_dtype",
    "probed_combinations",
    "with_slow_average",
    "without_momentum",
]

_STEP_BYTES = 8  # an int64
_DIMENSION_BYTES = 8  # of each number in packed_shape and packed_order
_ALIASES = {torch.float32: "fp32", torch.bfloat16: "bf16", "float32": "fp32", "bfloat16": "bf16"}

#: Columns of a matrix that has codecs of rows and columns, at least.
LEAST_COLUMNS = 16
#: Codecs that keep one number an element and need no blocks.
PLAIN = tuple(codec.name for codec in CODECS.values() if codec.plain)
#: Codecs of a second moment that keep rows and columns of a matrix.
MATRIX = tuple(codec.name for codec in CODECS.values() if codec.matrix)


class Geometry(NamedTuple):
    """What a codec's size depends on.

    Attributes:
        numel: real elements.
        matrix: rows and columns that the tensor can be seen as, or None.
        shape: the same with columns too few for a codec; None for what has one dimension.
        sides: of the matrix that a rule of whole matrices steps, the first dimension by all
            others together; None for what has one dimension or no elements.
        dims: numbers that say where codes belong: the tensor's dimensions, and their order where it
            is not that of the indices.
    """

    numel: int
    matrix: tuple[int, int] | None
    shape: tuple[int, int] | None = None
    dims: int = 1
    sides: tuple[int, int] | None = None

    @classmethod
    def of(cls, param: Tensor, label: str = "the parameter") -> Geometry:
        """The geometry of a parameter, which errors call ``label``; a complex one counts twice. A
        tensor on the meta device has one, too.

        Raises:
            ValueError: for a lazy module's parameter that is not made yet.
        """
        if is_lazy(param):
            raise ValueError(
                "it is a lazy module's and has no shape yet; run a batch through the model first"
            )
        like = torch.view_as_real(param.detach()) if param.is_complex() else param.detach()
        sizes, strides = tuple(like.shape), like.stride()
        matrix = _core.matrix_shape(sizes, strides, label, LEAST_COLUMNS)
        shape = _core.matrix_shape(tuple(param.shape), param.detach().stride(), label, 2)
        order = _core.walk_order(sizes, strides, label)
        sides = None
        if param.dim() > 1 and param.numel() and not param.is_complex():
            sides = (param.shape[0], param.numel() // param.shape[0])
        return cls(like.numel(), matrix, shape, len(sizes) + len(order or ()), sides)


@functools.cache
def combinations(rule: str = "adam") -> tuple[tuple[str, str], ...]:
    """First- and second-moment codecs that go together with a rule, for float32 arithmetic."""
    rows = (name.split() for name in _core.combinations())
    wanted = ("float", rule, "none")
    found = ((m, v) for real, of, m, slow, v, *_ in rows if (real, of, slow) == wanted)
    return tuple(dict.fromkeys(found))


@functools.cache
def with_slow_average() -> tuple[tuple[str, str], ...]:
    """First- and second-moment codecs that are compiled with a slow average, too."""
    rows = (name.split() for name in _core.combinations())
    wanted = ("float", "adam")
    return tuple((m, v) for real, of, m, slow, v, *_ in rows if (real, of) == wanted and m == slow)


@functools.cache
def probed_combinations(probe: str) -> tuple[tuple[str, str], ...]:
    """Of these, the ones whose moments a gate's probe can look at."""
    rows = [name.split() for name in _core.combinations()]
    return tuple((row[2], row[4]) for row in rows if row[0] == "float" and row[5:] == [probe])


@functools.cache
def without_momentum(variant: str = "") -> tuple[str, ...]:
    """Second-moment codecs of tier 1, which steps without a first moment."""
    rule = rule_for(1, False, True, variant)
    rows = (name.split() for name in _core.combinations())
    return tuple(v for _, of, _, _, v, *_ in rows if rule is not None and of == rule.name)


@functools.cache
def matrix_codecs(variant: str) -> tuple[str, ...]:
    """Codecs of the first moment of a rule that steps whole matrices."""
    rule = rule_for(2, True, False, variant)
    return tuple(m for m, _ in combinations(rule.name)) if rule is not None else ()


@functools.cache
def matrix_rungs(variant: str) -> tuple[Rung, ...]:
    """The rungs of rules that step whole matrices, with momentum and without."""
    rules = (rule for rule in RULES.values() if rule.matrix and rule.variant == variant)
    return tuple(
        Rung(rule.tier, m, variant=variant) for rule in rules for m, _ in combinations(rule.name)
    )


def parse_matrix_dtype(matrix_state_dtype: str | torch.dtype, variant: str) -> str:
    """The codec that a ``matrix_state_dtype`` option names; ``"none"``: without momentum.

    Raises:
        ValueError: for any other value, with those that are supported.
    """
    known = isinstance(matrix_state_dtype, str | torch.dtype)
    codec = _ALIASES.get(matrix_state_dtype, matrix_state_dtype) if known else None
    codecs = [rung.m for rung in matrix_rungs(variant)]
    if codec in codecs:
        return str(codec)
    raise ValueError(
        f"matrix_state_dtype is {matrix_state_dtype!r}; expected "
        f"{', '.join(map(repr, codecs))}, torch.float32 or torch.bfloat16"
    )


def parse_state_dtype(state_dtype: str | torch.dtype) -> tuple[str, str]:
    """The codecs (first moment, second moment) that a ``state_dtype`` option names.

    Args:
        state_dtype: a codec for both moments (``"fp32"``, ``"bf16"``, ``"q8"``, or the torch
            dtypes of the first two), or two joined by a plus, such as ``"u4+factored"``: first
            moment, second moment.

    Raises:
        ValueError: for any other value, with the combinations that are supported.
    """
    parts = state_dtype.split("+") if isinstance(state_dtype, str) else [state_dtype]
    known = [part for part in parts if isinstance(part, str | torch.dtype)]
    codecs = [str(_ALIASES.get(part, part)) for part in known]
    if len(codecs) in (1, 2) and (codecs[0], codecs[-1]) in combinations():
        return codecs[0], codecs[-1]
    supported = ", ".join(f"{m}+{v}" for m, v in combinations())
    of_matrices = {codec for rule in RULES.values() for codec in matrix_codecs(rule.variant)}
    if set(codecs) & (of_matrices - {m for m, _ in combinations()}):
        supported += "; of hidden matrices alone, matrix_state_dtype has the others"
    raise ValueError(
        f"state_dtype is {state_dtype!r}; expected 'fp32', 'bf16', 'q8', torch.float32, "
        "torch.bfloat16, or codecs of first and second moment joined by '+'; supported are: "
        f"{supported}"
    )


@dataclass(frozen=True)
class Rung:
    """A tier together with its codecs: one choice for a tensor.

    Attributes:
        tier: 0 (sign), 1 (without momentum) or 2 (full history).
        m: codec of the first moment; ``"none"`` below tier 2.
        m_slow: codec of the slow average, ``"none"`` without one.
        v: codec of the second moment; ``"none"`` on tier 0, on tier 1 where the sign is taken
            times a scalar, and where a matrix is stepped as a whole.
        variant: of the rule, where several step such a rung: ``"centered"`` where the second moment
            is taken about the first, as gate ``"agar"`` wants it; ``"muon"``; else empty.
    """

    tier: int
    m: str = "none"
    m_slow: str = "none"
    v: str = "none"
    variant: str = ""

    @property
    def name(self) -> str:
        """Such as ``tier0``, ``tier1``, ``tier1:factored``, ``tier2:u4+factored+slow``,
        ``tier2:u4+v4+centered``, ``tier2:muon:m1``, ``tier1:muon``."""
        if self.of_matrix:
            momentum = f":{self.m}" if self.m != "none" else ""
            return f"tier{self.tier}:{self.variant}{momentum}"
        codecs = "+".join(codec for codec in (self.m, self.v) if codec != "none")
        slow = "+slow" if self.m_slow != "none" else ""
        variant = f"+{self.variant}" if self.variant else ""
        return f"tier{self.tier}" + (f":{codecs}" if codecs else "") + slow + variant

    @property
    def of_matrix(self) -> bool:
        """Whether it is of a rule that steps whole matrices, which keeps a first moment alone or,
        on tier 1, none."""
        rule = _found_for(self)
        return rule is not None and rule.matrix

    @property
    def f64(self) -> bool:
        """Whether its moments are in float64, as the arithmetic is."""
        return "fp64" in (self.m, self.v)

    @property
    def centered(self) -> bool:
        """Whether the second moment is taken about the first."""
        return self.variant == "centered"

    @staticmethod
    def parse(name: str) -> Rung:
        """The rung with this name.

        Raises:
            ValueError: if there is no such rung.
        """
        if not isinstance(name, str):
            raise ValueError(f"a rung's name is {name!r}; expected text such as 'tier1'")
        return _parsed(name)

    @property
    def rule(self) -> str:
        """The compiled rule that steps this rung."""
        return _rule_of(self).name

    @property
    def slots(self) -> dict[str, str]:
        """Codec of every slot that this rung keeps, by the slot's name: the key of its moment in
        ``optimizer.state``, or with what its planes are called the keys of these."""
        slots = {"exp_avg": self.m, "exp_avg_slow": self.m_slow, self.second: self.v}
        return {key: codec for key, codec in slots.items() if codec != "none"}

    @property
    def second(self) -> str:
        """The second moment's name: about the first it is a variance."""
        return _rule_of(self).second_name

    @property
    def packed(self) -> bool:
        """Whether some slot is anything but one number an element."""
        return any(codec not in PLAIN for codec in self.slots.values())

    def planes(self, geometry: Geometry) -> dict[str, _core.Plane]:
        """Every tensor of the moments, by its key in ``optimizer.state``.

        Raises:
            ValueError: for a codec of rows and columns where there is no matrix.
        """
        return {key + plane[0]: plane for key in self.slots for plane in self.layout(key, geometry)}

    def layout(self, slot: str, geometry: Geometry) -> list[_core.Plane]:
        """The tensors of one slot."""
        codec, second = self.slots[slot], slot == self.second
        return _core.slot_layout(codec, second, geometry.numel, geometry.matrix)

    @property
    def numbers(self) -> tuple[Numbers, ...]:
        """What its rule and the codec of its first moment keep beside the moments."""
        of_codec = CODECS[self.m].numbers if self.m != "none" else None
        return tuple(numbers for numbers in (_rule_of(self).numbers, of_codec) if numbers)

    @property
    def counts(self) -> bool:
        """Whether it keeps the tensor's own ``step``."""
        return _rule_of(self).counts

    @property
    def scalars(self) -> tuple[str, ...]:
        """Keys of the tensors of one or a few numbers that this rung keeps."""
        return (*("step",) * self.counts, *(numbers.key for numbers in self.numbers))

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of every tensor of numbers and moments that it keeps in ``optimizer.state``."""
        return (*self.scalars, *self.planes(Geometry(1, (2, LEAST_COLUMNS))))

    def nbytes(self, geometry: Geometry | int) -> int:
        """Exact bytes of this rung's state for a tensor, padding and scales included.

        Args:
            geometry: of the tensor; or its real elements alone, for a tensor of one dimension.
        """
        return _nbytes(self, Geometry(geometry, None) if isinstance(geometry, int) else geometry)


@functools.cache
def _found_for(rung: Rung) -> Rule | None:
    return rule_for(rung.tier, rung.m != "none", rung.v != "none", rung.variant)


def _rule_of(rung: Rung) -> Rule:
    found = _found_for(rung)
    if found is None:
        raise ValueError(f"there is no rule for a rung {rung.name!r}")
    return found


@functools.lru_cache(maxsize=16384)  # asked for every tensor's ladder; a model has few shapes
def _nbytes(rung: Rung, geometry: Geometry) -> int:
    scalars = _STEP_BYTES * rung.counts + sum(numbers.nbytes for numbers in rung.numbers)
    place = _DIMENSION_BYTES * geometry.dims if rung.packed else 0
    return scalars + place + sum(plane[4] for plane in rung.planes(geometry).values())


@functools.cache
def _parsed(name: str) -> Rung:
    for rule in RULES.values():
        rung = _parsed_for(rule, name)
        if rung is not None:
            return rung
    # a rule whose gate no group may ask for is a preset's
    open_to_all = ("none", *(gate.name for gate in GATES.values() if gate.by_name))
    variants = {v for v, rule in HISTORY_RULES.items() if v and rule.gate in open_to_all}
    matrix = [
        f"'tier{r.tier}:{r.variant}:<codec>' with one of {', '.join(matrix_codecs(r.variant))} "
        "for a matrix as a whole"
        if r.first
        else f"'tier{r.tier}:{r.variant}' for one without momentum"
        for r in RULES.values()
        if r.matrix
    ]
    endings = [f"or '+{variant}' for another rule" for variant in sorted(variants - {"centered"})]
    raise ValueError(
        f"unknown rung {name!r}; expected 'tier0', 'tier1', 'tier1:<v codec>' with one of "
        f"{', '.join(without_momentum())}, or 'tier2:<m codec>+<v codec>' with '+slow' "
        "for a slow average or '+centered' for a second moment about the first"
        + "".join(f", {ending}" for ending in [*endings, *matrix])
    )


def _parsed_for(rule: Rule, name: str) -> Rung | None:
    """The rung with this name, if it is one of the rule's."""
    if rule.matrix:
        return next((rung for rung in matrix_rungs(rule.variant) if rung.name == name), None)
    ending = f"+{rule.variant}" if rule.variant else ""
    head, _, words = name.removesuffix(ending).partition(":")
    if head != f"tier{rule.tier}" or not name.endswith(ending):
        return None
    codecs = words.split("+") if words else []
    slow = rule.slow and codecs[2:] == ["slow"]
    if len(codecs) != rule.first + rule.second + slow:
        return None
    m, v = (codecs[0] if rule.first else "none"), (codecs[rule.first] if rule.second else "none")
    if rule.second and (m, v) not in combinations(rule.name) and (m, v) != ("fp64", "fp64"):
        return None
    rung = Rung(rule.tier, m, m if slow else "none", v, rule.variant)
    return rung if rung.name == name else None
