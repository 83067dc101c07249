"""torch.ops.cosmic.*: the optimizer's bits, PyTorch's contracts for operators, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import backward
from torch.library import opcheck

import cosmic
import cosmic.ops  # loads the operators
from cosmic import Cosmic
from helpers import normal, same_bits

ops = torch.ops.cosmic

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
        seed=seed,
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
        tier=0, maximize=maximize,
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


# ---- refusals: before anything has changed -----------------------------------------------------


def swap(name: str, position: int, change: Callable[[Tensor], Tensor]) -> Callable[[Lists], Lists]:
    """Replace one tensor of one list."""

    def swapped(lists: Lists) -> Lists:
        tensors = list(getattr(lists, name))
        tensors[position] = change(tensors[position])
        return lists._replace(**{name: tensors})

    return swapped


def share_steps(lists: Lists) -> Lists:
    return lists._replace(steps=lists.steps[:1] * len(lists.steps))


def tie_moments(lists: Lists) -> Lists:
    return lists._replace(exp_avg_sqs=lists.exp_avgs)


def overlapping_halves(lists: Lists) -> Lists:
    whole = normal(1, 200)
    return swap("params", 1, lambda p: whole[:127])(swap("params", 2, lambda p: whole[71:])(lists))


BAD_LISTS: dict[str, tuple[Callable[[Lists], Lists], str]] = {
    "too-few-grads": (lambda x: x._replace(grads=x.grads[1:]), "grads has 5 tensors"),
    "too-many-steps": (lambda x: x._replace(steps=x.steps * 2), "steps has 12 tensors"),
    "param-int": (swap("params", 2, lambda p: p.int()), "params[2]"),
    "param-sparse": (swap("params", 2, Tensor.to_sparse), "params[2]"),
    "param-expanded": (
        swap("params", 2, lambda p: p[:1].expand(129)), "params[2] overlaps itself",
    ),
    "params-overlap": (overlapping_halves, "params[1] and params[2] share memory"),
    "grad-shape": (swap("grads", 3, Tensor.t), "gradient of params[3] has shape"),
    "grad-fp64": (swap("grads", 2, Tensor.double), "gradient of params[2]"),
    "grad-sparse": (swap("grads", 2, Tensor.to_sparse), "grads[2]"),
    "grad-bool": (swap("grads", 2, Tensor.bool), "grads[2]"),
    "grad-17-dimensions": (
        swap("grads", 0, lambda g: g.reshape([1] * 17)), "17 dimensions",
    ),
    "moment-fp16": (swap("exp_avgs", 2, Tensor.half), "exp_avgs[2] is float16"),
    "moment-fp64": (swap("exp_avgs", 2, Tensor.double), "params[2]: no kernel combines"),
    "moment-complex": (
        swap("exp_avg_sqs", 2, lambda v: v.to(torch.complex64)), "exp_avg_sqs[2]",
    ),
    "moment-shape": (swap("exp_avgs", 2, lambda m: m[1:]), "exp_avgs[2] is float32"),
    "moment-layout": (
        swap("exp_avg_sqs", 3, Tensor.contiguous), "exp_avg_sqs[3] is float32",
    ),
    "moments-shared": (tie_moments, " share memory"),
    "step-float": (swap("steps", 5, Tensor.float), "steps[5] must be"),
    "step-of-two": (swap("steps", 5, lambda t: t.expand(2)), "steps[5] must be"),
    "step-negative": (swap("steps", 5, lambda t: t - 1), "steps[5] is -1"),
    "steps-shared": (share_steps, " share memory"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "fragment"), BAD_LISTS.values(), ids=BAD_LISTS)
def test_bad_lists_change_nothing(change: Callable[[Lists], Lists], fragment: str) -> None:
    lists = change(make_lists())
    before, versions = lists.copy(), lists.versions()
    with pytest.raises(RuntimeError) as caught:
        ops.adam_step_(*lists, **STEP)
    assert fragment in str(caught.value)
    assert lists.versions() == versions
    for now, then in zip(lists, before, strict=True):
        for a, b in zip(now, then, strict=True):
            assert torch.equal(a.to_dense(), b.to_dense())


BAD_OPTIONS: dict[str, float] = {
    "lr": -1e-3, "beta1": 1.0, "beta2": -0.1, "eps": float("nan"), "weight_decay": float("inf"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options_change_nothing(name: str) -> None:
    lists = make_lists()
    before = lists.copy()
    with pytest.raises(RuntimeError, match=f"{name} is .*expected a"):
        ops.adam_step_(*lists, **{**STEP, name: BAD_OPTIONS[name]})
    if name in SIGN:
        with pytest.raises(RuntimeError, match=f"{name} is .*expected a"):
            ops.sign_step_(*lists[:2], **{**SIGN, name: BAD_OPTIONS[name]})
    assert same(lists, before)


X = normal(1, 3, 100)
BAD_QUANTIZE: dict[str, tuple[tuple[Any, ...], str]] = {
    "bits-5": ((X, 5, 128), "bits is 5; expected 4 or 8"),
    "bits-2**32+4": ((X, 2**32 + 4, 128), "expected 4 or 8"),
    "block-0": ((X, 4, 0), "block_size is 0"),
    "block-12": ((X, 4, 12), "block_size is 12"),
    "block-8192": ((X, 4, 8192), "block_size is 8192"),
    "fp64": ((X.double(),), "x is float64"),
    "int": ((X.int(),), "x cannot be used"),
    "complex": ((X.to(torch.complex64),), "view_as_real"),
    "sparse": ((X.to_sparse(),), "x cannot be used"),
    "infinite": ((torch.tensor([[1.0, 2.0], [3.0, float("inf")]]),), "x[1, 1]"),
    "nan-transposed": ((torch.tensor([[1.0, float("nan")]]).t(),), "x[1, 0]"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "fragment"), BAD_QUANTIZE.values(), ids=BAD_QUANTIZE)
def test_quantize_refuses(given: tuple[Any, ...], fragment: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        ops.quantize(*given)
    assert fragment in str(caught.value)


CODES, SCALES = torch.zeros(192, dtype=torch.uint8), torch.zeros(3)  # of 300 elements at 4 bits
BAD_DEQUANTIZE: dict[str, tuple[tuple[Any, ...], str]] = {
    "bits-3": ((CODES, SCALES, [300], 3, 128, torch.float32), "bits is 3"),
    "block-7": ((CODES, SCALES, [300], 4, 7, torch.float32), "block_size is 7"),
    "too-few-codes": ((CODES, SCALES, [385], 4, 128, torch.float32), "codes must be"),
    "too-many-codes": ((CODES, SCALES, [256], 4, 128, torch.float32), "codes must be"),
    "codes-int8": (
        (CODES.char(), SCALES, [300], 4, 128, torch.float32), "codes must be",
    ),
    "codes-strided": (
        (CODES.repeat(2)[::2], SCALES, [300], 4, 128, torch.float32), "contiguous",
    ),
    "scales-fp64": (
        (CODES, SCALES.double(), [300], 4, 128, torch.float32), "scales must be",
    ),
    "too-few-scales": (
        (CODES, SCALES[1:], [300], 4, 128, torch.float32), "scales must be",
    ),
    "negative-size": ((CODES, SCALES, [-3, 100], 4, 128, torch.float32), "size holds"),
    "huge-size": ((CODES, SCALES, [2**40] * 2, 4, 128, torch.float32), "size holds"),
    "to-fp64": ((CODES, SCALES, [300], 4, 128, torch.float64), "float64"),
    "to-int": ((CODES, SCALES, [300], 4, 128, torch.int32), "the result"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "fragment"), BAD_DEQUANTIZE.values(), ids=BAD_DEQUANTIZE)
def test_dequantize_refuses(given: tuple[Any, ...], fragment: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        ops.dequantize(*given)
    assert fragment in str(caught.value)
