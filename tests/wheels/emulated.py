"""The core on CPUs that are not here (`make emulated`): qemu's user-mode emulation stands in.

    python tests/wheels/emulated.py [WHEEL]

x86-64 without AVX (Nehalem, of 2008): the wheel's core must choose the baseline, find the same bits
as everywhere and train the reference model to the same weights. AArch64: the core, cross-compiled,
must do so with NEON. Needs qemu-user and g++-aarch64-linux-gnu, as Debian and Ubuntu name them;
exits with 1 if something is not so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from check import DIGESTS, FINGERPRINT, HERE, Environment, Failure, built_wheel, report

ROOT = HERE.parents[1]


def needed(tool: str, package: str) -> str:
    found = shutil.which(tool)
    if not found:
        raise Failure(f"{tool} is missing: install {package}")
    return found


def check_old_x86(wheel: Path) -> str:
    emulator = needed("qemu-x86_64", "qemu-user")
    with tempfile.TemporaryDirectory() as folder:
        environment = Environment(Path(folder), Path(sys.executable), wheel)
        found = json.loads(
            Environment.output(
                emulator, "-cpu", "Nehalem", environment.python, HERE / "core_alone.py"
            )
        )
    test, isa = found["self_test"], found["build"]["isa"]
    if (isa, test["isas"], test["fingerprint"]) != ("scalar", ["scalar"], FINGERPRINT):
        raise Failure(f"ISA {isa} of {test['isas']}, fingerprint {test['fingerprint']}")
    if found["digests"] != DIGESTS:
        raise Failure(f"reference training {found['digests']}; expected {DIGESTS}")
    return f"{test['combinations']} combinations with ISA {isa}: {test['fingerprint']}"


def check_aarch64() -> str:
    emulator = needed("qemu-aarch64", "qemu-user")
    compiler = needed("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")
    folder = ROOT / "build" / "self_test-aarch64"
    subprocess.run(
        ["cmake", "-S", ROOT / "cpp" / "self_test", "-B", folder, "-DCMAKE_SYSTEM_NAME=Linux",
         "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={compiler}"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    jobs = str(os.cpu_count() or 1)
    subprocess.run(
        ["cmake", "--build", folder, "--parallel", jobs], check=True, stdout=subprocess.DEVNULL
    )
    system = "/usr/aarch64-linux-gnu"  # its loader and C library
    first, *rest = Environment.output(emulator, "-L", system, folder / "self_test").splitlines()
    *isas, combinations, fingerprint = first.split()
    if (isas, fingerprint) != (["neon", "scalar"], FINGERPRINT):
        raise Failure(f"ISAs {isas}, fingerprint {fingerprint}; expected {FINGERPRINT}")
    digests = dict(line.split() for line in rest)
    if digests != DIGESTS:
        raise Failure(f"reference training {digests}; expected {DIGESTS}")
    return f"{combinations} combinations with {isas}: {fingerprint}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path, nargs="?", help="default: the one in wheelhouse/")
    wheel = (parser.parse_args().wheel or built_wheel()).resolve()
    good = report("x86-64 without AVX", lambda: check_old_x86(wheel))
    good &= report("AArch64", check_aarch64)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
