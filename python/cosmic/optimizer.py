"""The optimizer: torch.optim's interface over a compiled plan."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from .adamw import exported, imported, is_adamw
from .allocation import Allocator, SignalAllocator
from .budget import resolve_budget
from .checkpoint import STATE_FORMAT, parse_saved, with_missing_options
from .hooks import hooked_where_observed
from .options import (
    WHOLE_OPTIONS,
    PlanOptions,
    check_cadence,
    check_group,
    check_nonfinite,
    check_whole,
)
from .planner import Compiled, check_param, compile_plan, members
from .reports import StatisticsRow, TierInfo, group_statistics, tier_table
from .state import real_numel, state_bytes

__all__ = ["Cosmic", "Listener", "NonfiniteGradientError"]

Params: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
Listener: TypeAlias = Callable[[str, dict[str, Any]], None]

#: What a copy or a pickle of the optimizer keeps beside torch's own.
_KEPT = (*WHOLE_OPTIONS, "_steps", "_skipped", "_nonfinite_seen")


class NonfiniteGradientError(RuntimeError):
    """A gradient held an infinity or a NaN, and ``nonfinite="raise"``."""


class Cosmic(Optimizer):
    r"""AdamW with compressed state, sized to a byte budget: lighter tiers for what does not fit.

    With :math:`g` the gradient (negated by ``maximize``), :math:`\lambda` the weight decay,
    :math:`\gamma` the learning rate and :math:`c` the gate's factor, a step at count :math:`t` is

    .. math::
        \theta \leftarrow (1 - \gamma\lambda)\,\theta - \gamma\, c\, u

    Tier 2 (full history), AdamW (arXiv 1711.05101); with ``beta_slow`` AdEMAMix (2409.03137):

    .. math::
        m \leftarrow \beta_1 m + (1-\beta_1) g, \quad
        v \leftarrow \beta_2 v + (1-\beta_2) g^2, \quad
        n \leftarrow \beta_s n + (1-\beta_s) g, \quad
        u = \frac{m/(1-\beta_1^t) + \alpha n}{\sqrt{v/(1-\beta_2^t)} + \epsilon}

    Tier 1 (two scalars a tensor) and tier 0 (no state):

    .. math::
        u_1 = s\,r\,\mathrm{sign}(g), \qquad u_0 = s\,\mathrm{sign}(g), \qquad
        s = \sqrt{(1-\beta_1)/(1+\beta_1)}

    where :math:`r \le 1` is Adam's ratio for the tensor's mean :math:`|g|`, and :math:`s` (0.229
    for 0.9) is the root mean square of Adam's update on gradients that are uncorrelated in time:
    one learning rate, AdamW's, is right for all three tiers. Between steps the moments of tier 2
    are kept by the codecs of ``state_dtype``; the update uses them in full.

    Arithmetic is float32 for parameters in float32, bfloat16 and float16, and float64 for float64;
    complex parameters are stepped as their real view. Results are bit-identical for every ISA and
    thread count.

    Args:
        params: parameters, named parameters or parameter groups. Dense CPU tensors of any layout.
        lr: learning rate; a number or a tensor of one element.
        betas: decay of the averages of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: decoupled weight decay.
        budget: bytes that all state together may take: an int, ``"64MB"``, or a share such as
            ``"10%"`` of AdamW's two fp32 moments for the parameters that have had a gradient. It is
            never exceeded; None is no limit. May be changed between steps. Not a group option.
        tier: fixes the tier of all parameters of a group; None lets the budget decide.
        state_dtype: codecs of tier 2's first and second moment, joined by a plus, or one for
            both; ``docs/codecs.md`` has their mathematics. First: ``"fp32"``, ``"bf16"``,
            ``"q8"``, ``"u4"``, ``"u2"``, ``"u1"`` (32 bits an element to 1); second: ``"fp32"``,
            ``"bf16"``, ``"q8"``, ``"v4"``, ``"factored"``, ``"rowmean"`` (32 bits to nearly
            none). The default, ``"u4+factored"``, takes a little over 4 bits. Tensors that cannot
            be seen as a matrix have ``"v4"`` in the place of rows and columns, parameters in
            float64 moments in float64: ``tiers()`` shows it.
        min_compress_size: tensors of fewer elements keep moments in ``"fp32"`` where the group's
            are compressed.
        stochastic_rounding: store parameters in bfloat16 with stochastic rounding, which is
            unbiased; False: to nearest, which loses updates below 1/512 of a parameter.
        gate: ``"snr"`` scales a tensor's update down while its gradient is noisy or jumps (see
            ``docs/design.md``); None does not.
        c_min: the gate's least factor.
        beta_slow: decay of a second, slower average of the gradient, such as 0.9999; None: none.
        alpha: weight of the slow average.
        slow_warmup: steps over which ``alpha`` and ``beta_slow`` rise; None: at once.
        maximize: maximize the objective.
        nonfinite: what an infinite or NaN gradient does. ``"propagate"``: it spoils its own
            element, as in AdamW; counted, and warned of once. ``"raise"``: the step raises
            NonfiniteGradientError; ``"skip"``: the whole step is left out and counted. Both look
            at all gradients before anything changes, which reads 4 bytes a parameter more. Not a
            group option.
        seed: of the random bits of stochastic rounding. Not a group option.
        reallocate_every: steps between two looks of the allocator. Not a group option.
        allocator: spends the budget; by default the highest gradient signal per byte first.

    Raises:
        ValueError: for an option out of range; at the first step, for parameters that overlap and
            for a budget that cannot hold what fixed tiers and gates demand.
        TypeError: for tensors that are not dense CPU tensors of a floating dtype.

    ``step`` raises before anything has changed; only what a listener raises, or a warning that is
    turned into an error, comes after a step that was taken in full.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        budget: int | str | None = None,
        tier: int | None = None,
        state_dtype: str | torch.dtype = "u4+factored",
        gate: str | None = None,
        c_min: float = 0.1,
        beta_slow: float | None = None,
        alpha: float = 5.0,
        slow_warmup: int | None = None,
        maximize: bool = False,
        min_compress_size: int = 4096,
        stochastic_rounding: bool = True,
        nonfinite: str = "propagate",
        seed: int = 0,
        reallocate_every: int = 100,
        allocator: Allocator | None = None,
    ) -> None:
        check_whole(budget, nonfinite, seed, reallocate_every)
        self.budget = budget
        self.nonfinite = nonfinite
        self.seed = seed
        self.reallocate_every = reallocate_every
        self.allocator: Allocator = allocator or SignalAllocator()
        self._reset()
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "maximize": maximize, "tier": tier, "state_dtype": state_dtype, "gate": gate,
            "c_min": c_min, "beta_slow": beta_slow, "alpha": alpha, "slow_warmup": slow_warmup,
            "min_compress_size": min_compress_size, "stochastic_rounding": stochastic_rounding,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _reset(self) -> None:
        self._compiled: Compiled | None = None
        self._planned: PlanOptions | None = None  # what the newest plan was made for
        self._listeners: list[Listener] = []
        self._steps = 0
        self._skipped = 0
        self._nonfinite_seen = 0

    # ---- torch.optim's interface ----------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; options that it lacks are the optimizer's.

        Raises:
            ValueError, TypeError: for an option out of range, one of the whole optimizer, or a
                parameter that cannot be stepped. The group is not added then.
        """
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1], len(self.param_groups) - 1)
            for member in members(self.param_groups):
                if member.group == len(self.param_groups) - 1:
                    check_param(member.param, member.label)
        except (TypeError, ValueError):
            del self.param_groups[-1]
            raise
        self._compiled = None

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @hooked_where_observed
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step on every parameter that has a gradient.

        Args:
            closure: recomputes the loss and the gradients; called first, with gradients enabled.

        Returns:
            The closure's loss, or None.

        Raises:
            ValueError, TypeError: for a gradient or parameter that cannot be stepped, or an option
                out of range. NonfiniteGradientError: with ``nonfinite="raise"``. Nothing has
                changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.nonfinite != "propagate" and self._refuse_nonfinite():
            return loss
        threads = torch.get_num_threads()
        compiled = self._ready()
        stepped = compiled.plan.step(self.param_groups, self.state, threads, self._steps)
        if stepped is None:  # a tensor, a group or a state was exchanged
            compiled = self._compile()
            stepped = compiled.plan.step(self.param_groups, self.state, threads, self._steps)
            if stepped is None:
                raise RuntimeError("param_groups or state changed while the step was prepared")
        fresh = self._compiled is not compiled
        if fresh:
            self._adopt(compiled)
        if stepped:
            torch.autograd.graph.increment_version(stepped)
        self._after_step(compiled, fresh)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with an entry ``"cosmic"``: format, steps taken and steps skipped."""
        saved = super().state_dict()
        saved["cosmic"] = {"format": STATE_FORMAT, "steps": self._steps, "skipped": self._skipped}
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned, or what ``torch.optim.AdamW``'s did; state keeps its
        own dtypes until the next step, which encodes it as the groups' options say.

        State that takes more than this optimizer's budget is brought under it by the next step,
        which knows the gradients that decide who keeps what.

        Raises:
            ValueError: if the groups differ, a state does not fit its parameter, the format is
                newer than this release, or AdamW's state is of amsgrad. Nothing has changed then.
        """
        extra: dict[str, Any] = {}

        def take_state(_: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
            if is_adamw(saved):
                saved = imported(saved, self.param_groups)
            saved = with_missing_options(saved, self.param_groups)
            extra.update(parse_saved(saved, self.param_groups, self.seed))
            return {**saved, "state": {}}  # torch would cast moments to the parameter's dtype

        def place_state(_: Optimizer) -> None:
            self.state.update(extra["state"])
            self._steps, self._skipped = extra["steps"], extra["skipped"]
            self._compiled = None

        handles = [
            self.register_load_state_dict_pre_hook(take_state),
            self.register_load_state_dict_post_hook(place_state, prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()

    def to_adamw_state_dict(self) -> dict[str, Any]:
        """The state as ``torch.optim.AdamW.load_state_dict`` takes it, to go on with AdamW.

        Moments are decoded to float32; parameters on tiers 0 and 1 have none and start anew.

        Raises:
            ValueError: for a slow average, for which AdamW has no place.
        """
        return exported(self.param_groups, self.state)

    def __getstate__(self) -> dict[str, Any]:
        kept = {key: getattr(self, key) for key in _KEPT}
        return {**super().__getstate__(), **kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "seed" in state:  # unpickled or copied; torch also calls this to load a state_dict
            self._reset()
        super().__setstate__(state)
        self._compiled = None

    # ---- what the optimizer holds and sees ------------------------------------------------

    def state_bytes(self) -> int:
        """Bytes of all state: exactly those of the tensors in ``state_dict()``."""
        return sum(state_bytes(state) for state in self.state.values())

    def budget_bytes(self) -> int | None:
        """The budget in bytes; before the first step, for all parameters that require grad."""
        live = [
            m.param
            for m in members(self.param_groups)
            if m.param in self.state or (not self.state and m.param.requires_grad)
        ]
        return resolve_budget(self.budget, sum(real_numel(p) for p in live))

    def tiers(self) -> list[TierInfo]:
        """What every parameter that has been stepped holds, in the order of the parameters."""
        return tier_table(self.param_groups, self.state)

    def stats(self) -> list[dict[str, float]]:
        """What the last step saw, one dict a parameter group.

        ``gate``: mean factor, by elements; ``gate_min``: the least; ``update_rms``: root mean
        square of the update before the learning rate; ``gradient_abs``: mean absolute gradient;
        and, of the optimizer as a whole since it was made, ``skipped_steps`` and
        ``nonfinite_gradients`` (elements).
        """
        whole = {
            "skipped_steps": self._skipped,
            "nonfinite_gradients": self._nonfinite_seen,
        }
        return [
            {**group, **whole} for group in group_statistics(self.param_groups, self._last_rows())
        ]

    def gate_factors(self) -> dict[str, float]:
        """The gate's factor of every gated parameter at the last step, by name."""
        names = [member.name for member in members(self.param_groups)]
        return {
            names[index]: factor
            for index, group, _, _, factor in self._last_rows()
            if self.param_groups[group]["gate"] is not None
        }

    def _last_rows(self) -> list[StatisticsRow]:
        compiled = self._compiled
        if compiled is None or compiled.members != sum(len(g["params"]) for g in self.param_groups):
            return []  # groups were taken away: the rows are of parameters that are gone
        return compiled.plan.statistics()

    def add_listener(self, listener: Listener) -> None:
        """Call ``listener(event, fields)`` at every step, tier transition and skipped step."""
        self._listeners.append(listener)

    def remove_listener(self, listener: Listener) -> None:
        """Undo ``add_listener``."""
        self._listeners.remove(listener)

    # ---- the plan --------------------------------------------------------------------------

    def _plan_options(self) -> PlanOptions:
        return PlanOptions.of(self.budget, self.seed, self.param_groups)

    def _ready(self) -> Compiled:
        # The allocator looks before a step, not after it: if it fails, nothing has changed.
        check_cadence(self.reallocate_every)
        look = (
            self.budget is not None and self._steps > 0 and self._steps % self.reallocate_every == 0
        )
        if look or self._compiled is None or self._planned != self._plan_options():
            return self._compile(reallocate=look)
        return self._compiled

    def _compile(self, *, reallocate: bool = False) -> Compiled:
        check_whole(self.budget, self.nonfinite, self.seed, self.reallocate_every)
        for index, group in enumerate(self.param_groups):
            check_group(group, index)
        if self._planned is not None and self._planned.budget != self.budget:
            reallocate = True  # more bytes are to be used, too
        return compile_plan(
            self.param_groups, self.state, budget=self.budget, allocator=self.allocator,
            seed=self.seed, reallocate=reallocate,
        )  # fmt: skip

    def _adopt(self, compiled: Compiled) -> None:
        """Make a plan's state the optimizer's, now that it has been stepped."""
        self.state.update(compiled.states)
        compiled.plan.watch(self.state)
        self._compiled = compiled
        self._planned = self._plan_options()

    def _refuse_nonfinite(self) -> bool:
        """Look at the gradients; True if this step is to be left out."""
        check_nonfinite(self.nonfinite)
        compiled = self._ready()
        found = compiled.plan.inspect(self.param_groups, self.state, torch.get_num_threads())
        if found is None:
            self._compiled = None
            compiled = self._compile()
            found = (
                compiled.plan.inspect(self.param_groups, self.state, torch.get_num_threads()) or []
            )
        bad = [(index, count) for index, _, count in found if count]
        if not bad:
            return False
        labels = {m.index: m.label for m in members(self.param_groups)}
        if self.nonfinite == "raise":
            index, count = bad[0]
            raise NonfiniteGradientError(
                f"gradient of {labels[index]} has {count} non-finite elements "
                f"({len(bad)} parameters in all have some); nothing was stepped"
            )
        self._skipped += 1
        self._nonfinite_seen += sum(count for _, count in bad)
        self._emit("skipped", {"step": self._steps, "parameters": [labels[i] for i, _ in bad]})
        return True

    def _after_step(self, compiled: Compiled, fresh: bool) -> None:
        self._steps += 1
        bad, first = compiled.plan.nonfinite, not self._nonfinite_seen
        self._nonfinite_seen += bad
        # What may raise comes last: listeners, and a warning that may be an error.
        if self._listeners:
            for transition in compiled.transitions if fresh else ():
                fields = {"step": self._steps - 1, **dataclasses.asdict(transition)}
                self._emit("transition", fields)
            self._emit("step", {"step": self._steps})
        if bad and first:
            self._warn_of_nonfinite(bad)

    def _warn_of_nonfinite(self, count: int) -> None:
        warnings.warn(
            f"{count} elements of gradients are infinite or NaN at step {self._steps}; as in AdamW "
            "they spoil their own elements. Further ones are counted in stats(); "
            "nonfinite='raise' or 'skip' looks before it steps.",
            RuntimeWarning,
            stacklevel=5,
        )

    def _emit(self, event: str, fields: dict[str, Any]) -> None:
        for listener in self._listeners:
            listener(event, fields)
