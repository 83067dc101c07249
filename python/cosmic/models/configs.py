"""A model's configuration and tokenizer, from the hub, a local folder or a known shape."""

import logging
from pathlib import Path
from typing import Any

import transformers

from cosmic.errors import UsageError, first_line
from cosmic.models.shapes import HUB_IDS, SHAPES, WITHOUT_WEIGHTS, known_shape
from cosmic.models.sources import Source, model_source


def silence_transformers() -> None:
    """No progress bars and no advice from the library: they would tear our own bar."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    quiet_torchao()


def quiet_torchao() -> None:
    """No words on GPU kernels from torchao, which transformers imports where it is installed."""
    for name in ("torchao", "torch.utils._pytree"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.ERROR)


def load_config(model: str, from_scratch: bool, *, local_files_only: bool = False) -> Any:
    """The model's configuration.

    Args:
        model: hub id, known name or local folder.
        from_scratch: no trained weights are wanted, so that a known shape needs no hub.
        local_files_only: from the hub's cache alone.

    Raises:
        UsageError: there is no such model, or it cannot be had.
    """
    shape = known_shape(model)
    if shape is not None and model_source(model, from_scratch) is Source.BUILT_IN:
        kind, arguments = shape
        return getattr(transformers, kind)(**arguments)
    options = only_local(local_files_only)
    return from_pretrained(transformers.AutoConfig, model, from_scratch=from_scratch, **options)


def load_tokenizer(model: str) -> Any:
    """The tokenizer that belongs to the model's weights.

    Raises:
        UsageError: it cannot be had.
    """
    return from_pretrained(transformers.AutoTokenizer, model)


def only_local(wanted: bool) -> dict[str, bool]:
    """The loaders' option that keeps them to the hub's cache, if that is wanted."""
    return {"local_files_only": True} if wanted else {}


def from_pretrained(loader: Any, model: str, *, from_scratch: bool = False, **options: Any) -> Any:
    """What a class of transformers loads by a model's name or folder.

    Args:
        loader: class of transformers.
        model: hub id, known name or local folder.
        from_scratch: no trained weights are wanted, which an error then does not speak of.
        options: of the class's `from_pretrained`.

    Raises:
        UsageError: there is no such model, or it cannot be had.
    """
    local = model_source(model, from_scratch=False) is Source.LOCAL
    path = Path(model).expanduser()
    if local and not (path / "config.json").is_file():
        raise UsageError(f"model folder {model} does not exist or has no config.json")
    try:
        return loader.from_pretrained(str(path) if local else HUB_IDS.get(model, model), **options)
    except (OSError, ValueError) as error:
        if local:
            raise UsageError(f"model folder {model}: {first_line(error)}") from error
        advice = hub_advice(model, error, from_scratch=from_scratch, **options)
        raise UsageError(advice) from error


def hub_advice(
    model: str,
    error: Exception,
    *,
    from_scratch: bool = False,
    local_files_only: bool = False,
    **_: Any,
) -> str:
    """One sentence: why there is no such model, and what to do instead."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or local_files_only:
        why = f"model {model!r} is not in the local cache and the Hugging Face Hub does not answer"
    else:
        why = f"model {model!r} cannot be had from the Hugging Face Hub ({first_line(error)})"
    if known_shape(model) is not None:
        return (
            f"{why}; start the same architecture from random weights with --from-scratch "
            "(in Python from_scratch=True)"
        )
    if from_scratch:
        return f"{why}; give a local folder with config.json, or {', '.join(SHAPES)}"
    known = ", ".join(name for name in SHAPES if name not in WITHOUT_WEIGHTS)
    return (
        f"{why}; try --from-scratch (from_scratch=True) with a local folder or {known}, or --model "
        "tiny-gpt2"
    )
