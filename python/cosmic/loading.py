"""What must be there before anything of the package is imported, and what to do if it is not."""

from __future__ import annotations

try:
    import torch  # first: the core then shares torch's OpenMP runtime
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise  # torch is there, and something that it needs is not
    raise ImportError(
        "cosmic needs torch >= 2.10, and there is none here: pip install torch"
    ) from error

#: The first release with DLPack's C exchange API and the stable ABI, which the core is built on.
OLDEST_TORCH = (2, 10)

if tuple(int(word) for word in torch.__version__.split(".")[:2]) < OLDEST_TORCH:
    raise ImportError(
        f"cosmic needs torch >= 2.10, and this is {torch.__version__}: pip install --upgrade torch"
    )

try:
    from . import _core  # noqa: F401
except ImportError as error:  # pragma: no cover - needs a broken installation
    raise ImportError(
        "cosmic's compiled core is missing or does not load: "
        f"{error}. Install a wheel (pip install cosmic-optim), or build from source with "
        "pip install --no-build-isolation . (see CONTRIBUTING.md)"
    ) from error
