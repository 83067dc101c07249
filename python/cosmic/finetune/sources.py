"""Where a dataset comes from, told from its name alone.

Without a Hugging Face library: those read at import whether there is a hub.
"""

from pathlib import Path

from cosmic.models.sources import Source, is_path

STDLIB = "python-stdlib"
FILE_SUFFIXES = frozenset((".txt", ".md", ".text", ".log", ".py", ".jsonl", ".json", ".csv"))


def dataset_source(dataset: str) -> Source:
    """Where the documents come from. A missing file is still local: that is its error."""
    if dataset == STDLIB:
        return Source.BUILT_IN
    path = Path(dataset).expanduser()
    if path.exists() or path.suffix.lower() in FILE_SUFFIXES or is_path(dataset):
        return Source.LOCAL
    return Source.HUB
