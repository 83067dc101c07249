"""One tensor stepped by the reference: rule, state, rounding, statistics for the next step."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import adam, rmsprop, scalar_sign, sign
from .history import History
from .matrix import Matrix
from .norms import Norms
from .options import NORM_GATES, Options
from .random_bits import MASTER_SLOT, PARAM_SLOT, element_bits, tensor_key
from .snr_gate import Gate
from .storage import join_24, narrow, narrow_stochastic, split_24, widen
from .sums import ITEM, block_sum, ordered_sum
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
        has_low = options.master_bits is not None and dtype == "bfloat16"
        self.low: Array | None = np.zeros(stored.size, np.int8) if has_low else None
        self.options = options
        self.matrix = Matrix.of(sizes or (stored.size,))
        self.index = index
        self.seed = seed
        self.optimizer_steps = 0
        self.steps = 0  # of this tensor
        self.history: History | None = None  # from the first gradient on, with a second moment
        self.gate = Gate()
        self.trust = Trust()
        self.norms = Norms()
        self.averages = [0.0, 0.0]
        self.last_rms = 0.0  # of the update without momentum
        self.mean_abs_gradient = 0.0
        self.update_rms = 0.0

    @property
    def gate_numbers(self) -> dict[str, list[float]]:
        """What its gates keep, as ``state`` holds it."""
        held = {}
        if "snr" in self.options.gates:
            held["gate_snr"] = self.gate.as_list()
        if self.options.rule == "belief":
            held["gate_agar"] = [self.trust.last_mean]
        if self.options.norm_gates:
            held["gate_norms"] = self.norms.as_list()
        return held

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
        if not options.norm_gates:
            self.norms = Norms()
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
        if self.low is not None:
            p = join_24(self.stored, self.low)
        # a tensor without a counter of its own takes its random bits by the optimizer's
        counter = self.optimizer_steps if options.rule == "sign" else self.steps
        key = tensor_key(self.seed, counter, self.index)
        if options.rule in ("adam", "softsign", "belief", "rmsprop"):
            self.history = self.history or History(options, g, self.matrix)
        known = [gate for gate in options.gates if self._is_known(gate)]
        scale = self._rule_scale(math.prod(self._factor(gate) for gate in known))
        length = options.lr * scale
        for gate in self._measured(p, g, key):
            factor = self._factor(gate)
            scale, length = scale * factor, length * factor
        new_p, u, shares = self._move(p, g, key, length)
        self._store(new_p, key)
        self._observe(g, new_p, u, scale, shares)

    def _store(self, p: Array, key: int) -> None:
        stochastic = self.dtype == "bfloat16" and self.options.stochastic_rounding
        if self.low is not None:
            random = element_bits(key, MASTER_SLOT, p.size) if stochastic else None
            self.stored, self.low = split_24(p, random)
        elif stochastic:
            self.stored = narrow_stochastic(p, element_bits(key, PARAM_SLOT, p.size))
        else:
            self.stored = narrow(p, self.dtype)

    def _is_known(self, gate: str) -> bool:
        """Whether its factor is known when the step begins."""
        if self.options.exact or (gate == "agar" and self.options.rule != "belief"):
            return False
        return not (gate in NORM_GATES and (self.norms.starts or self._is_fresh))

    @property
    def _is_fresh(self) -> bool:
        """Without momentum the step before says little of how long an update is."""
        return self.options.rule in ("sign", "scalar_sign", "rmsprop")

    def _factor(self, gate: str) -> float:
        if gate == "snr":
            return self.gate.factor
        if gate == "agar":
            return self.trust.factor(self.options)
        return self.norms.factor(gate, self.options)

    def _rule_scale(self, gate: float) -> float:
        """What the rule leaves to be multiplied onto its update."""
        options = self.options
        if options.rule in ("softsign", "belief"):
            return gate
        if options.rule == "adam":
            assert self.history is not None
            return adam.update_scale(options, self.steps + 1, gate, self.history.m_start)
        if options.rule == "rmsprop":
            return rmsprop.update_scale(self.last_rms, gate)
        return sign.update_scale(options, self._magnitude, gate)

    @property
    def _magnitude(self) -> float:
        if self.options.rule == "sign":
            return 1.0
        return scalar_sign.magnitude(self.averages, self.options, self.steps)

    def _move(
        self, p: Array, g: Array, key: int, length: float
    ) -> tuple[Array, Array, Array | None]:
        """The new parameter, the update, and of rule ``belief`` the shares of signal."""
        t = self.steps + 1
        if self.history is None or self.options.rule in ("sign", "scalar_sign"):
            return *sign.step(p, g, self.options, length), None
        if self.options.rule == "belief":
            return self.history.step_about_mean(p, g, t, self.trust, length, key)
        return *self.history.step(p, g, t, length, key), None

    def _measured(self, p: Array, g: Array, key: int) -> list[str]:
        """The gates whose factors come from a look at this very step, which they have now seen."""
        options = self.options
        gates = [g for g in options.gates if not self._is_known(g)]
        gates = [g for g in gates if g != "agar" or options.rule == "belief"]
        if "snr" in gates:
            self.gate = self.gate.observe(self._mean(np.abs(g)), options.c_min)
        if "agar" in gates:
            self._observe_shares(self._looked_at(p, g, key)[2])
        if set(gates) & set(NORM_GATES):  # the focus is the update's own
            u = self._looked_at(p, g, key)[1]
            self._observe_norms(p, self._mean(u * u, block_sum))
        return gates

    def _looked_at(self, p: Array, g: Array, key: int) -> tuple[Array, Array, Array | None]:
        """As ``_move``, but that it changes nothing."""
        kept = copy.deepcopy(self.history)
        try:
            return self._move(p, g, key, 0.0)
        finally:
            self.history = kept

    def _mean(self, values: Array, added_up: Callable[[Array, int], float] = ordered_sum) -> float:
        matrix = self.history.matrix if self.history else None
        return added_up(values, matrix.item if matrix else ITEM) / max(values.size, 1)

    def _observe_shares(self, shares: Array | None) -> None:
        assert shares is not None
        # of a spoiled coordinate the share is NaN
        seen = np.where(shares > 0, shares, 0).astype(shares.dtype)
        self.trust = self.trust.observe(self._mean(seen))

    def _observe_norms(self, p: Array, mean_square: float) -> None:
        param_rms = math.sqrt(self._mean(p * p, block_sum))
        update_rms = math.sqrt(mean_square) * self._rule_scale(1.0)
        self.norms = self.norms.observe(param_rms, update_rms, self.options)

    def _observe(self, g: Array, p: Array, u: Array, scale: float, shares: Array | None) -> None:
        options = self.options
        self.mean_abs_gradient = self._mean(np.abs(g))
        mean_square = self._mean(u * u)
        rms = math.sqrt(mean_square)
        self.update_rms = rms * scale
        if not options.exact:
            if shares is not None:
                self._observe_shares(shares)
            if "snr" in options.gates:
                self.gate = self.gate.observe(self.mean_abs_gradient, options.c_min)
            if options.norm_gates and not self._is_fresh:
                self._observe_norms(p, mean_square)
        if options.rule == "rmsprop":
            self.last_rms = rmsprop.observe(self.last_rms, rms)
        if options.rule == "scalar_sign":
            self.averages = scalar_sign.observe(self.averages, options, self.mean_abs_gradient)
        # a scalar's count is of the gradients that its averages have seen
        counted = math.isfinite(self.mean_abs_gradient)
        self.steps += options.rule != "scalar_sign" or counted
