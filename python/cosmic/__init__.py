"""COSMIC: a PyTorch optimizer for CPU that treats optimizer state as capital."""

from . import loading  # noqa: F401  (first: it says what is missing)

# isort: split
from . import _core, activations, backends, controllers, logging, ops
from ._core import UnsupportedTensorError
from .activations import compress_activations
from .estimate import MemoryEstimate, TensorEstimate, estimate_memory
from .grouping.groups import ParamGroups, param_groups
from .models.loader import load_model
from .moments import Moments
from .optimizer import Cosmic, NonfiniteGradientError
from .policies import CalibratedPolicy, Candidate, Policy, RolePolicy, SignalPolicy, UniformPolicy
from .products import fp32_products
from .quantization import QuantizedTensor, quantize
from .reports import TierInfo
from .rungs import Rung
from .vocabulary.chunked import chunk_vocabulary

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
    "activations",
    "backends",
    "chunk_vocabulary",
    "compress_activations",
    "controllers",
    "estimate_memory",
    "fp32_products",
    "load_model",
    "logging",
    "ops",
    "param_groups",
    "quantize",
]
