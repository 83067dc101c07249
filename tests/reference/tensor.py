"""One tensor stepped by the reference: rule, state, rounding, statistics for the next step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import adam, rmsprop, scalar_sign, sign
from .history import History
from .matrix import Matrix
from .options import Options
from .random_bits import PARAM_SLOT, element_bits, tensor_key
from .snr_gate import Gate
from .storage import narrow, narrow_stochastic, widen
from .sums import ITEM, ordered_sum
from .trust_focus import Trust

Array = NDArray[Any]


class ReferenceTensor:
    """A parameter and its state, flat, in the order in which the parameter's memory is walked.

    Args:
        stored: elements as ``storage.STORED`` says; complex ones as pairs of real ones.
        dtype: torch's name of the real dtype.
        sizes: of the dimensions, in the order of the walk; one dimension if not given.
        index: of the parameter in the optimizer.
    """

    def __init__(
        self,
        stored: Array,
        dtype: str,
        options: Options,
        *,
        sizes: Sequence[int] | None = None,
        index: int = 0,
        seed: int = 0,
    ) -> None:
        self.stored = stored.copy()
        self.dtype = dtype
        self.options = options
        self.matrix = Matrix.of(sizes or (stored.size,))
        self.index = index
        self.seed = seed
        self.optimizer_steps = 0
        self.steps = 0  # of this tensor
        self.history: History | None = None  # from the first gradient on, with a second moment
        self.gate = Gate()
        self.trust = Trust()
        self.averages = [0.0, 0.0]
        self.last_rms = 0.0  # of the update without momentum
        self.mean_abs_gradient = 0.0
        self.update_rms = 0.0

    @property
    def gate_numbers(self) -> list[float]:
        """As ``state["gate_snr"]`` or ``state["gate_agar"]`` holds them; none without a gate."""
        if self.options.rule == "belief":
            return [self.trust.last_mean]
        return self.gate.as_list() if self.options.gate == "snr" else []

    def step(self, gradient: Array | None, dtype: str | None = None) -> None:
        """One step; ``dtype`` is the gradient's where it is not the parameter's."""
        if gradient is not None:
            with np.errstate(all="ignore"):
                self._step(widen(gradient, dtype or self.dtype))
        self.optimizer_steps += 1

    def change(self, options: Options, first_gradient: Array) -> None:
        """Go on with other options, as from the next step on; its gradient decides the codecs."""
        old, was, self.options = self.history, self.options.rule, options
        self.history = None
        if options.rule != "belief":
            self.trust = Trust()
        if options.rule == "sign" or old is None:
            self.steps = self.steps if was == options.rule else 0
            return
        self.last_rms = self.last_rms if was == options.rule else 0.0
        with np.errstate(all="ignore"):
            if options.rule == "scalar_sign":
                v = old.decoded(self.steps)["exp_avg_sq"]
                v = old.recentred(self.steps) if old.centered else v
                roots = np.sqrt(v.astype(np.float64))
                self.averages = scalar_sign.start(roots, options, self.steps)
                return
            self.history = History(options, widen(first_gradient, self.dtype), self.matrix)
            key = tensor_key(self.seed, self.steps, self.index)
            self.history.take(old, self.steps, key)

    def _step(self, g: Array) -> None:
        p, options = widen(self.stored, self.dtype), self.options
        gate = self.gate.factor if options.gate == "snr" else 1.0
        # a tensor without a counter of its own takes its random bits by the optimizer's
        counter = self.optimizer_steps if options.rule == "sign" else self.steps
        key = tensor_key(self.seed, counter, self.index)
        shares = None
        if options.rule == "belief":
            self.history = self.history or History(options, g, self.matrix)
            scale = self.trust.factor(options)
            new_p, u, shares = self.history.step_about_mean(p, g, self.steps + 1, self.trust, key)
        elif options.rule in ("adam", "rmsprop"):
            self.history = self.history or History(options, g, self.matrix)
            scale = rmsprop.update_scale(self.last_rms, gate)
            if options.rule == "adam":
                scale = adam.update_scale(options, self.steps + 1, gate, self.history.m_start)
            new_p, u = self.history.step(p, g, self.steps + 1, gate, key, scale)
        else:
            magnitude = 1.0
            if options.rule == "scalar_sign":
                magnitude = scalar_sign.magnitude(self.averages, options, self.steps)
            new_p, u = sign.step(p, g, options, magnitude, gate)
            scale = sign.update_scale(options, magnitude, gate)
        if self.dtype == "bfloat16" and options.stochastic_rounding:
            self.stored = narrow_stochastic(new_p, element_bits(key, PARAM_SLOT, p.size))
        else:
            self.stored = narrow(new_p, self.dtype)
        self._observe(g, u, scale, shares)

    def _observe(self, g: Array, u: Array, scale: float, shares: Array | None) -> None:
        count = max(g.size, 1)
        matrix = self.history.matrix if self.history else None
        item = matrix.item if matrix else ITEM
        self.mean_abs_gradient = ordered_sum(np.abs(g), item) / count
        rms = math.sqrt(ordered_sum(u * u, item) / count)
        self.update_rms = rms * scale
        if self.options.rule == "rmsprop":
            self.last_rms = rmsprop.observe(self.last_rms, rms)
        if self.options.rule == "scalar_sign":
            self.averages = scalar_sign.observe(self.averages, self.options, self.mean_abs_gradient)
        if shares is not None:  # of a spoiled coordinate the share is NaN
            seen = ordered_sum(np.where(shares > 0, shares, 0).astype(g.dtype), item)
            self.trust = self.trust.observe(seen / count)
        if self.options.gate == "snr":
            self.gate = self.gate.observe(self.mean_abs_gradient, self.options.c_min)
        # a scalar's count is of the gradients that its averages have seen
        counted = math.isfinite(self.mean_abs_gradient)
        self.steps += self.options.rule != "scalar_sign" or counted
