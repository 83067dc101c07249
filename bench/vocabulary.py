"""Peak memory and time of a step with the vocabulary whole and in blocks.

    python bench/vocabulary.py [--only float32] [--rounds 5] [--threads 1] [--json out.json]

GPT-2's vocabulary of 50,257 and two layers, so that embedding, head and loss are most of it; every
parameter is stepped within backward by `Cosmic` under a budget of 1 %. `whole`: the model as it is.
`torch`: its loss by `torch.nn.functional.linear_cross_entropy` with chunks of tokens. `blocks`:
within `cosmic.chunk_vocabulary`. `peak_mb` is the most resident memory of a second step over what
was there before it, weights and state: activations, logits and gradients. Each is measured in a
process of its own. Times are medians of the process's CPU seconds, the variants taking turns in one
process: on one thread they are what a step takes on an idle machine.

In bfloat16 a step of the whole takes minutes where the CPU has no instructions for it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn import functional as F

import cosmic
from cosmic.models.configs import silence_transformers
from cosmic.train.memory import PeakRss, rss_bytes
from shared.harness import machine, print_table, write_json

VOCABULARY, LAYERS = 50257, 2
VARIANTS = ("whole", "torch", "blocks")


@dataclass(frozen=True)
class Case:
    """A model and a batch.

    Attributes:
        width: of the hidden states.
        tied: whether embedding and head are one weight.
        tokens: in a batch of one sequence.
        rounds: how often each variant takes its turn; None: as the command line says.
    """

    dtype: str
    width: int
    tied: bool
    tokens: int
    rounds: int | None = None


CASES = (
    Case("float32", 768, True, 256),
    Case("float32", 768, False, 256),
    Case("bfloat16", 512, True, 64, rounds=1),
    Case("bfloat16", 512, False, 64, rounds=1),
)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        largest_mb: the largest gradient.
        peak_mb: of a step, beside weights and state.
        ms: of CPU time a step.
        ratio: of ``ms`` to the whole's.
    """

    dtype: str
    width: int
    tied: str
    variant: str
    weights_mb: float
    largest_mb: float
    peak_mb: float
    ms: float
    ratio: float


class Training:
    """A model in training by one variant."""

    def __init__(self, case: Case, variant: str, threads: int) -> None:
        torch.set_num_threads(threads)
        silence_transformers()
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            n_layer=LAYERS, n_embd=case.width, n_head=case.width // 64,
            tie_word_embeddings=case.tied,
        )  # fmt: skip
        self.model: Any = transformers.GPT2LMHeadModel(config).to(getattr(torch, case.dtype))
        self.model.train()
        self._loss = self._by_torch if variant == "torch" else self._by_model
        if variant == "blocks":
            cosmic.chunk_vocabulary(self.model)
        self.ids = torch.randint(VOCABULARY, (1, case.tokens))
        groups = cosmic.param_groups(self.model)
        self._optimizer = cosmic.Cosmic(groups, lr=1e-4, budget="1%")
        self._optimizer.step_in_backward(self.model)

    def step(self) -> None:
        torch.autograd.backward(self._loss())
        self._optimizer.step()

    @property
    def weights(self) -> int:
        return sum(int(param.nbytes) for param in self.model.parameters())

    @property
    def largest(self) -> int:
        return max(int(param.nbytes) for param in self.model.parameters())

    def _by_model(self) -> Tensor:
        loss: Tensor = self.model(input_ids=self.ids, labels=self.ids).loss
        return loss

    def _by_torch(self) -> Tensor:
        hidden = self.model.transformer(input_ids=self.ids).last_hidden_state
        return F.linear_cross_entropy(
            hidden[:, :-1].flatten(0, 1),
            self.model.lm_head.weight,
            self.ids[:, 1:].flatten(),
            options=torch.nn.LinearCrossEntropyOptions(),
        )


def memory(case: Case, variant: str, threads: int) -> tuple[int, int, int]:
    """Bytes of weights, of the largest gradient and of a step's peak beside weights and state."""
    training = Training(case, variant, threads)
    training.step()
    before = rss_bytes()
    with PeakRss() as peak:
        training.step()
    return training.weights, training.largest, peak.bytes - before


def times(case: Case, rounds: int, threads: int) -> dict[str, float]:
    """Milliseconds of a step by variant."""
    trainings = {variant: Training(case, variant, threads) for variant in VARIANTS}
    found: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for turn in range(rounds + 1):
        for variant, training in trainings.items():
            start = time.process_time()
            training.step()
            if turn:  # the first one makes state
                found[variant].append(1e3 * (time.process_time() - start))
    return {variant: statistics.median(ms) for variant, ms in found.items()}


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function says in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as worker:
        return worker.submit(function, *arguments).result()


def rows_of(case: Case, rounds: int, threads: int) -> list[Row]:
    ms = apart(times, case, case.rounds or rounds, threads)
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # of glibc: what is freed is gone
    out = []
    for variant in VARIANTS:
        weights, largest, peak = (x / 1e6 for x in apart(memory, case, variant, threads))
        out.append(
            Row(case.dtype, case.width, "yes" if case.tied else "no", variant, weights, largest,
                peak, ms[variant], ms[variant] / ms["whole"])
        )  # fmt: skip
    del os.environ["MALLOC_MMAP_THRESHOLD_"]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("float32", "bfloat16"), help="cases of this dtype")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="write everything there, too")
    args = parser.parse_args()
    print(machine())
    cases = [case for case in CASES if args.only in (None, case.dtype)]
    columns = {"dtype": "", "width": "", "tied": "", "variant": "", "weights_mb": ".0f"}
    numbers = {"largest_mb": ".0f", "peak_mb": ".0f", "ms": ".0f", "ratio": ".2f"}
    rows: list[Row] = []
    for case in cases:
        rows += rows_of(case, args.rounds, args.threads)
        print_table(rows[-len(VARIANTS) :], columns | numbers)
    write_json(args.json, rows, threads=args.threads)


if __name__ == "__main__":
    main()
