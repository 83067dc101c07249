"""The learning rate's course in the trainings of the benchmarks."""

from __future__ import annotations

import math

WARMUP, FINAL = 0.05, 0.05  # shares of the steps and of the highest rate


def schedule(step: int, steps: int) -> float:
    """Share of the highest rate at a step: linear warm-up, then cosine."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - 1 - warmup)
    return FINAL + (1 - FINAL) * (1 + math.cos(math.pi * done)) / 2
