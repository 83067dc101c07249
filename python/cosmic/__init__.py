"""COSMIC: a PyTorch optimizer for CPU that treats optimizer state as capital."""

from . import loading  # noqa: F401  (first: it says what is missing)

# isort: split
from . import _core, backends, controllers, logging, ops
from ._core import UnsupportedTensorError
from .estimate import MemoryEstimate, TensorEstimate, estimate_memory
from .grouping.groups import ParamGroups, param_groups
from .moments import Moments
from .optimizer import Cosmic, NonfiniteGradientError
from .policies import CalibratedPolicy, Candidate, Policy, RolePolicy, SignalPolicy, UniformPolicy
from .quantization import QuantizedTensor, quantize
from .reports import TierInfo
from .rungs import Rung

__version__: str = _core.__version__

__all__ = [
    "CalibratedPolicy",
    "Candidate",
    "Cosmic",
    "MemoryEstimate",
    "Moments",
    "NonfiniteGradientError",
    "ParamGroups",
    "Policy",
    "QuantizedTensor",
    "RolePolicy",
    "Rung",
    "SignalPolicy",
    "TensorEstimate",
    "TierInfo",
    "UniformPolicy",
    "UnsupportedTensorError",
    "__version__",
    "backends",
    "controllers",
    "estimate_memory",
    "logging",
    "ops",
    "param_groups",
    "quantize",
]
