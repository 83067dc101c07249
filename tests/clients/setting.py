"""What the clients' tests share: a tiny GPT-2, data, optimizers by name, runs that are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel

from cosmic import Cosmic
from cosmic.presets import AXIOM, CASMO, TurboAdam
from helpers import bits

VOCABULARY, LENGTH, BATCH = 128, 16, 8
ROWS = 6 * BATCH  # six batches an epoch

Batch = dict[str, Tensor]


def tiny_gpt2(seed: int = 0, dropout: float = 0.0, **more: Any) -> GPT2LMHeadModel:
    """Embedding and hidden matrices have 4,096 elements or more, so that codecs act on them."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"n_layer": 2, "n_embd": 64, "n_head": 2, "n_positions": LENGTH}
    for key in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        shape[key] = dropout
    shape |= {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, **more}
    model = GPT2LMHeadModel(GPT2Config(**shape))
    model.loss_type = "ForCausalLM"  # known by its class's name only for later models
    return model


class Tokens(Dataset[Batch]):
    """Rows in which most tokens follow from the one before."""

    def __init__(self, rows: int = ROWS, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        columns = [torch.randint(VOCABULARY, (rows,), generator=generator)]
        for _ in range(LENGTH - 1):
            lots = torch.rand(rows, generator=generator) < 0.1
            random = torch.randint(VOCABULARY, (rows,), generator=generator)
            columns.append(torch.where(lots, random, (3 * columns[-1] + 1) % VOCABULARY))
        self.ids = torch.stack(columns, 1)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Batch:
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


def batches(tokens: Tokens, steps: int, size: int = BATCH) -> Iterator[Batch]:
    """The rows in their order, over and over."""
    for step in range(steps):
        rows = torch.arange(step * size, (step + 1) * size) % len(tokens)
        yield {"input_ids": tokens.ids[rows], "labels": tokens.ids[rows]}


class Kind(NamedTuple):
    """An optimizer and its options, and the run that is resumed: its length, and the step of its
    checkpoint, which lies within an epoch."""

    make: Callable[..., Optimizer]
    options: dict[str, Any]
    steps: int = 15
    middle: int = 8

    def __call__(self, params: Any, **more: Any) -> Any:
        return self.make(params, **{"lr": 5e-3, "weight_decay": 0.1, **self.options, **more})


#: What is resumed. Under a budget step 0 and every third look at the gradients, and the next one
#: spends the budget anew: the checkpoint is between the two, and others come before and after it.
_BUDGET = {"budget": "5%", "reallocate_every": 3}
KINDS: dict[str, Kind] = {
    "default": Kind(Cosmic, {}),
    "fp32": Kind(Cosmic, {"state_dtype": "fp32"}),
    "budget": Kind(Cosmic, _BUDGET, middle=7),
    "budget by signal": Kind(Cosmic, {**_BUDGET, "policy": "signal", "seed": 7}, middle=7),
    "gate snr": Kind(Cosmic, {"gate": "snr"}),
    "gate agar": Kind(Cosmic, {"gate": "agar", "state_dtype": "u4+v4"}),
    "TurboAdam": Kind(TurboAdam, {}),
    "AXIOM": Kind(AXIOM, {}),
    # Calibrated after 50 steps, most of whose samples are in the checkpoint.
    "CASMO": Kind(CASMO, {"tau_init_steps": 50}, steps=57, middle=44),
}

#: Torch's own, to show what a client itself does.
ADAMW = Kind(AdamW, {})


def parameter_bits(model: nn.Module) -> dict[str, bytes]:
    """Every parameter's memory, by name."""
    return {name: bits(p).numpy().tobytes() for name, p in model.named_parameters()}


def plain_loop(
    model: nn.Module,
    optimizer: Optimizer,
    inputs: Iterator[Batch],
    schedule: Any = None,
    max_norm: float = 1.0,
    accumulate: int = 1,
    bf16: bool = False,
) -> list[float]:
    """A loop as one writes it by hand: losses, a step after every ``accumulate`` batches."""
    model.train()
    losses = []
    for count, batch in enumerate(inputs, 1):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        (loss / accumulate).backward()
        losses.append(float(loss.detach()))
        if count % accumulate == 0:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            if schedule is not None:
                schedule.step()
            optimizer.zero_grad()
    return losses
