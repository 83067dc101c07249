"""``load_model``: a language model by name, in the type that it is to train in."""

from __future__ import annotations

import os
from typing import Any

from ..errors import require_packages
from .hub import hub_answers
from .sources import Source, is_from_scratch, model_source

__all__ = ["load_model"]

_DTYPES = ("bf16", "fp32", "int8")


def load_model(
    name: str,
    dtype: str = "bf16",
    *,
    trainable: Any = None,
    from_scratch: bool = False,
    seed: int = 0,
) -> Any:
    """A causal language model of ``transformers`` on the CPU, ready to train.

    Weights are mapped from their files: while loading, memory holds the weights in ``dtype`` and
    little more, from 125 MB on 1.1 times their bytes at most, whatever type they have on disk.
    Where that type is ``dtype``, a weight takes memory only once it is read or written, so the
    files must stay as they are; do not save into the folder that a model was loaded from while it
    is in use.

    With ``dtype="int8"`` the weights of the hidden linear layers are frozen, in int8 with a scale
    for each row (``torchao``; about half of bf16's bytes), and a LoRA adapter (``peft``, arXiv
    2106.09685) trains: ``y = W x + (alpha / r) B A x``. It cannot be merged into such weights.

    Args:
        name: hub id, local folder with ``config.json`` and weights, or a known shape, such as
            ``"pythia-2.8b"``, ``"llama-7b"`` or ``"tiny-gpt2"``.
        dtype: of the weights: ``"bf16"``, which ``Cosmic`` steps with stochastic rounding,
            ``"fp32"``, or ``"int8"``.
        trainable: which parameters take gradients. ``"all"``; ``"lora"``: an adapter of rank 8 on
            all linear layers but the head; a list of patterns of parameters' names, as of
            ``fnmatch``; or a configuration of PEFT. None: all, with ``"int8"`` the adapter.
        from_scratch: random weights. Of a known shape they need no hub.
        seed: of random weights and of the adapter's.

    Returns:
        The model in training mode; with an adapter it is a ``peft.PeftModel``.

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an unknown ``dtype``; ``trainable`` that names nothing or what is in int8.
        cosmic.errors.UsageError: there is no such model, the hub does not answer, or the files have
            other weights than the architecture.
        cosmic.errors.MissingPackagesError: transformers, torchao or PEFT is not installed; an
            ``ImportError``, too.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"name is {type(name).__name__}; expected a hub id, a folder or a known shape as str"
        )
    if dtype not in _DTYPES:
        raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(map(repr, _DTYPES))}")
    wanted = ("lora" if dtype == "int8" else "all") if trainable is None else trainable
    if dtype == "int8" and wanted == "all":
        raise ValueError(
            "trainable is 'all', but weights in int8 are frozen; load with dtype='bf16' to train "
            "all of them, or use trainable='lora'"
        )
    _require(dtype, wanted)
    return _loaded(name, dtype, wanted, from_scratch, seed)


def _require(dtype: str, trainable: Any) -> None:
    require_packages("cosmic.load_model", ["transformers"], "demo")
    if dtype == "int8":
        require_packages("cosmic.load_model(dtype='int8')", ["torchao", "peft"], "int8")
    elif trainable == "lora":
        require_packages("cosmic.load_model(trainable='lora')", ["peft"], "int8")


def _loaded(name: str, dtype: str, trainable: Any, from_scratch: bool, seed: int) -> Any:
    import torch

    from .building import build_model
    from .configs import quiet_torchao
    from .trainable import set_trainable
    from .weights import map_weights

    quiet_torchao()
    local = hub_is_out_of_reach(name, from_scratch)
    if dtype == "int8":
        from .int8 import quantize_base

        if is_from_scratch(name, from_scratch):
            model = build_model(name, from_scratch, seed, "bf16", local_files_only=local)
        else:
            model = map_weights(name, local_files_only=local)
        model = quantize_base(model).train()
    else:
        model = build_model(name, from_scratch, seed, dtype, local_files_only=local)
    torch.manual_seed(seed)
    return set_trainable(model, trainable).train()


def hub_is_out_of_reach(name: str, from_scratch: bool) -> bool:
    """Whether the hub is needed and does not answer; its client takes half a minute to say so."""
    if model_source(name, from_scratch) is not Source.HUB or "HF_HUB_OFFLINE" in os.environ:
        return False
    return not hub_answers()
