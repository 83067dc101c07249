"""AXIOM (package ``quarterbit``) on Cosmic: state next to nothing, gradients that are released."""

from .ddp import AXIOM_DDP
from .near_zero import NearZeroPolicy
from .optimizer import AXIOM
from .usage import MemoryUsage

__all__ = ["AXIOM", "AXIOM_DDP", "MemoryUsage", "NearZeroPolicy"]
