"""Moments of one tensor: decoded for a step, and encoded after it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import adam, belief, rmsprop, softsign
from .codec import Codec, Frame, Framed, Planes
from .codecs import PLAIN, average_codec, square_codec
from .factored import KEPT
from .matrix import Matrix, keeps_columns
from .options import Options, integer_power
from .random_bits import slot_keys
from .trust_focus import Trust

Array = NDArray[Any]
#: Names of the moments; their places are the slot numbers of the random bits.
SLOTS = ("exp_avg", "exp_avg_slow", "exp_avg_sq")
#: What follows a slot's name where it is a number of the whole tensor.
NUMBERS = ("_steps", "_alpha")
#: Second moments whose units are a few a block: ``1 / unit`` is looked up, not the unit.
FEW_UNITS = {"v4", "vlog2", "vlog3", "vlog4"}


def codec_names(
    options: Options, is_f64: bool, numel: int, matrix: Matrix | None, gradient: Array
) -> tuple[str, str]:
    """Codecs of the first and second moment of a tensor whose first gradient this is."""
    m, v = options.codecs
    if is_f64:
        return "fp64", "fp64"
    least_m, least_v = options.least_sizes
    if {m, v} - {"none"} - PLAIN.keys():
        m = "fp32" if m != "none" and numel < least_m else m
        v = "fp32" if numel < least_v else v
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
            self.codecs["exp_avg"] = average_codec(m, gradient.size, options)
        if m != "none" and options.beta_slow is not None:
            self.codecs["exp_avg_slow"] = self.codecs["exp_avg"]
        self.m_start = 0  # steps before the first moment began
        self.centered = options.rule == "belief"  # whether v is about the first moment
        self.planes: dict[str, Planes] = {k: codec.empty() for k, codec in self.codecs.items()}
        #: work items by rows and columns have a size of their own
        self.matrix = matrix if v in KEPT else None

    @property
    def in_units(self) -> bool:
        return "exp_avg" in self.codecs and self.codecs["exp_avg"].update_units

    @property
    def packed(self) -> bool:
        """Whether some moment is anything but one number an element."""
        return not {*self.names, "none"} <= {*PLAIN, "none"}

    @property
    def tensors(self) -> dict[str, Array]:
        """As they are in ``optimizer.state``."""
        return {
            self._key(slot, suffix): plane
            for slot, planes in self.planes.items()
            for suffix, plane in planes.items()
        }

    def _key(self, slot: str, suffix: str) -> str:
        """What ``optimizer.state`` calls a plane: a second moment about the first is a variance,
        and codes and what belongs to them have their codec's name."""
        codec = self.names[slot == "exp_avg_sq"]
        name = "exp_avg_var" if slot == "exp_avg_sq" and self.centered else slot
        if codec in PLAIN or codec in KEPT:
            return name + suffix
        return f"{name}_{codec}{suffix or '_codes'}"

    def _correction(self, t: int) -> float:
        """Bias correction of the first moment after step ``t``; 1 before it has any."""
        age = t - self.m_start
        return 1.0 - integer_power(self.options.betas[0], age) if age > 0 else 1.0

    def _codecs_in(self, frame: Frame) -> dict[str, Codec]:
        return {
            slot: codec.within(frame) if isinstance(codec, Framed) else codec
            for slot, codec in self.codecs.items()
        }

    def _frame_after(self, t: int, like: Array) -> Frame:
        """Between steps."""
        correction = self._correction(t)
        return Frame(np.zeros_like(like), correction, correction, t == self.m_start)

    def decoded(self, t: int) -> dict[str, Array]:
        """The moments after step ``t``, one number an element."""
        real = np.float32
        v = self.codecs["exp_avg_sq"].decode(self.planes["exp_avg_sq"], np.array(1, real))
        found = {
            slot: codec.decode(self.planes[slot], np.array(1, real))
            for slot, codec in self._codecs_in(self._frame_after(t, v)).items()
        }
        if self.in_units:
            unit = self._unit(t)
            found = {k: x if k == "exp_avg_sq" else x * unit for k, x in found.items()}
        return found

    def _unit(self, t: int, decay: float = 1.0, level: Array | None = None) -> Array:
        """What update units are of, by the second moment as it is kept after step ``t``; times a
        level, and by roots that a step has multiplied with its decay's."""
        codec, planes = self.codecs["exp_avg_sq"], self.planes["exp_avg_sq"]
        roots, restored = codec.unit_roots(planes, np.array(decay, np.float32))
        one = np.ones(1, np.float32) if level is None else level
        found = adam.unit_denominator(roots, restored, one, self.options, t)
        return codec.unit(planes, found)

    def _in_step(self, average: Array, decays: dict[str, float], t: int) -> Array:
        """The decayed first moment of step ``t``, from update units."""
        levels = self.codecs["exp_avg"].levels(
            self.planes["exp_avg"], np.array(decays["exp_avg"], np.float32)
        )
        whole, level = (average, None) if levels is None else levels
        return whole * self._unit(t - 1, decays["exp_avg_sq"], level)

    def recentred(self, t: int) -> Array:
        """The second moment after step ``t`` about zero, where it is about the first; else the
        other way round."""
        moments, sign = self.decoded(t), 1 if self.centered else -1
        m, v = moments["exp_avg"], moments["exp_avg_sq"]
        return belief.recentred(m, v, self.options, t, self.m_start, sign)

    def take(self, old: History, t: int, key: int) -> None:
        """The moments of another history after step ``t``; one that it lacks starts at zero. What
        stays in its codecs is left alone, as is a second moment beside a first that comes or goes.
        """
        had_m, has_m = "exp_avg" in old.codecs, "exp_avg" in self.codecs
        self.m_start = 0 if not has_m else old.m_start if had_m else t
        recentres = had_m and old.centered != self.centered
        if not recentres and old.names == self.names and old.codecs.keys() == self.codecs.keys():
            self.planes = old.planes
            return
        if not recentres and not (had_m and has_m) and old.names[1] == self.names[1]:
            self.planes["exp_avg_sq"] = old.planes["exp_avg_sq"]
            return
        moments = old.decoded(t)
        if recentres:
            moments["exp_avg_sq"] = old.recentred(t)
        zeros = np.zeros_like(moments["exp_avg_sq"])
        values = {slot: moments.get(slot, zeros) for slot in self.codecs}
        for suffix in NUMBERS:
            if suffix in old.planes.get("exp_avg", {}) and suffix in self.planes.get("exp_avg", {}):
                self.planes["exp_avg"][suffix] = old.planes["exp_avg"][suffix]
        self._encode(values, {}, self._frame_after(t, zeros), t, key)

    def _encode(
        self, values: dict[str, Array], decayed: dict[str, Array], frame: Frame, t: int, key: int
    ) -> None:
        """The moments after step ``t``; ``decayed`` as they came into it, empty outside of one."""
        codecs = self._codecs_in(frame)
        for slot in ("exp_avg_sq", "exp_avg_slow", "exp_avg"):
            if slot not in codecs:
                continue
            codec, old, value = codecs[slot], self.planes[slot], values[slot]
            if codec.update_units:
                value = self._to_units(codec, value, values["exp_avg_sq"], frame, t)
            keys = slot_keys(key, SLOTS.index(slot), value.size)
            if not decayed and isinstance(codec, Framed):
                self.planes[slot] = codec.encode_anew(old, value, keys)
            else:
                before = decayed.get(slot, np.zeros_like(value))
                self.planes[slot] = codec.encode(old, before, value, keys)

    def _to_units(self, codec: Codec, value: Array, v: Array, frame: Frame, t: int) -> Array:
        """By now the second moment has been encoded."""
        if not (isinstance(codec, Framed) and codec.persisted_units):
            return np.asarray(value / adam.denominator(np.sqrt(v), self.options, t))
        corrected, unit = np.float32(1) / np.float32(frame.correction), self._unit(t)
        if self.names[1] in FEW_UNITS:
            return np.asarray(value * (corrected / unit))
        return np.asarray(value * corrected / unit)

    def step(self, p: Array, g: Array, t: int, length: float, key: int) -> tuple[Array, Array]:
        """Step number ``t``: the new parameter and the update, by ``length`` of which it moves;
        ``key`` is of the random bits."""
        if self.options.rule == "rmsprop":
            return self._step_without_momentum(p, g, t, length, key)
        options, real = self.options, p.dtype.type
        frame = Frame(g, self._correction(t - 1), self._correction(t), t - 1 == self.m_start)
        decays = dict(zip(SLOTS, adam.decays(options, t), strict=True))
        decayed = {
            slot: codec.decode(self.planes[slot], np.array(decays[slot], real))
            for slot, codec in self._codecs_in(frame).items()
        }
        average, slow = decayed["exp_avg"], decayed.get("exp_avg_slow")
        if self.in_units:
            # of the denominator that the last step had, but for what v lost in its codec
            if slow is None:
                average = self._in_step(average, decays, t)
            else:
                unit = self._unit(t - 1, decays["exp_avg_sq"])
                average, slow = average * unit, slow * unit

        old = adam.Moments(average, decayed["exp_avg_sq"], slow)
        step = softsign.step if options.rule == "softsign" else adam.step
        new_p, new, u = step(p, g, old, options, t, length, self.m_start)
        values = {"exp_avg": new.m, "exp_avg_sq": new.v}
        if new.slow is not None:
            values["exp_avg_slow"] = new.slow
        self._encode(values, decayed, frame, t, key)
        return new_p, u

    def _step_without_momentum(
        self, p: Array, g: Array, t: int, length: float, key: int
    ) -> tuple[Array, Array]:
        slot = "exp_avg_sq"
        decay = np.array(self.options.betas[1], p.dtype.type)
        decayed = self.codecs[slot].decode(self.planes[slot], decay)
        new_p, v, u = rmsprop.step(p, g, decayed, self.options, t, length)
        keys = slot_keys(key, SLOTS.index(slot), g.size)
        self.planes[slot] = self.codecs[slot].encode(self.planes[slot], decayed, v, keys)
        return new_p, u

    def step_about_mean(
        self, p: Array, g: Array, t: int, trust: Trust, length: float, key: int
    ) -> tuple[Array, Array, Array]:
        """Step number ``t`` by rule ``belief``: the new parameter, the update, the shares."""
        real = p.dtype.type
        decays = {"exp_avg": 1.0, "exp_avg_sq": self.options.betas[1]}
        decayed = {
            slot: self.codecs[slot].decode(self.planes[slot], np.array(decay, real))
            for slot, decay in decays.items()
        }
        m = decayed["exp_avg"]
        if self.in_units:
            m = self._in_step(m, decays, t)
        s = decayed["exp_avg_sq"]
        new = belief.step(p, g, m, s, self.options, t, trust, length, self.m_start)
        m = new.m
        if self.in_units:
            m = m / adam.denominator(np.sqrt(new.s), self.options, t)
        for slot, value in (("exp_avg", m), ("exp_avg_sq", new.s)):
            keys = slot_keys(key, SLOTS.index(slot), g.size)
            self.planes[slot] = self.codecs[slot].encode(
                self.planes[slot], decayed[slot], value, keys
            )
        return new.p, new.u, new.shares
