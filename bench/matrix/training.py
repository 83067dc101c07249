"""One training of bench/matrix_rule.py."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

import peers
from cosmic.finetune.tokens import TokenFolder
from matrix.optimizers import BETAS, CONTESTANTS, WEIGHT_DECAY, Optimizers
from matrix.tasks import TASKS, Data, load, model_of
from shared.schedule import schedule
from shared.variants import parameter_groups

CLIP_NORM = 1.0
GIVE_UP = 0.4  # share of the steps at which a dominated run ends


@dataclass(frozen=True)
class Run:
    """One training; `rate` is everything else's, hidden matrices take `rate` times `factor`."""

    task: str
    optimizer: str
    rate: float
    factor: float
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """All that the result depends on; a run whose key has a result is not trained again."""
        setting = asdict(TASKS[self.task])
        del setting["dominated"]
        setting |= {"betas": list(BETAS), "weight_decay": WEIGHT_DECAY}
        return asdict(self) | {"version": CONTESTANTS[self.optimizer].version, "setting": setting}


@dataclass(frozen=True)
class Result:
    """What a training gave.

    Attributes:
        curve: steps taken and validation loss, from the start to the end.
        train: mean training loss of the steps before each point of the curve but the first.
        stopped: the run was given up, or its loss was no longer finite.
        seconds: of this training, beside whatever else the machine did.
    """

    curve: list[tuple[int, float]]
    train: list[float]
    stopped: bool
    state_bytes: int
    parameters: int
    seconds: float

    @property
    def loss(self) -> float:
        """The last validation loss; infinite of a run that did not reach its end."""
        return math.inf if self.stopped else self.curve[-1][1]

    def at(self, step: int) -> float:
        """Validation loss after a step; infinite where there is none."""
        return dict(self.curve).get(step, math.inf)


def give_up_at(task: str) -> int:
    """The step at which a run of the search may be given up; a point of the curve."""
    setting = TASKS[task]
    return round(GIVE_UP * setting.steps / setting.every) * setting.every


def backward(model: Any, ids: torch.Tensor) -> float:
    """Gradients of a batch, clipped; its loss."""
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    return float(loss.item())


@torch.no_grad()
def validation_loss(model: Any, data: Data) -> float:
    """Mean loss a token of the held-out sequences."""
    return float(model(input_ids=data.held_out, labels=data.held_out).loss.item())


def optimizers_of(name: str, model: Any, rate: float, factor: float) -> Optimizers:
    """A contestant on a model's parameters."""
    rest, hidden = parameter_groups(model, rate, factor)
    return CONTESTANTS[name].make(rest, hidden)


def train(run: Run, folder: TokenFolder, limit: float = math.inf) -> Result:
    """Train once.

    Args:
        run: what.
        folder: the tokenized text.
        limit: validation loss above which the run is given up at `give_up_at`.
    """
    start = time.perf_counter()
    task, data = TASKS[run.task], load(run.task, run.seed, folder)
    model = model_of(run.task, run.seed)
    optimizers = optimizers_of(run.optimizer, model, run.rate, run.factor)
    groups = [(g, g["lr"]) for optimizer in optimizers for g in optimizer.param_groups]
    curve, means, losses, stopped = [(0, validation_loss(model, data))], [], [0.0], False
    for step, ids in enumerate(data.batches):
        for group, highest in groups:
            group["lr"] = highest * schedule(step, task.steps)
        losses.append(backward(model, ids))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % task.every == 0:
            curve.append((step + 1, validation_loss(model, data)))
            means.append(sum(losses[-task.every :]) / task.every)
            beyond = curve[-1][1] > limit and step + 1 == give_up_at(run.task)
            stopped = beyond or not math.isfinite(curve[-1][1])
            if stopped:
                break
    return Result(
        curve=curve,
        train=means,
        stopped=stopped,
        state_bytes=sum(map(peers.state_bytes, optimizers)),
        parameters=sum(param.numel() for param in model.parameters()),
        seconds=time.perf_counter() - start,
    )
