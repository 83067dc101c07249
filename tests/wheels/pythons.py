"""The CPythons of this machine that wheels are built for: of pyenv and on the PATH."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

MINORS = range(10, 15)


def installed() -> dict[str, Path]:
    """By version, such as ``"3.12"``; of several patch releases the newest of pyenv's."""
    found: dict[str, Path] = {}
    for minor in MINORS:
        on_path = shutil.which(f"python3.{minor}")
        if on_path and "shims" not in Path(on_path).parts:
            found[f"3.{minor}"] = Path(on_path)
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders = [f for f in versions.glob("3.*") if re.fullmatch(r"3\.\d+\.\d+", f.name)]
    for folder in sorted(folders, key=lambda f: int(f.name.rpartition(".")[2])):
        python = folder / "bin" / "python3"
        version = folder.name.rpartition(".")[0]
        if python.exists() and int(version.partition(".")[2]) in MINORS:
            found[version] = python
    return dict(sorted(found.items(), key=lambda item: int(item[0].partition(".")[2])))
