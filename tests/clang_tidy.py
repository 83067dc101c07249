"""Run clang-tidy on every translation unit of the last build (`make lint`).

Exits with 1 if a check of .clang-tidy fails, or if there is no build to take the flags from.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def newest_database() -> Path:
    found = sorted(ROOT.glob("build/*/compile_commands.json"), key=lambda p: p.stat().st_mtime)
    if not found:
        sys.exit("clang-tidy: no build/*/compile_commands.json; build the package first")
    return found[-1]


def borrow_omp_header(compiler: str, folder: Path) -> None:
    """clang finds omp.h only beside its own runtime; show it the compiler's, and nothing else."""
    header = subprocess.run(
        [compiler, "-print-file-name=include/omp.h"], capture_output=True, text=True, check=True
    ).stdout.strip()
    shutil.copy(header, folder / "omp.h")


def checks_of(file: str) -> list[str]:
    """The static analyzer follows every path through unrolled arithmetic, for minutes a file: not
    where there is nothing but arithmetic. The sanitizers look there."""
    return ["--checks=-clang-analyzer-*"] if Path(file).parent.name == "kernels" else []


def check(database: Path, file: str, include: Path) -> tuple[str, bool, str]:
    command: list[str | Path] = [
        Path(sys.executable).parent / "clang-tidy", "--quiet", "-p", database.parent,
        f"--config-file={ROOT / '.clang-tidy'}", f"--extra-arg=-isystem{include}",
        "--extra-arg=-Wno-everything", *checks_of(file), file,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return file, done.returncode == 0, done.stdout + done.stderr


def main() -> int:
    database = newest_database()
    entries = json.loads(database.read_text())
    files = sorted({entry["file"] for entry in entries})
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        borrow_omp_header(entries[0]["command"].split()[0], Path(folder))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for file, good, output in pool.map(lambda f: check(database, f, Path(folder)), files):
                print(f"clang-tidy: {'ok    ' if good else 'FAILED'} {Path(file).name}")
                if not good:
                    failed += 1
                    print(output)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
