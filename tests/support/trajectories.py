"""Trajectories that a test runs in a process of its own, and their twins in the reference."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.state.building import decoded_moments
from cosmic.state.entries import rung_of
from helpers import normal, real_dtype_name, set_gradient, stored
from reference.options import Options
from reference.tensor import ReferenceTensor

#: What a gradient can hold at its worst, placed among ordinary numbers.
SPECIAL_VALUES = (
    0.0, -0.0, 1e-45, -1e-42, 1e-38, 1e-20, 1e18, 3e19, -3.4e38, float("inf"), float("-inf"),
    float("nan"),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A parameter, its options and what its gradients are.

    Attributes:
        spread: power that magnitudes of the gradient's numbers are raised to: 0 makes all of them
            1, 4 makes them differ by orders of magnitude.
        absent: steps without a gradient.
        special: every second step's gradient holds SPECIAL_VALUES.
        poison: value of element 129 of every gradient.
        change: a step, and the ``state_dtype``, the rung or the gate (``gate=agar``) from it on.
        pulse: what the gradients of successive steps are multiplied with, over and over.
    """

    name: str
    shape: tuple[int, ...] = (300,)
    dtype: str = "float32"
    grad_dtype: str | None = None
    steps: int = 5
    absent: tuple[int, ...] = ()
    special: bool = False
    poison: float | None = None
    spread: float = 1.0
    pulse: tuple[float, ...] = (1.0,)
    change: tuple[int, str] | None = None
    seed: int = 0
    index: int = 0
    options: Options = field(default_factory=Options)

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def param(self) -> Tensor:
        return normal(7, *self.shape, dtype=getattr(torch, self.dtype))

    def gradient(self, step: int) -> Tensor | None:
        if step in self.absent:
            return None
        scale = self.pulse[step % len(self.pulse)]
        dtype = getattr(torch, self.grad_dtype or self.dtype)
        gradient = normal(100 + step, *self.shape, dtype=dtype, scale=scale)
        if self.spread != 1.0:
            gradient = gradient.sign() * gradient.abs() ** self.spread
        flat = gradient.view(-1)
        if self.special and step % 2:
            values = torch.tensor(SPECIAL_VALUES, dtype=torch.float64).to(gradient.dtype)
            flat[5 : 5 + len(values)] = values
        if self.poison is not None:
            flat[129] = self.poison
        return gradient


@dataclass(frozen=True)
class Outcome:
    """A parameter, its state and its moments as they decode, flat, after a trajectory; and what the
    last step reported."""

    arrays: dict[str, NDArray[Any]]
    stats: dict[str, float]


#: Options of a group that the constructor does not take.
OF_A_CODEC = ("m_step_factor", "null_pct", "amp_pct")


def changed(to: str) -> dict[str, Any]:
    """The options that a change sets."""
    if to.startswith("gate="):
        return {"gate": None if to == "gate=none" else to.removeprefix("gate=")}
    return {"tier": None, "rung": to} if to.startswith("tier") else {"state_dtype": to}


def run_cosmic(case: Case) -> Outcome:
    """The compiled optimizer. Parameters in front of it give it its index."""
    param = nn.Parameter(case.param())
    idle = [nn.Parameter(torch.zeros(1)) for _ in range(case.index)]
    options = asdict(case.options)
    of_a_codec = {key: options.pop(key) for key in OF_A_CODEC}
    optimizer = Cosmic([*idle, param], seed=case.seed, **options)
    optimizer.param_groups[0].update(of_a_codec)
    with warnings.catch_warnings():
        if case.special or case.poison is not None:
            warnings.simplefilter("ignore", RuntimeWarning)
        for step in range(case.steps):
            if case.change and case.change[0] == step:
                optimizer.param_groups[0].update(changed(case.change[1]))
            set_gradient(param, case.gradient(step))
            optimizer.step()
    state = optimizer.state[param]
    decoded: dict[str, Tensor] = {}
    if rung_of(state).v not in ("none", "fp64"):
        decoded = decoded_moments(param, state, optimizer.param_groups[0])
    arrays = {key: stored(value) for key, value in state.items() if isinstance(value, Tensor)}
    arrays.update({f"decoded {key}": stored(value) for key, value in decoded.items()})
    if "exp_avg_start" in state:
        arrays["exp_avg_start"] = np.array([state["exp_avg_start"]])
    return Outcome({"param": stored(param), **arrays}, optimizer.stats()[0])


def run_reference(case: Case) -> Outcome:
    """The same in NumPy."""
    dtype = real_dtype_name(getattr(torch, case.dtype))
    sizes = (*case.shape, 2) if case.dtype.startswith("complex") else case.shape
    tensor = ReferenceTensor(
        stored(case.param()), dtype, case.options, sizes=sizes, index=case.index, seed=case.seed
    )
    for step in range(case.steps):
        gradient = case.gradient(step)
        if case.change and case.change[0] == step:
            assert gradient is not None
            tensor.change(replace(case.options, **changed(case.change[1])), stored(gradient))
        if gradient is None:
            tensor.step(None)
        else:
            tensor.step(stored(gradient), real_dtype_name(gradient.dtype))
    arrays: dict[str, NDArray[Any]] = {"param": tensor.stored}
    if tensor.low is not None:
        arrays["master_low"] = tensor.low
    if tensor.history:
        arrays.update(tensor.history.tensors)
        if dtype != "float64":
            moments = tensor.history.decoded(tensor.steps)
            arrays.update({f"decoded {key}": value for key, value in moments.items()})
        if tensor.history.m_start:
            arrays["exp_avg_start"] = np.array([tensor.history.m_start])
        if tensor.history.packed:
            arrays["packed_shape"] = np.array(sizes, np.int64)
    if tensor.options.rule != "sign":
        arrays["step"] = np.array([tensor.steps])
    if tensor.options.rule == "scalar_sign":
        arrays["magnitude"] = np.array(tensor.averages)
    if tensor.options.rule == "rmsprop":
        arrays["update_rms"] = np.array([tensor.last_rms])
    arrays.update({key: np.array(numbers) for key, numbers in tensor.gate_numbers.items()})
    stats = {"update_rms": tensor.update_rms, "gradient_abs": tensor.mean_abs_gradient}
    return Outcome(arrays, stats)


def assert_same_bits(got: NDArray[Any], want: NDArray[Any], what: str) -> None:
    """Equal bits, except that one NaN is as good as another."""
    assert got.dtype == want.dtype and got.shape == want.shape, what
    nan = np.zeros(got.shape, bool)
    if np.issubdtype(got.dtype, np.floating):
        nan = np.isnan(want)
        assert np.array_equal(np.isnan(got), nan), f"{what}: NaN elsewhere"
    unsigned = np.dtype(f"u{got.dtype.itemsize}")
    differ = (got.view(unsigned) != want.view(unsigned)) & ~nan
    first = int(np.argmax(differ)) if differ.any() else 0
    assert not differ.any(), (
        f"{what}: {differ.sum()} elements differ, first [{first}]: {got[first]} != {want[first]}"
    )
