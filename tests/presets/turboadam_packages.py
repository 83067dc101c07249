"""The releases of package ``turboadam`` that the preset is held against: 0.2.0, installed, and
0.1.0, unpacked beside it. Both are modules of one name."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

OLD_PLACE = Path(sys.prefix) / "turboadam-0.1.0"


def _of_turboadam() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "turboadam"]


def _checked(module: ModuleType, version: str, place: str) -> ModuleType:
    if module.__version__ != version:
        pytest.fail(f"turboadam {version} is needed {place}; found {module.__version__}")
    return module


@cache
def release_0_2_0() -> ModuleType:
    """With submodules ``quantize`` and ``ustate``."""
    try:
        module = importlib.import_module("turboadam")
    except ImportError:
        pytest.fail("turboadam 0.2.0 is needed and not installed: pip install turboadam==0.2.0")
    for name in ("quantize", "ustate", "utils"):
        importlib.import_module(f"turboadam.{name}")
    return _checked(module, "0.2.0", "as the installed one")


@cache
def release_0_1_0() -> ModuleType:
    """With submodule ``costate``. Afterwards ``import turboadam`` means the installed one again."""
    if not (OLD_PLACE / "turboadam").is_dir():
        pytest.fail(
            f"turboadam 0.1.0 is needed in {OLD_PLACE}: pip install --no-deps "
            f"--target {OLD_PLACE} turboadam==0.1.0"
        )
    installed = {name: sys.modules.pop(name) for name in _of_turboadam()}
    sys.path.insert(0, str(OLD_PLACE))
    importlib.invalidate_caches()
    try:
        module = importlib.import_module("turboadam")
        importlib.import_module("turboadam.costate")
        return _checked(module, "0.1.0", f"in {OLD_PLACE}")
    finally:
        sys.path.remove(str(OLD_PLACE))
        for name in _of_turboadam():
            del sys.modules[name]
        sys.modules.update(installed)
