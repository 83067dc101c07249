"""What training a model will take, before it is trained or even made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .capital.budget import ADAMW_BYTES
from .capital.ladder import OFF
from .capital.named import policy_named
from .capital.policies import Policy
from .grouping.groups import param_groups
from .optimizer import Cosmic
from .state.members import listed
from .step.choices import Choice, choose, scratch_bytes
from .threads import thread_count

__all__ = ["MemoryEstimate", "TensorEstimate", "estimate_memory"]

#: Parameter groups of a model, or what makes them of it, such as `cosmic.param_groups`.
Groups: TypeAlias = Sequence[dict[str, Any]] | Callable[[nn.Module], Sequence[dict[str, Any]]]

_COUNTER_BYTES = 4  # AdamW's step, a float32 a tensor


class TensorEstimate(NamedTuple):
    """What one trainable tensor takes, a parameter or a part of one.

    Attributes:
        name: of the parameter; of a part with its name in brackets.
        shape: of the tensor.
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
    """Bytes that training takes beside activations.

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
    """

    weight_bytes: int
    gradient_bytes: int
    state_bytes: int
    adamw_bytes: int
    scratch_bytes: int
    tensors: list[TensorEstimate]

    @property
    def total_bytes(self) -> int:
        """Weights, gradients, state and scratch."""
        return self.weight_bytes + self.gradient_bytes + self.state_bytes + self.scratch_bytes


def estimate_memory(
    model: Any,
    budget: int | str | None = None,
    *,
    dtype: torch.dtype | None = None,
    release_gradients: bool = False,
    groups: Groups | None = None,
    **options: Any,
) -> MemoryEstimate:
    """Bytes that training ``model`` with ``Cosmic`` takes; nothing is allocated for it.

    State is exact for the first steps of fresh weights: those that had been trained before are
    stepped by elements under a budget, and later gradients may show that a tensor is masked, and
    the budget is spent anew. It is never exceeded.

    Args:
        model: an ``nn.Module`` on any device, the meta device too; or a configuration of
            ``transformers`` that ``AutoModelForCausalLM`` knows.
        budget: as of ``Cosmic``.
        dtype: of the weights, where they are to be cast; None: as they are.
        release_gradients: as with ``Cosmic.step_in_backward``.
        groups: the model's parameter groups with their options, ``role`` among them, or a function
            that makes them of the model, such as ``cosmic.param_groups``; None: all parameters in
            one, or with option ``matrix_rule`` those of ``cosmic.param_groups``.
        options: any other option of ``Cosmic``.

    Raises:
        TypeError: for any other kind of model, or a dtype that is not a floating one.
        ValueError: for an option out of range, a budget that is too small, a lazy module's
            parameters that have no shape yet, or ``groups`` of other parameters than the model's.
    """
    if dtype is not None and (not isinstance(dtype, torch.dtype) or not dtype.is_floating_point):
        raise TypeError(f"dtype is {dtype!r}; expected a floating torch.dtype or None")
    module = _on_meta(model)
    _refuse_lazy(module)
    everyone = list(module.named_parameters())
    named = [(n, _cast(p, dtype)) for n, p in everyone]
    stand_ins = {id(p): one for (_, p), one in zip(everyone, named, strict=True)}
    if groups is None and options.get("matrix_rule") not in (None, OFF):
        groups = param_groups
    placed, policy = _with_options(_placed(module, groups, stand_ins), budget, options)
    choices = choose(placed, {}, budget=budget, policy=policy, expecting=True)
    tensors = [_tensor(choice) for choice in choices]
    buffers = sum(_cast(b, dtype).nbytes for b in module.buffers() if not is_lazy(b))
    gradients = {choice.param: choice.param.nbytes for choice in choices}.values()
    return MemoryEstimate(
        weight_bytes=sum(p.nbytes for _, p in named) + buffers,
        gradient_bytes=max(gradients, default=0) if release_gradients else sum(gradients),
        state_bytes=sum(t.state_bytes for t in tensors),
        adamw_bytes=sum(t.adamw_bytes for t in tensors),
        scratch_bytes=scratch_bytes(choices, placed, thread_count()),
        tensors=tensors,
    )


def _on_meta(model: Any) -> nn.Module:
    if isinstance(model, nn.Module):
        return model
    if not hasattr(model, "to_dict") or not hasattr(model, "model_type"):
        raise TypeError(
            f"model is {type(model).__name__}; expected an nn.Module or a configuration of "
            "transformers"
        )
    import transformers

    try:
        with torch.device("meta"):
            module: nn.Module = transformers.AutoModelForCausalLM.from_config(model)
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        raise TypeError(
            f"a {type(model).__name__} is of no causal language model; give the model itself, made "
            "under torch.device('meta') if it is large"
        ) from None
    return module


def _refuse_lazy(module: nn.Module) -> None:
    lazy = [name for name, param in module.named_parameters() if is_lazy(param)]
    if lazy:
        raise ValueError(
            f"the model has parameters of lazy modules that have no shape yet: {listed(lazy)}; run "
            "a batch through it first"
        )


def _cast(param: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A stand-in without memory, wherever the parameter is."""
    wanted = dtype if dtype is not None and param.is_floating_point() else param.dtype
    return torch.empty_like(param, dtype=wanted, device="meta", requires_grad=param.requires_grad)


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


def _with_options(
    groups: Sequence[dict[str, Any]], budget: int | str | None, options: dict[str, Any]
) -> tuple[list[dict[str, Any]], Policy]:
    """The groups with all options and the policy, by the optimizer's own checks and defaults."""
    zero = torch.zeros((), device="cpu")
    optimizer = Cosmic(
        [
            {**group, "params": [zero.expand(param.shape) for param in group["params"]]}
            for group in groups
        ],
        budget=budget,
        **options,
    )
    full = [
        {**checked, "params": group["params"]}
        for checked, group in zip(optimizer.param_groups, groups, strict=True)
    ]
    return full, policy_named(optimizer.policy)


def _tensor(choice: Choice) -> TensorEstimate:
    member = choice.live.member
    return TensorEstimate(
        name=member.name,
        shape=tuple(member.tensor.shape),
        role=choice.live.role,
        rung=choice.rung.name,
        weight_bytes=member.tensor.nbytes,
        state_bytes=choice.nbytes,
        adamw_bytes=choice.live.geometry.numel * ADAMW_BYTES + _COUNTER_BYTES * member.is_first,
    )
