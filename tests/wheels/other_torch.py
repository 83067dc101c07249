"""The whole suite with a wheel, unchanged, and another torch than it was built with.

    python tests/wheels/other_torch.py [WHEEL] [--torch torch==2.14.1] [--environment FOLDER]

Makes a virtual environment, installs that torch (which may be gigabytes: releases for Linux come
with CUDA), the wheel and what the tests need, and runs pytest. Exits as pytest does. FOLDER is kept
if it is given, and used again if it is there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from check import HERE, built_wheel

ROOT = HERE.parents[1]


def run(*command: str | Path) -> None:
    print("+", *command, flush=True)
    subprocess.run(command, check=True, cwd=ROOT)


def prepare(folder: Path, wheel: Path, torch: str) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", folder)
    # torch is named with everything else, so that nothing else moves it
    run(python, "-m", "pip", "install", "-q", torch)
    run(python, "-m", "pip", "install", "-q", torch, f"{wheel}[test]")
    run(python, "-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", wheel)
    old_release = folder / "turboadam-0.1.0"  # where the tests look for it
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target", old_release,
        "turboadam==0.1.0")  # fmt: skip
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path, nargs="?", help="default: the one in wheelhouse/")
    parser.add_argument("--torch", default="torch==2.14.1")
    parser.add_argument("--environment", type=Path, help="default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.environment or Path(temporary)).resolve()
        python = prepare(folder, (options.wheel or built_wheel()).resolve(), options.torch)
        run(python, "-c", "import torch, cosmic; print(torch.__version__, cosmic.__file__)")
        command = [str(python), "-m", "pytest", "-q", "-n", "logical", "--dist", "loadfile"]
        return subprocess.run(command, check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
