"""What Tiger has beside a step: reported numbers, and changes of options that wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...optimizer import Cosmic
from ...step.plans import Compiled, Transition
from .loops import Loops
from .staging import Staged, applied, staged

__all__ = ["WithMetrics"]


class WithMetrics(Cosmic):
    """An optimizer with Tiger's methods beside torch's."""

    loops: Loops

    def _reset(self) -> None:
        super()._reset()
        self._pending: list[Staged] = []
        self._metrics: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        kept = ("loops", "_pending", "_metrics")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in kept}}

    def report_metrics(self, loss: float | Tensor | None = None, **named: Any) -> None:
        """Take the loss for what acts on a plateau, and any numbers for ``get_last_metrics()``.

        Raises:
            TypeError: as ``report`` does, for a loss that is no number.
        """
        if loss is not None:
            self.report(loss)
            named = {"loss": float(loss.detach() if isinstance(loss, Tensor) else loss), **named}
        self._metrics.update(named)

    def get_last_metrics(self) -> dict[str, Any]:
        """What was reported last, by name; ``step``, the steps taken; and ``groups``, of each
        ``lr`` and what ``stats()`` has."""
        groups = [
            {"lr": float(group["lr"]), **seen}
            for group, seen in zip(self.param_groups, self.stats(), strict=True)
        ]
        return {**self._metrics, "step": self._steps, "groups": groups}

    def stage_group_update(
        self, group_index: int, fields: Mapping[str, Any], policy: str = "replace"
    ) -> None:
        """Let changes of a group's options wait; every ``reflect_interval`` steps, or when
        ``reflect_pending()`` is called, they are made in the order in which they came.

        Args:
            group_index: of the group.
            fields: by option a new value, ``(operation, payload)``, or a list of such pairs:
                ``("set", x)``, ``("replace", x)``, ``("merge", dict)``, ``("add", x)``,
                ``("mul", x)``, ``("pow", x)`` for ``old^x``, ``("exp", x)`` for ``old e^x``,
                ``("clip", (low, high))``, and ``("logit-clip", (shift, low, high))``, which adds
                in units of ``ln(x / (1 - x))``.
            policy: ``"replace"``.

        Raises:
            IndexError, TypeError: for a group that there is not.
            ValueError: for an option that the group does not have, or a payload that does not fit.
        """
        if policy != "replace":
            raise ValueError(f"policy is {policy!r}; expected 'replace': changes follow each other")
        count = len(self.param_groups)
        if not isinstance(group_index, int) or not -count <= group_index < count:
            raise (IndexError if isinstance(group_index, int) else TypeError)(
                f"group_index is {group_index!r}; expected the number of a group, from 0 to "
                f"{count - 1}"
            )
        index = group_index % count
        self._pending.append(staged(index, fields, self.param_groups[index]))

    def reflect_pending(self) -> int:
        """Make the changes that wait.

        Returns:
            How many calls of ``stage_group_update`` they came from.

        Raises:
            ValueError: for an option that would be out of range. Nothing has changed then.
        """
        made: dict[int, dict[str, Any]] = {}
        for waiting in self._pending:
            changed = made.setdefault(waiting.group, {})
            changed.update(applied(waiting, {**self.param_groups[waiting.group], **changed}))
        for index, changed in made.items():
            self._check_group({**self.param_groups[index], **changed}, index)
        for index, changed in made.items():
            self.param_groups[index].update(changed)
        count = len(self._pending)
        self._pending = []
        return count

    def debug_check(self) -> Any:
        """``check()``, by the name that Tiger's README has for it."""
        return self.check()

    def _after_step(self, compiled: Compiled, transitions: Sequence[Transition]) -> None:
        super()._after_step(compiled, transitions)
        if self._pending and self._steps % self.loops.reflect_interval == 0:
            self.reflect_pending()
