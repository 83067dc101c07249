"""What can stop a training, beside arguments that are refused."""

from __future__ import annotations

__all__ = ["CheckpointError", "NonfiniteLossError"]


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, read, or is of something else. The message says which file,
    why, and what to do."""


class NonfiniteLossError(ArithmeticError):
    """The loss of a step is NaN or infinite. The step was not taken."""
