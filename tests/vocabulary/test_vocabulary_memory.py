"""A step's peak of resident memory, with a vocabulary of 50,257: blocks, never the whole."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import pytest
import torch
import transformers as tf

import cosmic
from cosmic.train.memory import PeakRss, rss_bytes

TOKENS, WIDTH = 64, 128
#: Hidden states, a layer's activations, a tile's logits thrice, pages of libraries.
ACTIVATIONS = 8e6


class Found(NamedTuple):
    """Bytes of a step: its peak over what was resident before, a block's, the whole weight's."""

    growth: int
    block: int
    whole: int


def step_of(tied: bool, chunked: bool) -> Found:
    """In a process of its own: the second step, as the first one makes state."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = tf.GPT2Config(n_layer=1, n_head=2, n_embd=WIDTH, tie_word_embeddings=tied)
    model = tf.GPT2LMHeadModel(config)
    whole = model.lm_head.weight.nbytes
    block = cosmic.chunk_vocabulary(model).block_bytes if chunked else whole
    optimizer = cosmic.Cosmic(cosmic.param_groups(model), lr=1e-3, budget="2%")
    ids = torch.randint(config.vocab_size, (1, TOKENS))
    with optimizer.step_in_backward(model):
        for _ in range(2):
            gc.collect()
            before = rss_bytes()
            with PeakRss() as peak:
                model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
    return Found(peak.bytes - before, block, whole)


@pytest.fixture(scope="module")
def worker() -> Iterator[ProcessPoolExecutor]:
    with (
        pytest.MonkeyPatch.context() as patch,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor,
    ):
        patch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")  # what is freed is gone
        executor.submit(gc.collect).result()
        yield executor


@pytest.mark.parametrize("tied", [True, False])
def test_a_step_takes_two_blocks_at_most(tied: bool, worker: ProcessPoolExecutor) -> None:
    chunked = worker.submit(step_of, tied, True).result()
    plain = worker.submit(step_of, tied, False).result()
    assert chunked.growth < 2 * chunked.block + ACTIVATIONS
    assert chunked.growth < chunked.whole  # 26 MB
    assert plain.growth > plain.whole + 2 * TOKENS * 50257  # and half of the logits at least
