"""Tokenized data on disk: blocks of token ids that every training process reads."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CACHE_FORMAT = 1  # to be raised when the meaning of the files changes

Blocks = NDArray[np.int32]  # (blocks, tokens a block)


@dataclass(frozen=True)
class TokenFolder:
    """Tokenized data on disk, and how much of it there is."""

    folder: Path
    train_documents: int
    train_tokens: int
    validation_documents: int
    validation_tokens: int
    vocabulary: int

    def train(self) -> Blocks:
        """Training blocks, mapped into memory."""
        return _load(self.folder / "train.npy")

    def validation(self) -> Blocks:
        """Held-out blocks, mapped into memory."""
        return _load(self.folder / "validation.npy")

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "folder"}


def _load(path: Path) -> Blocks:
    blocks: Blocks = np.load(path, mmap_mode="r")
    return blocks


def cache_folder(root: Path, *identity: object) -> Path:
    """A folder under `root` that belongs to this data alone."""
    text = json.dumps([CACHE_FORMAT, *identity], sort_keys=True, default=str)
    return root / hashlib.sha256(text.encode()).hexdigest()[:16]


def open_tokens(folder: Path) -> TokenFolder | None:
    """What `write_tokens` left in `folder`, or None."""
    try:
        content = json.loads((folder / "tokens.json").read_text())
        return TokenFolder(folder=folder, **content)
    except (OSError, TypeError, ValueError):
        return None
