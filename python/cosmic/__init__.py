"""COSMIC: a PyTorch optimizer for CPU that treats optimizer state as capital."""

import torch  # noqa: F401  (first: the core then shares torch's OpenMP runtime)

try:
    from . import _core
except ImportError as error:  # pragma: no cover - needs a broken installation
    raise ImportError(
        "cosmic's compiled core is missing or does not load: "
        f"{error}. Install a wheel (pip install cosmic-optim), or build from source with "
        "pip install --no-build-isolation . (see CONTRIBUTING.md)"
    ) from error

from . import logging, ops
from .estimate import MemoryEstimate, TensorEstimate, estimate_memory
from .optimizer import Cosmic, NonfiniteGradientError
from .policies import Candidate, Policy, RolePolicy, SignalPolicy, UniformPolicy
from .quantization import QuantizedTensor, quantize
from .reports import TierInfo
from .rungs import Rung

__version__: str = _core.__version__

__all__ = [
    "Candidate",
    "Cosmic",
    "MemoryEstimate",
    "NonfiniteGradientError",
    "Policy",
    "QuantizedTensor",
    "RolePolicy",
    "Rung",
    "SignalPolicy",
    "TensorEstimate",
    "TierInfo",
    "UniformPolicy",
    "__version__",
    "estimate_memory",
    "logging",
    "ops",
    "quantize",
]
