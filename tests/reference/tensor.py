"""One tensor stepped by the reference: decode, rule, encode, statistics for the next step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import adam, scalar_sign, sign
from .options import Options
from .random_bits import element_bits, tensor_key
from .snr_gate import Gate
from .storage import narrow, narrow_stochastic, widen
from .sums import ordered_sum

Array = NDArray[Any]
_SLOTS = ("exp_avg", "exp_avg_slow", "exp_avg_sq")  # their places are the random bits' slot number
_STORAGE = {"fp32": "float32", "bf16": "bfloat16"}


class ReferenceTensor:
    """A parameter and its state, flat, in the order in which the parameter's memory is walked.

    Args:
        stored: elements as ``storage.STORED`` says; complex ones as pairs of real ones.
        dtype: torch's name of the real dtype.
        index: of the parameter in the optimizer.
    """

    def __init__(
        self, stored: Array, dtype: str, options: Options, *, index: int = 0, seed: int = 0
    ) -> None:
        self.stored = stored.copy()
        self.dtype = dtype
        self.options = options
        self.index = index
        self.seed = seed
        self.steps = 0
        self.gate = Gate()
        self.averages = [0.0, 0.0]
        self.mean_abs_gradient = 0.0
        self.update_rms = 0.0
        m, _, v = options.state_dtype.partition("+")
        codecs = {"exp_avg": m, "exp_avg_slow": m, "exp_avg_sq": v or m}
        if options.beta_slow is None:
            del codecs["exp_avg_slow"]
        #: storage of every moment, by the key that it has in ``optimizer.state``
        self.formats = {
            key: "float64" if dtype == "float64" else _STORAGE[codec]
            for key, codec in codecs.items()
            if options.tier == 2
        }
        zeros = np.zeros(stored.size, widen(stored[:0], dtype).dtype)
        self.moments = {key: narrow(zeros, form) for key, form in self.formats.items()}

    def step(self, gradient: Array | None, dtype: str | None = None) -> None:
        """One step; ``dtype`` is the gradient's where it is not the parameter's."""
        if gradient is None:
            return
        with np.errstate(all="ignore"):
            self._step(widen(gradient, dtype or self.dtype))

    def _step(self, g: Array) -> None:
        p, options = widen(self.stored, self.dtype), self.options
        gate = self.gate.factor if options.gate else 1.0
        if options.tier == 2:
            new_p, u = self._adam(p, g, gate)
            scale = adam.update_scale(options, self.steps + 1, gate)
        else:
            magnitude = 1.0
            if options.tier == 1:
                magnitude = scalar_sign.magnitude(self.averages, options, self.steps)
            new_p, u = sign.step(p, g, options, magnitude, gate)
            scale = sign.update_scale(options, magnitude, gate)
        self.stored = narrow(new_p, self.dtype)
        self._observe(g, u, scale)

    def _adam(self, p: Array, g: Array, gate: float) -> tuple[Array, Array]:
        decoded = {key: widen(self.moments[key], form) for key, form in self.formats.items()}
        old = adam.Moments(decoded["exp_avg"], decoded["exp_avg_sq"], decoded.get("exp_avg_slow"))
        new_p, new, u = adam.step(p, g, old, self.options, self.steps + 1, gate)
        values = {"exp_avg": new.m, "exp_avg_slow": new.slow, "exp_avg_sq": new.v}
        key = tensor_key(self.seed, self.steps, self.index)
        for name, form in self.formats.items():
            value = values[name]
            assert value is not None
            if form == "bfloat16":
                bits = element_bits(key, _SLOTS.index(name), value.size)
                self.moments[name] = narrow_stochastic(value, bits)
            else:
                self.moments[name] = value
        return new_p, u

    def _observe(self, g: Array, u: Array, scale: float) -> None:
        count = max(g.size, 1)
        self.mean_abs_gradient = ordered_sum(np.abs(g)) / count
        self.update_rms = math.sqrt(ordered_sum(u * u) / count) * scale
        if self.options.tier == 1:
            self.averages = scalar_sign.observe(self.averages, self.options, self.mean_abs_gradient)
        if self.options.gate:
            self.gate = self.gate.observe(self.mean_abs_gradient, self.options.c_min)
        # tier 1 counts the gradients that its averages have seen
        self.steps += self.options.tier != 1 or math.isfinite(self.mean_abs_gradient)
