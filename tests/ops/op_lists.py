"""Tensor lists for ``torch.ops.cosmic.*``, and options that suit them."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from helpers import normal, same_bits

STEP: dict[str, Any] = {
    "lr": 3e-3, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.1,
}  # fmt: skip
SIGN: dict[str, Any] = {"lr": 3e-3, "beta1": 0.8, "weight_decay": 0.1}


class Dtypes(NamedTuple):
    """Of a parameter and its gradient, and of the moments."""

    param: torch.dtype = torch.float32
    m: torch.dtype = torch.float32
    v: torch.dtype = torch.float32


DTYPES = {
    "fp32": Dtypes(),
    "fp32-bf16+bf16": Dtypes(m=torch.bfloat16, v=torch.bfloat16),
    "fp32-bf16+fp32": Dtypes(m=torch.bfloat16),
    "bf16": Dtypes(torch.bfloat16),
    "fp16-fp32+bf16": Dtypes(torch.float16, v=torch.bfloat16),
    "fp64": Dtypes(torch.float64, torch.float64, torch.float64),
    "complex64": Dtypes(torch.complex64),
}
all_dtypes = pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)

#: Odd sizes, a transposed matrix (a negative first extent says so), no dimension, no element.
SHAPES = [(1,), (127,), (129,), (-33, 65), (), (0,)]


class Lists(NamedTuple):
    """The tensor lists of ``adam_step_``, in its order."""

    params: list[Tensor]
    grads: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]

    def written(self) -> list[Tensor]:
        return [*self.params, *self.exp_avgs, *self.exp_avg_sqs, *self.steps]

    def versions(self) -> list[int]:
        return [t._version for tensors in self for t in tensors]

    def copy(self) -> Lists:
        return Lists(*([t.detach().clone() for t in tensors] for tensors in self))


def tensor(seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if shape and shape[0] < 0:
        return normal(seed, shape[1], -shape[0], dtype=dtype).t()
    return normal(seed, *shape, dtype=dtype)


def moments(params: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    real = [torch.view_as_real(p) if p.is_complex() else p for p in params]
    return [torch.zeros_like(p, dtype=dtype) for p in real]


def make_lists(dtypes: Dtypes = DTYPES["fp32"], shapes: Any = SHAPES) -> Lists:
    params = [tensor(k, shape, dtypes.param) for k, shape in enumerate(shapes)]
    return Lists(
        params,
        [tensor(100 + k, shape, dtypes.param) for k, shape in enumerate(shapes)],
        moments(params, dtypes.m),
        moments(params, dtypes.v),
        [torch.zeros((), dtype=torch.int64) for _ in params],
    )


def new_gradients(lists: Lists, step: int) -> Lists:
    grads = [normal(1000 * step + k, *g.shape, dtype=g.dtype) for k, g in enumerate(lists.grads)]
    return lists._replace(grads=grads)


def same(a: Lists, b: Lists) -> bool:
    return all(
        same_bits(x, y) for xs, ys in zip(a, b, strict=True) for x, y in zip(xs, ys, strict=True)
    )
