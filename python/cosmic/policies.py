"""The policies by their public path, by which pickles of earlier releases name them, too."""

from __future__ import annotations

from .capital.calibrated import CalibratedPolicy
from .capital.policies import Candidate, Policy, RolePolicy, SignalPolicy, UniformPolicy

__all__ = ["CalibratedPolicy", "Candidate", "Policy", "RolePolicy", "SignalPolicy", "UniformPolicy"]
