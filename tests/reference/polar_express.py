"""The coefficients of Polar Express (arXiv 2505.16932), from its method.

    python tests/reference/polar_express.py

Each polynomial a x + b x^3 + c x^5 is the best approximation of 1, in the largest error, on the
interval in which the ones before it leave the singular values; it equioscillates at the interval's
ends and two points between, which the Remez algorithm finds.
"""

from __future__ import annotations

import math

import numpy as np

Quintic = tuple[float, float, float]

#: Singular values from here to 1 are brought to 1, by so many iterations: what few of them cannot
#: reach is left to be small.
LEAST = {1: 0.1, 2: 0.05, 3: 0.01, 4: 0.003, 5: 0.001}
#: An interval that begins below this share of its end is taken to begin there: else the smallest
#: values would have the largest ones shrink first.
CUSHION = 0.02407327424182761
#: Values may be this much larger than they should be.
SAFETY = 1.01


def best_quintic(low: float, high: float) -> Quintic:
    if low / high >= 1 - 5e-6:
        return 15 / 8 / high, -10 / 8 / high**3, 3 / 8 / high**5
    inner = np.array([(3 * low + high) / 4, (low + 3 * high) / 4])
    error = before = math.inf
    a = b = c = 0.0
    while math.isinf(before) or abs(before - error) > 1e-15:
        before = error
        x = np.array([low, *inner, high])
        system = np.stack([x, x**3, x**5, [1, -1, 1, -1]], axis=1)
        a, b, c, error = (float(v) for v in np.linalg.solve(system, np.ones(4)))
        root = math.sqrt(9 * b * b - 20 * a * c)
        inner = np.sqrt((-3 * b + np.array([-root, root])) / (10 * c))
    return a, b, c


def value(quintic: Quintic, x: float) -> float:
    a, b, c = quintic
    return a * x + b * x**3 + c * x**5


def polar_express(iterations: int) -> list[Quintic]:
    low, high = LEAST[iterations], 1.0
    found: list[Quintic] = []
    for _ in range(iterations):
        quintic = best_quintic(max(low, CUSHION * high), high)
        centre = (value(quintic, low) + value(quintic, high)) / 2
        a, b, c = (x / centre for x in quintic)
        found.append((a / SAFETY, b / SAFETY**3, c / SAFETY**5))
        low = value((a, b, c), low)
        high = 2 - low
    return found


if __name__ == "__main__":
    for iterations in LEAST:
        for a, b, c in polar_express(iterations):
            print(f"    {{{a}, {b}, {c}}}, // of {iterations}")
