"""Tier 2's state of one tensor: decoded for a step, and encoded after it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import adam
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
    m, _, v = options.state_dtype.partition("+")
    v = v or m
    if is_f64:
        return "fp64", "fp64"
    if not {m, v} <= PLAIN.keys() and numel < options.min_compress_size:
        return "fp32", "fp32"
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
        average = average_codec(m, gradient.size)
        square = square_codec(v, gradient.size, matrix)
        self.codecs: dict[str, Codec] = {"exp_avg": average, "exp_avg_sq": square}
        if options.beta_slow is not None:
            self.codecs["exp_avg_slow"] = average
        self.planes: dict[str, Planes] = {k: codec.empty() for k, codec in self.codecs.items()}
        #: work items by rows and columns have a size of their own
        self.matrix = matrix if v in KEPT else None

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
        if self.codecs["exp_avg"].update_units:
            roots = self.codecs["exp_avg_sq"].roots(self.planes["exp_avg_sq"])
            unit = adam.denominator(roots, self.options, t)
            found = {k: x if k == "exp_avg_sq" else x * unit for k, x in found.items()}
        return found

    def take(self, moments: dict[str, Array], t: int, key: int) -> None:
        """Encode moments of another history after step ``t``; one that it lacks starts at zero."""
        values = {slot: moments.get(slot, np.zeros_like(moments["exp_avg"])) for slot in SLOTS}
        if self.codecs["exp_avg"].update_units:
            unit = adam.denominator(np.sqrt(values["exp_avg_sq"]), self.options, t)
            values = {k: x if k == "exp_avg_sq" else x / unit for k, x in values.items()}
        for slot, codec in self.codecs.items():
            keys = slot_keys(key, SLOTS.index(slot), values[slot].size)
            empty = codec.empty()
            nothing = np.zeros_like(values[slot])
            self.planes[slot] = codec.encode(empty, nothing, values[slot], keys)

    def step(self, p: Array, g: Array, t: int, gate: float, key: int) -> tuple[Array, Array]:
        """Step number ``t``: the new parameter and the update; ``key`` is of the random bits."""
        options, real = self.options, p.dtype.type
        decays = dict(zip(SLOTS, adam.decays(options, t), strict=True))
        decayed = {
            slot: codec.decode(self.planes[slot], np.array(decays[slot], real))
            for slot, codec in self.codecs.items()
        }
        average, slow = decayed["exp_avg"], decayed.get("exp_avg_slow")
        in_units = self.codecs["exp_avg"].update_units
        if in_units:  # of the denominator that the last step had, but for what v lost in its codec
            roots = self.codecs["exp_avg_sq"].roots(self.planes["exp_avg_sq"])
            unit = adam.denominator(roots, options, t - 1)
            average, slow = average * unit, None if slow is None else slow * unit

        old = adam.Moments(average, decayed["exp_avg_sq"], slow)
        new_p, new, u = adam.step(p, g, old, options, t, gate)

        if in_units:
            unit = adam.denominator(np.sqrt(new.v), options, t)
            new.m, new.slow = new.m / unit, None if new.slow is None else new.slow / unit
        for number, (slot, value) in enumerate(zip(SLOTS, (new.m, new.slow, new.v), strict=True)):
            if value is not None:
                keys = slot_keys(key, number, g.size)
                self.planes[slot] = self.codecs[slot].encode(
                    self.planes[slot], decayed[slot], value, keys
                )
        return new_p, u
