"""AXIOM: a second moment by rows and columns, and gradients that are gone when they are used."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, overload

import torch
from torch import Tensor, nn

from ...capital.named import DEFAULT_POLICY
from ...capital.policies import Policy
from ...optimizer import Cosmic, NonfiniteGradientError, Params
from ...state.groups import placed_params
from ...state.members import listed
from ...step.backward import StepInBackward
from ...step.backward_checks import check_model
from ...step.choices import Choice, choose
from ...step.copies import CopyTo
from ...step.hooks import hooked_where_observed
from .clipping import clip_gradients
from .knobs import check_max_grad_norm, check_own, explain_unknown, is_number, nonfinite_of
from .near_zero import NO_LIMIT, NearZeroPolicy, with_rate_times
from .usage import MemoryUsage, usage_of

__all__ = ["AXIOM"]

Loss: TypeAlias = float | Tensor
Closure: TypeAlias = Callable[[], Any]

_NEAR_ZERO = NearZeroPolicy()
#: Cosmic's step without torch's hooks, which go around the preset's.
_plain_step = inspect.unwrap(Cosmic.step)


class AXIOM(Cosmic):
    """AXIOM (package ``quarterbit``), with its arguments, as a composition of what is public.

    Without a budget, a matrix of ``r`` rows and ``c`` columns keeps ``4 (r + c)`` bytes and a few
    numbers. With ``g`` the gradient, of which nothing is remembered,

        v <- beta2 v + (1 - beta2) g^2, kept as the means of its rows and of its columns
        u0 = g / (sqrt(v) / sqrt(1 - beta2^t) + eps)        u = u0 / max(1, x)
        p <- (1 - lr wd) p - lr u

    where ``x`` is the root mean square that ``u0`` had at the last step. A vector, a matrix of
    fewer than 16 columns, what is in float64 and what is masked is stepped by a sign times two
    scalars of its own, as on ``Cosmic``'s tier 1, and keeps 24 bytes. Gradient release,
    ``register_hooks``, changes no bit of this. What AXIOM itself computes is not published:
    ``docs/from-axiom.md`` has what is the same and what was measured.

    Everything else is ``Cosmic``'s: checkpoints, which exchange with AdamW and ``Cosmic``,
    ``tiers()``, ``state_bytes()``, controllers, the same bits for every ISA and thread count.

    Args:
        params: parameters, named parameters or parameter groups.
        lr: learning rate; a number or a tensor of one element. AdamW's suits.
        weight_decay: decoupled weight decay.
        max_grad_norm: clip gradients to this norm; None: not. By the norm of the whole gradient,
            exactly, in a pass before the step; with hooks by the norm that it had a step ago.
        detect_anomaly: raise NonfiniteGradientError for a gradient that is not finite, before
            anything has moved. With hooks the tensor whose gradient it is stays as it is and
            all others move; ``step()`` raises afterwards and names it.
        streak_boost: accepted and without effect: what it does is not documented.
        snr_floor: ``c_min`` of gate ``"snr"``, the least factor; without that gate no effect.
        budget: bytes or a share of AdamW's state, as in ``Cosmic``, spent by ``policy``. None:
            next to nothing, as above.
        policy: as in ``Cosmic``; of a budget alone.
        gate: as in ``Cosmic``, such as ``"snr"``; None: none.
        nonfinite: as in ``Cosmic``, in the place of ``detect_anomaly``; None: made of it. With
            hooks ``"raise"`` is as described there.
        betas: as in ``Cosmic``: the second is of ``v``, both are of the scalars.
        eps: added to the root of ``v``.
        maximize: as in ``Cosmic``.
        stochastic_rounding: as in ``Cosmic``: parameters in bfloat16 lose no update in the mean.
        seed: as in ``Cosmic``.
        reallocate_every: as in ``Cosmic``.
        global_sums: as in ``Cosmic``.
        knobs: arguments of other releases and optimizers; one warning says what is in their place.

    ``lr``, ``weight_decay``, ``gate``, ``betas``, ``eps``, ``maximize``, ``stochastic_rounding``
    and all others of ``Cosmic`` are options of groups: one that fixes a ``rung`` or ``tier``, or
    demands history by ``min_tier=2``, has what it asks for.

    Attributes:
        last_loss: what ``step`` or ``report`` was told last, or its closure returned; None: none.

    Raises:
        ValueError, TypeError: as ``Cosmic`` does; for an argument out of range; and for a name that
            is nearly one of these, or is an option of Cosmic's.

    Source: names, defaults and meanings of the metadata of quarterbit 17.0.14; the second moment is
    Adafactor's (arXiv 1804.04235), released gradients are LOMO's (2306.09782).
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.01,
        max_grad_norm: float | None = None,
        detect_anomaly: bool = True,
        streak_boost: float = 1.5,
        snr_floor: float = 0.5,
        *,
        budget: int | str | None = None,
        policy: str | Policy = DEFAULT_POLICY,
        gate: str | None = None,
        nonfinite: str | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
        stochastic_rounding: bool = True,
        seed: int = 0,
        reallocate_every: int = 100,
        global_sums: bool = False,
        **knobs: Any,
    ) -> None:
        check_own(detect_anomaly, streak_boost, snr_floor, gate)
        check_max_grad_norm(max_grad_norm)
        explain_unknown(knobs, _OWN)
        self.max_grad_norm = max_grad_norm
        self._told = {
            "detect_anomaly": detect_anomaly, "streak_boost": streak_boost, "snr_floor": snr_floor,
            **knobs,
        }  # fmt: skip
        self.last_loss: float | None = None
        super().__init__(
            params, lr, betas, eps, weight_decay, budget=budget, policy=policy, gate=gate,
            c_min=snr_floor, maximize=maximize, stochastic_rounding=stochastic_rounding,
            nonfinite=nonfinite_of(detect_anomaly) if nonfinite is None else nonfinite, seed=seed,
            reallocate_every=reallocate_every, global_sums=global_sums,
        )  # fmt: skip

    def _reset(self) -> None:
        super()._reset()
        self._hooks: StepInBackward | None = None
        self._hooks_scale = 1.0  # of the learning rate, while there are hooks
        self._entering = False
        self._left_out: tuple[list[str], int] | None = None  # in backward, still to be told

    # ---- options of the whole ----------------------------------------------------------------

    @property
    def nonfinite(self) -> str:
        """What was asked for; while parameters are stepped in backward ``"skip"`` for
        ``"raise"``."""
        late = self._entering or self._backward is not None
        return "skip" if late and self._nonfinite == "raise" else self._nonfinite

    @nonfinite.setter
    def nonfinite(self, mode: str) -> None:
        self._nonfinite = mode

    def _whole_options(self) -> dict[str, Any]:
        own = {"nonfinite": self._nonfinite, "max_grad_norm": self.max_grad_norm, **self._told}
        return {**super()._whole_options(), **own}

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_nonfinite", "max_grad_norm", "_told", "last_loss")
        state = {k: v for k, v in super().__getstate__().items() if k != "nonfinite"}
        return {**state, **{name: getattr(self, name) for name in kept}}

    # ---- a step ------------------------------------------------------------------------------

    @overload  # type: ignore[override]  # a loss comes first, as AXIOM has it; a closure may, too
    def step(
        self, loss: Loss | None = None, closure: None = None, *, copy_to: CopyTo | None = None
    ) -> None: ...
    @overload
    def step(
        self, loss: Closure, closure: None = None, *, copy_to: CopyTo | None = None
    ) -> float: ...
    @overload
    def step(
        self, loss: Loss | None = None, *, closure: Closure, copy_to: CopyTo | None = None
    ) -> float: ...
    @hooked_where_observed
    def step(
        self, loss: Loss | Closure | None = None, closure: Closure | None = None, *,
        copy_to: CopyTo | None = None,
    ) -> float | None:  # fmt: skip
        """Take one step on every parameter that has a gradient; with hooks, end it.

        Args:
            loss: kept in ``last_loss`` and told to controllers, as by ``report``; the step does
                not depend on it. A callable is a closure.
            closure: recomputes the loss and the gradients; called first. Not with hooks.
            copy_to: as of ``Cosmic.step``.

        Returns:
            The closure's loss, or None.

        Raises:
            TypeError: for a loss that is no real number nor a tensor of one element. Nothing has
                changed then.
            ValueError: as ``Cosmic.step``. Parameters and state have not changed then; gradients
                may have been clipped.
            NonfiniteGradientError: with ``detect_anomaly``. Nothing has changed then; with hooks
                all tensors but those that it names have been stepped.
        """
        if torch.compiler.is_compiling():
            return _step_as_it_is(self, loss, closure, copy_to)
        if callable(loss):
            if closure is not None:
                raise TypeError("step() was given two closures; expected a loss and a closure")
            loss, closure = None, loss
        if loss is not None:
            self.report(loss)
        if closure is not None:
            closure = self._clipped_after(closure)
        else:
            self._clip()
        result: float | None = _plain_step(self, closure, copy_to=copy_to)
        self._tell_left_out()
        return result

    def report(self, loss: Any) -> None:
        super().report(loss)
        self.last_loss = float(loss.item() if hasattr(loss, "item") else loss)

    report.__doc__ = Cosmic.report.__doc__

    def _clipped_after(self, closure: Closure) -> Closure:
        def clipped() -> Any:
            loss = closure()
            if is_number(loss) or (isinstance(loss, Tensor) and loss.numel() == 1):
                self.report(loss)
            self._clip()
            return loss

        return clipped

    def _clip(self) -> None:
        if self.max_grad_norm is None or self._backward is not None:
            return
        check_max_grad_norm(self.max_grad_norm)
        params = [param for _, _, param in placed_params(self.param_groups)]
        norm = clip_gradients(params, self.max_grad_norm)
        if norm is not None:
            self._gradient_norm = norm  # by which hooks clip, if they come next

    # ---- gradients that are released ---------------------------------------------------------

    def step_in_backward(
        self,
        model: nn.Module | None = None,
        *,
        max_norm: float | None = None,
        clip: str = "previous",
        copy_to: CopyTo | None = None,
    ) -> StepInBackward:
        """As ``Cosmic``'s, clipping to ``max_grad_norm`` where ``max_norm`` is None."""
        if max_norm is None:
            check_max_grad_norm(self.max_grad_norm)
            max_norm = self.max_grad_norm
        self._entering = True
        try:
            return super().step_in_backward(model, max_norm=max_norm, clip=clip, copy_to=copy_to)
        finally:
            self._entering = False

    def register_hooks(self, lr_scale: float = 1.0, model: nn.Module | None = None) -> None:
        """From now on step each parameter within ``backward`` and free its gradient at once.

        This is ``step_in_backward(model, max_norm=max_grad_norm)`` for good: gradients take the
        memory of the largest tensor, ``step()`` is still called after every backward, and
        parameters and state have the bits that they would have had, from whatever step on, unless
        ``max_grad_norm`` clips. Called again, it takes the new ``lr_scale`` and changes nothing
        else. Copies and checkpoints have no hooks.

        Args:
            lr_scale: multiplies the learning rate as long as there are hooks, on top of what
                groups and schedulers say; ``get_lr()`` does not show it. Nothing is lost in
                released gradients, so there is nothing to make up for: any other value than 1 is
                told in a warning.
            model: checked to have the optimizer's parameters and no others that train.

        Raises:
            ValueError: for a scale that is no number above 0, a model whose parameters are not the
                optimizer's, and a gate that looks at all tensors together.
            RuntimeError: where ``step_in_backward()`` was entered by itself.
        """
        if not (is_number(lr_scale) and lr_scale > 0):
            raise ValueError(f"lr_scale is {lr_scale!r}; expected a number > 0")
        if self._hooks is None or self._backward is not self._hooks:
            self._hooks = self.step_in_backward(model)
        elif model is not None:
            check_model(self, model)
        self._scale_rate(float(lr_scale))
        if lr_scale != 1:
            warnings.warn(
                f"lr_scale={lr_scale!r} multiplies the learning rate while there are hooks. "
                "Gradients are exact here, so that the rate that suits without hooks suits with "
                "them: leave it out",
                UserWarning,
                stacklevel=2,
            )

    def remove_hooks(self) -> None:
        """Undo ``register_hooks``, ``lr_scale`` too; without hooks it does nothing."""
        if self._hooks is not None:
            self._hooks.remove()
            self._hooks = None
        self._scale_rate(1.0)

    def _scale_rate(self, factor: float) -> None:
        if factor != self._hooks_scale:
            self._hooks_scale, self._compiled = factor, None

    def _count_skipped(self, labels: list[str], elements: int) -> None:
        if self._backward is not None and self._nonfinite == "raise":
            self._left_out = labels, elements
        super()._count_skipped(labels, elements)

    def _tell_left_out(self) -> None:
        """Raise for what was left out in the backward that has ended."""
        found, self._left_out = self._left_out, None
        if found is not None:
            labels, elements = found
            raise NonfiniteGradientError(
                f"in the last backward {len(labels)} gradients had {elements} elements that are "
                f"not finite: of {listed(labels)}. With hooks this is known after the fact: these "
                "were not stepped, all others were"
            )

    # ---- what it holds -----------------------------------------------------------------------

    def get_lr(self) -> float | list[float]:
        """The learning rate: one number where all groups have the same, else a list of theirs."""
        rates = [float(group["lr"]) for group in self.param_groups]
        return rates[0] if len(set(rates)) == 1 else rates

    def set_lr(self, lr: float | Sequence[float]) -> None:
        """Set the learning rate of all groups, or with a list of numbers each group's.

        ``set_lr(get_lr())`` changes nothing. A scheduler that goes by ``initial_lr`` goes on
        from its own.

        Raises:
            ValueError: for what is no number >= 0, or a list of another length than the groups'.
        """
        rates = list(lr) if isinstance(lr, Sequence) else [lr] * len(self.param_groups)
        if len(rates) != len(self.param_groups) or not all(is_number(x) and x >= 0 for x in rates):
            raise ValueError(
                f"lr is {lr!r}; expected a finite number >= 0, or a list of "
                f"{len(self.param_groups)} such numbers, one a group"
            )
        for group, rate in zip(self.param_groups, rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def memory_usage(self, model: nn.Module | None = None) -> MemoryUsage:
        """Print and return the bytes of weights, gradients and state, beside AdamW's.

        Args:
            model: whose weights are counted, frozen ones and buffers too; None: the optimizer's
                parameters.
        """
        params = [param for _, _, param in placed_params(self.param_groups)]
        usage = usage_of(params, model, self.state_bytes(), self._backward is not None)
        print(usage)
        return usage

    # ---- the plan ----------------------------------------------------------------------------

    def _choices(self, *, expecting: bool, anew: Tensor | None = None) -> list[Choice]:
        if self.budget is not None:
            choices = super()._choices(expecting=expecting, anew=anew)
        else:  # whatever was held, of AdamW's checkpoint or under a budget: it is given up
            choices = choose(
                self.param_groups, {p: s for p, s in self.state.items() if p is not anew},
                budget=NO_LIMIT, policy=_NEAR_ZERO, reallocate=True, expecting=expecting,
            )  # fmt: skip
        if self._hooks_scale != 1:
            return [with_rate_times(choice, self._hooks_scale) for choice in choices]
        return choices

    def _looks(self) -> bool:
        # masks are found at the first step, too, as under a budget
        return self._steps % self.reallocate_every == 0


# As torch.compiler.disable, but the compiler is imported only where it is used.
@torch._disable_dynamo  # type: ignore[attr-defined]
def _step_as_it_is(optimizer: AXIOM, loss: Any, closure: Any, copy_to: Any) -> float | None:
    """A step within a function that is being compiled, which it interrupts."""
    result: float | None = optimizer.step(loss, closure, copy_to=copy_to)
    return result


_OWN = tuple(
    name for name in inspect.signature(AXIOM.__init__).parameters if name not in ("self", "knobs")
)
