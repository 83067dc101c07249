"""What compressed state is made of, and where it is not taken."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.rungs import combinations
from helpers import (
    SIZES,
    UNUSUAL,
    give_gradients,
    normal,
    parameter,
    parameters,
    refused,
    with_slow_average,
)

NAMES = [f"{m}+{v}" for m, v in combinations()]
WITH_SLOW = with_slow_average()
PACKED = [name for name in NAMES if set(name.split("+")) - {"fp32", "bf16"}]

Entry = tuple[torch.dtype, tuple[int, ...]]


class Case(NamedTuple):
    """A shape and the matrix that its elements are seen as."""

    shape: tuple[int, ...]
    matrix: tuple[int, int] | None


#: The cut between the dimensions that makes rows and columns fewest together, a row of 16 at
#: least.
CASES = [
    Case((40, 129), (40, 129)),
    Case((2, 16), (2, 16)),
    Case((129, 17), (129, 17)),
    Case((7, 3, 5, 2), (7, 30)),
    Case((8, 4, 3, 3), (8, 36)),
    Case((3, 5, 64), (15, 64)),
    Case((2, 1, 511), (2, 511)),
    *(Case((size,), None) for size in SIZES),
    Case((1, 4096), None),
    Case((512, 8), None),
    Case((2, 15), None),
    Case((), None),
    Case((0, 64), None),
]


def options(state_dtype: str, **more: Any) -> dict[str, Any]:
    return {**UNUSUAL, "state_dtype": state_dtype, "min_compress_size": 0, **more}


def stepped(param: nn.Parameter, **more: Any) -> tuple[Cosmic, dict[str, Any]]:
    optimizer = Cosmic([param], **more)
    give_gradients([param], 0)
    optimizer.step()
    state: dict[str, Any] = optimizer.state[param]
    return optimizer, state


def entries(state: dict[str, Any]) -> dict[str, Entry]:
    return {k: (v.dtype, tuple(v.shape)) for k, v in state.items() if isinstance(v, Tensor)}


# ---- keys, dtypes, sizes -----------------------------------------------------------------------


def average_entries(key: str, codec: str, shape: tuple[int, ...], blocks: int) -> dict[str, Entry]:
    plain = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if codec in plain:
        return {key: (plain[codec], shape)}
    size = {"q8": 128, "u4": 64, "u2": 32, "u1": 16, "ustate": 32, "costate": 16}[codec]
    key = f"{key}_{codec}"
    codes: dict[str, Entry] = {f"{key}_codes": (torch.uint8, (blocks * size,))}
    if codec == "ustate":  # and two steps between codes, of the whole tensor
        means: dict[str, Entry] = {f"{key}_mean": (torch.bfloat16, (2 * blocks,))}
        return codes | means | {f"{key}_steps": (torch.float32, (2,))}
    if codec == "costate":
        scales: dict[str, Entry] = {f"{key}_scale": (torch.float32, (blocks,))}
        return codes | scales | {f"{key}_alpha": (torch.float32, ())}
    return codes | {f"{key}_scale": (torch.bfloat16, (blocks,))}


def square_entries(codec: str, case: Case, blocks: int) -> dict[str, Entry]:
    key = "exp_avg_sq"
    if codec in ("factored", "rowmean", "colmean") and case.matrix:
        rows, columns = (torch.float32, case.matrix[:1]), (torch.float32, case.matrix[1:])
        both = {f"{key}_row": rows, f"{key}_col": columns}
        dropped = {"rowmean": f"{key}_col", "colmean": f"{key}_row"}.get(codec)
        return {k: v for k, v in both.items() if k != dropped}
    if codec in ("fp32", "bf16"):
        return average_entries(key, codec, case.shape, blocks)
    size = {"q8": 128, "v4": 64}.get(codec) or 16 * int(codec.removeprefix("vlog"))
    scales = {"q8": (torch.int32, (blocks,)), "v4": (torch.int16, (blocks,))}
    return {
        f"{key}_{codec}_codes": (torch.uint8, (blocks * size,)),
        f"{key}_{codec}_scale": scales.get(codec, (torch.float16, (2 * blocks,))),
    }


@pytest.mark.parametrize(
    ("state_dtype", "slow"),
    [(name, slow) for name in NAMES for slow in (False, True) if not slow or name in WITH_SLOW],
)
def test_every_codec_has_its_entries_and_no_more(state_dtype: str, slow: bool) -> None:
    """Where there is no matrix, v4 stands in; tiers() and state_bytes() say so."""
    for case in CASES:
        param = parameter(0, *case.shape)
        more = {"beta_slow": 0.99} if slow else {}
        optimizer, state = stepped(param, **options(state_dtype, **more))
        m, v = state_dtype.split("+")
        if v in ("factored", "rowmean", "colmean") and not case.matrix:
            v = "v4"
        if v == "rowmean":
            v = optimizer.tiers()[0].codecs["exp_avg_sq"]
            assert v in ("rowmean", "colmean")
        blocks = -(-param.numel() // 128)
        expected: dict[str, Entry] = {"step": (torch.int64, ())}
        expected |= average_entries("exp_avg", m, case.shape, blocks)
        if slow:
            expected |= average_entries("exp_avg_slow", m, case.shape, blocks)
        expected |= square_entries(v, case, blocks)
        if state_dtype in PACKED:
            expected["packed_shape"] = (torch.int64, (len(case.shape),))
            assert state["packed_shape"].tolist() == list(case.shape)
        assert entries(state) == expected, case
        info = optimizer.tiers()[0]
        assert info.rung == f"tier2:{m}+{v}" + ("+slow" if slow else "")
        size = sum(
            torch.empty(0, dtype=dtype).element_size() * torch.Size(shape).numel()
            for dtype, shape in expected.values()
        )
        assert info.nbytes == optimizer.state_bytes() == size


BITS = {"u4+v4": 8.25, "u2+v4": 6.25, "u1+v4": 5.25, "q8+q8": 16.375, "q8+v4": 12.25}
BITS |= {f"fp32+vlog{bits}": 32 + bits + 0.25 for bits in (2, 3, 4, 6, 8)}
BITS |= {"u4+q8": 12.375, "u4+factored": 4.125, "u2+rowmean": 2.125, "u1+colmean": 1.125}
BITS |= {"ustate+vlog4": 6.5, "costate+vlog4": 5.5, "ustate+v4": 6.375, "fp32+vlog2": 34.25}


@pytest.mark.parametrize("state_dtype", BITS)
def test_bits_an_element(state_dtype: str) -> None:
    """Of a matrix of whole blocks; rows and columns, and a codec's numbers, come on top."""
    optimizer, state = stepped(parameter(0, 128, 256), **options(state_dtype))
    of_the_tensor = ("_row", "_col", "_steps", "_alpha", "packed_shape")
    beside = sum(v.nbytes for k, v in state.items() if k.endswith(of_the_tensor))
    assert optimizer.state_bytes() == 8 + beside + BITS[state_dtype] * 128 * 256 / 8


@pytest.mark.parametrize("dim", [0, 1])
def test_rowmean_keeps_the_direction_that_tells_more(dim: int) -> None:
    """Of the first gradient; and it stays with it, whatever comes after."""
    param = parameter(0, 40, 50)
    optimizer = Cosmic([param], **options("u4+rowmean"))
    scales = (torch.linspace(1, 30, 40).view(40, 1), torch.linspace(1, 30, 50))
    for step in range(3):
        param.grad = normal(step, 40, 50) * scales[dim if step == 0 else 1 - dim]
        optimizer.step()
        assert optimizer.tiers()[0].codecs["exp_avg_sq"] == ("rowmean", "colmean")[dim]


@pytest.mark.parametrize("lazy", ["conjugated", "negated", "transposed"])
def test_rowmean_sees_the_gradient_in_the_order_of_the_parameter(lazy: str) -> None:
    """Whatever the gradient's own layout and flags."""
    dtype = torch.float32 if lazy == "transposed" else torch.complex64
    param = parameter(0, 40, 25, dtype=dtype)
    gradient = normal(1, 25, 40, dtype=dtype).t() * torch.linspace(1, 30, 40).view(40, 1)
    if lazy == "conjugated":
        gradient = gradient.conj()
    if lazy == "negated":
        gradient = torch._neg_view(gradient)
    param.grad = gradient
    optimizer = Cosmic([param], **options("u4+rowmean"))
    optimizer.step()
    assert optimizer.tiers()[0].rung == "tier2:u4+rowmean"


def test_rowmean_of_a_gradient_of_another_shape_is_named() -> None:
    param = parameter(0, 40, 50)
    param.grad = normal(1, 40, 50)
    param.data = torch.zeros(4000, 50)
    optimizer = Cosmic([("w", param)], **options("u4+rowmean"))
    with refused(optimizer, ValueError, "'w'", "(40, 50)", "(4000, 50)"):
        optimizer.step()


def test_colmean_is_not_asked_again() -> None:
    param = parameter(0, 40, 50)
    optimizer = Cosmic([param], **options("u4+colmean"))
    param.grad = normal(0, 40, 50) * torch.linspace(1, 30, 40).view(40, 1)
    optimizer.step()
    assert optimizer.tiers()[0].rung == "tier2:u4+colmean"


# ---- where it is not taken ---------------------------------------------------------------------


@pytest.mark.parametrize("state_dtype", PACKED)
def test_small_tensors_keep_fp32(state_dtype: str) -> None:
    """Below 4,096 real elements; tiers() says so. A complex element is two."""
    params = parameters((4095,), (4096,), (65, 63), (64, 64))
    params += parameters((2047,), (2048,), dtype=torch.complex64)
    optimizer = Cosmic(params, state_dtype=state_dtype)
    give_gradients(params, 0)
    optimizer.step()
    small = [info.rung == "tier2:fp32+fp32" for info in optimizer.tiers()]
    assert small == [True, False, True, False, True, False]


def test_plain_codecs_know_no_smallest_size() -> None:
    _, state = stepped(parameter(0, 7), state_dtype="bf16")
    assert state["exp_avg"].dtype == torch.bfloat16


@pytest.mark.parametrize("size", [0, 1, 128, 129, 130])
def test_the_smallest_size_is_an_option_of_a_group(size: int) -> None:
    a, b = parameter(0, 129), parameter(1, 129)
    groups: list[dict[str, Any]] = [{"params": a}, {"params": b, "min_compress_size": size}]
    optimizer = Cosmic(groups, state_dtype="q8")
    give_gradients([a, b], 0)
    optimizer.step()
    assert [info.rung for info in optimizer.tiers()] == [
        "tier2:fp32+fp32",
        "tier2:q8+q8" if size <= 129 else "tier2:fp32+fp32",
    ]


def test_changing_the_smallest_size_takes_effect_at_the_next_step() -> None:
    param = parameter(0, 129)
    optimizer, _ = stepped(param, state_dtype="u4+v4")
    optimizer.param_groups[0]["min_compress_size"] = 100
    optimizer.step()
    assert optimizer.tiers()[0].rung == "tier2:u4+v4"
    assert int(optimizer.state[param]["step"]) == 2


@pytest.mark.parametrize("size", [-1, 1.5, "4096", None, True])
def test_a_smallest_size_that_is_none(size: object) -> None:
    with pytest.raises(ValueError, match=r"\['min_compress_size'\] is .*expected an int >= 0"):
        Cosmic([parameter(0, 3)], min_compress_size=size)  # type: ignore[arg-type]
    optimizer, _ = stepped(parameter(0, 3))
    with refused(optimizer, ValueError, "param_groups[0]['min_compress_size']", repr(size)):
        optimizer.param_groups[0]["min_compress_size"] = size
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("state_dtype", PACKED)
def test_float64_keeps_float64(state_dtype: str, dtype: torch.dtype) -> None:
    param = parameter(0, 40, 129, dtype=dtype)
    optimizer, state = stepped(param, **options(state_dtype))
    assert optimizer.tiers()[0].rung == "tier2:fp64+fp64"
    assert {state[key].dtype for key in ("exp_avg", "exp_avg_sq")} == {torch.float64}


UNSUPPORTED = [
    "u4", "v4", "factored", "rowmean", "fp32+q8", "u4+fp32", "u4+bf16", "u2+q8", "v4+v4",
    "factored+u4", "u4+u4", "u4+v4+u4", "q8+fp32", "U4+v4", "u4 + v4", "", "+",
]  # fmt: skip


@pytest.mark.parametrize("state_dtype", UNSUPPORTED)
def test_what_is_not_compiled_is_refused_with_what_is(state_dtype: str) -> None:
    with pytest.raises(ValueError) as caught:
        Cosmic([parameter(0, 3)], state_dtype=state_dtype)
    message = str(caught.value)
    assert repr(state_dtype) in message
    assert [name for name in NAMES if name not in message] == []


@pytest.mark.parametrize("state_dtype", [name for name in NAMES if name not in WITH_SLOW])
def test_codecs_that_know_no_slow_average_are_refused_with_those_that_do(state_dtype: str) -> None:
    param = parameter(0, 300)
    optimizer = Cosmic([("w", param)], **options(state_dtype, beta_slow=0.99))
    give_gradients([param], 0)
    with refused(optimizer, ValueError, "'w'", state_dtype, "beta_slow", *WITH_SLOW):
        optimizer.step()


@pytest.mark.parametrize("state_dtype", ["u4+factored", "u1+rowmean", "q8+q8", "u4+v4"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64], ids=str)
def test_other_parameters_have_the_same_state(state_dtype: str, dtype: torch.dtype) -> None:
    """A complex parameter's last dimension is its real and imaginary parts."""
    shape = (40, 65) if dtype.is_complex else (40, 130)
    like = (40, 65, 2) if dtype.is_complex else (40, 130)
    # the same gradients, so that rowmean looks the same way
    values = normal(0, *like)
    real, param = nn.Parameter(values), nn.Parameter(torch.empty(shape, dtype=dtype))
    real.grad = values.to(dtype).float() if not dtype.is_complex else values
    param.data = torch.view_as_complex(values.clone()) if dtype.is_complex else values.to(dtype)
    param.grad = torch.view_as_complex(values) if dtype.is_complex else values.to(dtype)
    found = []
    for p in (real, param):
        optimizer = Cosmic([p], **options(state_dtype))
        optimizer.step()
        found.append(entries(optimizer.state[p]))
    assert found[0] == found[1]
