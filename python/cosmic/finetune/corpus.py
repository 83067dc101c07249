"""The documents to train on, and those held out, from wherever `--dataset` points."""

import json
import re
import sysconfig
import tokenize
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from cosmic.finetune.errors import UsageError, first_line
from cosmic.finetune.sources import STDLIB, dataset_source
from cosmic.models.sources import Source

HELD_OUT = 10  # one document in so many is for validation
# Tests, vendored packages, and generated tables rather than programs.
STDLIB_SKIPPED = {
    *("__pycache__", "test", "tests", "idle_test", "site-packages", "dist-packages", "idlelib"),
    *("lib2to3", "turtledemo", "ensurepip", "encodings", "pydoc_data", "lib-dynload"),
}


@dataclass(frozen=True)
class Corpus:
    """Training and validation documents: datasets with the column `text`."""

    train: datasets.Dataset
    validation: datasets.Dataset
    separate: bool = True  # False: the rows are lines of one running text


def load_corpus(dataset: str) -> Corpus:
    """Load the documents of a dataset, split the same way each time.

    Args:
        dataset: "python-stdlib", a local file (`.jsonl`: one object with "text" a line; any
            other: one document), or a hub id with `:config` and `:split`.

    Raises:
        UsageError: no such dataset, or not of the form above.
    """
    source = dataset_source(dataset)
    if source is Source.BUILT_IN:
        return _stdlib_corpus()
    if source is Source.LOCAL:
        return _file_corpus(Path(dataset).expanduser())
    return _hub_corpus(dataset)


def fingerprint(dataset: str) -> str:
    """Text that changes when the dataset does, as far as this is cheap to know."""
    path = Path(dataset).expanduser()
    if dataset == STDLIB:
        return sysconfig.get_python_version() + sysconfig.get_path("stdlib")
    if path.is_file():
        status = path.stat()
        return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    return dataset


def stdlib_files() -> list[str]:
    """Sources of the running Python's standard library: sorted paths relative to it."""
    root = Path(sysconfig.get_path("stdlib"))
    found = (path.relative_to(root) for path in root.rglob("*.py"))
    return sorted(path.as_posix() for path in found if STDLIB_SKIPPED.isdisjoint(path.parts))


def is_held_out(name: str) -> bool:
    """Whether a document is for validation; depends on its name alone."""
    return zlib.crc32(name.encode()) % HELD_OUT == 0


def _stdlib_corpus() -> Corpus:
    train: list[str] = []
    validation: list[str] = []
    for name, text in _read_stdlib():
        (validation if is_held_out(name) else train).append(text)
    if not train or not validation:
        raise UsageError(
            f"this Python has no sources of its standard library in "
            f"{sysconfig.get_path('stdlib')}; give a local text file with --dataset"
        )
    return Corpus(_to_dataset(train), _to_dataset(validation))


def _read_stdlib() -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    for name in stdlib_files():
        try:
            with tokenize.open(root / name) as source:
                text = source.read()
        except (OSError, SyntaxError, UnicodeDecodeError):
            continue  # not readable as source: no loss among hundreds of files
        if text.strip():
            yield name, text


def _to_dataset(texts: Sequence[str]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": list(texts)})


def _file_corpus(path: Path) -> Corpus:
    if not path.exists():
        raise UsageError(f"dataset file {path} does not exist")
    if path.is_dir():
        raise UsageError(f"dataset {path} is a folder; give a text or .jsonl file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"dataset file {path} cannot be read as UTF-8 text: {error}") from error
    if not text.strip():
        raise UsageError(f"dataset file {path} is empty")
    documents = _jsonl_texts(path, text) if path.suffix.lower() == ".jsonl" else [text]
    train, validation = split_tail(documents)
    return Corpus(_to_dataset(train), _to_dataset(validation))


def _jsonl_texts(path: Path, content: str) -> list[str]:
    texts = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UsageError(
                f'{path}:{number}: expected one JSON object a line with a string "text", '
                f"found {line.strip()[:60]!r}"
            )
        texts.append(row["text"])
    return texts


def split_tail(documents: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hold out the last tenth: of the documents, or of the lines where documents are few."""
    if len(documents) >= HELD_OUT:
        cut = len(documents) - len(documents) // HELD_OUT
        return list(documents[:cut]), list(documents[cut:])
    lines = "\n".join(documents).splitlines(keepends=True)
    if len(lines) < HELD_OUT:  # a text of a few endless lines: cut between words
        lines = re.findall(r"\S+\s*", "".join(lines))
    cut = len(lines) - max(1, len(lines) // HELD_OUT)
    return ["".join(lines[:cut])], ["".join(lines[cut:])]


@dataclass(frozen=True)
class HubName:
    """A dataset on the hub: `id`, `id:config`, `id:split` or `id:config:split`."""

    path: str
    config: str | None
    split: str


def parse_hub_name(text: str) -> HubName:
    """Take `id[:config][:split]` apart; colons in a split's brackets do not count.

    Of two parts the second is a split if it has brackets or is called train, validation or test.

    Raises:
        UsageError: more than three parts, or no id.
    """
    path, *rest = re.split(r":(?![^\[]*\])", text)
    if not path or len(rest) > 2 or any(not part for part in rest):
        raise UsageError(f"dataset {text!r} is not of the form id[:config][:split]")
    is_split = re.compile(r"(train|validation|test)\b|.*\[")
    if len(rest) == 1 and is_split.match(rest[0]):
        return HubName(path, None, rest[0])
    return HubName(path, rest[0] if rest else None, rest[1] if len(rest) == 2 else "train")


def _hub_corpus(dataset: str) -> Corpus:
    name = parse_hub_name(dataset)
    train = _load_split(dataset, name, name.split)
    try:
        validation = _load_split(dataset, name, "validation")
    except UsageError:
        validation = None  # the dataset has no such split
    if validation is None or name.split.startswith("validation"):
        cut = len(train) - max(1, len(train) // HELD_OUT)
        train, validation = train.select(range(cut)), train.select(range(cut, len(train)))
    # Some datasets, wikitext for one, have one line a row, its newline included.
    lines = any(text.endswith("\n") for text in train[:100]["text"])
    return Corpus(train, validation, separate=not lines)


def _load_split(dataset: str, name: HubName, split: str) -> datasets.Dataset:
    advice = "try --dataset python-stdlib, or a local .txt or .jsonl file"
    try:
        loaded = datasets.load_dataset(name.path, name.config, split=split)
    except ConnectionError as error:
        raise UsageError(
            f"dataset {name.path!r} is not in the local cache and the Hugging Face Hub does not "
            f"answer; {advice}"
        ) from error
    except (ValueError, OSError, RuntimeError) as error:
        reason = first_line(error)
        raise UsageError(f"dataset {dataset!r} cannot be loaded: {reason}; {advice}") from error
    if "text" not in loaded.column_names:
        columns = ", ".join(loaded.column_names)
        raise UsageError(f"dataset {dataset!r} has no column 'text', only {columns}; {advice}")
    return loaded.select_columns(["text"])
