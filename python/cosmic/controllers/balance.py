"""Two kinds of groups whose steps are kept at a ratio by their learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

from ..state.groups import Group
from .base import Controller, check_bounds, check_decay, check_number, within, worth_moving
from .observation import Observation, TensorStats, groups_of

__all__ = ["FFNBalance", "LoRABalance", "moved_mean_square"]


def moved_mean_square(
    seen: Observation, tensors: Iterable[TensorStats], relative: bool, floor: float = 0.0
) -> float | None:
    """Mean square over the elements of ``lr lr_scale c u``, what a step has moved parameters by
    (but for weight decay); divided, if ``relative``, by that of the parameters, each tensor's root
    mean square taken as ``floor`` at least.

    Returns:
        None where nothing is known: no tensor, no movement, or a sum that is not finite.
    """
    moved = held = 0.0
    for t in tensors:
        lr = float(seen.groups[t.group]["lr"])
        step = lr * t.lr_scale * t.update_rms
        size = max(seen.param_rms(t), floor) if relative else 1.0
        moved += t.numel * (step * step)  # not a power, which raises where it overflows
        held += t.numel * (size * size)
    ratio = moved / held if held else 0.0
    return ratio if 0 < ratio < math.inf else None


class _Balance(Controller):
    """The filter that both share; ``FFNBalance`` and ``LoRABalance`` have the equations."""

    START: ClassVar[dict[str, float | int | None]] = {
        "average": None, "factor_first": 1.0, "factor_second": 1.0,
    }  # fmt: skip
    #: Tags or roles of the two kinds of groups.
    FIRST: ClassVar[str]
    SECOND: ClassVar[str]
    #: What gives groups these.
    FOUND_BY: ClassVar[str]
    #: Whether steps are taken relative to the parameters.
    RELATIVE: ClassVar[bool]

    def __init__(
        self, target: float, every: int, decay: float, bounds: tuple[float, float],
        floor: float, name: str | None,
    ) -> None:  # fmt: skip
        super().__init__(every=every, name=name)
        self.target = target
        self.decay = check_decay(decay)
        self.bounds = check_bounds(bounds)
        self.floor = floor

    def check(self, groups: Sequence[Group]) -> None:
        for word in (self.FIRST, self.SECOND):
            if not groups_of(groups, word):
                raise ValueError(
                    f"{type(self).__name__} needs groups with tag or role {word!r}, and no "
                    f"parameter group has it; {self.FOUND_BY} finds it, or give the group an entry "
                    "'tag'"
                )

    def observe(self, seen: Observation) -> None:
        first = moved_mean_square(seen, seen.of(self.FIRST), self.RELATIVE, self.floor)
        second = moved_mean_square(seen, seen.of(self.SECOND), self.RELATIVE, self.floor)
        if first is None or second is None:
            return
        own = self.numbers["factor_first"] / self.numbers["factor_second"]
        x = math.log(first / second) / 2 - math.log(own)
        before = self.numbers["average"]
        average = x if before is None else self.decay * before + (1 - self.decay) * x
        self.numbers["average"] = average
        half = (math.log(self.target) - average) / 2
        self._set(seen, "factor_first", self.FIRST, within(half, self.bounds))
        self._set(seen, "factor_second", self.SECOND, within(-half, self.bounds))

    def _set(self, seen: Observation, key: str, word: str, factor: float) -> None:
        if not worth_moving(self.numbers[key], factor, self.bounds):
            return
        for group in groups_of(seen.groups, word):
            seen.scale_lr(group, factor / self.numbers[key])
        self.numbers[key] = factor


class FFNBalance(_Balance):
    """Keeps the steps of the two projections of feed-forward layers at a ratio.

    With ``R`` the root mean square, over all elements of the groups tagged ``ffn_up`` or
    ``ffn_down``, of what a step moves them by (``lr lr_scale c u``, without weight decay), and
    ``f`` this controller's own factors, at first 1:

        x = ln(R_up / R_down) - ln(f_up / f_down)
        X <- decay X + (1 - decay) x,  X = x at first
        f_up = clip(exp((ln target - X) / 2), bounds)
        f_down = clip(exp((X - ln target) / 2), bounds)

    ``lr_scale`` of these groups is multiplied by what ``f`` has changed by, so that other factors
    on it stay; a change of less than 1 % waits until it is one, as each makes the plan anew. As a
    step is proportional to its rate, ``R_up / R_down`` goes to ``target`` as fast as the average
    does, and stays there unless a bound is reached: a filter of first order without overshoot.

    Args:
        target: wanted ratio of the steps of up projections to those of down projections.
        every: steps from one look to the next.
        decay: of the average, from 0 (the last look alone) to less than 1.
        bounds: least and greatest factor on each kind's ``lr_scale``.
        name: by which its numbers are saved.

    Raises:
        ValueError: for an argument out of range; when attached, if a tag is missing.
    """

    FIRST = "ffn_up"
    SECOND = "ffn_down"
    FOUND_BY = "cosmic.param_groups(model, tags=True)"
    RELATIVE = False

    def __init__(
        self,
        target: float = 1.0,
        *,
        every: int = 10,
        decay: float = 0.9,
        bounds: tuple[float, float] = (0.5, 1.5),
        name: str | None = None,
    ) -> None:
        check_number("target", target, 0.0, open_ends=True)
        super().__init__(target, every, decay, bounds, 0.0, name)


class LoRABalance(_Balance):
    """Keeps the relative steps of LoRA's two factors at a ratio: the second one's over the first's.

    With ``D`` the root mean square of what a step moves all tensors of role (or tag) ``lora_a`` or
    ``lora_b`` by, over that of the tensors themselves, each of which counts as ``param_floor`` at
    least, as ``B`` starts at zero,

        D = sqrt(sum n (lr lr_scale c rms(u))^2 / sum n max(rms(p), param_floor)^2)
        x = ln(D_b / D_a) - ln(f_b / f_a)
        X <- decay X + (1 - decay) x,  X = x at first
        f_b = clip(exp((ln ratio - X) / 2), bounds)    f_a = clip(exp((X - ln ratio) / 2), bounds)

    and ``lr_scale`` is multiplied by what ``f`` has changed by, as in ``FFNBalance``.

    LoRA+ (arXiv 2402.12354) shows that ``B`` wants a larger rate than ``A``, about 16 times for
    Adam-like steps; hence the default. It is a ratio of rates there; where both factors are equally
    large it is one of relative steps, too.

    Args:
        ratio: wanted ``D_b / D_a``.
        every: steps from one look to the next.
        decay: of the average, from 0 (the last look alone) to less than 1.
        bounds: least and greatest factor on each kind's ``lr_scale``.
        param_floor: least root mean square that a tensor counts with.
        name: by which its numbers are saved.

    Raises:
        ValueError: for an argument out of range; when attached, if a role is missing.
    """

    FIRST = "lora_b"
    SECOND = "lora_a"
    FOUND_BY = "cosmic.param_groups(model)"
    RELATIVE = True

    def __init__(
        self,
        ratio: float = 16.0,
        *,
        every: int = 20,
        decay: float = 0.9,
        bounds: tuple[float, float] = (0.25, 4.0),
        param_floor: float = 1e-3,
        name: str | None = None,
    ) -> None:
        check_number("ratio", ratio, 0.0, open_ends=True)
        floor = check_number("param_floor", param_floor, 0.0, open_ends=True)
        super().__init__(ratio, every, decay, bounds, floor, name)
