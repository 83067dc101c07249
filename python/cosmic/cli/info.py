"""`cosmic info`: what is installed, and what it found on this machine."""

import importlib
import json
from typing import Any

import torch

from cosmic._core import build_info
from cosmic.train import machine


def collect() -> dict[str, Any]:
    """Versions, build, ISA, threads and OpenMP runtimes, ready for JSON.

    `openmp_runtimes` is None where the system does not tell; the core's facts come first, under
    the names of `_core.build_info()`.
    """
    return {
        **{"cosmic" if key == "version" else key: value for key, value in build_info().items()},
        "cpu": machine.cpu_name(),
        "cores": machine.core_count(),
        "threads": torch.get_num_threads(),
        "openmp_runtimes": machine.openmp_runtimes(),
        "torch": torch.__version__,
        "torch_ops": torch_operators(),
    }


def torch_operators() -> list[str] | str:
    """Names of the package's operators in torch, or why they do not load."""
    try:
        importlib.import_module("cosmic.ops")
    except (ImportError, OSError) as error:
        return f"not loaded: {error}"
    names = torch._C._dispatch_get_all_op_names()  # torch has no public way to list operators
    return sorted(name for name in names if name.startswith("cosmic::"))


def format_info(info: dict[str, Any]) -> str:
    """One line a fact."""
    return "\n".join(f"{_title(key):<17} {_show(value)}" for key, value in info.items())


def _title(key: str) -> str:
    return key.replace("_", " ").replace("openmp", "OpenMP").replace("isa", "ISA")


def _show(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "none"
    return str(value)


def print_info(as_json: bool) -> None:
    """Print `collect()` for people or, with `as_json`, for programs."""
    info = collect()
    print(json.dumps(info, indent=2) if as_json else format_info(info))
