"""Configurations of preset TurboAdam that several test files go through."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

#: Compressed at every size.
EVERY_SIZE: dict[str, Any] = {"min_m_compress_elements": 0, "min_v_compress_elements": 0}
CODECS: dict[str, dict[str, Any]] = {
    "ustate": EVERY_SIZE,
    "ustate-8": {**EVERY_SIZE, "v_bits": 8},
    "costate": {**EVERY_SIZE, "m_codec": "costate", "v_bits": 3},
    "m-alone": {**EVERY_SIZE, "compress_v": False},
    "v-alone": {**EVERY_SIZE, "compress_m": False, "v_bits": 2},
    "neither": {"compress_m": False, "compress_v": False},
}


def only_param(optimizer: torch.optim.Optimizer) -> nn.Parameter:
    param = optimizer.param_groups[0]["params"][0]
    assert isinstance(param, nn.Parameter)
    return param


def params_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
