"""What ranks find that train by DeepSpeed, with ZeRO's stages, on the CPU by gloo."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.state.entries import own, rung_of
from engine_models import Net, digest_of, error_of, gap, ids_of, loss_of, rows_of

STEPS = 4
#: Elements of a sub-group, into which stage 3 cuts what it steps at once.
SUB_GROUP = 8000


class Way(NamedTuple):
    """A configuration of DeepSpeed, and options of the optimizer."""

    stage: int
    offload: bool = False
    bf16: bool = False
    groups: int = 1
    options: Mapping[str, Any] = {}
    accumulate: int = 1
    sub_group: int = 10**9


_FP32 = {"state_dtype": "fp32"}
WAYS: dict[str, Way] = {
    "0 fp32": Way(0, options=_FP32),
    "1": Way(1),
    "2": Way(2),
    "3": Way(3),
    "1 fp32": Way(1, options=_FP32),
    "2 fp32": Way(2, options=_FP32, accumulate=2),
    "3 fp32": Way(3, options=_FP32),
    "1 offloaded": Way(1, offload=True, groups=2),
    "2 offloaded": Way(2, offload=True, bf16=True, groups=2),
    "3 offloaded": Way(3, offload=True, bf16=True, groups=2),
    "3 in sub-groups": Way(3, sub_group=SUB_GROUP),
    "1 budget": Way(1, groups=2, options={"budget": "10%"}),
}
#: Of three ranks: the ones that differ most.
FEW = ("1 fp32", "2 offloaded", "3 offloaded", "3 in sub-groups")
#: Runs that a checkpoint divides.
SAVED = ("1 offloaded", "2 offloaded", "3 offloaded", "3 in sub-groups")


def run(rank: int) -> Iterator[tuple[str, Any]]:
    """Every check."""
    ranks = dist.get_world_size()
    os.environ.update(
        DS_ACCELERATOR="cpu", LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(ranks),
        LOCAL_SIZE=str(ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT="0",
    )  # fmt: skip
    without_compiling()
    ways = WAYS if ranks == 2 else {name: WAYS[name] for name in FEW}
    for name, way in ways.items():
        yield name, trained(rank, ranks, way)
    for name in SAVED:
        if name in ways:
            yield f"{name} saved", saved(rank, ranks, ways[name])
    whole = Way(1, groups=2, options={"budget": 10**5})
    yield "budget in bytes", error_of(partial(trained, rank, ranks, whole))


def without_compiling() -> None:
    """DeepSpeed compiles collectives in shared memory when it starts; gloo's do."""
    from deepspeed.utils import logger

    communication: Any = import_module("deepspeed.comm.torch")
    communication.build_shm_op = lambda: None
    logger.setLevel("ERROR")


class Seen:
    """A twin of each flat partition that the optimizer is given, stepped by an optimizer of its
    own with the same gradients."""

    def __init__(self, optimizer: Cosmic) -> None:
        self.twins: dict[Tensor, Cosmic] = {}
        self.calls = 0
        optimizer.register_step_pre_hook(self._before)

    def _before(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.calls += 1
        for group in optimizer.param_groups:
            for param in group["params"]:
                if param not in self.twins:
                    kept = {k: group[k] for k in ("lr", "weight_decay", "state_dtype")}
                    twin = nn.Parameter(param.detach().clone())
                    self.twins[param] = Cosmic([twin], budget=optimizer.budget, **kept)
                (twin,) = self.twins[param].param_groups[0]["params"]
                twin.grad = param.grad.detach().clone()
                self.twins[param].step()

    def as_alone(self, optimizer: Cosmic) -> bool:
        """Whether parameters and state are those of the twins."""
        for param, twin in self.twins.items():
            (other,) = twin.param_groups[0]["params"]
            if digest_of([param]) != digest_of([other]):
                return False
            if _tensors(optimizer.state[param]) != _tensors(twin.state[other]):
                return False
        return bool(self.twins)


def _tensors(state: dict[str, Any]) -> dict[str, str]:
    return {k: digest_of([v]) for k, v in own(state).items() if isinstance(v, Tensor)}


def engine_of(ranks: int, way: Way, optimizer: str = "cosmic") -> tuple[Any, Any, nn.Module]:
    """DeepSpeed's engine, the optimizer within, and the model."""
    import deepspeed

    model = Net()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    sets: Any = groups if way.groups == 2 else list(model.parameters())
    inner: Any
    if optimizer == "cosmic":
        inner = Cosmic(sets, lr=1e-2, **way.options)
    else:
        inner = torch.optim.AdamW(sets, lr=1e-2, weight_decay=0.0)
    zero: dict[str, Any] = {"stage": way.stage, "sub_group_size": way.sub_group}
    if way.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    config = {
        "train_micro_batch_size_per_gpu": 12 // ranks,
        "gradient_accumulation_steps": way.accumulate,
        "gradient_clipping": 1.0,
        "steps_per_print": 10**9,
        "bf16": {"enabled": way.bf16},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=inner, config=config, dist_init_required=False
    )
    return engine, inner, model


def steps(engine: Any, rank: int, ranks: int, way: Way, first: int, last: int) -> list[float]:
    """Losses of steps first..last - 1."""
    losses = []
    for micro in range(first * way.accumulate, last * way.accumulate):
        loss = loss_of(engine, ids_of(micro, rows_of(rank, ranks)))
        engine.backward(loss)
        engine.step()
        losses.append(float(loss.detach()))
    return losses


def trained(rank: int, ranks: int, way: Way) -> dict[str, Any]:
    engine, optimizer, _ = engine_of(ranks, way)
    seen = Seen(optimizer)
    losses = steps(engine, rank, ranks, way, 0, STEPS)
    found = {
        "losses": losses,
        "as alone": seen.as_alone(optimizer),
        "calls": seen.calls,
        "shapes": [tuple(param.shape) for param in seen.twins],
        "rungs": sorted({rung_of(optimizer.state[param]).name for param in seen.twins}),
        "steps": [int(optimizer.state[param]["step"]) for param in seen.twins],
        "bytes": optimizer.state_bytes(),
        "parameters": digest_of(weights_of(engine)),
    }
    if way.options == _FP32:
        other, _, _ = engine_of(ranks, way, "adamw")
        steps(other, rank, ranks, way, 0, STEPS)
        found["gap to AdamW"] = gap(weights_of(engine), weights_of(other))
    return found


def weights_of(engine: Any) -> list[Tensor]:
    """Whole parameters, gathered where stage 3 has cut them."""
    from deepspeed import zero

    found = []
    for param in engine.module.parameters():
        with zero.GatheredParameters([param], enabled=hasattr(param, "ds_id")):
            found.append(param.detach().clone())
    return found


def saved(rank: int, ranks: int, way: Way) -> dict[str, Any]:
    """A run, and one that goes on from its checkpoint."""
    engine, optimizer, _ = engine_of(ranks, way)
    steps(engine, rank, ranks, way, 0, 2)
    held = [tempfile.mkdtemp() if rank == 0 else None]
    dist.broadcast_object_list(held, src=0)
    engine.save_checkpoint(held[0])
    steps(engine, rank, ranks, way, 2, STEPS)
    again, resumed, _ = engine_of(ranks, way)
    again.load_checkpoint(held[0])
    steps(again, rank, ranks, way, 2, STEPS)
    assert any(Path(str(held[0])).iterdir())
    return {
        "whole": [digest_of(weights_of(engine)), states_of(optimizer)],
        "resumed": [digest_of(weights_of(again)), states_of(resumed)],
    }


def states_of(optimizer: Cosmic) -> list[dict[str, str]]:
    return [_tensors(state) for state in optimizer.state.values()]
