"""Any dense or gapped layout steps as its contiguous copy does, and nothing around it changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from helpers import UNUSUAL, bits, normal, same_bits, set_gradient, stored, take_steps
from reference.options import Options
from reference.storage import narrow, widen
from reference.sums import ITEM
from reference.tensor import ReferenceTensor

RUNGS: dict[str, dict[str, Any]] = {
    "tier0": {"tier": 0},
    "tier1": {"tier": 1},
    "tier1:factored": {"rung": "tier1:factored", "min_compress_size": 0},
    "tier1:v4": {"rung": "tier1:v4", "min_compress_size": 0},
    "fp32": {"state_dtype": "fp32"},
    "bf16+slow": {"state_dtype": "bf16", "beta_slow": 0.99},
    "u4+factored": {"state_dtype": "u4+factored", "min_compress_size": 0},
    "q8+v4+slow": {"state_dtype": "q8+v4", "beta_slow": 0.99, "min_compress_size": 0},
    "trust+agc": {
        "state_dtype": "u4+factored",
        "min_compress_size": 0,
        "gate": "trust+agc",
        "param_floor": 1.0,
    },
    "trust-exact": {"state_dtype": "bf16", "gate": "trust", "exact": True, "param_floor": 1.0},
    "u2+rowmean": {"state_dtype": "u2+rowmean", "min_compress_size": 0},
}

#: From a base tensor's shape to a view of it. The view is the parameter.
LAYOUTS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "contiguous": ((9, 31), lambda x: x),
    "channels-last": ((2, 3, 7, 5), lambda x: x.permute(0, 3, 1, 2)),
    "transposed": ((13, 29), lambda x: x.t()),
    "permuted-5d": ((2, 3, 4, 5, 2), lambda x: x.permute(3, 0, 4, 2, 1)),
    "rows-and-columns-with-gaps": ((40, 50), lambda x: x[3:37, 5:45:2]),
    "transposed-with-gaps": ((30, 20), lambda x: x[:, ::2].t()),
    "every-third": ((700,), lambda x: x[::3]),
    "gaps-past-one-work-item": ((ITEM // 40 + 9, 64), lambda x: x[:, 3:43]),
    "one-element-off": ((900,), lambda x: x[1:]),
    "three-off-and-short": ((900,), lambda x: x[3:520]),
    "column": ((150, 4), lambda x: x[:, 2]),
    "unit-dimension-with-odd-stride": ((300,), lambda x: x.as_strided((300, 1), (1, 77))),
    "0-d": ((5,), lambda x: x[2]),
    "empty": ((0, 3), lambda x: x),
}


def walk_order(x: Tensor) -> list[int]:
    """The dimensions of a parameter in the order in which COSMIC walks it: the memory's where it
    has no gaps, else the indices'."""
    strides, sizes = x.stride(), x.shape
    by_stride = sorted(range(x.dim()), key=lambda d: -strides[d] if sizes[d] > 1 else 0)
    return by_stride if x.permute(by_stride).is_contiguous() else list(range(x.dim()))


def walk(x: Tensor, order: list[int]) -> Tensor:
    """Elements of ``x``, or of a state with one more dimension, copied in that order."""
    return x.permute([*order, *range(len(order), x.dim())]).reshape(-1).clone()


def paired(view: Tensor, options: dict[str, Any]) -> tuple[Cosmic, Cosmic]:
    """Optimizers of a view and of a contiguous copy, with the dimensions in the walk's order."""
    copy = nn.Parameter(view.permute(walk_order(view)).clone(memory_format=torch.contiguous_format))
    return Cosmic([nn.Parameter(view)], **options), Cosmic([copy], **options)


def only_param(optimizer: Cosmic) -> nn.Parameter:
    param = optimizer.param_groups[0]["params"][0]
    assert isinstance(param, nn.Parameter)
    return param


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_view_steps_as_its_contiguous_copy(layout: str, rung: str, dtype: torch.dtype) -> None:
    shape, make_view = LAYOUTS[layout]
    base = normal(1, *shape, dtype=dtype)
    before, view = base.clone(), make_view(base)
    ours, twin = paired(view, {**UNUSUAL, **RUNGS[rung]})

    order, param, copy = walk_order(view), only_param(ours), only_param(twin)

    for step in range(3):
        param.grad = torch.empty_like(view).copy_(normal(10 + step, *view.shape, dtype=dtype))
        copy.grad = param.grad.permute(order).clone(memory_format=torch.contiguous_format)
        ours.step()
        twin.step()

    assert torch.equal(bits(walk(view, order)), bits(copy.reshape(-1)))
    assert not view.numel() or not torch.equal(bits(view), bits(make_view(before)))
    assert ours.state[param].keys() - {"packed_order"} == twin.state[copy].keys()
    real_shape = torch.view_as_real(view).shape if dtype.is_complex else view.shape
    for key, want in twin.state[copy].items():
        got = ours.state[param][key]
        if key in ("exp_avg", "exp_avg_slow", "exp_avg_sq"):
            assert got.shape == real_shape
            assert torch.equal(bits(walk(got, order)), bits(want.reshape(-1))), key
        elif key == "packed_shape":
            assert got.tolist() == list(real_shape)
            assert want.tolist() == [got[d] for d in (*order, *range(len(order), len(got)))]
        else:
            assert torch.equal(got, want) if isinstance(want, Tensor) else got == want, key
    make_view(before).copy_(view)
    assert same_bits(base, before), "memory outside the view has changed"


#: Gradients with the values of a contiguous one, but another layout.
GRADIENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda g: g.t().contiguous().t(),
    "every-second": lambda g: g.repeat_interleave(2, 1)[:, ::2],
    "one-element-off": lambda g: torch.cat([g.new_zeros(1), g.reshape(-1)])[1:].view_as(g),
    "rows-of-a-wider-matrix": lambda g: torch.cat([g, g], 1)[:, : g.size(1)],
}


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("relayout", GRADIENTS.values(), ids=GRADIENTS.keys())
def test_a_gradient_of_other_strides(relayout: Callable[[Tensor], Tensor], rung: str) -> None:
    a, b = (nn.Parameter(normal(1, 21, 34)) for _ in range(2))
    ours, twin = (Cosmic([p], **UNUSUAL, **RUNGS[rung]) for p in (a, b))
    for step in range(3):
        b.grad = normal(10 + step, 21, 34)
        # the layout changes between steps, too
        a.grad = relayout(b.grad) if step != 1 else b.grad.clone()
        ours.step()
        twin.step()
    assert same_bits(a, b)


@pytest.mark.parametrize("rung", RUNGS)
def test_an_expanded_gradient(rung: str) -> None:
    a, b = (nn.Parameter(normal(1, 21, 34)) for _ in range(2))
    ours, twin = (Cosmic([p], **UNUSUAL, **RUNGS[rung]) for p in (a, b))
    for row in (normal(2, 34), normal(3, 21, 1), torch.tensor(0.5)):
        a.grad, b.grad = row.expand(21, 34), row.expand(21, 34).clone()
        ours.step()
        twin.step()
    assert same_bits(a, b)


@pytest.mark.parametrize("rung", RUNGS)
def test_two_columns_of_one_matrix_are_two_parameters(rung: str) -> None:
    matrix = normal(1, 300, 3)
    before = matrix.clone()
    columns = [nn.Parameter(matrix[:, k]) for k in (0, 2)]
    copies = [nn.Parameter(before[:, k].clone()) for k in (0, 2)]
    ours, twin = (Cosmic(params, **UNUSUAL, **RUNGS[rung]) for params in (columns, copies))
    take_steps(ours, 0, 3)
    take_steps(twin, 0, 3)
    assert same_bits(matrix[:, 0], copies[0]) and same_bits(matrix[:, 2], copies[1])
    assert same_bits(matrix[:, 1], before[:, 1])


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("first", [False, True], ids=["plain-first", "lazy-first"])
@pytest.mark.parametrize("size", [(50,), (4, 7), (5, 20), (1,), ()])
def test_a_lazily_negated_gradient_has_the_values_that_it_shows(
    size: tuple[int, ...], first: bool, rung: str
) -> None:
    """``x.conj().imag`` carries its minus sign as a flag; memory holds the opposite."""
    a, b = nn.Parameter(normal(2, *size)), nn.Parameter(normal(2, *size))
    ours, twin = (Cosmic([p], **UNUSUAL, **RUNGS[rung]) for p in (a, b))
    for step, lazily in enumerate((first, True, True, False, True)):
        lazy = (normal(3 + step, *size) * 1j).to(torch.complex64).conj().imag
        plain = lazy.clone()
        assert lazy.is_neg() and not plain.is_neg()
        a.grad, b.grad = lazy if lazily else plain, plain
        ours.step()
        twin.step()
        assert torch.equal(a, b)


@pytest.mark.parametrize("rung", RUNGS)
def test_a_lazily_conjugated_gradient_has_the_values_that_it_shows(rung: str) -> None:
    a, b = (nn.Parameter(normal(2, 5, 20, dtype=torch.complex64)) for _ in range(2))
    ours, twin = (Cosmic([p], **UNUSUAL, **RUNGS[rung]) for p in (a, b))
    for step in range(3):
        a.grad = normal(3 + step, 5, 20, dtype=torch.complex64).conj()
        b.grad = a.grad.resolve_conj()
        assert a.grad.is_conj() and not b.grad.is_conj()
        ours.step()
        twin.step()
        assert torch.equal(a, b)


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("size", [(0,), (4, 0), (0, 4), (2, 0, 3)])
def test_a_parameter_without_elements_is_no_obstacle(size: tuple[int, ...], rung: str) -> None:
    """``nn.Linear(0, 4)`` has a weight of shape (4, 0)."""
    empty, other = nn.Parameter(torch.empty(size)), nn.Parameter(normal(1, 50))
    alone = nn.Parameter(other.detach().clone())
    ours, twin = (Cosmic(ps, **UNUSUAL, **RUNGS[rung]) for ps in ([other, empty], [alone]))
    for step in range(3):
        empty.grad = torch.empty(size)
        other.grad, alone.grad = normal(step, 50), normal(step, 50)
        ours.step()
        twin.step()
    assert same_bits(other, alone) and empty.shape == size


# ---- tensors that change under the plan -------------------------------------------------------


def run_with_change(change: Callable[[nn.Parameter], None], **options: Any) -> Cosmic:
    """Three steps, a change of the parameter, three more."""
    param = nn.Parameter(normal(1, 4, 3, 5, 5))
    optimizer = Cosmic([param], **UNUSUAL, **options)
    take_steps(optimizer, 0, 3)
    change(param)
    take_steps(optimizer, 3, 6)
    return optimizer


def exchange_storage(param: nn.Parameter) -> None:
    param.data = param.data.clone()


def to_channels_last(param: nn.Parameter) -> None:
    param.data = param.data.to(memory_format=torch.channels_last)


def to_a_gapped_view(param: nn.Parameter) -> None:
    param.data = param.data.repeat_interleave(2, 3)[..., ::2]


@pytest.mark.parametrize(
    ("change", "rung"),
    [
        *((exchange_storage, rung) for rung in RUNGS),
        # the others change the walk, and with it what shares a block
        (to_channels_last, "fp32"), (to_a_gapped_view, "fp32"), (to_a_gapped_view, "u4+factored"),
    ],
)  # fmt: skip
def test_the_trajectory_follows_an_exchanged_storage(
    change: Callable[[nn.Parameter], None], rung: str
) -> None:
    options = RUNGS[rung]
    changed, plain = run_with_change(change, **options), run_with_change(lambda _: None, **options)
    assert same_bits(only_param(changed), only_param(plain))
    for key, want in plain.state[only_param(plain)].items():
        if isinstance(want, Tensor):
            assert same_bits(changed.state[only_param(changed)][key], want), key


@pytest.mark.parametrize("back", [False, True], ids=["there", "and-back"])
@pytest.mark.parametrize("moments", ["q8+q8", "u4+v4"])
def test_compressed_moments_keep_their_places_when_the_walk_changes(
    moments: str, back: bool
) -> None:
    """They are decoded in the old order and encoded in the new one, once a change; the errors are
    those of rounding, and neighbours differ by far more."""
    param = nn.Parameter(normal(1, 4, 3, 5, 7))
    options = {**UNUSUAL, "state_dtype": moments, "min_compress_size": 0}
    optimizer = Cosmic([param], **options)
    take_steps(optimizer, 0, 1)
    before = optimizer.to_adamw_state_dict()["state"][0]

    changes = [torch.channels_last] + [torch.contiguous_format] * back
    for layout in changes:
        param.data = param.data.to(memory_format=layout)
        param.grad = torch.zeros_like(param)
        optimizer.step()
    after = optimizer.to_adamw_state_dict()["state"][0]
    decays = {"exp_avg": UNUSUAL["betas"][0], "exp_avg_sq": UNUSUAL["betas"][1]}
    for key, decay in decays.items():
        want, got = before[key] * decay ** len(changes), after[key]
        logs = torch.stack([want.abs(), got.abs()]).clamp(min=float(want.abs().max()) / 100).log()
        correlation = float(torch.corrcoef(logs.reshape(2, -1))[0, 1])
        assert correlation > 0.95, key


@pytest.mark.parametrize("rung", RUNGS)
def test_the_storage_that_was_left_behind_stays_as_it_was(rung: str) -> None:
    param = nn.Parameter(normal(1, 300))
    optimizer = Cosmic([param], **UNUSUAL, **RUNGS[rung])
    take_steps(optimizer, 0, 2)
    old = param.data
    before = old.clone()
    param.data = param.data.clone()
    take_steps(optimizer, 2, 4)
    assert same_bits(old, before)
    assert not same_bits(param, before)


def test_frozen_parameters_may_exchange_their_storage_too() -> None:
    """What a parameter without a gradient leaves behind, another may take."""
    a, b = nn.Parameter(normal(1, 200)), nn.Parameter(normal(2, 200))
    optimizer = Cosmic([a, b], **UNUSUAL)
    take_steps(optimizer, 0, 1)
    b.grad = None
    a.data, b.data = b.data, a.data
    a_before, b_before = a.data.clone(), b.data.clone()
    optimizer.step()
    assert same_bits(b, b_before)
    assert not same_bits(a, a_before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rung", ["tier0", "tier1", "fp32"])
def test_a_model_converted_in_mid_run_keeps_its_state(rung: str, dtype: torch.dtype) -> None:
    options: dict[str, Any] = {**UNUSUAL, **RUNGS[rung]}
    model = nn.Linear(17, 11, bias=False)
    optimizer = Cosmic(model.parameters(), **options)
    name = str(dtype).removeprefix("torch.")
    twin = ReferenceTensor(stored(model.weight), "float32", Options(**{"tier": 2, **options}))
    for step in range(6):
        if step == 3:
            model.to(dtype)
            twin.stored = narrow(widen(twin.stored, "float32"), name)
            twin.dtype = name
        model.weight.grad = normal(step, 11, 17, dtype=model.weight.dtype)
        twin.step(stored(model.weight.grad))
        optimizer.step()
    assert model.weight.dtype == dtype
    assert np.array_equal(stored(model.weight), twin.stored)


def test_the_gradient_may_change_its_dtype() -> None:
    """Gradients of another dtype, with the same values, make the same step."""
    a, b = nn.Parameter(normal(1, 200)), nn.Parameter(normal(1, 200))
    ours, twin = Cosmic([a], **UNUSUAL), Cosmic([b], **UNUSUAL)
    for step, dtype in enumerate((torch.float32, torch.bfloat16) * 2):
        gradient = normal(10 + step, 200).bfloat16()
        set_gradient(a, gradient.to(dtype))
        set_gradient(b, gradient.float())
        ours.step()
        twin.step()
    assert same_bits(a, b)
