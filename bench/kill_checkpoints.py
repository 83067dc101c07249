"""Kills a training at random moments and checks that its checkpoints lose nothing.

Writes a checkpoint after every step. Each life of the run is a process that takes up the newest
checkpoint and trains on, until SIGKILL. After each kill the newest checkpoint must be whole and of
no earlier step than after the kill before; a run that has come to its end must have the bits of one
that was never killed. Then the next run begins, until there were enough kills. Prints the counts so
far after each run.

    python bench/kill_checkpoints.py --kills 200
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which the first optimizer would import in every life
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from cosmic.train import Trainer
from cosmic.train.checkpoints import CheckpointFolder
from cosmic.train.files import UNFINISHED

STEPS = 60
VOCABULARY, WIDTH, TOKENS = 512, 192, 16
LONGEST_LIFE = 0.2  # of the time that a whole run takes


@dataclass
class Output:
    loss: Tensor


class Model(nn.Module):
    """Embedding, a layer with dropout, head: 0.2 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, input_ids: Tensor, labels: Tensor) -> Output:
        hidden = self.dropout(torch.relu(self.layer(self.embedding(input_ids))))
        logits = self.head(hidden)[:, :-1]
        return Output(nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten()))


@dataclass
class Report:
    """What came of it."""

    kills: int = 0
    while_writing: int = 0  # an unfinished file was left behind
    before_the_first: int = 0  # kills before there was any checkpoint
    finished_runs: int = 0


def train(folder: Path) -> str:
    """Take up the newest checkpoint, train to the end; a digest of all that was learned."""
    warnings.simplefilter("error")
    start = torch.arange(90).unsqueeze(1)
    ids = (start + 3 * torch.arange(TOKENS)) % VOCABULARY
    trainer = Trainer(
        Model(),
        DataLoader(TensorDataset(ids, ids), batch_size=8, shuffle=True),
        budget="30%",
        scheduler="cosine",
        max_grad_norm=1.0,
        checkpoint_interval=1,
        checkpoint_dir=folder,
        save_results=False,
        progress=False,
        release_gradients=True,
        seed=1,
    )
    trainer.load_checkpoint()
    losses = trainer.fit(STEPS)["train_losses"]
    summary = hashlib.sha256(repr(losses).encode())
    for part in tensors([trainer.model.state_dict(), trainer.optimizer.state_dict()]):
        summary.update(part.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return summary.hexdigest()


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors, in an order that does not depend on how a dict was filled."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for _, item in sorted(value.items(), key=lambda entry: repr(entry[0])):
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def forked(work: Callable[[], str], answer: Path) -> int:
    """A process that writes what ``work`` returns; torch is imported there already."""
    if number := os.fork():
        return number
    status = 1
    try:
        answer.write_text(work())
        status = 0
    finally:
        os._exit(status)  # without the parent's own endings


def dies_within(number: int, seconds: float) -> bool:
    """Kill a process after so many seconds; False if it had ended well before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            if status:
                raise SystemExit(f"a life of the run ended by itself with status {status}")
            return False
        time.sleep(0.001)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return True


def newest(folder: Path) -> int:
    """Step of the newest checkpoint, read as a whole; 0 if there is none. One that cannot be read
    warns, which is an error here."""
    found = CheckpointFolder(folder, keep=2).latest()
    return 0 if found is None else len(found[1]["record"]["train_losses"])


def one_run(
    folder: Path, expected: str, wanted: int, lives: Callable[[], float], report: Report
) -> None:
    """One run from its beginning to its end, or until there were enough kills."""
    step, answer = 0, folder / "digest"
    while report.kills < wanted:
        number = forked(lambda: train(folder / "checkpoints"), answer)
        if not dies_within(number, lives()):
            if answer.read_text() != expected:
                raise SystemExit("a run that was killed and went on has other bits")
            report.finished_runs += 1
            return
        report.kills += 1
        report.while_writing += (folder / "checkpoints" / UNFINISHED).exists()
        found = newest(folder / "checkpoints")
        report.before_the_first += found == 0
        if found < step:
            raise SystemExit(f"the newest checkpoint went back from step {step} to {found}")
        step = found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # a forked child has no other threads
    warnings.simplefilter("error")
    report, chance = Report(), random.Random(args.seed)
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        answer, start = root / "uninterrupted", time.monotonic()
        number = forked(lambda: train(root / "whole"), answer)
        if os.waitpid(number, 0)[1]:
            raise SystemExit("the uninterrupted run failed")
        longest = LONGEST_LIFE * (time.monotonic() - start)
        while report.kills < args.kills:
            folder = root / f"run-{report.finished_runs}"
            folder.mkdir()
            one_run(
                folder,
                answer.read_text(),
                args.kills,
                lambda: chance.uniform(0, longest),
                report,
            )
            shutil.rmtree(folder)
            print(json.dumps(asdict(report)), flush=True)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
