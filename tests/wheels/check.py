"""Check a wheel as its users will meet it.

    python tests/wheels/check.py WHEEL [--python PYTHON]

What it holds: its size, no library of torch or OpenMP in it, no C++ symbol of torch asked for. What
it does in a fresh environment without torch: explain itself, and step every combination of rule and
codecs on every instruction set of this machine with the same bits, those in `fingerprint.txt`, and
train a small model to the weights in `digest.txt`. And,
where torch is at hand for that Python, one OpenMP runtime in the process. Exits with 1 if something
is not so. Needs nothing but Python and, on Linux, binutils.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
FINGERPRINT = (HERE / "fingerprint.txt").read_text().split()[-1]
#: Of the reference training, by how its products are summed.
DIGESTS = dict(line.split() for line in (HERE / "digest.txt").read_text().splitlines()[1:])
LARGEST = 2_000_000  # bytes

#: A mangled name with at::, c10:: or torch:: in it.
CXX_OF_TORCH = re.compile(r"_Z\S*N[KVRO]*(2at|3c10|5torch)\d")
OTHERS = re.compile(r"lib(torch|c10|gomp|iomp|omp)")


class Failure(Exception):
    """What is wrong, and what was expected."""


def built_wheel() -> Path:
    """The wheel that `make wheels` has left for the Python that runs this."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    found = sorted((HERE.parents[1] / "wheelhouse").glob(f"*-{tag}-{tag}-*.whl"))
    if len(found) != 1:
        sys.exit(
            f"wheelhouse/ holds {len(found)} wheels for {tag}; expected one: run `make wheels`"
        )
    return found[0]


def libraries(wheel: Path) -> list[str]:
    names = zipfile.ZipFile(wheel).namelist()
    return [name for name in names if re.search(r"\.(so|pyd|dylib|dll)(\.|$)", name)]


def check_contents(wheel: Path) -> str:
    size, found = wheel.stat().st_size, libraries(wheel)
    if size >= LARGEST:
        raise Failure(f"{size:,} bytes; expected under {LARGEST:,}")
    if bundled := [name for name in found if OTHERS.search(name)]:
        raise Failure(f"bundles {bundled}; torch's own are in the process already")
    if len(found) != 3:
        raise Failure(f"holds {found}; expected _core, _ops and the kernels")
    return f"{size:,} bytes, {', '.join(Path(name).name for name in found)}"


def check_symbols(wheel: Path) -> str:
    if not sys.platform.startswith("linux"):
        return "not read on this system"
    asked = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in libraries(wheel):
            library = zipfile.ZipFile(wheel).extract(name, folder)
            listed = subprocess.run(
                ["nm", "-D", "--undefined-only", library],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            if found := CXX_OF_TORCH.findall(listed):
                raise Failure(f"{name} asks for C++ symbols of torch: {found}")
            asked += len(re.findall(r" (?:aoti_)?torch_\w+", listed))
    return f"{asked} symbols of torch's stable ABI, no C++ symbol"


class Environment:
    """A fresh virtual environment with the wheel and nothing else."""

    def __init__(self, folder: Path, python: Path, wheel: Path) -> None:
        self.output(python, "-m", "venv", folder)
        scripts = folder / ("Scripts" if sys.platform == "win32" else "bin")
        self.python = scripts / "python"
        self.output(self.python, "-m", "pip", "install", "-q", "--no-deps", wheel)

    @staticmethod
    def output(*command: str | Path, fails: bool = False) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if (done.returncode != 0) != fails:
            raise Failure(f"{command[1:]} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stderr if fails else done.stdout

    def complaint(self, code: str) -> str:
        return self.output(self.python, "-c", code, fails=True)

    def check_without_torch(self) -> str:
        message = self.complaint("import cosmic").splitlines()[-1]
        if not re.search(r"ImportError: cosmic needs torch >= 2\.10.*pip install", message):
            raise Failure(f"without torch the import says: {message}")
        return message

    def check_old_torch(self) -> str:
        message = self.complaint(
            "import sys, types\nsys.modules['torch'] = torch = types.ModuleType('torch')\n"
            "torch.__version__ = '2.9.1+cpu'\nimport cosmic"
        ).splitlines()[-1]
        if not re.search(r"ImportError: cosmic needs torch >= 2\.10.*2\.9\.1\+cpu", message):
            raise Failure(f"with torch 2.9.1 the import says: {message}")
        return message

    def check_core(self) -> str:
        found = json.loads(self.output(self.python, HERE / "core_alone.py"))
        for name, value in found["build"].items():
            print(f"    {name:<14} {value}")
        test = found["self_test"]
        if test["fingerprint"] != FINGERPRINT:
            raise Failure(f"fingerprint {test['fingerprint']}; expected {FINGERPRINT}")
        if found["digests"] != DIGESTS:
            raise Failure(f"reference training {found['digests']}; expected {DIGESTS}")
        isas = ", ".join(test["isas"])
        return f"{test['combinations']} combinations, the same bits on {isas}: {FINGERPRINT}"

    def check_with_torch(self) -> str:
        spec = find_spec("torch")
        version = self.output(self.python, "-c", "import sys; print(*sys.version_info[:2])").split()
        if spec is None or not spec.origin or version != [str(v) for v in sys.version_info[:2]]:
            return "not at hand for this Python"
        others = Path(spec.origin).parents[1]  # torch and what it needs
        found = json.loads(self.output(self.python, HERE / "with_torch.py", others))
        if len(found["runtimes"]) != 1:
            raise Failure(f"OpenMP runtimes in the process: {found['runtimes']}; expected one")
        return f"torch {found['torch']}, OpenMP runtime {found['runtimes'][0]}"


def report(what: str, check: Callable[[], str]) -> bool:
    try:
        print(f"  ok      {what}: {check()}", flush=True)
    except Failure as failure:
        print(f"  FAILED  {what}: {failure}", flush=True)
        return False
    return True


def passes(wheel: Path, python: Path) -> bool:
    """Whether every check passes; one line each is printed."""
    good = report("contents", lambda: check_contents(wheel))
    good &= report("symbols", lambda: check_symbols(wheel))
    with tempfile.TemporaryDirectory() as folder:
        made: list[Environment] = []

        def install() -> str:
            made.append(Environment(Path(folder), python, wheel))
            return str(python)

        if not report("installs", install):
            return False
        (environment,) = made
        good &= report("import without torch", environment.check_without_torch)
        good &= report("import with an old torch", environment.check_old_torch)
        good &= report("core", environment.check_core)
        good &= report("with torch", environment.check_with_torch)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    arguments = parser.parse_args()
    if not zipfile.is_zipfile(arguments.wheel) or not os.access(arguments.python, os.X_OK):
        parser.error(f"expected a wheel and a Python: {arguments.wheel}, {arguments.python}")
    print(arguments.wheel.name)
    return 0 if passes(arguments.wheel.resolve(), arguments.python) else 1


if __name__ == "__main__":
    sys.exit(main())
