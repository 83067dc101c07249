"""What ranks find that hold shards of a model each, by FSDP2: three of them, or a pair of these."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.optim.lr_scheduler import StepLR

from cosmic import Cosmic
from cosmic.state.shards import local_of
from engine_models import CLASSES, Net, digest_of, error_of, ids_of, loss_of, rows_of
from fsdp_models import KINDS, language, tensor_parallel
from helpers import bits, normal

RANKS = 3
STEPS = 4


class Deep(Net):
    """With a matrix of two rows, of which the third of three ranks has none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.few = nn.Linear(CLASSES, 2)

    def forward(self, ids: Tensor) -> Tensor:
        out = super().forward(ids)
        few: Tensor = self.few(out)
        return out + few.sum(-1, keepdim=True)


class Way(NamedTuple):
    """How a model is sharded and trained."""

    policy: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}
    max_norm: float | None = None
    accumulate: int = 1
    in_backward: bool = False
    compiled: bool = False
    scheduled: bool = False


_FP32 = {"state_dtype": "fp32"}


def _mixed(reduced: torch.dtype) -> dict[str, Any]:
    return {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=reduced)}


WAYS: dict[str, Way] = {
    "plain": Way(),
    "fp32": Way(options=_FP32),
    "offloaded": Way({"offload_policy": CPUOffloadPolicy(pin_memory=False)}),
    "bf16": Way(_mixed(torch.float32)),
    "bf16, reduced too": Way(_mixed(torch.bfloat16)),
    "clipped": Way({"reshard_after_forward": False}, _FP32, max_norm=0.5, scheduled=True),
    "accumulated": Way(options=_FP32, accumulate=2),
    "compiled": Way(compiled=True),
    "in backward": Way(in_backward=True),
    "in backward, accumulated": Way(options=_FP32, accumulate=2, in_backward=True),
    "budget": Way(options={"budget": "5%", "reallocate_every": 2}),
    "gates": Way(options={"gate": "snr+trust"}),
    "matrices": Way(options={"matrix_rule": "muon"}),
    "summed": Way(options={"gate": "snr", "global_sums": True}),
}

#: Codecs whose blocks lie within rows, and what else has the same bits on any number of ranks.
SAME_BITS: dict[str, dict[str, Any]] = {
    "u4+v4": {"state_dtype": "u4+v4"},
    "q8": {"state_dtype": "q8"},
    "bf16": {"state_dtype": "bf16"},
    "fp32": _FP32,
}

#: The same of parameters in bfloat16, rounded stochastically or with 8 more bits.
ROUNDED: dict[str, dict[str, Any]] = {
    "rounded": {"state_dtype": "u4+v4"},
    "24 bits": {"state_dtype": "u4+v4", "master_bits": 24},
}

#: Of tensor parallel layers.
LAYERED: dict[str, dict[str, Any]] = {
    "default": {}, "fp32": _FP32, "u4+v4": {"state_dtype": "u4+v4"},
    "summed": {"global_sums": True},
}  # fmt: skip


class Setting(NamedTuple):
    """The ranks that train together, and which of them this one is."""

    rank: int
    ranks: int
    mesh: DeviceMesh


def run(rank: int) -> Iterator[tuple[str, Any]]:
    """Every check: of all ranks, then of two, then of one process."""
    everyone = Setting(rank, RANKS, init_device_mesh("cpu", (RANKS,)))
    pair = Setting(rank, 2, DeviceMesh("cpu", [0, 1]))
    names = ("replicas", "shards")
    hybrids = {
        "two shards": DeviceMesh("cpu", [[0, 1]], mesh_dim_names=names),
        "two replicas": DeviceMesh("cpu", [[0], [1]], mesh_dim_names=names),
    }
    for at in (everyone, pair):
        if rank < at.ranks:
            yield from checks(at)
    single = [DeviceMesh("cpu", [other]) for other in range(RANKS)][rank]
    for name, options in KINDS.items():
        for mesh in (everyone.mesh, pair.mesh, single):
            if mesh.get_coordinate() is not None:
                yield (
                    f"language, {mesh.size()} ranks, {name}",
                    language(mesh.get_local_rank(), mesh, options),
                )
        yield f"language, alone, {name}", language(0, None, options)
    if rank < 2:
        for name, options in LAYERED.items():
            yield f"layers, {name}", tensor_parallel(pair.mesh, options)
        for name, mesh in hybrids.items():
            yield f"hybrid, {name}", trained(Setting(rank, 2, mesh), WAYS["fp32"])
    if rank == 0:
        for name, way in WAYS.items():
            yield f"alone, {name}", alone(way)


def checks(at: Setting) -> Iterator[tuple[str, Any]]:
    for name, way in WAYS.items():
        yield f"{at.ranks} ranks, {name}", trained(at, way)
    for name, options in SAME_BITS.items():
        yield f"{at.ranks} ranks, given, {name}", given(at, options, torch.float32)
    for name, options in ROUNDED.items():
        yield f"{at.ranks} ranks, given, {name}", given(at, options, torch.bfloat16)
    yield f"{at.ranks} ranks, copied", copied(at)
    yield f"{at.ranks} ranks, made before", made_before(at)
    yield f"{at.ranks} ranks, disagreeing", disagreeing(at)
    yield f"{at.ranks} ranks, not finite", not_finite(at)
    yield f"{at.ranks} ranks, skipped", skipped(at)


def cosmic(model: nn.Module, options: Mapping[str, Any] = {}) -> Cosmic:
    return Cosmic(model.named_parameters(), lr=1e-2, **options)


def sharded(at: Setting, policy: Mapping[str, Any] = {}, dtype: Any = None) -> nn.Module:
    """A layer of the model by itself, all else together."""
    model = Deep().to(dtype or torch.float32)
    fully_shard(model.hidden, mesh=at.mesh, **policy)
    fully_shard(model, mesh=at.mesh, **policy)
    return model


def trained(at: Setting, way: Way) -> dict[str, Any]:
    """Losses, and what the optimizer says of itself, after some steps on shares of the batch."""
    model = sharded(at, way.policy)
    optimizer = cosmic(model, way.options)
    mode = optimizer.step_in_backward(model) if way.in_backward else None
    run: Any = torch.compile(model, backend="aot_eager") if way.compiled else model
    share = rows_of(at.rank, at.ranks)
    synchronize: Any = model.set_requires_gradient_sync
    found = took(way, run, optimizer, share, synchronize)
    if mode is not None:
        mode.remove()
    losses = torch.tensor(found["losses"])
    for group in at.mesh.get_all_groups():
        dist.all_reduce(losses, group=group)
    replicas = at.mesh.size() / at.ranks
    return {**found, "losses": (losses / at.ranks / replicas).tolist(), **said(model, optimizer)}


def took(
    way: Way, model: Any, optimizer: Cosmic, share: slice, synchronize: Callable[[bool], None]
) -> dict[str, Any]:
    """The steps themselves, the same with shards and without."""
    losses, collectives, left = [], 0, 0
    schedule = StepLR(optimizer, 1, gamma=0.5) if way.scheduled else None
    for step in range(STEPS):
        for micro in range(way.accumulate):
            synchronize(micro == way.accumulate - 1)
            loss = loss_of(model, ids_of(step + 100 * micro, share)) / way.accumulate
            loss.backward()  # type: ignore[no-untyped-call]
        left += sum(p.grad is not None for p in model.parameters())
        if way.max_norm:
            nn.utils.clip_grad_norm_(model.parameters(), way.max_norm)
        with CommDebugMode() as seen:  # type: ignore[no-untyped-call]
            optimizer.step()
        collectives += seen.get_total_counts()
        if schedule is not None:
            schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return {"losses": losses, "collectives": collectives, "gradients": left}


def said(model: nn.Module, optimizer: Cosmic) -> dict[str, Any]:
    return {
        "bytes": optimizer.state_bytes(),
        "budget": optimizer.budget_bytes(),
        "rungs": {info.name: info.rung for info in optimizer.tiers()},
        "local": {name: local_of(p).numel() for name, p in model.named_parameters()},
        "keys": sorted({type(v).__name__ for s in optimizer.state.values() for v in s.values()}),
    }


def alone(way: Way) -> dict[str, Any]:
    """The same in one process, without an engine."""
    model = Deep()
    optimizer = cosmic(model, way.options)
    plain = way._replace(compiled=False, in_backward=False)
    return {
        **took(plain, model, optimizer, slice(None), lambda _: None),
        **said(model, optimizer),
    }


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


# ---- given gradients --------------------------------------------------------------------------


def gradients_of(model: nn.Module, step: int) -> dict[str, Tensor]:
    """Of whole parameters."""
    return {
        name: normal(100 * step + k, *p.shape, dtype=p.dtype)
        for k, (name, p) in enumerate(model.named_parameters())
    }


def give(model: nn.Module, step: int) -> None:
    """Each rank's share of gradients that all know."""
    for name, gradient in gradients_of(model, step).items():
        param = model.get_parameter(name)
        if isinstance(param, DTensor):
            where = param.device_mesh, param.placements
            gradient = distribute_tensor(gradient, *where, src_data_rank=None)
        param.grad = gradient


def given(at: Setting, options: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Which parameters have one process's bits, and which entries of state."""
    model, twin = sharded(at, dtype=dtype), Deep().to(dtype)
    ours, theirs = cosmic(model, options), cosmic(twin, options)
    for step in range(STEPS):
        for module, optimizer in ((model, ours), (twin, theirs)):
            give(module, step)
            optimizer.step()
    saved, wanted = ours.state_dict()["state"], theirs.state_dict()["state"]
    names = [name for name, _ in model.named_parameters()]
    return {
        "parameters": {
            name: torch.equal(bits(whole(p.detach())), bits(twin.get_parameter(name)))
            for name, p in model.named_parameters()
        },
        "state": {
            names[k]: {key: _same(value, wanted[k].get(key)) for key, value in state.items()}
            for k, state in saved.items()
        },
    }


def _same(value: Any, other: Any) -> bool:
    """Whether a whole entry has the bits of one process's, which need not have its shape."""
    if not isinstance(value, Tensor):
        return bool(value == other)
    return bits(whole(value)).numpy().tobytes() == bits(other).numpy().tobytes()


# ---- habits and errors ------------------------------------------------------------------------


def copied(at: Setting) -> bool:
    """A copy of the optimizer with its model goes on as the original."""
    model = sharded(at)
    optimizer = cosmic(model)
    give(model, 0)
    optimizer.step()
    twin_optimizer, twin = copy.deepcopy((optimizer, list(model.parameters())))
    give(model, 1)
    for param, other in zip(model.parameters(), twin, strict=True):
        other.grad = None if param.grad is None else param.grad.clone()
    optimizer.step()
    twin_optimizer.step()
    return digest_of(map(local_of, model.parameters())) == digest_of(map(local_of, twin))


def made_before(at: Setting) -> list[str]:
    """Warnings of an optimizer that has the parameters which the model had before its shards."""
    model = Deep()
    optimizer = cosmic(model)
    fully_shard(model, mesh=at.mesh)
    found = []
    for step in range(2):
        give(model, step)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            optimizer.step()
        found += [f"{one.filename}: {one.message}" for one in seen]
    return found


def states_digest(model: nn.Module, optimizer: Cosmic) -> list[str]:
    states = (optimizer.state.get(p, {}) for p in model.parameters())
    held = (v for s in states for v in s.values() if isinstance(v, Tensor))
    return [digest_of(map(local_of, model.parameters())), digest_of(held)]


def refused(model: nn.Module, optimizer: Cosmic) -> list[Any]:
    """Type and text of what a step raises, and whether it has left everything as it was."""
    before = states_digest(model, optimizer)
    return [*error_of(optimizer.step), states_digest(model, optimizer) == before]


def disagreeing(at: Setting) -> dict[str, list[Any]]:
    """Ranks that were given other options, another budget or another parameter."""
    found = {}
    last = at.rank == at.ranks - 1
    given: dict[str, dict[str, Any]] = {
        "lr": {},
        "budget": {"budget": "6%" if last else "5%"},
        "gate": {"gate": "snr" if last else None},
    }
    for name, options in given.items():
        model = sharded(at)
        optimizer = cosmic(model, options)
        if name == "lr" and last:
            optimizer.param_groups[0]["lr"] = 0.5
        give(model, 0)
        found[name] = refused(model, optimizer)
    model = sharded(at)
    params = [p for n, p in model.named_parameters() if not (last and n == "norm.bias")]
    give(model, 0)
    found["parameters"] = refused(model, Cosmic(params))
    return found


def not_finite(at: Setting) -> list[Any]:
    """One rank's gradient is not finite: all raise."""
    model = sharded(at)
    optimizer = cosmic(model, {"nonfinite": "raise"})
    give(model, 0)
    spoil(model, at.rank == 1)
    return refused(model, optimizer)


def skipped(at: Setting) -> list[Any]:
    """One rank's gradient is not finite: all leave the step out, and take the next one."""
    model = sharded(at)
    optimizer = cosmic(model, {"nonfinite": "skip"})
    give(model, 0)
    spoil(model, at.rank == 1)
    first = refused(model, optimizer)
    give(model, 1)
    return [*first, *refused(model, optimizer)]


def spoil(model: nn.Module, do: bool) -> None:
    gradient = model.get_parameter("table.weight").grad
    if do and gradient is not None:
        local_of(gradient)[0, 0] = float("nan")
