"""torch.ops.cosmic.*: the optimizer's bits, PyTorch's contracts for operators."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import backward
from torch.library import opcheck

import cosmic
import cosmic.ops  # loads the operators
from cosmic import Cosmic
from helpers import normal, same_bits
from op_lists import (
    DTYPES,
    SHAPES,
    SIGN,
    STEP,
    Dtypes,
    Lists,
    all_dtypes,
    make_lists,
    new_gradients,
    same,
    tensor,
)

ops = torch.ops.cosmic

# ---- the same bits as the optimizer ------------------------------------------------------------


def state_dtype(dtypes: Dtypes) -> str:
    names = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp32"}
    return f"{names[dtypes.m]}+{names[dtypes.v]}"


@pytest.mark.parametrize(("maximize", "seed"), [(False, 0), (True, 2**64 - 3)])
@all_dtypes
def test_adam_step_is_cosmic_tier_2(dtypes: Dtypes, maximize: bool, seed: int) -> None:
    lists = make_lists(dtypes)
    twins = [nn.Parameter(p.clone()) for p in lists.params]
    optimizer = Cosmic(
        twins, lr=STEP["lr"], betas=(STEP["beta1"], STEP["beta2"]), eps=STEP["eps"],
        weight_decay=STEP["weight_decay"], state_dtype=state_dtype(dtypes), maximize=maximize,
        seed=seed, stochastic_rounding=False,
    )  # fmt: skip
    signed = seed - 2**64 if seed >= 2**63 else seed
    for step in range(4):
        lists = new_gradients(lists, step)
        ops.adam_step_(*lists, **STEP, maximize=maximize, seed=signed)
        for twin, grad in zip(twins, lists.grads, strict=True):
            twin.grad = grad
        optimizer.step()
    for k, twin in enumerate(twins):
        state = optimizer.state[twin]
        assert same_bits(lists.params[k], twin)
        assert same_bits(lists.exp_avgs[k], state["exp_avg"])
        assert same_bits(lists.exp_avg_sqs[k], state["exp_avg_sq"])
        assert lists.steps[k].item() == state["step"].item() == 4


def test_the_seed_moves_bf16_moments() -> None:
    a = make_lists(DTYPES["fp32-bf16+bf16"], [(4097,)])
    b = a.copy()
    ops.adam_step_(*a, **STEP, seed=1)
    ops.adam_step_(*b, **STEP, seed=2)
    assert not same_bits(a.exp_avgs[0], b.exp_avgs[0])


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_sign_step_is_cosmic_tier_0(dtype: torch.dtype, maximize: bool) -> None:
    lists = make_lists(Dtypes(dtype))
    twins = [nn.Parameter(p.clone()) for p in lists.params]
    optimizer = Cosmic(
        twins, lr=SIGN["lr"], betas=(SIGN["beta1"], 0.5), weight_decay=SIGN["weight_decay"],
        tier=0, maximize=maximize, stochastic_rounding=False,
    )  # fmt: skip
    for step in range(2):
        lists = new_gradients(lists, step)
        ops.sign_step_(lists.params, lists.grads, **SIGN, maximize=maximize)
        for twin, grad in zip(twins, lists.grads, strict=True):
            twin.grad = grad
        optimizer.step()
    assert all(same_bits(p, q) for p, q in zip(lists.params, twins, strict=True))


@pytest.mark.parametrize("block_size", [8, 128])
@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_quantize_is_cosmic_quantize(
    shape: tuple[int, ...], dtype: torch.dtype, width: int, block_size: int
) -> None:
    x = tensor(5, shape, dtype)
    want = cosmic.quantize(x, width, block_size)
    codes, scales = ops.quantize(x, width, block_size)
    assert same_bits(codes, want.codes)
    assert same_bits(scales, want.scales)
    back = ops.dequantize(codes, scales, x.shape, width, block_size, dtype)
    assert same_bits(back, want.dequantize())
    assert back.is_contiguous()


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_do_not_change_bits(threads: int, set_threads: Callable[[int], None]) -> None:
    one = make_lists(DTYPES["fp32-bf16+bf16"], [(300, 301), (129,)])
    many = one.copy()
    set_threads(1)
    ops.adam_step_(*one, **STEP)
    codes, scales = ops.quantize(one.params[0])
    set_threads(threads)
    ops.adam_step_(*many, **STEP)
    assert same(one, many)
    assert same_bits(ops.quantize(many.params[0])[0], codes)
    size = one.params[0].shape
    back = ops.dequantize(codes, scales, size, 4, 128, torch.float32)
    set_threads(1)
    assert same_bits(ops.dequantize(codes, scales, size, 4, 128, torch.float32), back)


def test_the_documented_functions_are_the_operators() -> None:
    a = make_lists()
    b = a.copy()
    cosmic.ops.adam_step_(*a, **STEP, seed=3)
    ops.adam_step_(*b, **STEP, seed=3)
    cosmic.ops.sign_step_(a.params, a.grads, **SIGN)
    ops.sign_step_(b.params, b.grads, **SIGN)
    assert same(a, b)
    x = normal(1, 300)
    codes, scales = cosmic.ops.quantize(x, 8, 64)
    assert same_bits(codes, ops.quantize(x, 8, 64)[0])
    back = cosmic.ops.dequantize(codes, scales, x.shape, 8, 64, torch.bfloat16)
    assert same_bits(back, ops.dequantize(codes, scales, x.shape, 8, 64, torch.bfloat16))


# ---- PyTorch's contracts -----------------------------------------------------------------------


@all_dtypes
def test_adam_step_passes_opcheck(dtypes: Dtypes) -> None:
    opcheck(ops.adam_step_.default, make_lists(dtypes), STEP)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_sign_step_passes_opcheck(dtype: torch.dtype) -> None:
    opcheck(ops.sign_step_.default, make_lists(Dtypes(dtype))[:2], SIGN)


def test_empty_lists_pass_opcheck() -> None:
    opcheck(ops.adam_step_.default, ([], [], [], [], []), STEP)
    opcheck(ops.sign_step_.default, ([], []), SIGN)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_quantization_passes_opcheck(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = tensor(5, shape, dtype)
    opcheck(ops.quantize.default, (x, 8, 64))
    codes, scales = ops.quantize(x)
    opcheck(ops.dequantize.default, (codes, scales, list(x.shape), 4, 128, dtype))


def test_quantization_compiles_for_every_size() -> None:
    def there_and_back(x: Tensor) -> Tensor:
        codes, scales = ops.quantize(2 * x, 8, 16)
        back: Tensor = ops.dequantize(codes, scales, x.shape, 8, 16, torch.float32)
        return back + 1

    compiled = torch.compile(there_and_back, backend="aot_eager", dynamic=True, fullgraph=True)
    for rows in (2, 7, 300):
        x = normal(rows, rows, 5)
        assert same_bits(compiled(x), there_and_back(x))


def test_a_step_compiles() -> None:
    def scaled_step(*lists: list[Tensor]) -> None:
        params, grads, *state = lists
        ops.adam_step_(params, [2 * g for g in grads], *state, **STEP)

    a = make_lists()
    b = a.copy()
    torch.compile(scaled_step, backend="aot_eager", fullgraph=True)(*a)
    scaled_step(*b)
    assert same(a, b)


def test_meta_tensors_have_shapes_only() -> None:
    def meta(lists: Lists) -> Lists:
        return Lists(*([t.to("meta") for t in tensors] for tensors in lists))

    lists = make_lists()
    ops.adam_step_(*meta(lists), **STEP)
    ops.sign_step_(*meta(lists)[:2], **SIGN)
    codes, scales = ops.quantize(torch.empty(3, 100, device="meta"), 4, 64)
    assert (codes.shape, codes.dtype) == ((160,), torch.uint8)
    assert (scales.shape, scales.dtype) == ((5,), torch.float32)
    back = ops.dequantize(codes, scales, [3, 100], 4, 64, torch.bfloat16)
    assert (back.shape, back.dtype) == ((3, 100), torch.bfloat16)

    with pytest.raises(RuntimeError, match="expected one device"):
        ops.adam_step_(*lists._replace(params=meta(lists).params), **STEP)
    with pytest.raises(RuntimeError, match="one for each parameter"):
        ops.adam_step_(*meta(lists)._replace(steps=[]), **STEP)
    with pytest.raises(RuntimeError, match="block_size is 0"):
        ops.quantize(torch.empty(3, device="meta"), 4, 0)


# ---- autograd ----------------------------------------------------------------------------------


def test_versions_of_what_is_written_are_bumped() -> None:
    lists = make_lists()
    ops.adam_step_(*lists, **STEP)
    assert [t._version for t in lists.written()] == [1] * len(lists.written())
    assert [g._version for g in lists.grads] == [0] * len(lists.grads)
    ops.sign_step_(lists.params, lists.grads, **SIGN)
    assert [p._version for p in lists.params] == [2] * len(lists.params)
    assert [g._version for g in lists.grads] == [0] * len(lists.grads)


def test_autograd_notices_a_step_between_forward_and_backward() -> None:
    weight = nn.Parameter(normal(1, 5))
    loss = (weight**2).sum()  # saves the weight
    with torch.no_grad():
        ops.sign_step_([weight], [normal(2, 5)], **SIGN)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        backward(loss)


@pytest.mark.parametrize("position", [0, 1], ids=["params", "grads"])
def test_a_step_that_autograd_would_record_is_refused(position: int) -> None:
    lists = make_lists()
    lists[position][2].requires_grad_()
    before = lists.copy()
    with pytest.raises(RuntimeError, match=r"adam_step_ is not differentiable.*no_grad"):
        ops.adam_step_(*lists, **STEP)
    with pytest.raises(RuntimeError, match=r"sign_step_ is not differentiable.*no_grad"):
        ops.sign_step_(*lists[:2], **SIGN)
    assert same(lists, before)
    with torch.no_grad():
        ops.adam_step_(*lists, **STEP)
    ops.adam_step_(*before, **STEP)
    assert same(lists, before)


def test_inference_tensors_step() -> None:
    lists = make_lists()
    with torch.inference_mode():
        inside = lists.copy()
        ops.adam_step_(*inside, **STEP)
    ops.adam_step_(*inside, **STEP)
    for _ in range(2):
        ops.adam_step_(*lists, **STEP)
    assert same(inside, lists)


def test_backward_through_quantization_raises() -> None:
    x = normal(1, 300).requires_grad_()
    codes, scales = ops.quantize(x)
    with pytest.raises(RuntimeError, match="cosmic::quantize is not differentiable"):
        backward(scales.sum())
    back = ops.dequantize(codes, scales, x.shape, 4, 128, torch.float32)
    with pytest.raises(RuntimeError, match="cosmic::dequantize is not differentiable"):
        backward(back.sum())
    with torch.no_grad():
        assert not ops.quantize(x)[1].requires_grad
