"""`compress_activations` beside what else makes a training step small."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers

import cosmic
from helpers import same_bits

STEPS = 8


def trained(codec: str | None, dtype: torch.dtype) -> tuple[list[float], list[torch.Tensor]]:
    """Losses and final weights of a GPT-2 that learns one batch by heart, its vocabulary in
    blocks, each gradient stepped and freed in backward, products of bfloat16 made in float32."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=2, n_embd=64, n_head=2, n_positions=64, vocab_size=300,
        bos_token_id=None, eos_token_id=None,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model: Any = transformers.GPT2LMHeadModel(config)
    model.to(dtype)
    ids = torch.arange(256).view(4, 64) * 7 % 300
    losses = []
    compressed: Any = cosmic.compress_activations(codec) if codec else nullcontext()
    with cosmic.chunk_vocabulary(model, rows=128), cosmic.fp32_products("always"):
        optimizer = cosmic.Cosmic(cosmic.param_groups(model), lr=3e-3)
        with optimizer.step_in_backward(model):
            for _ in range(STEPS):
                with compressed:
                    loss = model(input_ids=ids, labels=ids).loss
                loss.backward()
                optimizer.step()
                assert all(p.grad is None for p in model.parameters())
                losses.append(loss.item())
        if codec:
            assert compressed.meter.ratio < {"q8": 0.6, "u4": 0.4}[codec]
            assert compressed.meter.packed > STEPS * 10
    return losses, [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize(
    ("codec", "dtype"), [("u4", torch.float32), ("q8", torch.bfloat16)], ids=str
)
def test_with_blocks_of_the_vocabulary_and_steps_in_backward(
    codec: str, dtype: torch.dtype, one_thread: None
) -> None:
    """Trains as it does with everything kept, and to the same bits again."""
    exact, _ = trained(None, dtype)
    losses, weights = trained(codec, dtype)
    again, same = trained(codec, dtype)
    assert losses == again and all(same_bits(a, b) for a, b in zip(weights, same, strict=True))
    assert losses[0] == exact[0] and losses != exact
    assert exact[0] - exact[-1] > 0.5
    assert losses[0] - losses[-1] > 0.9 * (exact[0] - exact[-1])
