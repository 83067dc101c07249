"""Forward and backward passes whose bits depend on nothing but the numbers.

The same inputs and the same release give the same bits on every CPU that is supported, for any
instruction set and number of threads.
"""

from .activations import gelu, sigmoid, silu, softmax, tanh
from .attention import attention
from .checking import MachineDependent, check
from .conversion import convert
from .embeddings import embedding
from .losses import cross_entropy, mse_loss
from .modules import (
    GELU,
    Attention,
    Conv1D,
    CrossEntropyLoss,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    RMSNorm,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from .norms import layer_norm, rms_norm
from .optimizer import VerityAdam, clip_grad_norm_
from .products import conv1d, linear, matmul
from .randomness import dropout, normal_, uniform_
from .rotary import apply_rotary, rotary, rotary_frequencies
from .sums import broadcast_to, mean, sum

__all__ = [
    "GELU",
    "Attention",
    "Conv1D",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
    "MachineDependent",
    "RMSNorm",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "VerityAdam",
    "apply_rotary",
    "attention",
    "broadcast_to",
    "check",
    "clip_grad_norm_",
    "conv1d",
    "convert",
    "cross_entropy",
    "dropout",
    "embedding",
    "gelu",
    "layer_norm",
    "linear",
    "matmul",
    "mean",
    "mse_loss",
    "normal_",
    "rms_norm",
    "rotary",
    "rotary_frequencies",
    "sigmoid",
    "silu",
    "softmax",
    "sum",
    "tanh",
    "uniform_",
]
