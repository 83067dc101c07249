"""What the numbers were measured on. No import beyond torch and the compiled core."""

import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

import cosmic
from cosmic import _core

MEMORY_MAP = Path("/proc/self/maps")
OPENMP_LIBRARY = re.compile(r"(/\S*lib(?:gomp|iomp5|omp)[^/\s]*\.(?:so|dylib)[^/\s]*)$")


def cpu_name() -> str:
    """The processor's name, or its architecture where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def core_count() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def openmp_runtimes() -> list[str] | None:
    """Paths of the OpenMP libraries in this process; None where the system does not tell."""
    try:
        maps = MEMORY_MAP.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = (OPENMP_LIBRARY.search(line) for line in maps.splitlines())
    return sorted({match.group(1) for match in found if match})


def describe_machine() -> dict[str, Any]:
    """CPU, cores, threads and versions, as `results.json` keeps them."""
    return {
        "cpu": cpu_name(),
        "cores": core_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cosmic": cosmic.__version__,
        "isa": _core.build_info()["isa"],
    }
