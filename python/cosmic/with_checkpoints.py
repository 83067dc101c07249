"""State dicts: the optimizer's own, and torch.optim.AdamW's."""

from __future__ import annotations

from typing import Any

from torch.optim.optimizer import Optimizer

from .state.adamw import exported
from .state.checkpoint import read_saved
from .state.entries import STATE_FORMAT, drop_orphans
from .state.groups import check_all_placed
from .state.members import members, parts_of
from .state.saved_shards import saved_state
from .state.shards import is_sharded
from .with_controllers import WithControllers

__all__ = ["WithCheckpoints"]


class WithCheckpoints(WithControllers):
    """An optimizer whose whole state can be saved, loaded, and handed on."""

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with an entry ``"cosmic"``: format, steps taken, steps skipped and, where
        ``step_in_backward`` clips by it, the gradient's last norm.

        COSMIC's state of a parameter that was taken out of the groups is dropped first.

        Raises:
            ValueError: for what others keep of such a parameter, as it has no place here.
        """
        drop_orphans(self.state, self.param_groups)
        check_all_placed(self.state, self.param_groups)
        saved = super().state_dict()
        saved["state"] = self._as_saved(saved["state"])
        saved["cosmic"] = {
            "format": STATE_FORMAT, "steps": self._steps, "skipped": self._skipped,
            "gradient_norm": self._gradient_norm, "options_changed": self._has_new_options(),
            **self._saved_controllers(),
        }  # fmt: skip
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned, or what ``torch.optim.AdamW``'s did; state keeps its
        own dtypes until the next step, which encodes it as the groups' options say.

        State that takes more than this optimizer's budget is brought under it by the next step,
        which knows the gradients that decide who keeps what.

        Raises:
            ValueError: if the groups differ, lack an option or have one that is out of range or of
                another optimizer, a state does not fit its parameter, the format is newer than this
                release, or AdamW's state is of amsgrad. Nothing has changed then.
        """
        extra: dict[str, Any] = {}

        def take_state(_: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
            saved, found = read_saved(
                saved, self.param_groups, self.seed, summed=self._sums_over_ranks()
            )
            for index, group in enumerate(saved["param_groups"]):
                self._check_group(dict(group), index)
            self._check_controllers(found)
            extra.update(found)
            # torch would cast moments to the parameter's dtype
            return {**saved, "state": found["others"]}

        handles = [
            self.register_load_state_dict_pre_hook(take_state),
            self.register_load_state_dict_post_hook(
                lambda _: self._take_loaded(extra), prepend=True
            ),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()

    def _as_saved(self, states: dict[Any, Any]) -> dict[Any, Any]:
        """States with those of sharded parameters as DTensors. What a checkpoint has given its
        shape is in that form already."""
        out = dict(states)
        for member in members(self.param_groups):
            param, group = member.param, self.param_groups[member.group]
            state = states.get(member.index)
            if state and is_sharded(param) and self._provisional.get(param) != "shaped":
                out[member.index] = saved_state(
                    parts_of(member, group), group, state, summed=self._sums_over_ranks()
                )
        return out

    def _sums_over_ranks(self) -> bool:
        return bool(getattr(self, "global_sums", False))

    def to_adamw_state_dict(self) -> dict[str, Any]:
        """The state as ``torch.optim.AdamW.load_state_dict`` takes it, to go on with AdamW.

        Moments are decoded to float32; parameters on tiers 0 and 1, and those stepped as whole
        matrices, have no second moment and start anew.

        Raises:
            ValueError: for a slow average, for which AdamW has no place.
        """
        return exported(self.param_groups, self.state)
