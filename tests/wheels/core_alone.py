"""Load the compiled core without torch, let it test itself and train its reference model, and print
what it found as JSON.

python core_alone.py
"""

import json
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def core_file() -> Path:
    """Of the installed package, which is not imported: it would ask for torch."""
    for folder in sys.path:
        for suffix in EXTENSION_SUFFIXES:
            file = Path(folder) / "cosmic" / f"_core{suffix}"
            if file.exists():
                return file
    sys.exit("cosmic/_core is not on sys.path: install the wheel")


spec = spec_from_file_location("cosmic._core", core_file())
assert spec is not None and spec.loader is not None
core = module_from_spec(spec)
spec.loader.exec_module(core)
assert "torch" not in sys.modules
digests = {sums: core.reference_training(sums, 2) for sums in ("fp32", "fp64")}
print(json.dumps({"build": core.build_info(), "self_test": core.self_test(), "digests": digests}))
