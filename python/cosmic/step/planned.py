"""An optimizer behind its face: options as a plan sees them, the plan, and what is counted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from torch import Tensor
from torch.optim.optimizer import Optimizer

from ..capital.named import policy_named
from ..capital.policies import Policy
from ..state.entries import State, by_part, forget, role_of, rung_of, take_over
from ..state.groups import check_dicts, placed_params
from ..state.master import check_has_master
from ..state.members import members, plan_rows
from ..state.roles import Role
from ..state.slices import check_patterns
from ..state.upgrade import is_of_format_1, upgraded
from ..threads import thread_count
from .choices import Choice, choose
from .options import (
    WHOLE_OPTIONS,
    PlanOptions,
    check_cadence,
    check_group,
    check_whole,
    drop_whole_options,
)
from .plans import Compiled, StatisticsRow, Transition, compile_plan
from .turns import Turns

__all__ = ["EndedStep", "Listener", "NonfiniteGradientError", "Planned", "StepsElsewhere"]

Listener: TypeAlias = Callable[[str, dict[str, Any]], None]

#: What a copy or a pickle of the optimizer keeps beside torch's own.
_KEPT = (
    *WHOLE_OPTIONS, "_steps", "_skipped", "_nonfinite_seen", "_gradient_norm", "_provisional",
)  # fmt: skip


class NonfiniteGradientError(RuntimeError):
    """A gradient held an infinity or a NaN, and ``nonfinite="raise"``."""

    __module__ = "cosmic.optimizer"  # where it can be imported from, for tracebacks and pickles


class EndedStep(NamedTuple):
    """What ``step()`` still has to account for."""

    compiled: Compiled
    transitions: list[Transition]
    counts: bool  # False: all that came was skipped


class StepsElsewhere(Protocol):
    """A mode in which parameters are stepped before ``step()`` is called, which ends the step."""

    def attach(self) -> None:
        """Take note of the parameters that the groups have now."""

    def forget(self) -> None:
        """State was loaded: what came in before belongs to no step any more."""

    def end_step(self, closure: object) -> EndedStep | None:
        """End the step; None if no gradient has come since the last one."""


class Planned(Optimizer):
    """An optimizer that steps by a compiled plan, made anew where what it was made for changes.

    Whoever takes a step asks for the plan (``_ready``), runs it, adopts it if it is a new one
    (``_adopt``), and accounts for the step (``_after_step``).
    """

    budget: int | str | None
    policy: str | Policy
    nonfinite: str
    seed: int
    reallocate_every: int
    global_sums: bool = False  # of what was pickled before there was such an option

    def _reset(self) -> None:
        self._compiled: Compiled | None = None
        self._planned: PlanOptions | None = None  # what the newest plan was made for
        self._seen_anew = False  # a look has found what the newest plan does not know
        self._options_changed = False  # between the newest plan and the checkpoint that was loaded
        self._weighed: list[
            tuple[Role | None, str]
        ] = []  # roles and rungs, when a policy was asked
        self._listeners: list[Listener] = []
        self._untold = True  # a plan was adopted since listeners were last told of one
        self._steps = 0
        self._compared: int | None = None  # steps, when ranks last compared what they do
        self._skipped = 0
        self._nonfinite_seen = 0
        self._gradient_norm: float | None = None  # of the step before, for clipping in backward
        #: Whose state was made to be loaded into, by the plan or as a checkpoint is: a step starts
        #: without it.
        self._provisional: dict[Tensor, Literal["planned", "shaped"]] = {}
        self._backward: StepsElsewhere | None = None
        self._turns = Turns()
        self._controllers: Sequence[object] = []

    def __getstate__(self) -> dict[str, Any]:
        kept = {key: getattr(self, key) for key in _KEPT}
        kept["_options_changed"] = self._has_new_options()
        return {**super().__getstate__(), **kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "seed" in state:  # unpickled or copied; torch also calls this to load a state_dict
            self._reset()
        super().__setstate__(state)
        if "seed" not in state:
            for group in self.param_groups:  # what they repeat has been found to be the same
                drop_whole_options(group, self._whole_options())
        self._compiled = None
        for member in members(self.param_groups):  # of a release before, pickled as a whole
            held = self.state.get(member.param, {})
            if is_of_format_1(held):
                group = self.param_groups[member.group]
                self.state[member.param] = upgraded(member.param, held, group)

    def _take_loaded(self, found: dict[str, Any]) -> None:
        """Make what ``read_saved`` has found the optimizer's."""
        self.state.update(found["state"])
        self._steps, self._skipped = found["steps"], found["skipped"]
        self._gradient_norm = found["gradient_norm"]
        self._planned, self._options_changed = None, found["options_changed"]
        self._compared = None
        self._compiled = None
        self._provisional = {}
        if self._backward is not None:
            self._backward.forget()

    def _drop_provisional(self) -> None:
        """Forget state that was made to be loaded into, if nothing has been."""
        while self._provisional:
            param, _ = self._provisional.popitem()
            state = self.state.get(param, {})
            forget(state)
            if not state:
                self.state.pop(param, None)

    # ---- options ---------------------------------------------------------------------------

    def _plan_options(self) -> PlanOptions:
        return PlanOptions.of(
            self.budget, self.policy, self.seed, self.global_sums, self.param_groups
        )

    def _has_new_options(self) -> bool:
        """Whether options have changed since the newest plan. What they free is to be used, too."""
        changed = self._planned is not None and self._plan_options().differ(self._planned)
        return changed or self._options_changed

    def _check_group(self, group: dict[str, Any], index: int) -> None:
        check_group(group, index, self._whole_options())

    def _whole_options(self) -> dict[str, Any]:
        return {option: getattr(self, option) for option in WHOLE_OPTIONS}

    # ---- the plan --------------------------------------------------------------------------

    def _ready(self, *, expecting: bool = False) -> Compiled:
        # The budget is spent before a step, not after it: if a policy fails, nothing has changed.
        check_cadence(self.reallocate_every)
        if self._provisional:
            self._drop_provisional()
        if self._compiled is None or self._seen_anew or self._plan_options().differ(self._planned):
            return self._compile(expecting=expecting)
        if self._spends_anew():
            held = (part for state in self.state.values() for part in by_part(state))
            seen = [(role_of(part), rung_of(part).name) for part in held]
            if seen != self._weighed or policy_named(self.policy).uses_signal:
                choices = self._choices(expecting=expecting)
                self._weighed = seen  # of equal roles and rungs a policy thinks the same
                if not all(c.marker in self.state.get(c.param, {}) for c in choices):
                    return self._plan_of(choices)
        return self._compiled

    def _compile(self, *, expecting: bool = False, anew: Tensor | None = None) -> Compiled:
        """``expecting``: gradients are still to come; ``anew``: a parameter whose state is left."""
        check_whole(self._whole_options())
        check_dicts(self.param_groups)
        for index, group in enumerate(self.param_groups):
            self._check_group(group, index)
            drop_whole_options(group, self._whole_options())
            check_has_master(group, index)
        check_patterns(self.param_groups)
        self._turns.check(self.budget, self.param_groups, self.state)
        choices = self._choices(expecting=expecting, anew=anew)
        return self._plan_of(choices)

    def _plan_of(self, choices: Sequence[Choice]) -> Compiled:
        return compile_plan(self.param_groups, choices, self.seed, global_sums=self.global_sums)

    def _choices(self, *, expecting: bool, anew: Tensor | None = None) -> list[Choice]:
        state = {p: s for p, s in self.state.items() if p is not anew}
        return choose(
            self.param_groups, state, budget=self.budget, policy=policy_named(self.policy),
            reallocate=self._has_new_options() or self._spends_anew(), expecting=expecting,
        )  # fmt: skip

    def _run(
        self, compiled: Compiled, copies: list[Tensor | None] | None = None
    ) -> list[Tensor] | None:
        """Step by the plan; None, with nothing changed, if it must be made anew. What it has
        written, parameters and copies."""
        threads = thread_count()
        return compiled.plan.step(self.param_groups, self.state, threads, self._steps, copies)

    def _adopt(self, compiled: Compiled) -> None:
        """Make a plan's state the optimizer's, now that it has been stepped."""
        self._turns.adopt(self.param_groups, self.state)
        for param, new in compiled.states.items():
            if self.state.get(param) is None:
                self.state[param] = {}
            take_over(self.state[param], new)
        compiled.plan.watch(self.state)
        self._compiled = compiled
        self._planned, self._options_changed = self._plan_options(), False
        self._seen_anew = False
        self._untold = True

    # ---- looks at the gradients ------------------------------------------------------------

    def _looks(self) -> bool:
        """Whether this step looks at the gradients; the next one spends the budget anew. Without a
        budget the first gradient of each parameter has been looked at before its step."""
        return self._steps % self.reallocate_every == 0 and (
            self.budget is not None or self._steps > 0
        )

    def _take_found(self, found: dict[Tensor, State]) -> None:
        for param, entries in found.items():
            self.state[param].update(entries)
        self._seen_anew |= bool(found)

    def _spends_anew(self) -> bool:
        """Whether the last step was one that looked at the gradients."""
        looks = self.budget is not None and self._steps > 0
        return looks and (self._steps - 1) % self.reallocate_every == 0

    # ---- what is counted and told ----------------------------------------------------------

    def _last_rows(self) -> list[StatisticsRow]:
        compiled = self._compiled
        if compiled is None or compiled.members != sum(1 for _ in placed_params(self.param_groups)):
            return []  # groups were taken away: the rows are of parameters that are gone
        return compiled.plan.statistics()

    def _nonfinite_error(self, bad: Sequence[tuple[int, int]]) -> NonfiniteGradientError:
        """``bad``: index and non-finite elements of each row that has some."""
        if not bad:
            return NonfiniteGradientError(
                "a gradient has non-finite elements in another rank's shard; nothing was stepped"
            )
        labels = {row.index: row.label for row in plan_rows(self.param_groups)}
        index, count = bad[0]
        return NonfiniteGradientError(
            f"gradient of {labels[index]} has {count} non-finite elements "
            f"({len(bad)} parameters in all have some); nothing was stepped"
        )

    def _count_skipped(self, labels: list[str], elements: int) -> None:
        self._skipped += 1
        self._nonfinite_seen += elements
        self._emit("skipped", {"step": self._steps, "parameters": labels})

    def _after_step(self, compiled: Compiled, transitions: Sequence[Transition]) -> None:
        self._steps += 1
        if self._turns.lasts:
            self._turns.end_step(self.param_groups, self.state)
        bad, first = compiled.plan.nonfinite, not self._nonfinite_seen
        self._nonfinite_seen += bad
        # What may raise comes last: controllers, listeners, and a warning that may be an error.
        if self._controllers:
            self._control()
        if self._listeners:
            if self._untold:
                self._tell_plan(transitions)
                self._untold = False
            self._emit("step", {"step": self._steps})
        if bad and first:
            self._warn_of_nonfinite(bad)

    def _control(self) -> None:
        """Show the step to the controllers whose turn it is."""
        raise NotImplementedError  # by those who attach them

    def _tell_plan(self, transitions: Sequence[Transition]) -> None:
        """Tell listeners of the plan that this step has adopted."""
        raise NotImplementedError  # by those who make the table of what parameters hold

    def _warn_of_nonfinite(self, count: int) -> None:
        states = (self.state.get(m.param) for m in members(self.param_groups))
        whole = any(rung_of(part).of_matrix for state in states for part in by_part(state))
        but = ", or a matrix that is stepped as a whole, all of it" if whole else ""
        warnings.warn(
            f"{count} elements of gradients are infinite or NaN at step {self._steps}; as in AdamW "
            f"they spoil their own elements{but}. Further ones are counted in stats(); "
            "nonfinite='raise' or 'skip' looks before it steps.",
            RuntimeWarning,
            stacklevel=5,
        )

    def _emit(self, event: str, fields: dict[str, Any]) -> None:
        for listener in self._listeners:
            listener(event, fields)
