"""Preset Tiger in float64: rule ``softsign``, gates ``trust`` and ``agc``, a clip of the update.

The repaired mathematics, measured exactly: moments corrected for their start, a soft sign of the
update in its own unit, sizes as root mean squares with a floor under the parameter's, each tensor's
own average, weight decay and rate outside of everything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TigerOptions:
    """Options of a group, under the core's names."""

    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.0
    lr_scale: float = 1.0
    blend: float = 0.2
    kappa: float = 0.3
    blend_to: float | None = None
    blend_steps: int = 0
    blend_schedule: str = "cosine"
    trust: bool = True
    trust_clip: float = 10.0
    agc_clip: float = 0.0  # none
    clip_update: float | None = None
    param_floor: float = 1e-3
    granularity: str = "tensor"
    norm_decay: float = 0.0


@dataclass
class TigerTensor:
    """A parameter and its state; ``factored`` where its second moment is kept by rows and
    columns."""

    param: Array
    factored: bool = False
    steps: int = 0
    m: Array = field(init=False)
    v: Array = field(init=False)

    def __post_init__(self) -> None:
        self.m, self.v = np.zeros_like(self.param), np.zeros_like(self.param)

    def observe(self, g: Array, options: TigerOptions) -> Array:
        """Take a gradient into the moments; the update over its size in units of Adam's."""
        self.steps += 1
        beta1, beta2 = options.betas
        self.m = beta1 * self.m + (1 - beta1) * g
        self.v = beta2 * self.v + (1 - beta2) * g * g
        m_hat = self.m / (1 - beta1**self.steps)
        v_hat = self.v / (1 - beta2**self.steps)
        if self.factored:
            self.v = by_rows_and_columns(self.v)
        return m_hat / (np.sqrt(v_hat) + options.eps)


def by_rows_and_columns(v: Array) -> Array:
    """What is left of a second moment that is kept as means of rows and of columns."""
    matrix = v.reshape(v.shape[0], -1)
    rows, columns = matrix.mean(axis=1), matrix.mean(axis=0)
    if rows.mean() == 0:
        return np.zeros_like(v)
    return np.asarray(np.outer(rows, columns) / rows.mean()).reshape(v.shape)


def blend(options: TigerOptions, step: int) -> float:
    """Weight of the update itself beside its soft sign, at the tensor's step from 1."""
    if options.blend_steps <= 0 or options.blend_to is None:
        return options.blend
    share = min(step / options.blend_steps, 1.0)
    if options.blend_schedule == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return (1 - share) * options.blend + share * options.blend_to


def softened(w: Array, options: TigerOptions, step: int) -> Array:
    """Between the update and its sign."""
    b = blend(options, step)
    return np.asarray((1 - b) * w / (np.abs(w) + options.kappa) + b * w)


def rms_of(tensors: Sequence[Array]) -> float:
    """Root mean square of all elements together."""
    count = sum(x.size for x in tensors)
    return math.sqrt(sum(float(np.sum(x * x)) for x in tensors) / max(count, 1))


@dataclass
class Sample:
    """What shares a factor: a tensor, or all of a group."""

    square: float | None = None  # average of the squared root mean square of the update

    def factor(self, params: Sequence[Array], updates: Sequence[Array], o: TigerOptions) -> float:
        """The product of the factors that are asked for; 1 where there is no update. The trust
        ratio is of what clipping leaves."""
        update = self._averaged(rms_of(updates), o.norm_decay)
        if update == 0:
            return 1.0
        size = max(rms_of(params), o.param_floor)
        clip = min(1.0, o.agc_clip * size / update) if o.agc_clip > 0 else 1.0
        trust = min(o.trust_clip, size / (clip * update)) if o.trust else 1.0
        bound = min(1.0, o.clip_update / update) if o.clip_update is not None else 1.0
        return clip * trust * bound

    def _averaged(self, update: float, decay: float) -> float:
        """Out of an average of its square that the first one starts."""
        if update == 0:
            return 0.0
        before = update * update if self.square is None else self.square
        self.square = decay * before + (1 - decay) * update * update
        return math.sqrt(self.square)


@dataclass
class TigerGroup:
    """Tensors that share options; under ``granularity="group"`` one factor, too, under ``"row"``
    one for each row of the first dimension."""

    options: TigerOptions
    tensors: Sequence[TigerTensor]

    def __post_init__(self) -> None:
        self.samples = [Sample() for _ in self.tensors]

    def step(self, gradients: Sequence[Array]) -> None:
        options = self.options
        updates = []
        for tensor, g in zip(self.tensors, gradients, strict=True):
            w = tensor.observe(g, options)
            updates.append(softened(w, options, tensor.steps))
        for tensor, u, c in zip(self.tensors, updates, self._factors(updates), strict=True):
            length = options.lr * options.lr_scale
            tensor.param = (1 - length * options.weight_decay) * tensor.param - length * c * u

    def _factors(self, updates: Sequence[Array]) -> list[Array]:
        params, options = [tensor.param for tensor in self.tensors], self.options
        if options.granularity == "group":
            return [np.array(self.samples[0].factor(params, updates, options))] * len(updates)
        if options.granularity == "row":
            return [by_rows(p, u, options) for p, u in zip(params, updates, strict=True)]
        return [
            np.array(sample.factor([p], [u], options))
            for sample, p, u in zip(self.samples, params, updates, strict=True)
        ]


def by_rows(param: Array, update: Array, options: TigerOptions) -> Array:
    """A factor for each row, of no memory; a vector is one row."""
    if param.ndim < 2:
        return np.array(Sample().factor([param], [update], options))
    pairs = zip(param, update, strict=True)
    factors = [Sample().factor([p], [u], options) for p, u in pairs]
    return np.array(factors).reshape(-1, *[1] * (param.ndim - 1))
