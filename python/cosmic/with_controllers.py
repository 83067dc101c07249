"""Controllers of an optimizer: attached, shown each step, saved and loaded."""

from __future__ import annotations

import copy
import functools
import math
import numbers
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, SupportsFloat

from torch import Tensor

from .capital.named import policy_named
from .controllers.base import Controller
from .controllers.observation import (
    Move,
    Observation,
    TensorStats,
    observed_tensors,
    redo,
    undo,
)
from .state.groups import Group
from .state.members import listed, members, naming, parts_of
from .state.shards import on_several_ranks
from .state.slices import Slice, check_patterns, described
from .step.planned import Planned
from .step.plans import Compiled

__all__ = ["WithControllers"]


class _Look(NamedTuple):
    """What a controller moved after the last step, which no step has been taken with yet."""

    controller: Controller
    moves: Sequence[Move]
    before: Mapping[str, Any]  # its numbers
    step: int


class WithControllers(Planned):
    """An optimizer whose group options may be moved by what its steps see."""

    def _reset(self) -> None:
        super()._reset()
        self._controllers: list[Controller] = []
        self._carried: dict[str, dict[str, Any]] = {}  # loaded, of controllers not attached
        self._untried: list[_Look] = []

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """Those that are attached, in the order in which they are asked."""
        return tuple(self._controllers)

    def add_controller(self, controller: Controller) -> None:
        """From now on show each step to ``controller``, which moves options of the groups.

        Its numbers are in ``state_dict()`` under its name. If a checkpoint that was loaded before
        has numbers of that name, it goes on from them. Controllers are asked in the order in which
        they were added; what they do to the same ``lr_scale`` multiplies.

        Args:
            controller: one of ``cosmic.controllers``, or of a class of your own.

        Raises:
            TypeError: for what is no ``Controller``, or one whose ``Controller.__init__`` has not
                been called.
            ValueError: for one that goes by sums of tensors whose shards are on several ranks, a
                name that another one has, a controller that is attached to another
                optimizer, one for which the groups have nothing or that is known to set what an
                option cannot be, and numbers that are not its own or could not be saved.
        """
        _check_made(controller)
        owner = controller._optimizer and controller._optimizer()
        if owner is not None and owner is not self:
            raise ValueError(
                f"controller {controller.name!r} is attached to another optimizer; give each its "
                "own, or remove it from that one first: remove_controller"
            )
        if any(known.name == controller.name for known in self._controllers):
            raise ValueError(
                f"the optimizer has a controller named {controller.name!r} already; give this one "
                "another name, name=..."
            )
        controller.check(self.param_groups)
        self._check_sees_all(controller)
        before = controller.state_dict()
        try:
            if controller.name in self._carried:
                _load(controller, self._carried[controller.name])
            self._check_foreseen(controller)
        except Exception:
            controller.load_state_dict(before)
            raise
        self._carried.pop(controller.name, None)
        controller._optimizer = weakref.ref(self)
        self._controllers.append(controller)

    def _check_sees_all(self, controller: Controller) -> None:
        sharded = [m.label for m in members(self.param_groups) if on_several_ranks(m.param)]
        if controller.SEES_TENSORS and sharded:
            raise ValueError(
                f"controller {controller.name!r} goes by what steps see of tensors, and each rank "
                f"sees its shards of {listed(sharded)} alone, so that ranks would part; expected "
                "one of SEES_TENSORS = False, such as Staged or PlateauGuard"
            )

    def remove_controller(self, controller: Controller) -> None:
        """Undo ``add_controller``: options stay as they are.

        Raises:
            ValueError: if it is not attached.
        """
        if not any(known is controller for known in self._controllers):
            raise ValueError(f"controller {controller!r} is not attached to this optimizer")
        self._controllers = [known for known in self._controllers if known is not controller]
        self._untried = [look for look in self._untried if look.controller is not controller]
        controller._optimizer = None

    def report(self, loss: SupportsFloat | Tensor) -> None:
        """Tell controllers such as ``PlateauGuard`` a loss; they move options after the next step.

        Processes that train one model must report the same number.

        Args:
            loss: a real number, of Python or NumPy, or a tensor or array of one element; one that
                is not finite is ignored.

        Raises:
            TypeError: for anything else, such as a bool or a complex number.
        """
        number = _real(loss)
        if math.isfinite(number):
            for controller in self._controllers:
                if controller.enabled:
                    controller.report(number)

    def __getstate__(self) -> dict[str, Any]:
        kept = {"_controllers": self._controllers, "_carried": self._carried}
        return {**super().__getstate__(), **kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for controller in self._controllers:
            if controller._optimizer is None:  # a copy, which comes with this one
                controller._optimizer = weakref.ref(self)

    # ---- a step ----------------------------------------------------------------------------

    def _observed(self) -> list[TensorStats]:
        """What the last step saw of each tensor that it stepped."""
        reasons = self._compiled.reasons if self._compiled else {}
        scales = {placed: reason.lr_scale for placed, reason in reasons.items()}
        return observed_tensors(self.param_groups, self._last_rows(), scales)

    def _control(self) -> None:
        self._untried = []  # what had been moved before, this step was taken with
        turn = [c for c in self._controllers if c.enabled and self._steps % c.every == 0]
        if not turn:
            return
        observed = functools.cache(self._observed)
        for controller in turn:
            seen = Observation(self._steps, self.param_groups, observed, self._role_scales())
            self._moved_by(controller, seen)
            for move in seen.moves:
                told = {"step": self._steps, "controller": controller.name, **move._asdict()}
                self._emit("option", told)
            for other in self._controllers:
                if other is not controller:
                    for move in seen.multiplied:
                        other.others_moved(move)

    def _moved_by(self, controller: Controller, seen: Observation) -> None:
        """Let a controller move options; what is out of range is taken back."""
        before = controller.state_dict()
        try:
            controller.observe(seen)
            for index in {move.group for move in seen.moves}:
                self._check_group(self.param_groups[index], index)
            controller.state_dict()  # refuses a number that could not be loaded
        except Exception as error:
            seen.undo()
            controller.load_state_dict(before)
            controller.taken_back(seen.step)
            if isinstance(error, ValueError):
                raise ValueError(
                    f"controller {controller.name!r}: {error}. What it moved after step "
                    f"{seen.step} has been taken back"
                ) from error
            raise
        if seen.moves:
            self._untried.append(_Look(controller, tuple(seen.moves), before, seen.step))

    def _compile(self, *, expecting: bool = False, anew: Tensor | None = None) -> Compiled:
        """As ``Planned``'s; if it fails for what controllers have moved, that is taken back."""
        try:
            return super()._compile(expecting=expecting, anew=anew)
        except (TypeError, ValueError) as error:
            compile_again = functools.partial(super()._compile, expecting=expecting, anew=anew)
            looks = self._refused(compile_again)
            if not looks:
                raise
            said = "; ".join(
                f"controller {look.controller.name!r} moved "
                + ", ".join(f"param_groups[{m.group}][{m.option!r}]" for m in look.moves)
                for look in looks
            )
            raise ValueError(
                f"{error}. That is what {said}, after step {looks[0].step}: it has been taken back"
            ) from error

    def _refused(self, compile_again: Callable[[], object]) -> list[_Look]:
        """Take back one look, or else all, without which a plan can be made; none if there is no
        such."""
        looks = self._untried
        for tried in [*([look] for look in reversed(looks)), looks]:
            for look in reversed(tried):
                undo(self.param_groups, look.moves)
            try:
                compile_again()
            except (TypeError, ValueError):
                for look in tried:
                    redo(self.param_groups, look.moves)
                continue
            self._untried = [look for look in looks if look not in tried]
            for look in tried:
                look.controller.load_state_dict(look.before)
                look.controller.taken_back(look.step)
            return list(tried)
        return []

    def _check_foreseen(self, controller: Controller) -> None:
        """Raise ValueError for what a controller is known to set and the optimizer would refuse."""
        for when, index, group in controller.foreseen(self.param_groups):
            try:
                self._check_group(group, index)
                self._check_same_cut(group, index)
            except (TypeError, ValueError) as error:
                raise ValueError(f"controller {controller.name!r} {when}: {error}") from error

    def _check_same_cut(self, group: Group, index: int) -> None:
        """By then there is state of the parts that parameters have now, and it fits no others."""
        if group["parts"] == self.param_groups[index]["parts"]:
            return
        check_patterns([*self.param_groups[:index], group, *self.param_groups[index + 1 :]])
        for member in members(self.param_groups):
            if member.group == index and member.takes_gradients:
                now = [row.part for row in parts_of(member, self.param_groups[index])]
                then = [row.part for row in parts_of(member, group)]
                with naming(member):
                    if now != then:
                        raise ValueError(
                            f"its group's parts would be {_cut(then)} and are {_cut(now)}; parts "
                            "cannot change once there is state of them"
                        )

    def _role_scales(self) -> Mapping[str, float] | None:
        """Factors on the learning rate where a group gives none: a policy's, under a budget."""
        if self.budget is None:
            return None
        return getattr(policy_named(self.policy), "lr_scale", None)

    # ---- saved and loaded ------------------------------------------------------------------

    def _saved_controllers(self) -> dict[str, Any]:
        """An entry of the checkpoint's ``"cosmic"``; none where there is nothing to save."""
        saved = copy.deepcopy(self._carried)
        for controller in self._controllers:
            saved[controller.name] = {
                "kind": type(controller).__name__, "numbers": controller.state_dict(),
            }  # fmt: skip
        return {"controllers": saved} if saved else {}

    def _check_controllers(self, found: Mapping[str, Any]) -> None:
        """Raise ValueError unless each controller can take what a checkpoint has by its name."""
        for controller in self._controllers:
            if controller.name in found["controllers"]:
                _load(copy.deepcopy(controller), found["controllers"][controller.name])

    def _take_loaded(self, found: dict[str, Any]) -> None:
        super()._take_loaded(found)
        self._carried = copy.deepcopy(found["controllers"])
        for controller in self._controllers:
            if controller.name in self._carried:
                _load(controller, self._carried.pop(controller.name))
            else:
                controller.reset()


def _check_made(controller: object) -> None:
    """Raise unless it is a controller whose base class has been set up, with numbers to save."""
    if not isinstance(controller, Controller):
        raise TypeError(
            f"controller is {controller!r}; expected a Controller, such as "
            "cosmic.controllers.FFNBalance()"
        )
    if not vars(controller).keys() >= {"every", "name", "enabled", "numbers"}:
        raise TypeError(
            f"{type(controller).__name__}.__init__ has not called super().__init__(every=..., "
            "name=...), which every controller needs"
        )
    for key, value in controller.START.items():
        if not isinstance(value, int | float | None) or isinstance(value, bool):
            raise ValueError(
                f"{type(controller).__name__}.START has {key!r}: {value!r}; expected an int, a "
                "float or None, as numbers are what is saved"
            )


def _real(loss: Any) -> float:
    """A loss as a number, infinite where it is too large for one.

    Raises:
        TypeError: for what is no real number, nor a tensor or array of one.
    """
    if math.prod(getattr(loss, "shape", ())) != 1:
        raise TypeError(f"loss is of shape {tuple(loss.shape)}; expected one element")
    value = loss.item() if callable(getattr(loss, "item", None)) else loss
    real = isinstance(value, numbers.Real) or hasattr(type(value), "__float__")
    if not real or isinstance(value, bool):
        raise TypeError(f"loss is {loss!r}; expected a real number, or a tensor or array of one")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _cut(rows: Iterable[Slice | None]) -> str:
    return described([part for part in rows if part is not None])


def _load(controller: Controller, saved: Mapping[str, Any]) -> None:
    kind = type(controller).__name__
    if saved["kind"] != kind:
        raise ValueError(
            f"the checkpoint has numbers of a {saved['kind']} named {controller.name!r}, but the "
            f"controller of that name is a {kind}; give it another name"
        )
    controller.load_state_dict(saved["numbers"])
