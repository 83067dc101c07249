"""Stepping each parameter inside ``backward``, so that gradients take one tensor, not one model."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from .. import _core
from ..state.entries import State, entries_of, holds
from ..state.groups import placed_params
from ..state.members import Member, members, parts_of
from ..state.shards import is_sharded, local_of
from ..threads import thread_count
from .backward_checks import check_clip, check_gates, check_model, check_no_raise, check_shards
from .copies import CopyTo, by_position, check_apart
from .looks import observed_of, turns
from .norms import norm_of
from .planned import EndedStep, Planned
from .plans import Compiled, Transition
from .provisional import asks_for_state
from .ranks import planned_together

__all__ = ["StepInBackward", "stepping_in_backward"]

_T = TypeVar("_T")


@dataclass
class _Step:
    """What has come in since the last ``step()``."""

    compiled: Compiled
    stepped: set[Tensor] = field(default_factory=set)
    skipped: dict[Tensor, int] = field(default_factory=dict)  # non-finite elements
    transitions: dict[str, Transition] = field(default_factory=dict)
    found: dict[Tensor, State] = field(default_factory=dict)  # what gradients have shown
    square_norm: float = 0.0

    def adopt(self, compiled: Compiled) -> None:
        """Go on with a plan made anew; a rung that changes twice in a step is told once."""
        self.compiled = compiled
        for new in compiled.transitions:
            before = self.transitions.get(new.name, new).before
            self.transitions[new.name] = Transition(new.name, before, new.after)


class StepInBackward:
    """The mode of ``Cosmic.step_in_backward``: a context manager, left at its end or by ``remove``.

    Hooks know this object weakly: an optimizer that is dropped is not kept alive by its parameters.
    """

    def __init__(
        self,
        optimizer: Planned,
        model: nn.Module | None,
        max_norm: float | None,
        clip: str,
        copy_to: CopyTo | None = None,
    ) -> None:
        check_clip(max_norm, clip)
        check_no_raise(optimizer.nonfinite)
        check_shards(optimizer, max_norm)
        for index, group in enumerate(optimizer.param_groups):
            check_gates(group, index)
        if model is not None:
            check_model(optimizer, model)
        self._optimizer = optimizer
        self._max_norm = max_norm
        self._clip = clip
        self._handles: dict[Tensor, RemovableHandle] = {}
        self._positions: dict[Tensor, int] = {}
        self._members: dict[Tensor, Member] | None = None  # found where they are asked for
        self._step: _Step | None = None
        self._failed = False  # an error has ended a backward in the middle of a step
        self._unplanned = True  # parameters are watched that the plan may not know
        self.copy_to = copy_to
        self.attach()
        # GradScaler then calls step(), which can say what is wrong, even where it found nothing.
        optimizer._step_supports_amp_scaling = True  # type: ignore[attr-defined]

    def __enter__(self) -> StepInBackward:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Leave the mode; a second time does nothing."""
        if self._optimizer._backward is not self:
            return
        self._abandon()
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
        self._optimizer._backward = None
        del self._optimizer._step_supports_amp_scaling  # type: ignore[attr-defined]

    @property
    def copy_to(self) -> dict[Tensor, Tensor] | None:
        """The copies that the step leaves, by parameter. What is assigned, in either form that
        ``Cosmic.step`` takes, holds from the next gradient on.

        Raises:
            TypeError, ValueError: for what does not fit the parameters or shares memory.
        """
        return self._copies

    @copy_to.setter
    def copy_to(self, copy_to: CopyTo | None) -> None:
        if copy_to is None:
            self._copies: dict[Tensor, Tensor] | None = None
            return
        owners = list(members(self._optimizer.param_groups))
        copies = by_position(copy_to, self._optimizer.param_groups)
        check_apart(copies, owners)
        pairs = zip(owners, copies, strict=True)
        self._copies = {owner.param: copy for owner, copy in pairs if copy is not None}

    # ---- what the optimizer asks for ---------------------------------------------------------

    def attach(self) -> None:
        """Watch the parameters that the groups have now and that take gradients. A lazy module's,
        which cannot be watched before they are made, are by the end of the step that made them."""
        params = (param for _, _, param in placed_params(self._optimizer.param_groups))
        self._positions = {param: position for position, param in enumerate(params)}
        self._members = None
        for param in self._handles.keys() - self._positions.keys():
            self._handles.pop(param).remove()
        hook = partial(_on_gradient, weakref.ref(self))
        for param in self._positions:
            if param.requires_grad and param not in self._handles and not is_lazy(param):
                register: Any = param.register_post_accumulate_grad_hook
                self._handles[param] = register(hook)
                self._unplanned = True

    def forget(self) -> None:
        """State was loaded: what came in before belongs to no step any more."""
        self._step, self._failed = None, False

    def end_step(self, closure: object) -> EndedStep | None:
        """End the step that backward took; None if no gradient has come since the last one."""
        if closure is not None:
            raise RuntimeError(
                "step(closure) cannot hold after step_in_backward(): the closure's backward takes "
                "the step itself; call backward, then step()"
            )
        self._refuse_scaler()
        check_no_raise(self._optimizer.nonfinite)
        self.attach()
        if self._step is None and asks_for_state(self._optimizer):
            return None  # which the ordinary step knows how to give
        for param in self._positions:  # given by hand, or thawed since the hooks were attached
            if param.grad is not None:
                self.take(param)
        step = self._step
        self.forget()
        if step is None or not (step.stepped or step.skipped):
            return None
        self._finish(step)
        return EndedStep(step.compiled, list(step.transitions.values()), bool(step.stepped))

    def take(self, param: Tensor) -> None:
        """Step a parameter whose gradient is complete, and free the gradient."""
        if self._failed:
            self._abandon()
        try:
            taken = self._take(param)
        except BaseException:
            self._failed = True
            raise
        if taken:
            param.grad = None

    # ---- one gradient ------------------------------------------------------------------------

    def _take(self, param: Tensor) -> bool:
        optimizer = self._optimizer
        if self._step is None:
            self._step = self._begin()
        step = self._step
        if param in step.stepped or param in step.skipped:
            raise RuntimeError(
                f"{_label(optimizer, param)} has a second gradient since the last step(): it was "
                "stepped with the first, so gradients cannot be accumulated over several backwards "
                "here, nor come from DistributedDataParallel; call step() after every backward, or "
                "leave step_in_backward()"
            )
        if param not in self._positions:
            return False  # taken out of the groups: its gradient is its owner's
        if optimizer.nonfinite == "skip" and (
            bad := self._on_plan(step, param, partial(self._inspected, param))
        ):
            step.skipped[param] = bad
            return True
        square_norm = self._clipped(param)
        self._look_at_direction(step, param)
        self._on_plan(step, param, partial(self._stepped, param))
        step.stepped.add(param)
        step.square_norm += square_norm
        copy = self._copy_of(param)
        changed = [param, *([local_of(param)] if is_sharded(param) else [])]
        torch.autograd.graph.increment_version(changed if copy is None else [*changed, copy])
        if optimizer._compiled is not step.compiled:
            optimizer._adopt(step.compiled)
        if optimizer._looks():
            self._look(step, param)
        return True

    def _begin(self) -> _Step:
        optimizer = self._optimizer
        check_no_raise(optimizer.nonfinite)
        check_shards(optimizer, self._max_norm)
        if self._unplanned:
            optimizer._compiled = None
        make = partial(optimizer._ready, expecting=True)
        compiled = planned_together(optimizer, make)
        if not compiled.plan.begin(optimizer.param_groups, optimizer.state):
            compiled = self._compile()
        self._unplanned = False
        step = _Step(compiled)
        if compiled is not optimizer._compiled:
            step.adopt(compiled)
        return step

    def _compile(self, anew: Tensor | None = None) -> Compiled:
        optimizer = self._optimizer
        compiled = optimizer._compile(expecting=True, anew=anew)
        self.attach()
        if not compiled.plan.begin(optimizer.param_groups, optimizer.state):
            raise RuntimeError("param_groups or state changed while the step was prepared")
        return compiled

    def _on_plan(
        self, step: _Step, param: Tensor, call: Callable[[_core.Plan], _T | None]
    ) -> _T | None:
        """What ``call`` says, on a plan made anew where it says None: a tensor was exchanged."""
        found = call(step.compiled.plan)
        if found is None:
            self._replan(step, None)
            found = call(step.compiled.plan)
            if found is None:
                raise RuntimeError(
                    f"{_label(self._optimizer, param)} changed while its step was prepared"
                )
        return found

    def _replan(self, step: _Step, anew: Tensor | None) -> None:
        compiled = self._compile(anew)
        compiled.plan.inherit(step.compiled.plan)
        step.adopt(compiled)

    def _stepped(self, param: Tensor, plan: _core.Plan) -> bool | None:
        optimizer = self._optimizer
        return (
            plan.step_one(
                optimizer.param_groups, optimizer.state, thread_count(),
                optimizer._steps, self._position(param), param, self._copy_of(param),
            )
            or None
        )  # fmt: skip

    def _inspected(self, param: Tensor, plan: _core.Plan) -> int | None:
        optimizer = self._optimizer
        return plan.inspect_one(
            optimizer.param_groups, optimizer.state, thread_count(),
            self._position(param), param,
        )  # fmt: skip

    def _copy_of(self, param: Tensor) -> Tensor | None:
        return self._copies.get(param) if self._copies else None

    def _position(self, param: Tensor) -> int:
        return self._positions.get(param, len(self._positions))  # one that no plan has

    def _look_at_direction(self, step: _Step, param: Tensor) -> None:
        """One mean a row or one a column: the first gradient says which, and only here is it in
        hand. Under a budget the price was fixed before: rows."""
        state = step.compiled.states.get(param, {})
        if self._optimizer.budget is not None or not holds(state) or param.grad is None:
            return
        if any(turns(row, entries_of(state, row.prefix)) for row in self._rows(param)):
            self._replan(step, param)

    def _rows(self, param: Tensor) -> tuple[Member, ...]:
        """A parameter's parts, or itself; none where it is in no group any more."""
        member = self._member(param)
        return parts_of(member, self._optimizer.param_groups[member.group]) if member else ()

    def _member(self, param: Tensor) -> Member | None:
        if self._members is None:
            self._members = {m.param: m for m in members(self._optimizer.param_groups)}
        return self._members.get(param)

    def _look(self, step: _Step, param: Tensor) -> None:
        member = self._member(param)
        if member is None:
            return
        group = self._optimizer.param_groups[member.group]
        if entries := observed_of(member, group, self._optimizer.state[param]):
            step.found[param] = entries

    # ---- clipping ------------------------------------------------------------------------------

    @torch.no_grad()
    def _clipped(self, param: Tensor) -> float:
        """Scale the gradient; the square of the norm that it had."""
        gradient = None if param.grad is None else local_of(param.grad)  # of one rank
        if self._max_norm is None or gradient is None or gradient.layout != torch.strided:
            return 0.0  # what is not dense, the step itself refuses
        norm = norm_of(gradient)
        previous = self._optimizer._gradient_norm if self._clip == "previous" else None
        against = norm if previous is None else previous
        factor = self._max_norm / (against + 1e-6)
        if factor < 1.0 and math.isfinite(against):
            gradient.mul_(factor)
        return norm * norm

    # ---- the end of a step -----------------------------------------------------------------

    def _finish(self, step: _Step) -> None:
        optimizer = self._optimizer
        norm = math.sqrt(step.square_norm)
        by_previous = self._max_norm is not None and self._clip == "previous"
        if by_previous and step.stepped and math.isfinite(norm):
            optimizer._gradient_norm = norm
        optimizer._take_found(step.found)
        if step.skipped:
            labels = [_label(optimizer, param) for param in step.skipped]
            optimizer._count_skipped(labels, sum(step.skipped.values()))

    def _abandon(self) -> None:
        """A step that ended in the middle counts as one, so that no random bits come twice."""
        step = self._step
        self.forget()
        if step is not None and step.stepped:
            self._optimizer._steps += 1
            self._optimizer._nonfinite_seen += step.compiled.plan.nonfinite

    def _refuse_scaler(self) -> None:
        scaled = [n for n in ("grad_scale", "found_inf") if hasattr(self._optimizer, n)]
        for name in scaled:
            delattr(self._optimizer, name)
        if scaled:
            self._failed = True
            raise RuntimeError(
                "GradScaler cannot be used with step_in_backward(): the parameters were stepped "
                "with scaled gradients, before it could unscale them; train in bfloat16, which "
                "needs no scaler"
            )


def _on_gradient(mode: weakref.ref[StepInBackward], param: Tensor) -> None:
    """torch calls this when a parameter's gradient is complete."""
    alive = mode()
    if alive is None:
        return
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{_label(alive._optimizer, param)}: backward(create_graph=True) cannot hold in "
            "step_in_backward(): parameters change while their graph is still to be differentiated"
        )
    alive.take(param)


def stepping_in_backward(param: Tensor) -> Planned | None:
    """The optimizer that steps a parameter within ``backward``; None where there is none."""
    hooks = getattr(param, "_post_accumulate_grad_hooks", None) or {}
    for hook in hooks.values():
        if isinstance(hook, partial) and hook.func is _on_gradient:
            mode: StepInBackward | None = hook.args[0]()
            if mode is not None:
                return mode._optimizer
    return None


def _label(optimizer: Planned, param: Tensor) -> str:
    found = (m.label for m in members(optimizer.param_groups) if m.param is param)
    return next(found, "a parameter that the optimizer does not have")
