"""What of a chunked vocabulary lasts: until it is left, after it, and until backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import cosmic
from language_models import batch, made

ROWS = 60


@pytest.fixture(autouse=True)
def one_thread(set_threads: Callable[[int], None]) -> None:
    set_threads(1)


def test_left_once_it_is_left() -> None:
    chunked = cosmic.chunk_vocabulary(made("gpt2"), rows=ROWS)
    with chunked:
        pass
    with pytest.raises(RuntimeError, match="has been left already"), chunked:
        pass


@pytest.mark.parametrize("trains", [False, True])
def test_what_is_frozen_within_stays_so(trains: bool) -> None:
    model = made("llama").requires_grad_(not trains)
    with cosmic.chunk_vocabulary(model, rows=ROWS):
        model.requires_grad_(trains)
    assert {p.requires_grad for p in model.parameters()} == {trains}


@pytest.mark.parametrize("frozen", [False, True])
def test_a_head_that_changes_between_forward_and_backward_is_seen(frozen: bool) -> None:
    model = made("llama")
    model.lm_head.requires_grad_(not frozen)
    with cosmic.chunk_vocabulary(model, rows=ROWS):
        loss = model(**batch()).loss
        with torch.no_grad():
            model.lm_head.weight_0.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
