"""Reading and changing the state of single parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .moments import Moments
from .state.entries import State, forget, holds, prefixed, take_over
from .state.joined import read_whole, write_whole, zeroed_rows
from .state.members import Member, members, naming, parts_of
from .state.moments import Rows, selected
from .state.saved_shapes import empty_state
from .state.shaping import shaped_states
from .step.planned import Planned
from .step.plans import chosen_state

__all__ = ["WithMoments"]


class WithMoments(Planned):
    """An optimizer whose moments can be read and written whatever codecs keep them."""

    def shape_state(
        self, model: nn.Module, metadata: Mapping[str, Any], *, prefix: str = ""
    ) -> None:
        """Give this optimizer's state the tensors that a sharded checkpoint has, so that
        ``torch.distributed.checkpoint`` has a place to load them into: which ones there are depends
        on the gradients seen. Load next; until then the state is empty.

        Args:
            model: whose names the checkpoint calls the optimizer's parameters by.
            metadata: ``FileSystemReader(path).read_metadata().state_dict_metadata``.
            prefix: what the optimizer's entry is called there, such as ``"optim."``.

        Raises:
            ValueError: if the checkpoint has no state of Cosmic's for the model's parameters.
        """
        own = {member.param: member for member in members(self.param_groups)}
        for param, shaped in shaped_states(model, metadata, prefix, own).items():
            rows = parts_of(own[param], self.param_groups[own[param].group])
            take_over(self.state.setdefault(param, {}), empty_state(rows, shaped))
            self._provisional[param] = "shaped"
        self._compiled = None

    # ---- moments, whatever keeps them -----------------------------------------------------

    def moments(self, param: Tensor) -> Moments:
        """A parameter's moments as tensors of its shape, decoded, and its step count.

        They are copies, in AdamW's meaning: its bias correction by ``step`` is right for them. A
        moment that the parameter's rung does not keep is None; all are before its first step. Of
        parts (group option ``parts``) they are joined, None where one of them keeps none. Of a
        DTensor they are DTensors with its mesh and placements, made without communication.

        Raises:
            ValueError: if the parameter is not in this optimizer, for a state that does not fit it,
                and for codec ``costate``, which knows its first moment only with the next gradient.
        """
        member = self._member(param)
        return read_whole(member, self.state.get(param, {}), self.param_groups[member.group])

    def set_moments(
        self,
        param: Tensor,
        *,
        exp_avg: Tensor | float | None = None,
        exp_avg_sq: Tensor | float | None = None,
        exp_avg_slow: Tensor | float | None = None,
        step: int | None = None,
        rows: Rows | None = None,
    ) -> None:
        """Write moments, in AdamW's meaning, into a parameter's state, by its codecs.

        A parameter without state gets that of the rung which the next step would give it.

        Args:
            param: one of the optimizer's.
            exp_avg: of the parameter's shape, or of that of ``param[rows]``, or one number; None
                leaves the moment as it is. Of a DTensor one that lies as it does, or one number;
                all processes are to give theirs.
            exp_avg_sq: as ``exp_avg``; no number below 0.
            exp_avg_slow: as ``exp_avg``.
            step: the parameter's count; None leaves it as it is.
            rows: which rows are given, along the first dimension: an index, a slice, indices or a
                mask. Others keep their codes (of rung codec ``ustate``: their values, encoded
                anew). None: all.

        Raises:
            ValueError: for a moment that the rung does not keep, of another shape, not finite or
                negative, and for rows or a step out of range. Nothing has changed then.
        """
        member = self._member(param)
        group = self.param_groups[member.group]
        with naming(member):  # once: what is given may be read once
            chosen = None if rows is None else selected(param, rows)
        self._drop_provisional()
        given = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq, "exp_avg_slow": exp_avg_slow}
        with naming(member):
            held = self.state.get(param, {})
            if not holds(held):
                held = self._first_state(member)
        new = write_whole(member, held, group, given, step=step, rows=chosen, seed=self.seed)
        if self.state.get(param) is None:
            self.state[param] = {}
        take_over(self.state[param], new)

    def reset(self, param: Tensor | None = None, *, rows: Rows | None = None) -> None:
        """Forget what a parameter's gradients were, as if it had not been stepped.

        Args:
            param: one of the optimizer's; None: all of them.
            rows: only these, along the first dimension, as of ``set_moments``: their moments become
                zero and the count goes on, as where AdamW's moments are set to zero. Rungs without
                moments keep nothing by row, and nothing changes.

        Raises:
            ValueError: if the parameter is not in this optimizer, and for rows out of range.
        """
        everyone = list(members(self.param_groups)) if param is None else [self._member(param)]
        started = [m for m in everyone if holds(self.state.get(m.param))]
        if rows is None:
            for member in started:
                forget(self.state[member.param])
            self._compiled = None  # which holds on to what has been forgotten
            return
        chosen = {}
        for member in started:
            with naming(member):
                chosen[member.param] = selected(member.param, rows)
        for member in started:
            held, group = self.state[member.param], self.param_groups[member.group]
            take_over(held, zeroed_rows(member, held, group, chosen[member.param], self.seed))

    def _member(self, param: Tensor) -> Member:
        for member in members(self.param_groups):
            if member.param is param:
                return member
        shape = tuple(param.shape) if isinstance(param, Tensor) else type(param).__name__
        raise ValueError(f"the parameter ({shape}) is not in this optimizer")

    def _first_state(self, member: Member) -> State:
        """What the next step would make, were the parameter to have a gradient."""
        chosen = self._choices(expecting=True, anew=member.param)
        choices = [c for c in chosen if c.param is member.param]
        if not choices:
            raise ValueError("it takes no gradients (requires_grad), and has no state")
        out: State = {}
        for choice in choices:
            state = chosen_state(choice, self.param_groups[member.group], self.seed)
            out.update(prefixed(state, choice.live.member.prefix))
        return out
