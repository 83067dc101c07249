"""A training loop: evaluation, checkpoints that a kill cannot break, measured results."""

from __future__ import annotations

from .callbacks import Callback, StepInfo
from .errors import CheckpointError, NonfiniteLossError
from .trainer import Trainer

__all__ = ["Callback", "CheckpointError", "NonfiniteLossError", "StepInfo", "Trainer"]
