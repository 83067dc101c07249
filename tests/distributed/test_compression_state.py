"""A CompressionState by itself, without ranks: what it refuses, saves and tells."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from cosmic.distributed import CODECS, CompressionState, bytes_of, compress_gradients
from cosmic.distributed.message import Gradient, Message
from cosmic.errors import UsageError
from helpers import normal, through_a_file


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8))


def used(**options: Any) -> CompressionState:
    """A state that keeps something of the first matrix."""
    state = CompressionState(model(), **{"min_numel": 1000, **options})
    saved = state.state_dict()
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[state.residual or "bf16"]
    saved["residuals"] = {"0.weight": normal(0, 4096).to(dtype)}
    saved.update(step=7, bytes=[10, 40])
    state.load_state_dict(saved)
    return state


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"codec": "u5"}, ValueError, "codec is 'u5'; expected one of q8, u4, top8"),
        ({"residual": "fp16"}, ValueError, "residual is 'fp16'; expected 'bf16', 'fp32' or None"),
        ({"residual": ["bf16"]}, ValueError, "residual is .'bf16'.; expected 'bf16', 'fp32' or"),
        ({"decay": "0.5"}, TypeError, "decay is '0.5'; expected a number from 0 to 1, or None"),
        ({"decay": 1.5}, ValueError, "decay is 1.5; expected a number from 0 to 1, or None"),
        ({"min_numel": -1}, ValueError, "min_numel is -1; expected 0 or more"),
        ({"min_numel": 1e3}, TypeError, "min_numel is 1000.0; expected an int"),
        ({"seed": 2**64}, ValueError, "seed is 18446744073709551616"),
        ({"seed": True}, TypeError, "seed is True; expected an int"),
        ({"model": nn.ReLU()}, UsageError, "the model has no parameters"),
        ({"model": 3}, TypeError, "model is a int; expected a module, or pairs of name and param"),
        ({"model": torch.ones(2, 2)}, TypeError, "model is a Tensor; expected a module"),
        (  # a matrix of two rows is a pair, too
            {"model": nn.Linear(2, 2).parameters()},
            TypeError,
            "model has an item of type Parameter; expected a module, or pairs of name and paramet",
        ),
        (
            {"model": [("w", nn.Parameter(torch.ones(2))), ("w", nn.Parameter(torch.ones(2)))]},
            ValueError,
            "two parameters have the name 'w'",
        ),
        ({"model": nn.Linear(2, 2, device="meta")}, UsageError, "'weight' is on meta; expected th"),
    ],
)
def test_what_it_cannot_be_is_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        CompressionState(**{"model": model(), **options})


def test_a_model_that_exchanges_nothing_is_refused() -> None:
    with pytest.raises(TypeError, match="ddp is a Sequential; expected a torch DistributedData"):
        compress_gradients(model())  # type: ignore[arg-type]


def test_what_was_saved_comes_back() -> None:
    state = used()
    again = CompressionState(model(), min_numel=1000)
    again.load_state_dict(through_a_file(state.state_dict()))
    assert (again.step, again.bytes_sent(), again.bytes_uncompressed()) == (7, 10, 40)
    kept = again.kept("0.weight")
    assert kept is not None and kept.shape == (64, 64)
    assert torch.equal(kept.flatten(), normal(0, 4096).bfloat16().float())
    assert again.state_bytes() == 2 * 4096
    again.reset()
    assert again.kept("0.weight") is None and again.state_bytes() == 0
    assert state.kept("0.weight") is not None, "what was saved is a copy"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 1}, "saved with rank 1, to be loaded with 0"),
        ({"world_size": 2}, "saved with world_size 2, to be loaded with 1"),
        ({"decay": 0.9}, "saved with decay 0.9, to be loaded with 1.0"),
        ({"codec": "q8"}, "saved with codec 'q8', to be loaded with 'u4'"),
        ({"seed": 3}, "saved with seed 3"),
        ({"residuals": {"2.weight": torch.zeros(3)}}, "a residual of '2.weight' was saved, which"),
        ({"residuals": {"0.weight": torch.zeros(3)}}, "as torch.float32 of 3 elements; expected"),
    ],
)
def test_what_was_saved_elsewhere_is_refused(changes: dict[str, Any], words: str) -> None:
    state = used()
    before = state.state_dict()
    with pytest.raises(UsageError, match=words):
        state.load_state_dict({**copy.deepcopy(before), **changes})
    assert str(state.state_dict()) == str(before)


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(UsageError, match="no saved CompressionState: it has no codec, residual"):
        used().load_state_dict({"step": 1})


def test_a_parameter_that_is_not_there() -> None:
    with pytest.raises(KeyError, match=r"no parameter 'head'; there are 0\.weight"):
        used().kept("head")


def test_a_message_is_its_parts_in_order() -> None:
    plain = [normal(0, 5), normal(1, 2, 3)]
    encoded = [Gradient(k, normal(k, 200), None) for k in (3, 4)]
    for codec in CODECS:
        message = Message(plain, encoded, codec)
        assert message.nbytes == -(-(48 + 2 * bytes_of(200, codec)) // 16) * 16
        sent = message.write(seed=0, step=0, rank=0)
        assert torch.equal(sent[:44].view(torch.float32), torch.cat([p.flatten() for p in plain]))
        own = Message([], encoded[:1], codec).write(seed=0, step=0, rank=0)
        assert torch.equal(sent[48 : 48 + bytes_of(200, codec)], own[: bytes_of(200, codec)])


def test_complex_gradients_are_pairs_of_numbers() -> None:
    net = nn.Linear(8, 8, bias=False, dtype=torch.complex64)
    state = CompressionState(net, min_numel=128)
    saved = state.state_dict()
    saved["residuals"] = {"weight": torch.ones(128, dtype=torch.bfloat16)}
    state.load_state_dict(saved)
    kept = state.kept("weight")
    assert kept is not None and kept.shape == (8, 8, 2)
