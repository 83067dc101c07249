"""What must be there before anything of the package is imported, and what to do if it is not."""

from __future__ import annotations

import re
import sys
from importlib import import_module

from .command import catch_interrupts, refusal

catch_interrupts()

try:
    import torch  # first: the core then shares torch's OpenMP runtime
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise  # torch is there, and something that it needs is not
    raise refusal(
        "cosmic needs torch >= 2.10, and there is none here: pip install torch"
    ) from error

#: The first release with DLPack's C exchange API and the stable ABI, which the core is built on.
OLDEST_TORCH = (2, 10)


def _check_torch() -> None:
    found = getattr(torch, "__version__", None)
    if found is None:  # a folder or a file of the user's that has the name
        where = getattr(torch, "__file__", None) or list(torch.__path__)
        raise refusal(f"cosmic needs torch >= 2.10, and this is another module: {where}")
    words = re.match(r"(\d+)\.(\d+)", found)
    if words and (int(words[1]), int(words[2])) < OLDEST_TORCH:
        raise refusal(
            f"cosmic needs torch >= 2.10, and this is {found}: pip install --upgrade torch"
        )


_check_torch()

try:
    import_module("cosmic._core")
except ImportError as error:
    raise refusal(
        "cosmic's compiled core is missing or does not load in CPython "
        f"{sys.version_info.major}.{sys.version_info.minor}: {error}. Install a wheel for it (pip "
        "install cosmic-optim), or build from source with pip install --no-build-isolation . (see "
        "CONTRIBUTING.md)"
    ) from error
