"""Learning rates of query, key and value projections, by how far each of them moves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import ClassVar

from ..state.groups import Group
from .balance import moved_mean_square
from .base import Controller, check_bounds, check_decay, check_number, within, worth_moving
from .observation import Observation, TensorStats, groups_of

__all__ = ["QKVRates"]

_SLICES = ("q", "k", "v")


class QKVRates(Controller):
    """Gives slices of attention that move further than the median one a lower learning rate.

    A slice, ``q``, ``k`` or ``v``, is all parts of that name (of fused projections in ``parts``)
    and all tensors of groups tagged ``attn_q``, ``attn_k`` or ``attn_v``. With ``D_i`` its relative
    step, as of ``LoRABalance``, and ``f_i`` its factor, at first 1:

        x_i = ln(D_i / f_i)
        X_i <- decay X_i + (1 - decay) (x_i - median x),  X_i = x_i - median x at first
        f_i = clip(exp(-strength X_i), bounds)

    A part's entry in its group's ``lr_scale``, or the tagged group's ``lr_scale``, is multiplied by
    what ``f_i`` has changed by. With ``strength`` 1 all slices end at the median's relative step,
    with 0 nothing moves. A filter of first order; changes of less than 1 %
    wait, as those of ``FFNBalance``.

    Args:
        strength: share of a slice's distance from the median, in logarithms, that is made up for.
        every: steps from one look to the next.
        decay: of the averages, from 0 (the last look alone) to less than 1.
        bounds: least and greatest factor of a slice.
        param_floor: least root mean square that a tensor counts with.
        name: by which its numbers are saved.

    Raises:
        ValueError: for an argument out of range; when attached, if there are no two slices.
    """

    START: ClassVar[dict[str, float | int | None]] = {
        **{f"average_{s}": None for s in _SLICES},
        **{f"factor_{s}": 1.0 for s in _SLICES},
    }

    def __init__(
        self,
        *,
        strength: float = 0.5,
        every: int = 25,
        decay: float = 0.8,
        bounds: tuple[float, float] = (0.7, 1.3),
        param_floor: float = 1e-3,
        name: str | None = None,
    ) -> None:
        super().__init__(every=every, name=name)
        self.strength = check_number("strength", strength, 0.0, 1.0)
        self.decay = check_decay(decay)
        self.bounds = check_bounds(bounds)
        self.floor = check_number("param_floor", param_floor, 0.0, open_ends=True)

    def check(self, groups: Sequence[Group]) -> None:
        found = {s for s in _SLICES if groups_of(groups, f"attn_{s}")}
        for group in groups:
            found.update(s for s in _SLICES if s in _part_names(group))
        if len(found) < 2:
            raise ValueError(
                "QKVRates needs two at least of the slices q, k and v, as parts of those names or "
                "in groups with tag 'attn_q', 'attn_k' or 'attn_v'; the parameter groups have "
                f"{sorted(found) or 'none'}; cosmic.param_groups(model, tags=True, fused='split') "
                "finds them"
            )

    def observe(self, seen: Observation) -> None:
        found = {}
        for s in _SLICES:
            square = moved_mean_square(seen, _tensors_of(seen, s), True, self.floor)
            if square is not None:
                found[s] = math.log(square) / 2 - math.log(self.numbers[f"factor_{s}"])
        if len(found) < 2:
            return
        median = statistics.median(found.values())
        for s, x in found.items():
            before, distance = self.numbers[f"average_{s}"], x - median
            average = distance
            if before is not None:
                average = self.decay * before + (1 - self.decay) * distance
            self.numbers[f"average_{s}"] = average
            self._set(seen, s, within(-self.strength * average, self.bounds))

    def _set(self, seen: Observation, s: str, factor: float) -> None:
        if not worth_moving(self.numbers[f"factor_{s}"], factor, self.bounds):
            return
        change = factor / self.numbers[f"factor_{s}"]
        tagged = groups_of(seen.groups, f"attn_{s}")
        for group in tagged:
            seen.scale_lr(group, change)
        done = set(tagged)
        for tensor in _tensors_of(seen, s):
            if tensor.group not in done:  # one entry serves all parts of the name in a group
                done.add(tensor.group)
                seen.scale_lr_of_part(tensor, change)
        self.numbers[f"factor_{s}"] = factor


def _tensors_of(seen: Observation, s: str) -> Iterator[TensorStats]:
    tagged = set(groups_of(seen.groups, f"attn_{s}"))
    return (t for t in seen.tensors if t.part == s or t.group in tagged)


def _part_names(group: Group) -> set[str]:
    """Names of a group's parts: a dimension and named sizes, or several such by parameter."""
    parts = group.get("parts")
    cuts = parts.values() if isinstance(parts, dict) else [parts]
    named = (cut[1] for cut in cuts if isinstance(cut, tuple | list) and len(cut) == 2)
    return {name for sizes in named if isinstance(sizes, dict) for name in sizes}
