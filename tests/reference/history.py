"""Moments of one tensor: decoded for a step, and encoded after it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import adam, rmsprop
from .codec import Codec, Planes
from .codecs import PLAIN, average_codec, square_codec
from .factored import KEPT
from .matrix import Matrix, keeps_columns
from .options import Options
from .random_bits import slot_keys

Array = NDArray[Any]
#: Keys in ``optimizer.state``; their places are the slot numbers of the random bits.
SLOTS = ("exp_avg", "exp_avg_slow", "exp_avg_sq")


def codec_names(
    options: Options, is_f64: bool, numel: int, matrix: Matrix | None, gradient: Array
) -> tuple[str, str]:
    """Codecs of the first and second moment of a tensor whose first gradient this is."""
    m, v = options.codecs
    if is_f64:
        return "fp64", "fp64"
    if not {m, v} - {"none"} <= PLAIN.keys() and numel < options.min_compress_size:
        return "none" if m == "none" else "fp32", "fp32"
    if v in KEPT and matrix is None:
        return m, "v4"
    if v == "rowmean" and matrix is not None and keeps_columns(gradient, matrix):
        return m, "colmean"
    return m, v


class History:
    """Moments of a tensor, encoded.

    Args:
        gradient: the first one, in the type of the arithmetic.
    """

    def __init__(self, options: Options, gradient: Array, matrix: Matrix | None) -> None:
        self.options = options
        is_f64 = gradient.dtype == np.float64
        m, v = codec_names(options, is_f64, gradient.size, matrix, gradient)
        self.names = m, v
        self.codecs: dict[str, Codec] = {"exp_avg_sq": square_codec(v, gradient.size, matrix)}
        if m != "none":
            self.codecs["exp_avg"] = average_codec(m, gradient.size)
        if m != "none" and options.beta_slow is not None:
            self.codecs["exp_avg_slow"] = self.codecs["exp_avg"]
        self.m_start = 0  # steps before the first moment began
        self.planes: dict[str, Planes] = {k: codec.empty() for k, codec in self.codecs.items()}
        #: work items by rows and columns have a size of their own
        self.matrix = matrix if v in KEPT else None

    @property
    def in_units(self) -> bool:
        return "exp_avg" in self.codecs and self.codecs["exp_avg"].update_units

    @property
    def tensors(self) -> dict[str, Array]:
        """As they are in ``optimizer.state``."""
        return {
            key + suffix: plane
            for key, planes in self.planes.items()
            for suffix, plane in planes.items()
        }

    def decoded(self, t: int) -> dict[str, Array]:
        """The moments after step ``t``, one number an element."""
        real = np.float32
        found = {
            slot: codec.decode(self.planes[slot], np.array(1, real))
            for slot, codec in self.codecs.items()
        }
        if self.in_units:
            roots = self.codecs["exp_avg_sq"].roots(self.planes["exp_avg_sq"])
            unit = adam.denominator(roots, self.options, t)
            found = {k: x if k == "exp_avg_sq" else x * unit for k, x in found.items()}
        return found

    def take(self, old: History, t: int, key: int) -> None:
        """The moments of another history after step ``t``; one that it lacks starts at zero. A
        second moment that stays in its codec beside a first that comes or goes is left alone."""
        had_m, has_m = "exp_avg" in old.codecs, "exp_avg" in self.codecs
        self.m_start = 0 if not has_m else old.m_start if had_m else t
        if not (had_m and has_m) and old.names[1] == self.names[1]:
            self.planes["exp_avg_sq"] = old.planes["exp_avg_sq"]
            return
        moments = old.decoded(t)
        zeros = np.zeros_like(moments["exp_avg_sq"])
        values = {slot: moments.get(slot, zeros) for slot in SLOTS}
        if self.in_units:
            unit = adam.denominator(np.sqrt(values["exp_avg_sq"]), self.options, t)
            values = {k: x if k == "exp_avg_sq" else x / unit for k, x in values.items()}
        for slot, codec in self.codecs.items():
            keys = slot_keys(key, SLOTS.index(slot), values[slot].size)
            empty = codec.empty()
            nothing = np.zeros_like(values[slot])
            self.planes[slot] = codec.encode(empty, nothing, values[slot], keys)

    def step(
        self, p: Array, g: Array, t: int, gate: float, key: int, scale: float
    ) -> tuple[Array, Array]:
        """Step number ``t``: the new parameter and the update; ``key`` is of the random bits,
        ``scale`` what the update is multiplied with."""
        if self.options.rule == "rmsprop":
            return self._step_without_momentum(p, g, t, scale, key)
        options, real = self.options, p.dtype.type
        decays = dict(zip(SLOTS, adam.decays(options, t), strict=True))
        decayed = {
            slot: codec.decode(self.planes[slot], np.array(decays[slot], real))
            for slot, codec in self.codecs.items()
        }
        average, slow = decayed["exp_avg"], decayed.get("exp_avg_slow")
        if (
            self.in_units
        ):  # of the denominator that the last step had, but for what v lost in its codec
            roots = self.codecs["exp_avg_sq"].roots(self.planes["exp_avg_sq"])
            unit = adam.denominator(roots, options, t - 1)
            average, slow = average * unit, None if slow is None else slow * unit

        old = adam.Moments(average, decayed["exp_avg_sq"], slow)
        new_p, new, u = adam.step(p, g, old, options, t, gate, self.m_start)

        if self.in_units:
            unit = adam.denominator(np.sqrt(new.v), options, t)
            new.m, new.slow = new.m / unit, None if new.slow is None else new.slow / unit
        for number, (slot, value) in enumerate(zip(SLOTS, (new.m, new.slow, new.v), strict=True)):
            if value is not None:
                keys = slot_keys(key, number, g.size)
                self.planes[slot] = self.codecs[slot].encode(
                    self.planes[slot], decayed[slot], value, keys
                )
        return new_p, u

    def _step_without_momentum(
        self, p: Array, g: Array, t: int, scale: float, key: int
    ) -> tuple[Array, Array]:
        slot = "exp_avg_sq"
        decay = np.array(self.options.betas[1], p.dtype.type)
        decayed = self.codecs[slot].decode(self.planes[slot], decay)
        new_p, v, u = rmsprop.step(p, g, decayed, self.options, t, scale)
        keys = slot_keys(key, SLOTS.index(slot), g.size)
        self.planes[slot] = self.codecs[slot].encode(self.planes[slot], decayed, v, keys)
        return new_p, u
