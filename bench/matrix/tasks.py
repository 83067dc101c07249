"""What bench/matrix_rule.py trains: small GPT-2s on the sources of Python's standard library."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from cosmic.finetune import run as finetune
from cosmic.finetune.batches import training_batches, validation_batches
from cosmic.finetune.config import RunConfig
from cosmic.finetune.tokens import TokenFolder
from cosmic.finetune.worker import gather
from cosmic.models.building import build_model
from cosmic.models.configs import load_config

BLOCK = 64  # tokens a sequence
HELD_OUT = 64  # sequences of a validation loss


@dataclass(frozen=True)
class Task:
    """One training.

    Attributes:
        model: a name of `cosmic.models.shapes`.
        batch: sequences a step.
        steps: optimizer steps.
        every: steps from one validation loss to the next.
        dominated: a run of the search is given up at 40 % of its steps if its validation loss is
            more than this above the best run's there; None: never.
    """

    model: str
    batch: int
    steps: int
    every: int
    dominated: float | None = None


TASKS: dict[str, Task] = {
    "4x64": Task("tiny-gpt2", batch=4, steps=400, every=20),
    "64x64": Task("tiny-gpt2", batch=64, steps=200, every=10, dominated=0.3),
    "small": Task("small-gpt2", batch=16, steps=150, every=10, dominated=0.3),
}


@dataclass(frozen=True)
class Data:
    """Token ids: training batches [steps, batch, block], held-out sequences [sequences, block]."""

    batches: torch.Tensor
    held_out: torch.Tensor


def prepare(out: Path) -> TokenFolder:
    """The text, tokenized; made once for all tasks, whose vocabularies are the same."""
    finetune.silence_libraries()
    shared = RunConfig(
        model="tiny-gpt2",
        dataset="python-stdlib",
        steps=1,
        batch_size=1,
        block_size=BLOCK,
        lr=1e-3,
        weight_decay=0.0,
        warmup=0,
        eval_batches=1,
        seed=0,
        dtype="fp32",
        from_scratch=True,
    )
    vocabulary = load_config(shared.model, shared.from_scratch).vocab_size
    return finetune.prepare_tokens(shared, vocabulary, out / "cache")


@lru_cache(maxsize=4)
def load(task: str, seed: int, folder: TokenFolder) -> Data:
    """The data of a task; batches follow from the seed alone, held-out sequences from nothing."""
    setting, blocks, held_out = TASKS[task], folder.train(), folder.validation()
    numbers = training_batches(len(blocks), setting.batch, setting.steps, seed)
    (chosen,) = validation_batches(len(held_out), HELD_OUT, 1)
    return Data(gather(blocks, numbers), gather(held_out, chosen))


def model_of(task: str, seed: int) -> Any:
    """The model with the weights of a seed.

    Its activation, the tanh form of GELU, is torch's own: one pass where transformers' takes eight.
    """
    model = build_model(TASKS[task].model, True, seed, "fp32")
    model.config.use_cache = False
    for block in model.transformer.h:
        block.mlp.act = torch.nn.GELU(approximate="tanh")
    return model
