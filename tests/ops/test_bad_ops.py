"""torch.ops.cosmic.* refuse bad lists and options before anything has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import normal
from op_lists import (
    SIGN,
    STEP,
    Lists,
    make_lists,
    same,
)

ops = torch.ops.cosmic


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
