"""Objects that look at what steps see, and move options of parameter groups within bounds."""

from .balance import FFNBalance, LoRABalance
from .base import Controller
from .observation import Move, Observation, TensorStats
from .plateau import PlateauGuard
from .qkv import QKVRates
from .staged import Change, Staged

__all__ = [
    "Change",
    "Controller",
    "FFNBalance",
    "LoRABalance",
    "Move",
    "Observation",
    "PlateauGuard",
    "QKVRates",
    "Staged",
    "TensorStats",
]
