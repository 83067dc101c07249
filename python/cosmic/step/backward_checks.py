"""What a step within ``backward`` refuses."""

from __future__ import annotations

from torch import nn

from .. import _core
from ..state.gates import gate_of
from ..state.groups import Group, placed_params
from ..state.members import listed, members
from ..state.shards import on_several_ranks
from .options import check_nonfinite
from .planned import Planned

__all__ = [
    "check_clip",
    "check_gates",
    "check_model",
    "check_no_raise",
    "check_shards",
    "refuse_wrapper",
]

_CLIPS = ("previous", "tensor")


def check_clip(max_norm: float | None, clip: str) -> None:
    if clip not in _CLIPS:
        raise ValueError(f"clip is {clip!r}; expected one of {', '.join(map(repr, _CLIPS))}")
    if max_norm is not None and not max_norm > 0:
        raise ValueError(f"max_norm is {max_norm!r}; expected None or a number > 0")


def check_no_raise(mode: str) -> None:
    check_nonfinite(mode)
    if mode == "raise":
        raise ValueError(
            "nonfinite='raise' cannot hold in step_in_backward(): when a gradient turns out bad, "
            "others have been stepped; use 'skip', which leaves out that tensor's update, or "
            "'propagate'"
        )


def check_shards(optimizer: Planned, max_norm: float | None) -> None:
    """Refuse what ranks that hold shards of a tensor would have to agree on within backward."""
    asked = {
        f"nonfinite={optimizer.nonfinite!r}": optimizer.nonfinite != "propagate",
        f"max_norm={max_norm!r}": max_norm is not None,
    }
    found = next((option for option, is_asked in asked.items() if is_asked), None)
    if found is None:
        return
    sharded = [m.label for m in members(optimizer.param_groups) if on_several_ranks(m.param)]
    if sharded:
        raise ValueError(
            f"{found} cannot hold in step_in_backward() for parameters whose shards are on several "
            f"ranks, which would have to agree within backward: {listed(sharded)}; leave it out, "
            "or call step() after backward"
        )


def check_gates(group: Group, index: int) -> None:
    if _core.looks_together(gate_of(group).name, group, index):
        raise ValueError(
            f"the gates of param_groups[{index}] look at all tensors of the group together, but "
            "step_in_backward() has one at a time; give each tensor its own, or call step()"
        )


def check_model(optimizer: Planned, model: nn.Module) -> None:
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError(
            "DistributedDataParallel exchanges gradients after step_in_backward() has taken its "
            "steps with each rank's own, and ranks would part; call step() after backward"
        )
    own = {param for _, _, param in placed_params(optimizer.param_groups)}
    named = dict(model.named_parameters())
    missing = [name for name, p in named.items() if p.requires_grad and p not in own]
    if missing:
        raise ValueError(
            f"the model trains parameters that the optimizer does not have, and whose gradients "
            f"would stay: {listed(missing)}; give them to the optimizer or freeze them"
        )
    others = own - set(named.values())
    foreign = [m.label for m in members(optimizer.param_groups) if m.param in others]
    if foreign:
        raise ValueError(
            f"the optimizer has parameters that are not the model's: {listed(foreign)}; "
            "call step_in_backward() without a model to leave this unchecked"
        )


def refuse_wrapper(optimizer: Planned) -> None:
    """Raise RuntimeError for what passes for the optimizer: what is set there is not its own."""
    if "param_groups" not in vars(optimizer):
        raise RuntimeError(
            f"step_in_backward() was called of a wrapper, {type(optimizer).__name__}; call it of "
            "what is wrapped: optimizer.optimizer.step_in_backward(...)"
        )
