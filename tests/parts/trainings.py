"""Trains with the parts of `toy/` and prints what it saw as JSON: run by test_more_parts.py."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

import cosmic
from cosmic import Cosmic, _core

KNOWN = 164  # combinations that the package has without more parts


def matrix(seed: int) -> Tensor:
    return torch.randn(64, 64, generator=torch.Generator().manual_seed(seed))


def train(**options: Any) -> tuple[Cosmic, dict[str, Any]]:
    """Linear regression to a known matrix."""
    weight, target, inputs = nn.Parameter(matrix(0)), matrix(1), matrix(2)
    optimizer = Cosmic([{"params": [weight], **options}], lr=0.125, min_compress_size=0)
    seen: dict[str, Any] = {}
    for step in range(200):
        for group in optimizer.param_groups:
            group["lr"] = 0.125 * (1 - step / 200)
        before = weight.detach().clone()
        optimizer.zero_grad()
        loss = (inputs @ (weight - target)).square().mean()
        torch.autograd.backward(loss)
        optimizer.step()
        if step == 0:
            seen["loss at first"] = loss.item()
            seen["first"] = (weight.detach() - before).abs().max().item()
    return optimizer, {**seen, "loss": loss.item()}


def formula() -> dict[str, list[float]]:
    """Three steps of rule `clamped` beside its formula in float64."""
    weight = nn.Parameter(matrix(3)[0])
    options: dict[str, Any] = {"params": [weight], "clamp": 0.75}
    optimizer = Cosmic([options], lr=0.01, rung="tier2:fp32+fp32+clamped", weight_decay=0.1)
    p, m, v = (x.double() for x in (weight.detach(), torch.zeros(64), torch.zeros(64)))
    for t in range(1, 4):
        weight.grad = matrix(3 + t)[0]
        g = weight.grad.double()
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        u = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        p = (1 - 0.001) * p - 0.01 * u.clamp(-0.75, 0.75)
    return {"formula": weight.tolist(), "by formula": p.tolist()}


def halves() -> dict[str, Any]:
    optimizer, seen = train(state_dtype="f16+fp32")
    (weight,) = optimizer.param_groups[0]["params"]
    moment = optimizer.state[weight]["exp_avg"]
    copy = nn.Parameter(weight.detach().clone())
    resumed = Cosmic([{"params": [copy], "state_dtype": "f16+fp32"}], min_compress_size=0)
    resumed.load_state_dict(optimizer.state_dict())
    for param, one in ((weight, optimizer), (copy, resumed)):
        param.grad = matrix(9)
        one.step()
    return {
        **seen, "dtype": str(moment.dtype), "saved": moment.nbytes, "half": moment.numel(),
        "bytes": optimizer.state_bytes(), "went on": weight[0].tolist(),
        "resumed": copy[0].tolist(),
    }  # fmt: skip


def quiet(exact: bool) -> tuple[list[float], Cosmic]:
    """The gate's factors while a quarter, half, all and none of the gradient is not zero."""
    weight = nn.Parameter(matrix(4))
    options: dict[str, Any] = {"params": [weight], "quiet_least": 0.125}
    optimizer = Cosmic([options], gate="quiet", exact=exact, min_compress_size=0)
    factors: list[float] = []
    for rows in (16, 32, 64, 0):
        weight.grad = torch.zeros(64, 64)
        weight.grad[:rows] = 1.0
        optimizer.step()
        factors += optimizer.gate_factors().values()
    return factors, optimizer


def main() -> None:
    lagged, optimizer = quiet(exact=False)
    exact, _ = quiet(exact=True)
    (weight,) = optimizer.param_groups[0]["params"]
    optimizer.param_groups[0]["quiet_least"] = 2
    weight.grad = torch.ones(64, 64)
    try:
        optimizer.step()
        refused = "nothing"
    except ValueError as error:
        refused = str(error)
    parts = _core.parts()
    options = parts["rules"]["clamped"]["options"] + parts["gates"]["quiet"]["options"]
    tested = _core.self_test()
    found = {
        "package": cosmic.__file__, "rungs": _core.combinations()[KNOWN:],
        "defaults": {option["name"]: option["default"] for option in options},
        "combinations": tested["combinations"], "combinations without": KNOWN,
        "clamped": {
            codecs: train(rung=f"tier2:{codecs}+clamped", clamp=0.5)[1]
            for codecs in ("fp32+fp32", "u4+v4")
        },
        **formula(), "f16": halves(),
        "quiet": {
            "lagged": lagged, "exact": exact,
            "param rms": float(optimizer.state[weight]["gate_quiet"][1]),
            "rms of the parameter": weight.detach().square().mean().sqrt().item(),
        },
        "refused": refused,
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
