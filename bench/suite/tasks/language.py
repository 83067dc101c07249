"""Small GPT-2s on the sources of Python's standard library."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from suite.problem import Problem, Task

VOCABULARY = 1024
BLOCK = 64  # tokens a sequence
HELD_OUT = 256  # sequences of a validation loss
PIECE = 512  # tokens whose logits are held at a time


@dataclass(frozen=True)
class Sequences:
    """Token ids, of training and held out: [sequences, BLOCK]."""

    train: NDArray[np.int32]
    held_out: NDArray[np.int32]


@lru_cache(maxsize=1)
def sequences() -> Sequences:
    """The tokenized text; made when first used on a machine, then read from the cache."""
    path = _cache() / f"stdlib-{VOCABULARY}x{BLOCK}-{_fingerprint()}.npz"
    if not path.exists():
        _write(path)
    with np.load(path) as arrays:
        return Sequences(arrays["train"], arrays["held_out"])


def _cache() -> Path:
    return Path(os.environ.get("COSMIC_BENCH_CACHE", "bench/runs/suite/cache"))


def _fingerprint() -> str:
    # a short name of what the text depends on: the running Python
    text = sys.version + sysconfig.get_path("stdlib")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _write(path: Path) -> None:
    # Tokenized in a folder of this process alone, then renamed: no process reads half a file.
    # Imported here because it takes seconds and only the first run needs it.
    from cosmic.finetune import corpus, tokenizing
    from cosmic.finetune.sources import STDLIB

    documents = corpus.load_corpus(STDLIB)
    tokenizer = tokenizing.train_tokenizer(documents.train["text"], VOCABULARY)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = tokenizing.write_tokens(Path(folder) / "tokens", documents, tokenizer, BLOCK)
        partial = Path(folder) / "partial.npz"
        np.savez(partial, train=made.train(), held_out=_spread(made.validation()))
        partial.replace(path)


def _spread(blocks: NDArray[np.int32]) -> NDArray[np.int32]:
    # as many as are held out, evenly over all validation text
    from cosmic.finetune.batches import validation_batches

    (chosen,) = validation_batches(len(blocks), HELD_OUT, 1)
    return blocks[chosen]


class _TokenLoss(torch.autograd.Function):
    """Mean cross entropy of the logits `states @ table.T`, with its gradients piece by piece.

    The logits of a large batch are by far the largest tensor of these models; torch's own makes
    five passes over memory for them. A piece stays in the processor's caches.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        total, share = states.new_zeros(()), 1 / len(states)
        by_state, by_table = torch.empty_like(states), torch.zeros_like(table)
        for start in range(0, len(states), PIECE):
            rows = slice(start, start + PIECE)
            target = targets[rows].unsqueeze(1)
            logs = torch.log_softmax(states[rows] @ table.T, 1)
            total -= logs.gather(1, target).sum()
            error = logs.exp_()
            error.scatter_add_(1, target, states.new_full(target.shape, -1.0))
            torch.mm(error, table, out=by_state[rows])
            by_table.addmm_(error.T, states[rows])
        ctx.save_for_backward(by_state.mul_(share), by_table.mul_(share))
        return total * share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        by_state, by_table = ctx.saved_tensors
        return grads[0] * by_state, grads[0] * by_table, None


def next_token_loss(hidden: Tensor, table: Tensor, ids: Tensor) -> Tensor:
    """Mean cross entropy of each token but the first of its sequence, from the states before it.

    Args:
        hidden: [sequences, BLOCK, width]; the last of a sequence has no target.
        table: [vocabulary, width], whose products with a state are its logits.
        ids: [sequences, BLOCK].
    """
    states, targets = hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
    if not torch.is_grad_enabled():
        return functional.cross_entropy(functional.linear(states, table), targets)
    loss: Tensor = _TokenLoss.apply(states, table, targets)  # type: ignore[no-untyped-call]
    return loss


class LanguageProblem:
    """A causal language model of transformers' on the sequences.

    Attributes:
        model: what is trained.
        loss_of: the loss of a batch of sequences under it.
    """

    def __init__(self, model: Any, loss_of: Callable[[Any, Tensor], Tensor], order: Tensor) -> None:
        self.model: nn.Module = model.train()
        self._loss_of = loss_of
        self._batches = torch.from_numpy(sequences().train[order.numpy()].astype(np.int64))
        self._held_out = torch.from_numpy(sequences().held_out.astype(np.int64))

    def loss(self, step: int) -> Tensor:
        """The loss of the step's batch."""
        return self._loss_of(self.model, self._batches[step])

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean loss a token of the held-out sequences; no layer differs between the modes."""
        pieces: Iterable[Tensor] = torch.split(self._held_out, PIECE // BLOCK)
        return float(np.mean([self._loss_of(self.model, ids).item() for ids in pieces]))


def order_of(seed: int, steps: int, batch: int) -> Tensor:
    """Which sequences a training takes: shuffled epochs, one after the other, [steps, batch]."""
    random, count = torch.Generator().manual_seed(seed), len(sequences().train)
    epochs = -(-steps * batch // count)
    numbers = torch.cat([torch.randperm(count, generator=random) for _ in range(epochs)])
    return numbers[: steps * batch].view(steps, batch)


def _gpt2(seed: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=BLOCK,
        n_embd=64,
        n_layer=3,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    torch.manual_seed(seed)
    model: Any = GPT2LMHeadModel(config)
    for block in model.transformer.h:
        # transformers' own takes eight passes over memory, torch's one
        block.mlp.act = nn.GELU(approximate="tanh")
    return model


def _gpt2_loss(model: Any, ids: Tensor) -> Tensor:
    hidden = model.transformer(input_ids=ids).last_hidden_state
    return next_token_loss(hidden, model.lm_head.weight, ids)


def _make(steps: int, batch: int) -> Callable[[int], Problem]:
    def make(seed: int) -> Problem:
        return LanguageProblem(_gpt2(seed), _gpt2_loss, order_of(seed, steps, batch))

    return make


GPT_4 = Task(
    name="gpt-4x64",
    title="a small GPT-2 on Python sources, 4 sequences a step",
    half="fit",
    make=_make(400, 4),
    steps=400,
    batch=4,
    rate=1e-3,
)
GPT_32 = Task(
    name="gpt-32x64",
    title="a small GPT-2 on Python sources, 32 sequences a step",
    half="judge",
    make=_make(400, 32),
    steps=400,
    batch=32,
    rate=3e-3,
)
GPT_128 = Task(
    name="gpt-128x64",
    title="a small GPT-2 on Python sources, 128 sequences a step",
    half="fit",
    make=_make(400, 128),
    steps=400,
    batch=128,
    rate=3e-3,
)
GPT_LONG = Task(
    name="gpt-long",
    title="a small GPT-2 on Python sources, 4 sequences a step, five times as many steps",
    half="judge",
    make=_make(2000, 4),
    steps=2000,
    batch=4,
    rate=3e-3,
)
