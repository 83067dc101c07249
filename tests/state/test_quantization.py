"""4 and 8 bit helpers: error bound, exact bytes, codes as documented, the same on every ISA."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from conftest import Runner
from cosmic import QuantizedTensor, quantize
from helpers import SIZES, normal, same_bits
from reference import quantization as reference
from reference.aligned_bits import AlignedBits
from reference.blockwise import Blockwise
from reference.signed_levels import SignedLevels

BLOCK_SIZES = (8, 64, 128, 4096)

#: The documented bound is half a scale, and so much of it more for rounding in float32.
SLACK = 2.0**-15


def blocks_of(x: Tensor, block_size: int) -> Tensor:
    """A tensor's values in float64, a row a block, padded with zeros."""
    flat = x.detach().reshape(-1).double()
    return nn.functional.pad(flat, (0, -flat.numel() % block_size)).view(-1, block_size)


def assert_within_bound(x: Tensor, quantized: QuantizedTensor) -> None:
    """The documented bound, block by block, in float64."""
    back = quantized.dequantize()
    assert bool(back.isfinite().all())
    values = blocks_of(x, quantized.block_size)
    error = (values - blocks_of(back, quantized.block_size)).abs()
    absmax = values.abs().amax(1)
    bound = quantized.scales.double() / 2 * (1 + SLACK)
    bound = torch.where(absmax < 2.0**-120, 2.0**-123, bound)
    if x.dtype != torch.float32:  # and the rounding of the output
        info = torch.finfo(x.dtype)
        bound = bound + info.eps / 2 * absmax + info.smallest_normal
    excess = (error - bound[:, None]).amax(1) if error.numel() else torch.zeros(1)
    worst = int(excess.argmax())
    assert float(excess[worst]) <= 0, f"block {worst}: error {error[worst].max()} > {bound[worst]}"


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
moderate = st.floats(-1000, 1000, width=32)


@settings(max_examples=150, deadline=None)
@given(
    values=arrays.arrays(np.float32, st.integers(0, 300), elements=finite)
    | arrays.arrays(np.float32, st.integers(0, 300), elements=moderate),
    bits=st.sampled_from([4, 8]),
    block_size=st.sampled_from([8, 16, 128]),
)
def test_any_values_come_back_within_the_bound(
    values: np.ndarray[Any, np.dtype[np.float32]], bits: int, block_size: int
) -> None:
    x = torch.from_numpy(values)
    quantized = quantize(x, bits, block_size)
    assert_within_bound(x, quantized)
    codes, scales = reference.encode(values, bits, block_size)
    assert np.array_equal(quantized.codes.numpy(), codes)
    assert np.array_equal(quantized.scales.numpy(), scales)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bits", [4, 8])
def test_the_bound_holds_next_to_ties(bits: int, seed: int) -> None:
    """Among many values some lie next to the middle between two codes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(409_600, generator=generator) * 2 - 1
    assert_within_bound(x, quantize(x, bits, block_size=8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("extreme", ["largest", "smallest-normal", "denormal", "zero"])
@pytest.mark.parametrize("bits", [4, 8])
def test_extremes(bits: int, extreme: str, dtype: torch.dtype) -> None:
    """Also the largest number comes back finite."""
    info = torch.finfo(dtype)
    top = {
        "largest": info.max, "smallest-normal": info.smallest_normal,
        "denormal": info.smallest_normal * info.eps * 5, "zero": 0.0,
    }[extreme]  # fmt: skip
    x = torch.linspace(-1, 1, 131).double().mul(top).to(dtype)
    assert_within_bound(x, quantize(x, bits))


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("numel", [0, *SIZES])
def test_bytes_are_exact(numel: int, bits: int, block_size: int) -> None:
    quantized = quantize(normal(0, numel), bits, block_size)
    blocks = math.ceil(numel / block_size)
    assert quantized.nbytes == blocks * (block_size * bits // 8 + 4)
    held = sum(t.untyped_storage().nbytes() for t in (quantized.codes, quantized.scales))
    assert quantized.nbytes == held


def run_quantize(
    numel: int, bits: int, block_size: int, dtype: str, threads: int
) -> tuple[Any, Any, Any]:
    """Codes, scales and the tensor back as bits, in whatever process this runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        quantized = quantize(normal(3, numel, dtype=getattr(torch, dtype)), bits, block_size)
        back = quantized.dequantize().float()
    finally:
        torch.set_num_threads(before)
    return quantized.codes.numpy(), quantized.scales.numpy(), back.numpy()


@pytest.mark.parametrize("threads", [1, 7])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("bits", [4, 8])
def test_codes_are_those_of_the_reference(
    bits: int, block_size: int, dtype: str, threads: int, on_isa: Runner
) -> None:
    numel = 20_011  # enough blocks for several threads, and a partial one
    codes, scales, back = on_isa(run_quantize, numel, bits, block_size, dtype, threads)
    values = normal(3, numel, dtype=getattr(torch, dtype)).float().numpy()
    want_codes, want_scales = reference.encode(values, bits, block_size)
    assert np.array_equal(codes, want_codes)
    assert np.array_equal(scales, want_scales)
    decoded = reference.decode(want_codes, want_scales, bits, block_size, numel)
    rounded = torch.from_numpy(decoded).to(getattr(torch, dtype)).float().numpy()
    assert np.array_equal(back, rounded)


def test_codes_of_a_block_by_hand() -> None:
    """Scale 14 / 7 = 2; ties go to the even code; nibble i of word j holds element i * 1 + j."""
    x = torch.tensor([14.0, -14.0, 1.0, 3.0, 5.0, -1.0, 0.0, -3.0])
    quantized = quantize(x, bits=4, block_size=8)
    integers = [7, -7, 0, 2, 2, 0, 0, -2]
    word = sum((code + 8) << 4 * i for i, code in enumerate(integers))
    assert quantized.scales.tolist() == [2.0]
    assert bytes(quantized.codes.tolist()) == word.to_bytes(4, "little")
    assert quantized.dequantize().tolist() == [2.0 * code for code in integers]
    assert quantize(torch.tensor([127.0, -127.0, 2.5]), bits=8, block_size=8).codes.tolist() == [
        127, 256 - 127, 2, 0, 0, 0, 0, 0,
    ]  # fmt: skip


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.t(),
    "gaps": lambda x: x[::2, 1::3],
    "expanded": lambda x: x[:1].expand(9, -1),
    "unaligned": lambda x: x.view(-1)[1:],
    "permuted": lambda x: x.view(4, 5, -1).permute(2, 0, 1),
    "0-d": lambda x: x[0, 0],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_codes_follow_the_indices_not_the_memory(layout: str, dtype: torch.dtype) -> None:
    view = LAYOUTS[layout](normal(1, 20, 45, dtype=dtype))
    quantized, twin = quantize(view), quantize(view.clone(memory_format=torch.contiguous_format))
    assert torch.equal(quantized.codes, twin.codes)
    assert torch.equal(quantized.scales, twin.scales)
    back = quantized.dequantize()
    assert back.shape == view.shape and back.dtype == dtype and back.is_contiguous()
    assert same_bits(back, twin.dequantize())


def test_codes_are_on_the_cpu_whatever_the_default_device() -> None:
    x = normal(0, 50)
    with torch.device("meta"):
        back = quantize(x).dequantize()
    assert torch.equal(back, quantize(x).dequantize())


def test_a_parameter_is_quantized_without_a_graph() -> None:
    p = torch.nn.Parameter(normal(0, 50))
    before = p.detach().clone()
    back = quantize(p).dequantize()
    assert not back.requires_grad
    assert torch.equal(p, before)


@pytest.mark.parametrize(
    ("tensor", "options", "error", "fragments"),
    [
        (torch.ones(3), {"bits": 3}, ValueError, ("bits is 3", "4 or 8")),
        (torch.ones(3), {"bits": 16}, ValueError, ("bits is 16", "4 or 8")),
        (torch.ones(3), {"bits": "4"}, TypeError, ("bits is '4'", "an int")),
        (torch.ones(3), {"block_size": 128.0}, TypeError, ("block_size is 128.0", "an int")),
        (torch.ones(3), {"block_size": 0}, ValueError, ("block_size is 0", "multiple of 8")),
        (torch.ones(3), {"block_size": -8}, ValueError, ("block_size is -8", "multiple of 8")),
        (torch.ones(3), {"block_size": 12}, ValueError, ("block_size is 12", "multiple of 8")),
        (torch.ones(3), {"block_size": 4104}, ValueError, ("block_size is 4104", "8 to 4096")),
        (torch.ones(3), {"block_size": 2**45}, ValueError, ("block_size is", "8 to 4096")),
        (torch.ones(3).double(), {}, TypeError, ("float64", "cast it first")),
        (torch.ones(3, dtype=torch.int32), {}, TypeError, ("torch.int32",)),
        (torch.ones(3, dtype=torch.complex64), {}, TypeError, ("view_as_real",)),
        (torch.ones(3, 3).to_sparse(), {}, TypeError, ("sparse",)),
        (torch.ones(3, device="meta"), {}, TypeError, ("meta",)),
        ([1.0, 2.0], {}, TypeError, ("list", "torch.Tensor")),
        (torch.tensor([[1, 2], [3, math.nan]]), {}, ValueError, ("tensor[(1, 1)]", "finite")),
        (torch.tensor([1, -math.inf, math.inf]), {}, ValueError, ("tensor[(1,)]", "finite")),
        (torch.tensor(math.nan), {}, ValueError, ("not finite",)),
    ],
    ids=[
        "bits-3", "bits-16", "bits-text", "block-float", "block-0", "block-negative", "block-12",
        "block-4104", "block-huge", "float64", "int32", "complex", "sparse", "meta", "list",
        "nan", "inf", "0-d-nan",
    ],
)  # fmt: skip
def test_bad_input_is_refused(
    tensor: Any, options: dict[str, Any], error: type[Exception], fragments: tuple[str, ...]
) -> None:
    with pytest.raises(error) as caught:
        quantize(tensor, **options)
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value


def test_the_first_bad_element_is_named_whatever_the_threads(
    set_threads: Callable[[int], None],
) -> None:
    x = normal(0, 100, 300)
    x[77, 5] = x[78, 9] = x[99, 299] = math.inf
    for threads in (1, 2, 3, 7):
        set_threads(threads)
        with pytest.raises(ValueError, match=r"tensor\[\(77, 5\)\]"):
            quantize(x)


# ---- forms that states once had -----------------------------------------------------------------

FORMS = {
    "q8": Blockwise(1000, SignedLevels(8, update_units=False)),
    "v8": Blockwise(1000, AlignedBits(8)),
    "v4": Blockwise(1000, AlignedBits(4)),
}


@pytest.mark.parametrize("codec", FORMS)
def test_forms_of_old_states_decode_as_they_did(codec: str) -> None:
    """Any codes under the words of some block; those of v4 without the sign, which is new."""
    packed = quantize(normal(1, 1000).abs(), codec=codec)
    assert codec != "v4" or bool((packed.scales >= 0).all())
    packed.codes.copy_(torch.arange(packed.codes.numel()) * 37 % 256)
    stored = packed.scales.view(torch.int16) if codec == "q8" else packed.scales
    words = stored.numpy().view(np.uint16) if codec == "q8" else stored.numpy()
    planes = {"": packed.codes.numpy(), "_scale": words}
    want = FORMS[codec].decode(planes, np.array(1, np.float32))
    assert np.array_equal(packed.dequantize().numpy(), want)


def test_an_old_word_of_v4_has_no_code_for_zero() -> None:
    packed = quantize(torch.full((128,), 1.5), codec="v4")
    packed.codes.zero_()
    assert bool((packed.dequantize() == 1.5).all())
    packed.scales.bitwise_or_(-(2**15))
    assert not bool(packed.dequantize().any())
