"""Gradients as bytes, and the mean of several: the oracle's bits on every ISA and thread count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosmic import _core
from cosmic.distributed import CODECS, bytes_of
from helpers import normal, same_bits, stored
from reference import wire

ISAS: list[str] = _core.build_info()["isa_available"]
#: Where blocks of 128 and runs of 8 of them begin and end, and where threads share the work.
SIZES = (1, 7, 127, 128, 129, 1025, 9000)
SEED, STEP, INDEX, RANK = 5, 3, 11, 1
KEY = wire.key_of(SEED, STEP, INDEX, RANK)
BESIDE = 4  # bytes of a message that belong to others, on either side


def gradient_of(numel: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers of many sizes, with a block of zeros where there is room for one."""
    values = normal(numel, numel) * normal(numel + 1, numel).exp()
    values[256:384] = 0
    return values.to(dtype)


def encode(
    gradient: Tensor,
    residual: Tensor | None,
    codec: str,
    *,
    stochastic: bool = False,
    decay: float = 1.0,
    threads: int = 1,
    isa: str = "",
) -> Tensor:
    """Bytes; nothing is written beside them."""
    size = bytes_of(gradient.numel(), codec)
    message = torch.full((size + 2 * BESIDE,), 170, dtype=torch.uint8)
    counter = (SEED, STEP, INDEX, RANK)
    to = message, BESIDE, codec
    _core.wire_encode(gradient, residual, decay, *to, stochastic, *counter, threads, isa)
    assert bool((message[:BESIDE] == 170).all() and (message[-BESIDE:] == 170).all())
    return message[BESIDE:-BESIDE]


def decode(messages: Tensor, codec: str, numel: int, **options: Any) -> Tensor:
    out = torch.empty(numel)
    threads, isa = options.get("threads", 1), options.get("isa", "")
    _core.wire_decode(messages.contiguous(), len(messages), 0, codec, out, threads, isa)
    return out


def kept_as(dtype: torch.dtype | None, numel: int) -> Tensor | None:
    return None if dtype is None else normal(numel + 2, numel, scale=0.3).to(dtype)


@pytest.mark.parametrize("kept", [None, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("codec", CODECS)
def test_bytes_and_residuals_are_the_oracle_s(codec: str, kept: torch.dtype | None) -> None:
    for numel in SIZES:
        gradient, before = gradient_of(numel), kept_as(kept, numel)
        for stochastic, decay in ((False, 1.0), (True, 0.7)):
            old = None if before is None else stored(before)
            sent, left = wire.encode(stored(gradient), old, codec, KEY, stochastic, decay)
            for isa in ISAS:
                for threads in (1, 2):
                    residual = None if before is None else before.clone()
                    found = encode(
                        gradient,
                        residual,
                        codec,
                        stochastic=stochastic,
                        decay=decay,
                        threads=threads,
                        isa=isa,
                    )
                    assert np.array_equal(found.numpy(), sent), (numel, stochastic, isa, threads)
                    if residual is not None and left is not None:
                        assert np.array_equal(stored(residual), left)


@pytest.mark.parametrize("codec", CODECS)
def test_the_mean_is_the_oracle_s(codec: str) -> None:
    for numel in SIZES:
        ranks = [encode(gradient_of(numel) * (1 + r), None, codec) for r in range(3)]
        wanted = torch.from_numpy(wire.mean([sent.numpy() for sent in ranks], codec, numel))
        for isa in ISAS:
            for threads in (1, 2):
                found = decode(torch.stack(ranks), codec, numel, threads=threads, isa=isa)
                assert same_bits(found, wanted), (numel, isa, threads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("codec", CODECS)
def test_16_bit_gradients_are_their_float32(codec: str, dtype: torch.dtype) -> None:
    gradient = gradient_of(1025, dtype)
    sent = encode(gradient, None, codec)
    assert torch.equal(sent, encode(gradient.float(), None, codec))
    out = torch.empty(1025, dtype=dtype)
    _core.wire_decode(sent, 1, 0, codec, out, 1)
    assert same_bits(out, decode(sent[None], codec, 1025).to(dtype))


@pytest.mark.parametrize("codec", CODECS)
def test_elements_go_in_the_order_of_indices(codec: str) -> None:
    gradient = gradient_of(1024).view(32, 32)
    columns = gradient.T.contiguous().T
    assert torch.equal(encode(columns, None, codec), encode(gradient.flatten(), None, codec))


@pytest.mark.parametrize(("codec", "bound"), [("q8", 1 / 252), ("u4", 1 / 13.8)])
def test_integers_are_to_the_nearest_level(codec: str, bound: float) -> None:
    gradient = gradient_of(9000)
    gap = (decode(encode(gradient, None, codec)[None], codec, 9000) - gradient).abs()
    for block, top in zip(torch.split(gap, 128), torch.split(gradient.abs(), 128), strict=True):
        assert bool((block <= bound * top.max()).all())


def test_the_8_largest_of_a_block_are_kept() -> None:
    gradient = gradient_of(1024)
    found = decode(encode(gradient, None, "top8")[None], "top8", 1024).view(-1, 128)
    for block, given in zip(found, gradient.view(-1, 128), strict=True):
        order = given.abs().argsort(descending=True, stable=True)
        assert not block[order[8:]].any()
        ratio = given[order[:8]].abs() / given.abs().max()
        sent = ratio >= 0.2  # half of the lowest level
        assert torch.equal(block[order[:8]] != 0, sent)
        error = (block[order[:8]] - given[order[:8]]).abs() / given.abs().max()
        assert bool((error[sent] <= torch.where(ratio[sent] < 0.4, 0.2, 0.06)).all())


def test_of_equal_magnitudes_the_first_are_kept() -> None:
    gradient = torch.ones(128)
    gradient[1::2] = -1
    gradient[100] = 2
    found = decode(encode(gradient, None, "top8")[None], "top8", 128)
    assert found.nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 100]
    assert torch.equal(found[:7].sign(), gradient[:7].sign())


def test_a_block_of_few_elements_sends_no_others() -> None:
    gradient = torch.zeros(128)
    gradient[[127, 3, 64]] = torch.tensor([1.0, -1.0, 0.5])
    found = decode(encode(gradient, None, "top8")[None], "top8", 128)
    assert found.nonzero().flatten().tolist() == [3, 64, 127]
    assert found[3] == -1 and found[127] == 1


def test_the_extremes_of_float32_stay_finite() -> None:
    for size in (1.7e38, 1e-37, 1e-44):
        for codec in CODECS:
            gradient = torch.tensor([size, -size] * 64)
            residual = torch.zeros(128)
            found = decode(encode(gradient, residual, codec)[None], codec, 128)
            assert bool(found.isfinite().all()) and bool(residual.isfinite().all())
            assert torch.equal(found + residual, gradient)


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan"), 2.0**127])
@pytest.mark.parametrize("codec", CODECS)
def test_what_is_not_finite_spoils_its_block_and_is_not_kept(codec: str, bad: float) -> None:
    gradient = gradient_of(1025)
    gradient[200] = bad
    for kept in (torch.bfloat16, torch.float32):
        residual = torch.ones(1025, dtype=kept)
        sent = encode(gradient, residual, codec)
        expected: NDArray[Any]
        expected, left = wire.encode(
            stored(gradient), stored(torch.ones(1025, dtype=kept)), codec, KEY, False
        )
        assert left is not None and np.array_equal(stored(residual), left)
        assert np.array_equal(sent.numpy(), expected)
        clean = encode(gradient_of(1025), None, codec)
        mean = decode(torch.stack([clean, sent, clean]), codec, 1025)
        assert bool(mean[128:256].isnan().all()) and not mean.isnan()[:128].any()
        assert not mean.isnan()[256:].any()
        assert not residual[128:256].any() and bool(residual[:128].any())


@pytest.mark.parametrize("codec", CODECS)
def test_a_gradient_of_zeros_sends_nothing_and_keeps_what_is_kept(codec: str) -> None:
    residual = normal(0, 9000)
    before = residual.clone()
    sent = encode(torch.zeros(9000), residual, codec)
    assert not sent.any() and torch.equal(residual, before)
    assert not decode(sent[None], codec, 9000).any()


def test_random_bits_are_those_of_seed_step_parameter_and_rank() -> None:
    gradient = normal(0, 128)
    counters = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    sent = []
    for counter in counters:
        message = torch.empty(66, dtype=torch.uint8)
        _core.wire_encode(gradient, None, 1.0, message, 0, "u4", True, *counter, 1)
        sent.append(bytes(message.tolist()))
    assert len(set(sent)) == len(counters)


def test_bytes_of_a_gradient() -> None:
    assert [bytes_of(128, codec) for codec in CODECS] == [130, 66, 13]
    assert [bytes_of(n, "top8") for n in (0, 1, 129)] == [0, 13, 26]


@pytest.mark.parametrize(
    ("numel", "error"),
    [(-1, ValueError), (2**63 - 1, ValueError), (128.0, TypeError), (True, TypeError)],
)
def test_a_number_of_elements_that_is_none_is_refused(numel: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"numel is .*; expected an int"):
        bytes_of(numel, "u4")


def test_what_does_not_fit_is_refused() -> None:
    gradient, message = torch.ones(128), torch.zeros(66, dtype=torch.uint8)

    def call(**changed: Any) -> None:
        given: dict[str, Any] = {
            "gradient": gradient,
            "residual": None,
            "decay": 1.0,
            "message": message,
            "offset": 0,
            "codec": "u4",
        }
        rest = {"stochastic": False, "seed": 0, "step": 0, "index": 0, "rank": 0, "threads": 1}
        _core.wire_encode(**{**given, **rest, **changed})

    for changed, words in (
        ({"codec": "u5"}, "codec is 'u5'; expected one of q8, u4, top8"),
        ({"offset": 1}, "a message of 66 bytes has no 66 from byte 1 on"),
        ({"message": message.to(torch.int8)}, "message must be one contiguous tensor of uint8"),
        ({"residual": torch.zeros(127)}, "residual must be one run of 128 numbers"),
        ({"residual": torch.zeros(128).half()}, "residual must be one run of 128 numbers"),
        ({"isa": "mmx"}, "ISA 'mmx' is not available"),
    ):
        with pytest.raises(ValueError, match=words):
            call(**changed)
    with pytest.raises(ValueError, match="for 3 ranks"):
        _core.wire_decode(message[:65], 3, 0, "u4", gradient, 1)
