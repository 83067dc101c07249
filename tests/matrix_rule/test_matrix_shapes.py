"""Which tensors are stepped as matrices, of any layout, shape, dtype and size of gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.presets import Muon
from helpers import digest, normal, parameter, same_bits
from matrix_runs import CODECS, go, gradient, params_of
from reference.muon import MuonReference, orthogonalized

FIXED: dict[str, Any] = {"rung": "tier2:muon:fp32", "lr": 0.01, "weight_decay": 0.1}
JORDAN: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1}


def along(layout: str, values: Tensor) -> nn.Parameter:
    """The same values, otherwise in memory."""
    if layout == "transposed":
        last = values.dim() - 1
        return nn.Parameter(values.transpose(0, last).contiguous().transpose(0, last))
    if layout == "channels_last":
        return nn.Parameter(values.contiguous(memory_format=torch.channels_last))
    spread = torch.zeros(*values.shape[:-1], 2 * values.shape[-1], dtype=values.dtype)
    spread[..., ::2] = values
    return nn.Parameter(spread[..., ::2])


@pytest.mark.parametrize("codec", ["fp32", "bf16", "m8", "m1"])
@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("transposed", (40, 70)),
        ("transposed", (90, 33)),
        ("strided", (40, 70)),
        ("strided", (24, 5, 6)),
        ("channels_last", (24, 8, 3, 3)),
    ],
)
def test_a_layout_changes_no_more_than_the_order_of_sums(
    layout: str, shape: tuple[int, ...], codec: str
) -> None:
    values = normal(0, *shape)
    plain = Muon([nn.Parameter(values.clone())], state_dtype=codec, min_compress_size=0, **JORDAN)
    other = Muon([along(layout, values)], state_dtype=codec, min_compress_size=0, **JORDAN)
    (p,), (q,) = params_of(plain), params_of(other)
    # a transposed one is walked by other blocks, which have another scale and other random bits
    steps = 1 if codec not in ("fp32", "bf16") and layout != "strided" else 5
    for step in range(steps):
        p.grad = gradient(step, 0, p)
        q.grad = gradient(step, 0, q)
        plain.step()
        other.step()
    if layout == "strided":
        assert same_bits(p, q)
    else:
        far = 2e-3 if codec == "bf16" else 2e-6
        torch.testing.assert_close(p.detach(), q.detach(), rtol=0, atol=far)
    assert q.stride() == along(layout, values).stride()


def test_a_gradient_of_another_layout_is_the_same() -> None:
    one, two = Muon([parameter(0, 40, 70)]), Muon([parameter(0, 40, 70)])
    for optimizer, layout in ((one, ""), (two, "transposed")):
        (p,) = params_of(optimizer)
        g = gradient(0, 0, p)
        p.grad = along(layout, g).detach() if layout else g
        optimizer.step()
    assert digest(one) == digest(two)


@pytest.mark.parametrize("shape", [(1, 50), (50, 1), (1, 1), (2, 300), (300, 2), (1, 1, 9)])
@pytest.mark.parametrize("adjust_lr_fn", ["original", "match_rms_adamw"])
def test_a_row_or_a_column_is_a_matrix(shape: tuple[int, ...], adjust_lr_fn: str) -> None:
    optimizer = Muon([parameter(0, *shape)], adjust_lr_fn=adjust_lr_fn)
    (p,) = params_of(optimizer)
    flat = (shape[0], p.numel() // shape[0])
    start = p.detach().double().numpy().reshape(flat)
    reference = MuonReference(start, adjust_lr_fn=adjust_lr_fn)
    for step in range(5):
        g = gradient(step, 0, p)
        p.grad = g
        optimizer.step()
        reference.step(g.double().numpy().reshape(flat), 1e-3)
    found = p.detach().double().numpy().reshape(flat)
    np.testing.assert_allclose(found, reference.param, rtol=0, atol=2e-6)


def update_of(grad: Tensor, **options: Any) -> Tensor:
    """What one step of learning rate 1 subtracts from zeros."""
    param = nn.Parameter(torch.zeros_like(grad))
    param.grad = grad
    Muon([param], lr=1.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw", **options).step()
    return -param.detach()


def expected_of(grad: Tensor) -> Tensor:
    steps = [(3.4445, -4.7750, 2.0315)] * 5
    exact = orthogonalized(grad.double().numpy(), steps, 0.0)
    return torch.from_numpy(0.2 * max(grad.shape) ** 0.5 * exact)


@pytest.mark.parametrize("rank", [1, 3, 20])
@pytest.mark.parametrize("shape", [(40, 70), (70, 40), (64, 64)])
def test_a_direction_of_low_rank_stays_finite_and_right(shape: tuple[int, int], rank: int) -> None:
    grad = normal(0, shape[0], rank) @ normal(1, rank, shape[1])
    torch.testing.assert_close(update_of(grad).double(), expected_of(grad), rtol=0, atol=1e-4)


def test_a_zero_gradient_moves_nothing_but_by_decay() -> None:
    assert torch.equal(update_of(torch.zeros(40, 70)), torch.zeros(40, 70))
    assert torch.equal(update_of(torch.zeros(40, 70), eps=0.0), torch.zeros(40, 70))
    optimizer = Muon([parameter(0, 40, 70)], lr=0.1, weight_decay=0.5)
    (p,) = params_of(optimizer)
    before = p.detach().clone()
    p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(p.detach(), 0.95 * before, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1e-20, 1e-12, 1e12, 1e18, 1e20, 1e30])
@pytest.mark.parametrize("shape", [(40, 70), (70, 40)])
def test_the_size_of_a_gradient_does_not_matter(shape: tuple[int, int], scale: float) -> None:
    """A momentum whose squares no float32 holds; its own elements fit."""
    grad = normal(0, *shape)
    found = update_of(scale * grad, eps=0.0)
    torch.testing.assert_close(found, update_of(grad, eps=0.0), rtol=0, atol=2e-5)


def test_eps_is_the_least_norm_that_is_divided_by() -> None:
    grad = normal(0, 40, 70)
    tiny = 1e-20 * grad
    assert float(update_of(tiny).abs().max()) < 1e-10
    half = update_of(grad, eps=2 * 0.0975 * float(grad.norm()), ns_steps=1)
    full = update_of(grad, eps=0.0, ns_steps=1)
    assert 0.4 < float(half.norm() / full.norm()) < 0.6


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_of_two_bytes_follow_those_of_four(dtype: torch.dtype, codec: str) -> None:
    """Rounded after each step, bfloat16 stochastically: without bias."""
    options: dict[str, Any] = {"state_dtype": codec, "min_compress_size": 0, "lr": 1e-3}
    values = normal(0, 40, 70).to(dtype)
    full = Muon([nn.Parameter(values.float())], **options)
    half = Muon([nn.Parameter(values.clone())], **options)
    (p,), (q,) = params_of(full), params_of(half)
    for step in range(20):
        g = gradient(step, 0, q)
        q.grad, p.grad = g, g.float()
        full.step()
        half.step()
    error = (q.float() - p).detach()
    unit = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-11
    assert q.dtype == dtype
    assert float(error.abs().mean()) < 20 * unit
    assert abs(float(error.mean())) < 0.5 * unit


def test_to_nearest_loses_steps_that_stochastic_rounding_keeps() -> None:
    """A step of 1e-4 is far below half a unit of bfloat16 at 1."""
    moved = []
    for stochastic in (True, False):
        param = nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16))
        optimizer = Muon(
            [param], lr=1e-4, weight_decay=0.0, adjust_lr_fn="match_rms_adamw",
            stochastic_rounding=stochastic,
        )  # fmt: skip
        for _ in range(50):
            param.grad = torch.eye(64, dtype=torch.bfloat16) * 64
            optimizer.step()
        moved.append(float((1 - param.detach().float().diagonal()).mean()))
    assert moved[1] == 0 and 0.002 < moved[0] < 0.02


# ---- what is no hidden matrix -------------------------------------------------------------------


def test_other_tensors_fall_to_ordinary_rungs() -> None:
    names = {
        "w": (70, 64), "tok_embeddings.weight": (64, 70), "conv": (16, 16, 3, 3), "norm": (70,),
        "scale": (), "thin": (4, 300), "table": (600, 16),
    }  # fmt: skip
    named = [(name, parameter(k, *shape)) for k, (name, shape) in enumerate(names.items())]
    optimizer = Cosmic(named, matrix_rule="muon", min_compress_size=0)
    go(optimizer, 0, 2)
    rungs = {info.name: info.rung for info in optimizer.tiers()}
    assert rungs.pop("w") == "tier2:muon:m1"
    assert not [name for name, rung in rungs.items() if "muon" in rung]
    plain = Cosmic([(n, nn.Parameter(normal(k, *s))) for k, (n, s) in enumerate(names.items())],
                   min_compress_size=0)  # fmt: skip
    go(plain, 0, 2)
    for mine, other in list(zip(params_of(optimizer), params_of(plain), strict=True))[1:]:
        assert same_bits(mine, other)


def test_a_role_decides_against_the_shape() -> None:
    params = [parameter(k, 64, 70) for k in range(3)] + [parameter(3, 16, 16, 3, 3)]
    roles = ("matrix", "head", None, "convolution")
    groups = [{"params": [p], "role": role} for p, role in zip(params, roles, strict=True)]
    optimizer = Cosmic(groups, matrix_rule="muon", min_compress_size=0)
    go(optimizer, 0, 2)
    found = [info.rung.startswith("tier2:muon") for info in optimizer.tiers()]
    assert found == [True, False, True, True]


def test_empty_and_wide_and_double_tensors_are_stepped_as_ever() -> None:
    params = [nn.Parameter(torch.zeros(0, 40)), parameter(1, 40, 70, dtype=torch.float64)]
    params.append(parameter(2, 40, 70, dtype=torch.complex64))
    groups = [{"params": params, "role": "matrix"}]
    optimizer = Cosmic(groups, matrix_rule="muon")
    for k, p in enumerate(params):
        p.grad = normal(k, *p.shape, dtype=p.dtype)
    optimizer.step()
    assert not any("muon" in info.rung for info in optimizer.tiers())
    assert all(p.isfinite().all() for p in params)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(7), "two dimensions or more"),
        (torch.zeros(0, 7), "two dimensions or more"),
        (torch.zeros(7, 8, dtype=torch.complex64), "real matrices"),
        (torch.zeros(7, 8, dtype=torch.float64), "needs float32 arithmetic"),
    ],
)
def test_a_fixed_rung_of_what_is_no_matrix_names_it(tensor: Tensor, message: str) -> None:
    optimizer = Cosmic([("w", nn.Parameter(tensor))], **FIXED)
    params_of(optimizer)[0].grad = torch.zeros_like(tensor)
    with pytest.raises(ValueError, match=f"parameter 'w' .*{message}"):
        optimizer.step()
