"""The optimizer Tiger, release 2.2, as its formulas have it, in float64: defects and all.

For one parameter group. Where nothing is said about an order or a start, it is here: the counter of
the blend's schedule is 1 at the first step, an average of trust ratios starts at its first ratio,
and tensors, and slices of one, enter it in order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TINY = 1e-12  # under norms that something is divided by
LEAST_MEAN = 1e-30  # of rows and columns of squared gradients


@dataclass(frozen=True)
class LiteralOptions:
    """Options of a group, under their own names."""

    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.0
    lr_scale: float = 1.0
    factored: bool = True
    precond_alpha: float = 1.0
    sign_mode: str = "softsign"
    sign_tau: float = 1e-3
    sign_blend: float = 0.2
    blend_to: float = 0.6
    blend_steps: int = 0
    blend_schedule: str = "cosine"
    use_trust_ratio: bool = True
    trust_clip: float = 10.0
    trust_space: str = "update"
    trust_ema_beta: float = 0.0
    agc_clip: float = 0.0
    agc_eps: float = 1e-12
    rms_clip_threshold: float = 0.0
    rms_clip_granularity: str = "param"
    qkv_trust_split: bool = False
    qkv_lr_scales: tuple[float, float, float] = (1.0, 1.0, 1.0)
    block_trust_chunks: int = 0
    bucket_standardize: bool = False
    bucket_standardize_source: str = "global"
    foreach_min_bucket: int = 4
    skip_if_nonfinite: bool = True


@dataclass
class LiteralTensor:
    """A parameter and its state.

    Attributes:
        thirds_along: the dimension along which it is cut into queries, keys and values.
    """

    param: Array
    thirds_along: int | None = None
    m: Array = field(init=False)
    v: Array = field(init=False)
    rows: Array = field(init=False)
    columns: Array = field(init=False)

    def __post_init__(self) -> None:
        first = self.param.shape[0] if self.param.ndim else 1
        self.m, self.v = np.zeros_like(self.param), np.zeros_like(self.param)
        self.rows, self.columns = np.zeros(first), np.zeros(self.param.size // max(first, 1))


def norm(x: Array) -> float:
    return math.sqrt(float(np.sum(x * x)))


def rms(x: Array) -> float:
    return norm(x) / math.sqrt(max(x.size, 1))


# ---- weight decay, what is skipped ---------------------------------------------------------------


def decayed(p: Array, options: LiteralOptions) -> Array:
    """First of all, and of tensors that are skipped afterwards, too."""
    return p - options.lr * options.lr_scale * options.weight_decay * p


def is_skipped(p: Array, g: Array, options: LiteralOptions) -> bool:
    return options.skip_if_nonfinite and not bool(np.isfinite(p).all() and np.isfinite(g).all())


# ---- moments, without bias correction ------------------------------------------------------------


def observe(tensor: LiteralTensor, g: Array, options: LiteralOptions) -> None:
    """Take a gradient into the moments."""
    beta1, beta2 = options.betas
    tensor.m = beta1 * tensor.m + (1 - beta1) * g
    if options.factored and g.ndim >= 2:
        squares = (g * g).reshape(g.shape[0], -1)
        tensor.rows = beta2 * tensor.rows + (1 - beta2) * squares.mean(axis=1)
        tensor.columns = beta2 * tensor.columns + (1 - beta2) * squares.mean(axis=0)
        rows = np.maximum(tensor.rows, LEAST_MEAN)
        columns = np.maximum(tensor.columns, LEAST_MEAN)
        tensor.v = (np.outer(rows, columns) / rows.mean()).reshape(g.shape)
    else:
        tensor.v = beta2 * tensor.v + (1 - beta2) * g * g


def preconditioner(v: Array, options: LiteralOptions) -> Array:
    """A power of the second moment alone: in the factored case the new estimate, not each
    element's own average."""
    if options.precond_alpha == 0:
        return np.ones_like(v)
    return np.asarray((np.sqrt(v) + options.eps) ** -options.precond_alpha)


# ---- direction -----------------------------------------------------------------------------------


def blend(options: LiteralOptions, step: int) -> float:
    """Weight of the magnitude's direction at step number ``step``, from 1."""
    if options.blend_steps <= 0:
        return options.sign_blend
    share = min(step / options.blend_steps, 1.0)
    if options.blend_schedule == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return (1 - share) * options.sign_blend + share * options.blend_to


def direction(m: Array, factors: Array, options: LiteralOptions, step: int) -> Array:
    """A sign and the normalised momentum, both times the preconditioner."""
    sign = np.sign(m)
    if options.sign_mode == "softsign":
        sign = m / (np.abs(m) + options.sign_tau)
    b = blend(options, step)
    return np.asarray((1 - b) * sign * factors + b * m / (rms(m) + options.eps) * factors)


def clipped_to_param(d: Array, p: Array, options: LiteralOptions) -> Array:
    """No longer than a share of the parameter: nothing at all where that is zero."""
    if options.agc_clip <= 0:
        return d
    limit, length = options.agc_clip * (norm(p) + options.agc_eps), norm(d)
    return d * (limit / length) if length > limit else d


def density(d: Array, factor: float = 0.25) -> float:
    """Share of elements beyond so many root mean squares."""
    return float(np.mean(np.abs(d) > factor * rms(d)))


# ---- factors of the step -------------------------------------------------------------------------


def rms_factor(d: Array, options: LiteralOptions) -> float:
    """Granularities other than ``param`` do nothing."""
    limit, size = options.rms_clip_threshold, rms(d)
    if limit <= 0 or options.rms_clip_granularity != "param" or size == 0:
        return 1.0
    return min(1.0, limit / size)


@dataclass
class Trust:
    """Trust ratios of a group, whose average all its tensors share."""

    average: float | None = None

    def ratio(self, p: Array, reference: Array, options: LiteralOptions) -> float:
        """Of a parameter to what its step is measured by."""
        if not options.use_trust_ratio or options.trust_space not in ("update", "precond"):
            return 1.0
        above, below = norm(p), norm(reference)
        raw = above / (below + TINY) if above > 0 and below > 0 else 1.0
        beta = options.trust_ema_beta
        if beta > 0:
            before = raw if self.average is None else self.average
            raw = self.average = beta * before + (1 - beta) * raw
        return min(options.trust_clip, raw)


# ---- the step ------------------------------------------------------------------------------------


@dataclass
class LiteralGroup:
    """Tensors that share options, an average of trust ratios, and a bucket of updates."""

    options: LiteralOptions
    tensors: Sequence[LiteralTensor]
    trust: Trust = field(default_factory=Trust)
    steps: int = 0

    def step(self, gradients: Sequence[Array | None]) -> None:
        """One step; None is a parameter without a gradient."""
        self.steps += 1
        bucket: list[tuple[LiteralTensor, Array]] = []
        for tensor, g in zip(self.tensors, gradients, strict=True):
            if g is None:
                continue
            tensor.param = decayed(tensor.param, self.options)
            if not is_skipped(tensor.param, g, self.options):
                self._step(tensor, g, bucket)
        for tensor, update in standardized(bucket, self.options):
            tensor.param = tensor.param - update

    def _step(
        self, tensor: LiteralTensor, g: Array, bucket: list[tuple[LiteralTensor, Array]]
    ) -> None:
        options, p = self.options, tensor.param
        observe(tensor, g, options)
        factors = preconditioner(tensor.v, options)
        d = direction(tensor.m, factors, options, self.steps)
        d = clipped_to_param(d, p, options)
        by_momentum = options.trust_space == "precond"
        reference = tensor.m * factors if by_momentum else d
        length = options.lr * options.lr_scale * rms_factor(d, options)
        sliced = options.qkv_trust_split and options.use_trust_ratio
        if tensor.thirds_along is not None and sliced:
            tensor.param = self._by_thirds(tensor, d, reference)
        elif self._is_cut(p):
            pieces = [np.split(x, options.block_trust_chunks) for x in (p, d, reference)]
            steps = [
                length * self.trust.ratio(part, by, options) * piece
                for part, piece, by in zip(*pieces, strict=True)
            ]
            tensor.param = p - np.concatenate(steps)
        else:
            bucket.append((tensor, length * self.trust.ratio(p, reference, options) * d))

    def _is_cut(self, p: Array) -> bool:
        pieces = self.options.block_trust_chunks
        return pieces > 0 and p.ndim == 2 and p.shape[0] % pieces == 0

    def _by_thirds(self, tensor: LiteralTensor, d: Array, reference: Array) -> Array:
        """A rate of its own for each third, in the place of the group's ``lr_scale``. Measured by
        the momentum, it is the whole tensor's norm that each is divided by."""
        options, axis = self.options, tensor.thirds_along
        assert axis is not None
        length = options.lr * rms_factor(d, options)
        out = []
        for p, part, scale in zip(
            np.split(tensor.param, 3, axis),
            np.split(d, 3, axis),
            options.qkv_lr_scales,
            strict=True,
        ):
            by = reference if options.trust_space == "precond" else part
            out.append(p - length * scale * self.trust.ratio(p, by, options) * part)
        return np.concatenate(out, axis)


def standardized(
    bucket: list[tuple[LiteralTensor, Array]], options: LiteralOptions
) -> list[tuple[LiteralTensor, Array]]:
    """The group's updates over their common root mean square. The learning rate is in them already,
    and cancels."""
    if not options.bucket_standardize or len(bucket) < options.foreach_min_bucket:
        return bucket
    sizes = [rms(update) for _, update in bucket]
    if options.bucket_standardize_source == "global":
        common = rms(np.concatenate([update.ravel() for _, update in bucket]))
    elif options.bucket_standardize_source == "median":
        common = float(np.median(sizes))
    else:
        common = float(np.mean(sizes))
    return [(tensor, update / max(common, TINY)) for tensor, update in bucket]
