"""``convert``: a model's modules exchanged for exact ones, in place."""

from __future__ import annotations

import warnings
from typing import TypeVar

from torch import nn

from .._core import UnsupportedTensorError
from . import functions
from .families import full_name, known_glue, of_transformers, plain, refusal, swaps
from .modules import Attention, Conv1D
from .products import check_accumulate
from .tensors import DTYPES

__all__ = ["convert"]

Model = TypeVar("Model", bound=nn.Module)


def convert(model: Model, accumulate: str = "fp64", strict: bool = True) -> Model:
    """Let a model compute exactly, forward and backward: the same bits on every supported CPU.

    Modules change their class and keep all else: parameters (shared ones stay shared), names,
    hooks, mode, dtype. Torch's ``Linear``, ``Embedding``, ``LayerNorm``, ``RMSNorm``, ``Dropout``,
    ``GELU``, ``SiLU``, ``Tanh``, ``Sigmoid``, ``Softmax`` and ``CrossEntropyLoss`` are exchanged
    wherever they are; of transformers all of GPT-2, Llama and BERT, attention and rotary embeddings
    included. Functions that a forward calls by name, such as ``F.cross_entropy``, are computed
    exactly while it runs. Converting again does nothing but set ``accumulate``.

    A class of your own that has modules in it is taken to put them together by what is exact, as
    ``x + f(x)`` is: ``exact.check`` says whether that is so.

    Args:
        model: float32 or float64, on the CPU.
        accumulate: of products, as in ``exact.linear``.
        strict: refuse a model with modules that are not known, and change nothing. False: leave
            them as they are and warn, naming them.

    Returns:
        The model itself.

    Raises:
        ValueError: for modules that are not known, naming each and its class, and another word.
        UnsupportedTensorError: for parameters of another dtype or device.
    """
    check_accumulate("convert", accumulate)
    if not isinstance(model, nn.Module):
        raise TypeError(f"exact.convert(): model is {type(model).__name__}; expected an nn.Module")
    if accumulate == "fp32" and any(p.dtype == DTYPES[1] for p in model.parameters()):
        raise ValueError("exact.convert(): accumulate='fp32' would round float64; expected 'fp64'")
    _check_parameters(model)
    known = swaps()
    exact = {*known.values(), Attention, Conv1D}
    unknown, exchanged, glue = [], [], []
    for name, module in model.named_modules():
        kind = type(module)
        if kind in exact or plain(module):
            exchanged.append((module, kind))
        elif kind in known:
            reason = refusal(module)
            if reason is None:
                exchanged.append((module, known[kind]))
            else:
                unknown.append(f"{_place(name)} ({full_name(module)}: {reason})")
        else:
            if not known_glue(module):
                unknown.append(f"{_place(name)} ({full_name(module)})")
            glue.append(module)
    _tell(unknown, strict)
    for module, kind in exchanged:
        module.__class__ = kind
        if hasattr(module, "accumulate"):
            module.accumulate = accumulate
    for module in glue:
        functions.watch(module, accumulate)
    _attend(model)
    return model


def _place(name: str) -> str:
    return name or "the model itself"


def _check_parameters(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dtype not in DTYPES or parameter.device.type != "cpu":
            raise UnsupportedTensorError(
                f"exact.convert(): parameter {name} is {parameter.dtype} on {parameter.device}; "
                "expected torch.float32 or torch.float64 on the CPU: call .float() and .cpu() first"
            )


def _tell(unknown: list[str], strict: bool) -> None:
    if not unknown:
        return
    listed = "; ".join(unknown)
    if strict:
        raise ValueError(
            f"exact.convert(): no exact counterpart is known of {listed}. Nothing was changed; "
            "exchange these modules, or leave them as they are with strict=False"
        )
    warnings.warn(
        f"exact.convert(): left as they were, with bits that depend on the machine: {listed}",
        stacklevel=3,
    )


def _attend(model: nn.Module) -> None:
    """Let transformers' models use the exact attention."""
    if not of_transformers():
        return
    from .of_transformers import NAME, pretrained_models

    for inner in pretrained_models(model):
        if known_glue(inner):
            inner.set_attn_implementation(NAME)
