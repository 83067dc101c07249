"""torch.ops.cosmic.*: the optimizer's bits, the dispatcher's contracts, refusals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

STEP = {"lr": 3e-3, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.1}
SIGN = {"lr": 3e-3, "beta1": 0.8, "weight_decay": 0.1}

#: Dtype of a parameter, of its gradient, of its first and its second moment.
DTYPES = {
    "fp32": (torch.float32,) * 4,
    "fp32-bf16": (torch.float32, torch.float32, torch.bfloat16, torch.bfloat16),
    "fp32-bf16+fp32": (torch.float32, torch.float32, torch.bfloat16, torch.float32),
    "bf16": (torch.bfloat16, torch.bfloat16, torch.float32, torch.float32),
    "fp16": (torch.float16, torch.float16, torch.float32, torch.bfloat16),
    "fp64": (torch.float64,) * 4,
    "complex64": (torch.complex64, torch.complex64, torch.float32, torch.float32),
}
SHAPES: list[tuple[int, ...]] = [(1,), (127,), (129,), (33, 65), (), (0,)]

dtypes = pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)


@dataclass
class Lists:
    """The tensor lists of ``adam_step_``, in its order."""

    params: list[Tensor]
    grads: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]

    def __iter__(self) -> Any:
        return iter(astuple_shallow(self))

    def tensors(self) -> list[Tensor]:
        return [t for tensors in self for t in tensors]

    def versions(self) -> list[list[int]]:
        return [[t._version for t in tensors] for tensors in self]
