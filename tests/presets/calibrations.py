"""What gate `calibrated_agar` keeps of a parameter group, by itself."""

from __future__ import annotations

from typing import Any

from cosmic._core import GateMemory


def memory_options(
    tau_init_steps: int, tau_clip_range: tuple[float, float], c_min: float
) -> tuple[bool, dict[str, Any]]:
    options = {"tau_init_steps": tau_init_steps, "tau_clip_range": tau_clip_range, "c_min": c_min}
    return False, options


def memory(tau_init_steps: int, tau_clip_range: tuple[float, float], c_min: float) -> GateMemory:
    return GateMemory("calibrated_agar", *memory_options(tau_init_steps, tau_clip_range, c_min))
