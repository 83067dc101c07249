"""Where a model comes from, told from its name alone.

Without a Hugging Face library: those read at import whether there is a hub (`hub.py`).
"""

from enum import Enum
from pathlib import Path

from cosmic.models.shapes import WITHOUT_WEIGHTS, known_shape


class Source(Enum):
    """Where something is to be had."""

    BUILT_IN = "built in"
    LOCAL = "local"
    HUB = "hub"


def is_from_scratch(model: str, from_scratch: bool) -> bool:
    """Whether the model starts from random weights, asked for or not."""
    return from_scratch or model in WITHOUT_WEIGHTS


def model_source(model: str, from_scratch: bool) -> Source:
    """Where the model's configuration comes from, and its weights if not from scratch."""
    if Path(model).expanduser().is_dir() or is_path(model):
        return Source.LOCAL
    if is_from_scratch(model, from_scratch) and known_shape(model) is not None:
        return Source.BUILT_IN
    return Source.HUB


def is_path(text: str) -> bool:
    """Whether a name is written as a path, so that it is one even if nothing is there."""
    return text.startswith((".", "/", "~"))
