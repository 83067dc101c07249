"""Which of a model's parameters train: all, some by name, or a low-rank adapter beside them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

LORA_RANK = 8


def set_trainable(model: Any, trainable: Any) -> Any:
    """Freeze what is not to train.

    Args:
        model: of transformers.
        trainable: "all", "lora", patterns of parameters' names, or a configuration of PEFT.

    Returns:
        The model, wrapped by PEFT for an adapter.

    Raises:
        TypeError: `trainable` is none of these.
        ValueError: a word that is unknown, a pattern that matches nothing, or parameters that are
            quantized and so cannot train.
    """
    if trainable == "all":
        _refuse_quantized(dict(model.named_parameters()), "trainable='all'")
        return model.requires_grad_(True)
    if trainable == "lora":
        return _with_adapter(model, _lora())
    if _is_peft_config(trainable):
        return _with_adapter(model, trainable)
    if isinstance(trainable, str):
        raise ValueError(
            f"trainable is {trainable!r}; expected 'all', 'lora', a list of patterns of "
            "parameters' names or a configuration of PEFT"
        )
    if not isinstance(trainable, Sequence) or not all(isinstance(one, str) for one in trainable):
        raise TypeError(
            f"trainable is {type(trainable).__name__}; expected 'all', 'lora', a list of patterns "
            "of parameters' names or a configuration of PEFT"
        )
    return _by_name(model, trainable)


def is_quantized(param: nn.Parameter) -> bool:
    """Whether a parameter is held in another form than its numbers, so that it cannot train."""
    return is_traceable_wrapper_subclass(param)


def _by_name(model: Any, patterns: Sequence[str]) -> Any:
    named = dict(model.named_parameters())
    chosen = {}
    for pattern in patterns:
        found = {name: p for name, p in named.items() if fnmatchcase(name, pattern)}
        if not found:
            example = next(iter(named), "")
            raise ValueError(
                f"trainable: no parameter is named {pattern!r}; names are such as {example!r}"
            )
        _refuse_quantized(found, f"trainable: {pattern!r}")
        chosen.update(found)
    if not chosen:
        raise ValueError("trainable has no patterns; nothing would train")
    for name, param in named.items():
        param.requires_grad_(name in chosen)
    return model


def _refuse_quantized(named: dict[str, nn.Parameter], what: str) -> None:
    for name, param in named.items():
        if is_quantized(param):
            raise ValueError(
                f"{what}: {name} is in int8 and cannot train; load with dtype='bf16', or train an "
                "adapter by trainable='lora'"
            )


def _is_peft_config(value: object) -> bool:
    return hasattr(value, "peft_type") and hasattr(value, "to_dict")


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=LORA_RANK, target_modules="all-linear", task_type="CAUSAL_LM")


def _with_adapter(model: Any, config: Any) -> Any:
    from peft import get_peft_model

    with warnings.catch_warnings():
        # on GPT-2's transposed layers, which PEFT then treats rightly; on merging into int8; on a
        # name of transformers
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)
        warnings.filterwarnings("ignore", "TorchaoLoraLinear was instantiated", UserWarning)
        return get_peft_model(model, config)
