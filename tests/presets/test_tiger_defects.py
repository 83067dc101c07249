"""What was wrong in tiger-optim 2.2, one test a defect: the formulas show it, the preset does not.

D9, D14, D15 and D16 are of its code, not of its formulas; their tests say what stands for them.
"""

from __future__ import annotations

import ast
import collections
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import cosmic.presets
from cosmic import param_groups
from cosmic.presets import Tiger
from helpers import normal, parameter
from reference.tiger_literal import LiteralGroup, LiteralOptions, LiteralTensor
from tiger_runs import as_array


def literal(*tensors: Tensor, **options: Any) -> LiteralGroup:
    return LiteralGroup(LiteralOptions(**options), [LiteralTensor(as_array(t)) for t in tensors])


def step(optimizer: Tiger, *gradients: Tensor) -> list[Tensor]:
    """What a step moves the parameters by."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in params]
    for p, g in zip(params, gradients, strict=True):
        p.grad = g
    optimizer.step()
    return [p.detach() - old for p, old in zip(params, before, strict=True)]


def rms(x: Any) -> float:
    return float(np.sqrt(np.mean(np.square(as_array(x) if isinstance(x, Tensor) else x))))


# ---- D1 to D5: lengths ---------------------------------------------------------------------------


def test_d1_a_groups_common_size_leaves_the_rate_in_its_steps() -> None:
    params = [normal(k, 40, 30) for k in range(4)]
    grads = [normal(10 + k, 40, 30) for k in range(4)]

    def theirs(lr: float) -> float:
        group = literal(*params, lr=lr, bucket_standardize=True)
        group.step([as_array(g) for g in grads])
        moved = [t.param - as_array(p) for t, p in zip(group.tensors, params, strict=True)]
        return rms(np.concatenate([x.ravel() for x in moved]))

    def ours(lr: float) -> float:
        optimizer = Tiger(
            [nn.Parameter(p.double()) for p in params], lr=lr, use_trust_ratio=False,
            rms_clip_threshold=0.1, rms_clip_granularity="group",
        )  # fmt: skip
        return rms(torch.cat([x.flatten() for x in step(optimizer, *(g.double() for g in grads))]))

    assert theirs(3e-4) == pytest.approx(1) == theirs(3e-7)
    assert ours(3e-4) == pytest.approx(3e-5)
    assert ours(3e-7) == pytest.approx(3e-8)
    with pytest.raises(ValueError, match="bucket_standardize is True; expected False"):
        Tiger([nn.Parameter(params[0])], bucket_standardize=True)


def test_d2_the_constructors_options_reach_every_group_of_a_model() -> None:
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 16), nn.LayerNorm(16))
    optimizer = Tiger(param_groups(model), agc_clip=0.02, rms_clip_threshold=1.0, sign_blend=0.4)
    assert len(optimizer.param_groups) > 1
    for group in optimizer.param_groups:
        found = (group["agc_clip"], group["clip_update"], group["blend"])
        assert found == (0.02, 1.0, 0.4)


def lora(seed: int = 0) -> tuple[nn.Parameter, nn.Parameter, Callable[[Any, Any], Tensor]]:
    """Two factors, the second zero, and the loss of what they should add up to."""
    inputs, outputs = normal(1, 64, 20), normal(2, 64, 12)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return (inputs @ a @ b - outputs).square().mean()

    return parameter(seed, 20, 4), nn.Parameter(torch.zeros(4, 12)), loss


def test_d3_a_clipped_tensor_that_starts_at_zero_trains() -> None:
    a, b, loss = lora()
    first = loss(a, b).item()
    group = literal(a, b, lr=5e-2, agc_clip=0.02)
    optimizer = Tiger([a, b], lr=5e-2, agc_clip=0.02)
    for _ in range(300):
        with torch.enable_grad():
            theirs = [torch.tensor(t.param, requires_grad=True) for t in group.tensors]
            loss_there = _in_double(loss, *theirs)
            grads = torch.autograd.grad(loss_there, theirs)
        group.step([as_array(g) for g in grads])
        optimizer.zero_grad()
        loss(a, b).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert rms(group.tensors[1].param) < 1e-10
    assert loss_there.item() == pytest.approx(first, rel=1e-6)
    assert rms(b) > 1e-3
    assert loss(a, b).item() < 0.99 * first


def _in_double(loss: Callable[[Any, Any], Tensor], a: Tensor, b: Tensor) -> Tensor:
    inputs, outputs = normal(1, 64, 20).double(), normal(2, 64, 12).double()
    return (inputs @ a @ b - outputs).square().mean()


@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-5])
def test_d4_the_first_step_of_a_zero_tensor_is_short(size: float) -> None:
    lr, n, most = 1e-2, 4096, 10.0
    gradient = normal(0, n, dtype=torch.float64, scale=size)
    group = literal(torch.zeros(n), lr=lr)
    group.step([as_array(gradient)])
    assert rms(group.tensors[0].param) > 100 * lr
    optimizer = Tiger([nn.Parameter(torch.zeros(n, dtype=torch.float64))], lr=lr, trust_clip=most)
    (moved,) = step(optimizer, gradient)
    assert float(moved.norm()) <= lr * 1e-3 * most * math.sqrt(n)
    assert rms(moved) == pytest.approx(lr * 1e-3)


def test_d5_a_step_does_not_grow_as_gradients_shrink() -> None:
    p = normal(0, 64, 64)

    def theirs(scale: float) -> float:
        group = literal(p, lr=3e-4, trust_space="precond")
        group.step([as_array(normal(1, 64, 64)) * scale])
        return rms(group.tensors[0].param - as_array(p))

    def ours(scale: float) -> float:
        optimizer = Tiger([nn.Parameter(p.double())], lr=3e-4, eps=0.0)
        return rms(step(optimizer, normal(1, 64, 64, dtype=torch.float64) * scale)[0])

    assert theirs(1e-4) > 100 * theirs(1e-1)
    assert ours(1e-4) == pytest.approx(ours(1e-1))
    with pytest.raises(ValueError, match=r"'trust_space'\] is 'precond'; expected 'update'"):
        Tiger([nn.Parameter(p)], trust_space="precond")


# ---- D6 to D8: what belongs to whom --------------------------------------------------------------


def test_d6_a_step_that_is_left_out_decays_nothing() -> None:
    p, spoiled = normal(0, 30), torch.full((30,), math.nan)
    group = literal(p, lr=1e-2, weight_decay=0.1)
    group.step([as_array(spoiled)])
    assert np.all(np.abs(group.tensors[0].param) < np.abs(as_array(p)))
    optimizer = Tiger([nn.Parameter(p.clone())], lr=1e-2, weight_decay=0.1)
    (moved,) = step(optimizer, spoiled)
    assert torch.equal(moved, torch.zeros(30))


def test_d7_tensors_of_a_group_do_not_share_an_average() -> None:
    params = [normal(0, 50), normal(1, 50) * 1e-3]
    grads = [normal(2, 50), normal(3, 50) * 1e-4]
    group = literal(*params, lr=1e-3, trust_ema_beta=0.9, trust_clip=1e9)
    optimizer = Tiger(
        [nn.Parameter(p.double()) for p in params], lr=1e-3, trust_ema_beta=0.9, param_floor=1e-9
    )
    for _ in range(3):
        before = [t.param.copy() for t in group.tensors]
        group.step([as_array(g) for g in grads])
        moved = step(optimizer, *(g.double() for g in grads))
    theirs = [
        rms(t.param - old) / rms(old) / 1e-3 for t, old in zip(group.tensors, before, strict=True)
    ]
    held = [p for g in optimizer.param_groups for p in g["params"]]
    ours = [rms(x) / rms(p) / 1e-3 for x, p in zip(moved, held, strict=True)]
    assert max(theirs) > 10 * min(theirs)
    assert ours == pytest.approx([1, 1], rel=0.05)


# ---- D9 to D13: what had no effect, or the wrong one ---------------------------------------------


def test_d9_what_is_stepped_is_the_parameter_itself() -> None:
    """Stands for a fused kernel that stepped a copy: the memory that the model reads has moved."""
    model = nn.Linear(9, 5)
    addresses = [p.data_ptr() for p in model.parameters()]
    inputs = normal(0, 4, 9)
    before = model(inputs).detach()
    optimizer = Tiger(model.parameters(), lr=1e-2)
    model(inputs).square().sum().backward()
    optimizer.step()
    assert [p.data_ptr() for p in model.parameters()] == addresses
    assert not torch.allclose(model(inputs), before)
    with pytest.raises(ValueError, match="use_triton_fused_apply is True; expected False"):
        Tiger(model.parameters(), use_triton_fused_apply=True)


def test_d10_a_plateau_takes_the_rate_back_where_that_is_asked_for() -> None:
    def scale_after(**options: Any) -> Any:
        optimizer = Tiger([parameter(0, 9)], plateau_patience=2, **options)
        for _ in range(3):  # the best one, and two that are no better
            optimizer.report_metrics(1.0)
        step(optimizer, normal(0, 9))
        return optimizer.param_groups[0]["lr_scale"]

    assert scale_after() is None
    assert scale_after(auto_lr=True, lr_decay=0.25) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"bucket_scalarless": False}, "bucket_scalarless is False; expected True"),
        ({"rms_clip_granularity": "head"}, "expected 'param', 'row' or 'group'"),
        ({"trust_space": "parameter"}, "expected 'update'"),
    ],
    ids=str,
)
def test_d10_an_option_that_would_do_nothing_is_refused(
    options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        Tiger([parameter(0, 9)], **options)


def test_d10_a_policy_of_staged_changes_that_would_be_ignored_is_refused() -> None:
    optimizer = Tiger([parameter(0, 9)])
    with pytest.raises(ValueError, match="policy is 'sum'; expected 'replace'"):
        optimizer.stage_group_update(0, {"sign_blend": 0.5}, policy="sum")


def test_d11_gradients_may_lie_in_memory_in_any_order() -> None:
    gradient, found = normal(1, 16, 8, 6, 6), []
    for layout in (torch.contiguous_format, torch.channels_last):
        p = nn.Parameter(normal(0, 16, 8, 6, 6))
        optimizer = Tiger([p], lr=1e-2)
        for _ in range(3):
            step(optimizer, gradient.to(memory_format=layout))
        found.append(p.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-7)


def test_d13_the_first_step_is_as_long_as_later_ones() -> None:
    def ratio(lengths: list[float]) -> float:
        return lengths[0] / lengths[-1]

    gradient = normal(0, 40).sign() * 0.1
    group = literal(normal(1, 40), lr=1e-4, use_trust_ratio=False)
    optimizer = Tiger([parameter(1, 40)], lr=1e-4, use_trust_ratio=False)
    theirs, ours = [], []
    for _ in range(100):
        before = group.tensors[0].param.copy()
        group.step([as_array(gradient)])
        theirs.append(rms(group.tensors[0].param - before))
        ours.append(rms(step(optimizer, gradient)[0]))
    assert not 0.8 < ratio(theirs) < 1.2
    assert ratio(ours) == pytest.approx(1, rel=1e-3)


# ---- D14 to D16: of its code ---------------------------------------------------------------------


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts torch's operators."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("exact", [True, False])
def test_d14_no_operator_of_torchs_runs_within_a_step(exact: bool) -> None:
    """Stands for a synchronisation a norm and a temporary a pass: all is in the core's passes."""
    optimizer = Tiger([parameter(0, 64, 65), parameter(1, 9)], agc_clip=0.1, exact=exact)
    step(optimizer, normal(2, 64, 65), normal(3, 9))
    with _Counted() as counted:
        optimizer.step()
    assert counted.calls == 0


def test_d15_nothing_is_defined_twice() -> None:
    """Stands for functions that a second definition of the name had replaced."""
    for file in Path(cosmic.presets.__file__).parent.glob("tiger/*.py"):
        for scope in ast.walk(ast.parse(file.read_text())):
            if isinstance(scope, ast.Module | ast.ClassDef):
                kinds = (ast.FunctionDef, ast.ClassDef)
                names = [node.name for node in scope.body if isinstance(node, kinds)]
                counts = collections.Counter(names)
                assert [name for name, count in counts.items() if count > 1] == []


class TinyMix(nn.Module):
    """The model of its benchmark, smaller: attention, two linear layers, a norm, no residual."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        mixed, _ = self.attention(x, x, x, need_weights=False)
        out: Tensor = self.norm(self.down(nn.functional.gelu(self.up(mixed))))
        return out


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"factored": True, "precond_alpha": 1.0, "use_foreach_update": True, "lr": 3e-3},
        {"factored": False, "use_trust_ratio": False, "agc_clip": 0.02, "lr": 2e-2},
        {"update_buffer_dtype": "fp32", "agc_clip": 0.02, "trust_clip": 5.0, "lr": 3e-2,
         "rms_clip_threshold": 1.0},
        {"trust_ema_beta": 0.9, "lr": 3e-3},
    ],
    ids=["defaults", "modern", "legacy", "stable", "smoothed"],
)  # fmt: skip
def test_d16_every_configuration_of_its_readme_runs_and_learns(options: dict[str, Any]) -> None:
    """Stands for a benchmark whose second mode raised: what is refused of them is left out."""
    torch.manual_seed(0)
    model, x, y = TinyMix(), normal(1, 4, 8, 32), normal(2, 4, 8, 32)
    optimizer = Tiger(param_groups(model), **options)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1e-3
