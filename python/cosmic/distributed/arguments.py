"""Checks of what a CompressionState is given."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import Tensor, nn

from ..errors import UsageError, check_count
from .wire import CODECS

__all__ = ["check_options", "named_of"]


def named_of(model: nn.Module | Iterable[tuple[str, nn.Parameter]]) -> dict[str, nn.Parameter]:
    """The parameters of a model, by name.

    Raises:
        TypeError: if it is neither a module nor pairs of name and parameter.
        ValueError: if two parameters have one name.
        UsageError: if there is no parameter, or one is not on the CPU.
    """
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    named: dict[str, nn.Parameter] = {}
    for pair in model.named_parameters() if isinstance(model, nn.Module) else _pairs(model):
        if not _is_named(pair):
            raise TypeError(
                f"model has an item of type {type(pair).__name__}; expected a module, or pairs of "
                "name and parameter as model.named_parameters() gives them"
            )
        name, param = pair
        if named.setdefault(name, param) is not param:
            raise ValueError(f"two parameters have the name {name!r}; it tells residuals apart")
        if param.device.type != "cpu":
            raise UsageError(f"parameter {name!r} is on {param.device}; expected the CPU")
    if not named:
        raise UsageError("the model has no parameters whose gradients could be compressed")
    return named


def _pairs(model: object) -> Iterable[tuple[str, nn.Parameter]]:
    if isinstance(model, Tensor) or not isinstance(model, Iterable):
        raise TypeError(
            f"model is a {type(model).__name__}; expected a module, or pairs of name and parameter"
        )
    return model


def _is_named(pair: object) -> bool:
    if not isinstance(pair, tuple) or len(pair) != 2:
        return False
    return isinstance(pair[0], str) and isinstance(pair[1], Tensor)


def check_options(
    codec: object,
    residual: object,
    residuals: Collection[object],
    decay: object,
    min_numel: object,
    seed: object,
) -> None:
    """See that options are of their types and in range.

    Raises:
        ValueError: if one is out of range.
        TypeError: if one is of the wrong type.
    """
    if codec not in CODECS:
        raise ValueError(f"codec is {codec!r}; expected one of {', '.join(CODECS)}")
    if residual not in tuple(residuals):
        raise ValueError(f"residual is {residual!r}; expected 'bf16', 'fp32' or None")
    if decay is not None and (not isinstance(decay, (int, float)) or isinstance(decay, bool)):
        raise TypeError(f"decay is {decay!r}; expected a number from 0 to 1, or None")
    if decay is not None and not 0 <= decay <= 1:
        raise ValueError(f"decay is {decay}; expected a number from 0 to 1, or None")
    check_count("min_numel", min_numel, 0)
    check_count("seed", seed, 0, below=2**64)
