"""What training a model will take, before it is trained or even made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .capital.budget import ADAMW_BYTES, resolve_budget
from .capital.ladder import OFF
from .capital.named import policy_named
from .capital.policies import Policy
from .grouping.groups import param_groups
from .optimizer import Cosmic
from .planning.activations import BatchBytes, Way, batch_bytes, check_batch, check_way
from .planning.gradients import gradient_sizes
from .planning.machine import usable_bytes
from .planning.recommendation import recommend
from .planning.settings import Settings
from .planning.vacant import held_bytes, stand_in, vacant, vacant_copy
from .state.master import has_master
from .step.choices import Choice, choose, scratch_bytes
from .threads import thread_count
from .vocabulary.blocks import DEFAULT_ROWS

__all__ = ["MemoryEstimate", "TensorEstimate", "estimate_memory"]

#: Parameter groups of a model, or what makes them of it, such as `cosmic.param_groups`.
Groups: TypeAlias = Sequence[dict[str, Any]] | Callable[[nn.Module], Sequence[dict[str, Any]]]

_LEAST_RAM = 2**20  # less is a number of other units
_COUNTER_BYTES = 4  # AdamW's step, a float32 a tensor


class TensorEstimate(NamedTuple):
    """What one trainable tensor takes, a parameter or a part of one.

    Attributes:
        name: of the parameter; of a part with its name in brackets.
        shape: of the tensor; of a DTensor of the shard that is here.
        role: ``"table"``, ``"matrix"`` or ``"vector"``, by its group's ``role``, or by its
            name and the shapes of all parameters.
        rung: what the budget gives it.
        weight_bytes: of the tensor, and of its gradient.
        state_bytes: of its state.
        adamw_bytes: of its state in torch's AdamW with fp32 moments, whose count of steps is told
            with a parameter's first part.
    """

    name: str
    shape: tuple[int, ...]
    role: str
    rung: str
    weight_bytes: int
    state_bytes: int
    adamw_bytes: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training takes.

    Attributes:
        weight_bytes: of all parameters and buffers, frozen ones too; tied weights count once.
        gradient_bytes: of the trainable parameters' gradients: all of them, or the largest one
            where each is released as soon as it has been used.
        state_bytes: of the optimizer's state, to the byte.
        adamw_bytes: of the state of torch's AdamW with fp32 moments.
        scratch_bytes: what a step takes besides where ``matrix_rule`` steps matrices as a whole:
            for those that are stepped side by side, or the one that takes most; given back at the
            end of the step.
        tensors: one entry a trainable tensor.
        largest_gradient_bytes: of the gradients, the largest one: the least that training in full
            holds at once.
        activation_bytes: what autograd saves of a batch for backward, each piece of memory once;
            packed where a codec is given; 0 without a batch.
        loss_bytes: what logits and their gradients take besides while backward begins; 0 without a
            batch.
        master_bytes: of the weights' lower bits where ``master_bits`` asks for them.
        parameters: elements of all parameters, frozen ones too.
        batch: sequences and tokens of each; None: activations are not counted.
    """

    weight_bytes: int
    gradient_bytes: int
    state_bytes: int
    adamw_bytes: int
    scratch_bytes: int
    tensors: list[TensorEstimate]
    largest_gradient_bytes: int = 0
    activation_bytes: int = 0
    loss_bytes: int = 0
    master_bytes: int = 0
    parameters: int = 0
    batch: tuple[int, int] | None = None
    _advise: Callable[[], str] = field(default=str, repr=False, compare=False)

    @property
    def total_bytes(self) -> int:
        """Weights, gradients, state, scratch, activations and loss."""
        step = self.gradient_bytes + self.state_bytes + self.scratch_bytes
        weights = self.weight_bytes + self.master_bytes
        return weights + step + self.activation_bytes + self.loss_bytes

    @property
    def fp16_gb(self) -> float:
        """10^9 bytes of all parameters in 16 bits."""
        return 2 * self.parameters / 1e9

    @property
    def int8_gb(self) -> float:
        """10^9 bytes of all parameters in 8 bits, without scales."""
        return self.parameters / 1e9

    @property
    def recommendation(self) -> str:
        """The first settings that fit the machine, with their bytes and the calls that ask for
        them; or how much is missing. Tried in this order: AdamW in fp32, ``Cosmic`` in fp32, in
        bf16, with gradients released, with a budget of 1 %, with the vocabulary in blocks, with
        activations in 8 bits, recomputed, and an adapter beside an int8 base.
        """
        return self._advise()


def estimate_memory(
    model: Any,
    budget: int | str | None = None,
    *,
    dtype: torch.dtype | None = None,
    release_gradients: bool = False,
    groups: Groups | None = None,
    batch: tuple[int, int] | None = None,
    activations: str | None = None,
    chunk_vocabulary: bool | int = False,
    ram: int | str | None = None,
    **options: Any,
) -> MemoryEstimate:
    """Bytes that training ``model`` with ``Cosmic`` takes; nothing is allocated for it.

    State is exact for the first steps of fresh weights: those that had been trained before are
    stepped by elements under a budget, and later gradients may show that a tensor is masked, and
    the budget is spent anew. It is never exceeded. Of parameters that are DTensors all bytes are
    those of this process's shards. Activations are counted in a forward pass on
    torch's meta device, by the rules of ``compress_activations``.

    Args:
        model: an ``nn.Module`` on any device, the meta device too; a configuration of
            ``transformers`` that ``AutoModelForCausalLM`` knows; or a name as of ``load_model``, of
            which only the configuration is read.
        budget: as of ``Cosmic``.
        dtype: of the weights, where they are to be cast; None: as they are.
        release_gradients: as with ``Cosmic.step_in_backward``.
        groups: the model's parameter groups with their options, ``role`` among them, or a function
            that makes them of the model, such as ``cosmic.param_groups``; None: all parameters in
            one, or with option ``matrix_rule`` those of ``cosmic.param_groups``.
        batch: sequences of a step and tokens of each, of a model that is called as
            ``model(input_ids=..., labels=...)``; None: activations are not counted.
        activations: a codec of ``compress_activations``; ``"checkpointing"``: layers are run again
            in backward; None: as autograd saves them.
        chunk_vocabulary: rows of a block of ``cosmic.chunk_vocabulary``; True: 8,192.
        ram: bytes that the recommendation may use, such as ``"16GB"``; None: the machine's, or the
            limit of a control group.
        options: any other option of ``Cosmic``.

    Raises:
        TypeError: for any other kind of model, a dtype that is not a floating one, or a batch that
            is no pair of ints.
        ValueError: for an option out of range, a budget that is too small, a lazy module's
            parameters that have no shape yet, ``groups`` of other parameters than the model's, or a
            batch that the model cannot take.
        cosmic.errors.UsageError: there is no model of that name, or the hub does not answer.
    """
    if dtype is not None and (not isinstance(dtype, torch.dtype) or not dtype.is_floating_point):
        raise TypeError(f"dtype is {dtype!r}; expected a floating torch.dtype or None")
    way = Way(activations, _rows(chunk_vocabulary))
    check_way(way)
    if batch is not None:
        batch = check_batch(batch)
    usable = None if ram is None else _ram(ram)
    module = vacant(model)
    everyone = list(module.named_parameters())
    if groups is None and not any(param.requires_grad for _, param in everyone):
        raise ValueError("the model has no parameter that requires grad: nothing to train")
    named = [(n, stand_in(p, dtype)) for n, p in everyone]
    stand_ins = {id(p): one for (_, p), one in zip(everyone, named, strict=True)}
    if groups is None and options.get("matrix_rule") not in (None, OFF):
        groups = param_groups
    placed, policy = _with_options(_placed(module, groups, stand_ins), budget, options)
    choices = choose(placed, {}, budget=budget, policy=policy, expecting=True)
    tensors = [_tensor(choice) for choice in choices]
    buffers = sum(stand_in(b, dtype).nbytes for b in module.buffers() if not is_lazy(b))
    taken = gradient_sizes(
        module, {c.param: held_bytes(c.param) for c in choices}, stand_ins, way.rows
    )
    largest = max(taken, default=0)
    needed = _batch(module, batch, way, dtype)

    def advise() -> str:
        name = model if isinstance(model, str) else None
        asked = {"budget": budget, "groups": groups, **options}
        memory = usable_bytes() if usable is None else usable
        settings = Settings(name, module, batch, asked, estimate_memory)
        return recommend(settings, memory, counts_batch=batch is not None)

    return MemoryEstimate(
        weight_bytes=sum(_weight_bytes(p, dtype) for _, p in everyone) + buffers,
        gradient_bytes=largest if release_gradients else sum(taken),
        state_bytes=sum(t.state_bytes for t in tensors),
        adamw_bytes=sum(t.adamw_bytes for t in tensors),
        scratch_bytes=scratch_bytes(choices, placed, thread_count()),
        tensors=tensors,
        largest_gradient_bytes=largest,
        activation_bytes=needed.saved,
        loss_bytes=needed.loss,
        master_bytes=sum(_master_bytes(choice, placed) for choice in choices),
        parameters=sum(p.numel() for _, p in everyone),
        batch=batch,
        _advise=advise,
    )


def _rows(chunk_vocabulary: object) -> int:
    if chunk_vocabulary is True:
        return DEFAULT_ROWS
    if not isinstance(chunk_vocabulary, int):
        raise TypeError(f"chunk_vocabulary is {chunk_vocabulary!r}; expected a bool or rows as int")
    if chunk_vocabulary < 0:
        raise ValueError(f"chunk_vocabulary is {chunk_vocabulary}; expected 1 row or more")
    return int(chunk_vocabulary)


def _ram(ram: int | str) -> int:
    try:
        found = resolve_budget(ram, 0)
    except (TypeError, ValueError):
        found = None
    if not found or found < _LEAST_RAM:
        raise ValueError(f"ram is {ram!r}; expected bytes as an int or a size such as '16GB'")
    return found


def _weight_bytes(param: Tensor, dtype: torch.dtype | None) -> int:
    return held_bytes(param if dtype is None else stand_in(param, dtype))


def _batch(
    module: nn.Module, batch: tuple[int, int] | None, way: Way, dtype: torch.dtype | None
) -> BatchBytes:
    if batch is None:
        return BatchBytes(0, 0)
    return batch_bytes(vacant_copy(module, dtype), batch, way)


def _placed(
    module: nn.Module, groups: Groups | None, stand_ins: dict[int, tuple[str, Tensor]]
) -> list[dict[str, Any]]:
    """The groups, with names and stand-ins for their parameters. Frozen ones are given no state but
    count for what the others' roles are."""
    if groups is None:
        groups = [{"params": list(module.parameters())}]
    out = []
    for g, group in enumerate(groups(module) if callable(groups) else groups):
        params = [group["params"]] if isinstance(group["params"], Tensor) else group["params"]
        tensors = [entry[1] if isinstance(entry, tuple) else entry for entry in params]
        if not all(id(tensor) in stand_ins for tensor in tensors):
            raise ValueError(f"groups[{g}] has parameters that are not the model's")
        found = [stand_ins[id(tensor)] for tensor in tensors]
        names = {"param_names": [name for name, _ in found]}
        out.append({**group, "params": [param for _, param in found], **names})
    return out


def _unmade(param: Tensor) -> Tensor:
    """The parameter without its memory; of all dtypes, options ask for bfloat16 alone."""
    dtype = torch.bfloat16 if param.dtype == torch.bfloat16 else torch.float32
    return torch.zeros((), dtype=dtype, device="cpu").expand(param.shape)


def _with_options(
    groups: Sequence[dict[str, Any]], budget: int | str | None, options: dict[str, Any]
) -> tuple[list[dict[str, Any]], Policy]:
    """The groups with all options and the policy, by the optimizer's own checks and defaults."""
    optimizer = Cosmic(
        [{**group, "params": [_unmade(param) for param in group["params"]]} for group in groups],
        budget=budget,
        **options,
    )
    full = [
        {**checked, "params": group["params"]}
        for checked, group in zip(optimizer.param_groups, groups, strict=True)
    ]
    return full, policy_named(optimizer.policy)


def _master_bytes(choice: Choice, groups: Sequence[dict[str, Any]]) -> int:
    member = choice.live.member
    return member.tensor.numel() if has_master(member.param, groups[member.group]) else 0


def _tensor(choice: Choice) -> TensorEstimate:
    member = choice.live.member
    return TensorEstimate(
        name=member.name,
        shape=tuple(member.tensor.shape),
        role=choice.live.role,
        rung=choice.rung.name,
        weight_bytes=member.tensor.nbytes,
        state_bytes=choice.nbytes,
        adamw_bytes=choice.live.here.numel * ADAMW_BYTES + _COUNTER_BYTES * member.is_first,
    )
