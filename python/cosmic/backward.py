"""The handle of ``Cosmic.step_in_backward`` by the path that is public."""

from __future__ import annotations

from .step.backward import StepInBackward

__all__ = ["StepInBackward"]
