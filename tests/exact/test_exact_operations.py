"""Operations of cosmic.exact: torch's values and gradients, and true derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cosmic import exact
from helpers import normal
from operation_cases import CASES


def tensors(found: Any) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("name", [name for name in CASES if "padding" not in name])
def test_gradients_are_derivatives(name: str) -> None:
    case = CASES[name]
    inputs = case.inputs(torch.float64)
    assert torch.autograd.gradcheck(case.exact, inputs, eps=1e-6, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_torchs(name: str, dtype: torch.dtype) -> None:
    """Beside float64: to 2e-6 of the largest element in float32."""
    case, results = CASES[name], []
    for run, kind in ((case.exact, dtype), (case.plain, torch.float64)):
        inputs = [t.detach().to(kind).requires_grad_() for t in case.inputs(torch.float32)]
        outputs = tensors(run(*inputs))
        assert all(out.dtype == kind for out in outputs)
        gradients = [normal(90 + i, *out.shape, dtype=kind) for i, out in enumerate(outputs)]
        torch.autograd.backward(outputs, [g.to(torch.float32).to(kind) for g in gradients])
        results.append([*outputs, *(t.grad for t in inputs)])
    for found, expected in zip(*results, strict=True):
        assert found is not None and found.shape == expected.shape
        largest = float(expected.detach().abs().max())
        bound = {torch.float32: 2e-6, torch.float64: 1e-13}[dtype] * largest
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("accumulate", ["fp32", "fp64", "exact"])
def test_products_differ_by_rounding_alone(accumulate: str) -> None:
    x, w, b = (normal(i, *shape) for i, shape in enumerate([(9, 700), (5, 700), (5,)]))
    for tensor in (x, w, b):
        tensor.requires_grad_()
    torch.autograd.backward(exact.linear(x, w, b, accumulate=accumulate).square().sum())
    found = [tensor.grad for tensor in (x, w, b)]
    for tensor in (x, w, b):
        tensor.grad = None
    torch.autograd.backward(F.linear(x.double(), w.double(), b.double()).square().sum())
    for gradient, tensor in zip(found, (x, w, b), strict=True):
        torch.testing.assert_close(gradient, tensor.grad, rtol=1e-5, atol=2e-4)


def test_a_conv1d_has_the_bits_of_a_linear_layer() -> None:
    x, w, b = normal(0, 6, 8), normal(1, 5, 8), normal(2, 5)
    assert torch.equal(exact.linear(x, w, b), exact.conv1d(x, w.t(), b))


def test_a_row_has_the_same_bits_in_any_batch() -> None:
    x, w, b = normal(0, 37, 50), normal(1, 20, 50), normal(2, 20)
    whole = exact.linear(x, w, b)
    assert torch.equal(whole[11:12], exact.linear(x[11:12], w, b))
    q, k, v = normal(3, 5, 4, 9, 8), normal(4, 5, 2, 9, 8), normal(5, 5, 2, 9, 8)
    many = exact.attention(q, k, v, causal=True)
    assert torch.equal(many[3:4], exact.attention(q[3:4], k[3:4], v[3:4], causal=True))


@pytest.mark.parametrize("name", CASES)
def test_strides_change_no_bit(name: str) -> None:
    """Inputs as views of something larger, transposed in memory."""
    case = CASES[name]
    plain = case.inputs(torch.float32)
    spread = []
    for tensor in plain:
        room = torch.zeros(*(2 * size + 1 for size in reversed(tensor.shape)))
        view = room.permute(*reversed(range(tensor.ndim)))[
            tuple(slice(1, None, 2) for _ in tensor.shape)
        ]
        spread.append(view.copy_(tensor.detach()).requires_grad_())
    results = []
    for inputs in (plain, spread):
        outputs = tensors(case.exact(*inputs))
        gradients = [normal(90, *out.shape) for out in outputs]
        torch.autograd.backward(outputs, gradients)
        results.append([*outputs, *(t.grad for t in inputs)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_causal_attention_has_the_bits_of_its_pattern_as_a_mask() -> None:
    q, k, v = normal(0, 2, 4, 5, 8), normal(1, 2, 2, 7, 8), normal(2, 2, 2, 7, 8)
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2)
    assert torch.equal(exact.attention(q, k, v, causal=True), exact.attention(q, k, v, mask))


def test_a_query_that_sees_nothing_gives_zeros() -> None:
    q, k, v = (normal(i, 1, 1, 3, 4).requires_grad_() for i in range(3))
    mask = torch.tensor([[True, True, True], [False, False, False], [True, False, False]])
    out = exact.attention(q, k, v, mask)
    torch.autograd.backward(out.sum())
    assert not out[0, 0, 1].any() and out[0, 0, 0].any()
    assert q.grad is not None and not q.grad[0, 0, 1].any()
    assert not exact.softmax(torch.full((2, 3), -torch.inf)).any()


def test_what_is_not_a_number_stays_where_it_is() -> None:
    x = normal(0, 4, 6)
    x[2, 3] = torch.nan
    w = normal(1, 5, 6)
    for out in (
        exact.linear(x, w), exact.softmax(x), exact.layer_norm(x, (6,)), exact.rms_norm(x, (6,)),
        exact.cross_entropy(x, torch.zeros(4, dtype=torch.int64), reduction="none")[:, None],
    ):  # fmt: skip
        assert out.isnan().any(1).tolist() == [False, False, True, False]
    for op in (exact.gelu, exact.silu, exact.tanh, exact.sigmoid):
        assert torch.equal(op(x).isnan(), x.isnan())


def test_the_mean_over_no_rows_is_not_a_number() -> None:
    logits = normal(0, 2, 3).requires_grad_()
    loss = exact.cross_entropy(logits, torch.tensor([-100, -100]))
    assert bool(loss.isnan())


def test_rows_are_embedded_once_for_every_use() -> None:
    weight = normal(0, 5, 3).requires_grad_()
    torch.autograd.backward(exact.embedding(torch.tensor([1, 1, 1, 4]), weight).sum())
    assert weight.grad is not None
    assert weight.grad[:, 0].tolist() == [0, 3, 0, 0, 1]


def test_denormals_are_computed_even_where_torch_flushes_them() -> None:
    x, w = normal(0, 4, 6, scale=1e-39), normal(1, 5, 6)
    expected = [exact.linear(x, w), exact.gelu(x)]
    assert all(0 < float(out.abs().max()) < 1e-37 for out in expected)
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU does not flush denormals")
    try:
        found = [exact.linear(x, w), exact.gelu(x)]
    finally:
        torch.set_flush_denormal(False)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_empty_tensors_have_empty_results() -> None:
    x = torch.empty(0, 6, requires_grad=True)
    w = normal(0, 4, 6).requires_grad_()
    torch.autograd.backward(exact.sum(exact.gelu(exact.linear(x, w))))
    assert x.grad is not None and x.grad.shape == (0, 6)
    assert w.grad is not None and not w.grad.any()
    assert exact.softmax(x).shape == exact.layer_norm(x, (6,)).shape == (0, 6)


# ---- rotary embeddings ---------------------------------------------------------------------------


def test_rotary_tables_are_cosines_and_sines() -> None:
    positions = torch.tensor([[0, 1, 77], [4095, 100_000, 12_345_678]])
    frequencies = exact.rotary_frequencies(64, 500_000.0)
    expected = 500_000.0 ** (-torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    torch.testing.assert_close(frequencies, expected, rtol=1e-14, atol=0)
    cos, sin = exact.rotary(positions, frequencies, scaling=1.5, dtype=torch.float64)
    angles = positions.double()[..., None] * frequencies.repeat(2)
    torch.testing.assert_close(cos, 1.5 * angles.cos(), rtol=0, atol=1e-8)
    torch.testing.assert_close(sin, 1.5 * angles.sin(), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 4.0},
        {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ],
)  # fmt: skip
def test_scaled_frequencies_are_transformers(scaling: dict[str, Any]) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {**scaling, "rope_theta": 500_000.0}
    config = LlamaConfig(hidden_size=256, num_attention_heads=2, rope_parameters=parameters)
    theirs, _ = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config)
    found = exact.rotary_frequencies(128, 500_000.0, scaling)
    torch.testing.assert_close(found, theirs.double(), rtol=1e-6, atol=0)
