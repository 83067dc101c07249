"""Trained weights, loaded so that memory never holds more than the model in its own type.

Files are mapped: a weight of the type that is wanted takes memory once it is read, and a copy of
its own only once it is written. transformers casts a checkpoint of another type with the pages of
the file still resident: three times a bf16 model from fp32 files. So a checkpoint is loaded as it
lies on disk, cast part after part, and the pages of each are given back.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor

from cosmic.errors import UsageError
from cosmic.models.configs import from_pretrained, only_local

#: Names of floating types in the header of a safetensors file.
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_MAPS = Path("/proc/self/maps")
_LISTED = 3  # names in an error
_CHUNK_BYTES = 1 << 24


def load_weights(model: str, dtype: torch.dtype, *, local_files_only: bool = False) -> Any:
    """A causal language model with its trained weights.

    Args:
        model: hub id, known name or local folder.
        dtype: of the weights.
        local_files_only: from the hub's cache alone.

    Raises:
        UsageError: there is no such model, it cannot be had, or its files have other weights than
            the architecture.
    """
    built = map_weights(model, local_files_only=local_files_only)
    cast_in_place(built, dtype)
    return built


def map_weights(model: str, *, local_files_only: bool = False) -> Any:
    """The model with its weights as they lie on disk, hardly any of them in memory yet.

    Raises:
        UsageError: as `load_weights`.
    """
    try:
        built, info = from_pretrained(
            transformers.AutoModelForCausalLM,
            model,
            dtype=_stored_dtype(Path(model).expanduser()) or "auto",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **only_local(local_files_only),
        )
    except SafetensorError as error:
        raise UsageError(
            f"model folder {model}: a file of weights is cut off or damaged ({error}); get it anew"
        ) from error
    _check_complete(model, info)
    return built


def _stored_dtype(folder: Path) -> torch.dtype | None:
    """The type that most of a local checkpoint's numbers have, by the headers of its files."""
    numbers: Counter[torch.dtype] = Counter()
    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        for entry in _header(file).values():
            if entry.get("dtype") in _FLOATS:
                numbers[_FLOATS[entry["dtype"]]] += torch.Size(entry["shape"]).numel()
    return numbers.most_common(1)[0][0] if numbers else None


def _header(file: Path) -> dict[str, Any]:
    """Entries of a safetensors file: 8 bytes of length, little endian, then JSON."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= file.stat().st_size:
            raise UsageError(f"{file} is no safetensors file, or cut off: download it anew")
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
        except ValueError:
            raise UsageError(f"{file} is no safetensors file: download it anew") from None
    return header


def _check_complete(model: str, info: dict[str, Any]) -> None:
    """Refuse a checkpoint that is of another architecture."""
    shaped = [f"{name} has {tuple(found)}, expected {tuple(wanted)}"
              for name, found, wanted in sorted(info["mismatched_keys"])]  # fmt: skip
    for what, names in (
        ("has weights of other shapes", shaped),
        ("lacks weights that the architecture has", sorted(info["missing_keys"])),
        ("has weights that the architecture does not have", sorted(info["unexpected_keys"])),
    ):
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            raise UsageError(
                f"model {model}: its checkpoint {what}: {', '.join(names[:_LISTED])}{more}; its "
                "config.json belongs to other files, or they were saved without the head"
            )


def cast_in_place(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast floating parameters, 16 MB after the other. Pages of mapped files are given back as each
    part is done, so that memory holds little more than the model. Buffers keep their types.

    Args:
        model: fresh from its files: nothing may have been written to its weights.
        dtype: floating.
    """
    mapped = mapped_files()
    for param in model.parameters():
        if param.is_floating_point() and param.dtype != dtype:
            param.data = read_as(param.data, dtype, mapped)
    config = getattr(model, "config", None)
    if config is not None:
        config.dtype = dtype


def read_as(tensor: Tensor, dtype: torch.dtype, mapped: Sequence[tuple[int, int]]) -> Tensor:
    """A tensor's numbers in memory of their own, and its pages given back if it is mapped."""
    if not tensor.is_contiguous():
        return tensor.to(dtype, copy=True)
    out = torch.empty_like(tensor, dtype=dtype)
    numel = _CHUNK_BYTES // tensor.itemsize
    pieces = zip(*(torch.split(t.view(-1), numel) for t in (tensor, out)), strict=True)
    for source, target in pieces:
        target.copy_(source)
        drop_pages(source, mapped)
    return out


def mapped_files() -> list[tuple[int, int]]:
    """Addresses, first and behind the last, of private mappings of files that may be written; none
    where the system does not tell."""
    try:
        lines = _MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        words = line.split(maxsplit=5)
        if len(words) == 6 and words[1] == "rw-p" and words[5].startswith("/"):
            first, behind = (int(word, 16) for word in words[0].split("-"))
            found.append((first, behind))
    return found


def drop_pages(tensor: Tensor, mapped: Sequence[tuple[int, int]]) -> None:
    """Give back the pages that lie wholly in a contiguous tensor of a mapped file that nobody has
    written; the next access reads the file again. Of any other tensor nothing is touched."""
    first = tensor.data_ptr()
    behind = first + tensor.nbytes
    if os.name != "posix" or not any(a <= first and behind <= b for a, b in mapped):
        return
    page = mmap.PAGESIZE
    first, behind = -(-first // page) * page, behind // page * page
    if behind > first:
        advise = ctypes.CDLL(None).madvise
        advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        advise(first, behind - first, mmap.MADV_DONTNEED)  # advice: a refusal changes nothing


def give_back_freed() -> None:
    """Let the C library give freed memory back to the system, where it can be asked to: between
    tensors that stay, it would keep as much as a second model."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
