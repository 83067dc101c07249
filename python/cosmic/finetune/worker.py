"""Trains one optimizer in a process of its own: `python -m cosmic.finetune.worker JOB.json`.

A process for each, because memory that one training returns to the allocator would hide
what the next one takes.
"""

import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosmic import Cosmic, NonfiniteGradientError
from cosmic.finetune.batches import training_batches, validation_batches
from cosmic.finetune.config import RunConfig
from cosmic.finetune.errors import UsageError
from cosmic.finetune.job import Job
from cosmic.finetune.optimizers import parse_spec
from cosmic.finetune.tokens import Blocks, open_tokens
from cosmic.finetune.vocabulary import in_blocks
from cosmic.finetune.warming import warm_up
from cosmic.logging import EventLog
from cosmic.models.building import build_model
from cosmic.models.configs import silence_transformers
from cosmic.products import fp32_products
from cosmic.train import Callback, StepInfo, Trainer
from cosmic.train.evaluating import mean_loss, perplexity
from cosmic.train.machine import describe_machine
from cosmic.train.memory import PeakRss, process_peak_bytes, rss_bytes
from cosmic.train.progress import Progress
from cosmic.train.schedules import lr_factor

CLIP_NORM = 1.0
STEPS_PER_EVENT = 10  # of the event log; each costs time that is the optimizer's
LAST_STEPS = 20  # their mean is the train loss


@dataclass(frozen=True)
class Trained:
    """What the loop measured: seconds of all steps, and of the optimizer's part of each; the most
    bytes that gradients took at a time, and that autograd kept of a forward."""

    losses: list[float]
    seconds: float
    optimizer_seconds: list[float]
    gradient_bytes: int
    activation_bytes: int


def gather(blocks: Blocks, numbers: NDArray[np.int64]) -> torch.Tensor:
    """Token ids of some blocks, copied from disk into memory: shape (*numbers, tokens)."""
    return torch.from_numpy(blocks[numbers].astype(np.int64))


def evaluate(model: Any, batches: Sequence[torch.Tensor]) -> float:
    """Mean loss a token over held-out batches."""
    return mean_loss(model, batches)


@dataclass
class _Watch(Callback):
    """Shows each step, and keeps the optimizer's seconds of it."""

    progress: Progress
    optimizer_seconds: list[float] = field(default_factory=list)

    def on_step_end(self, trainer: Any, info: StepInfo) -> None:
        self.optimizer_seconds.append(info.optimizer_seconds)
        self.progress.update(info.loss)


def train(
    model: Any,
    batches: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    config: RunConfig,
    progress: Progress,
    events: EventLog,
) -> Trained:
    """Run all steps. Data order and dropout follow from the seed alone.

    Raises:
        UsageError: the optimizer refuses its options only now that it sees gradients.
    """
    watch = _Watch(progress)
    trainer = Trainer(
        model,
        batches,
        optimizer=optimizer,
        scheduler=lambda made: torch.optim.lr_scheduler.LambdaLR(
            made, lambda step: lr_factor(step, config.steps, config.warmup)
        ),
        max_grad_norm=CLIP_NORM,
        eval_interval=0,
        log_interval=STEPS_PER_EVENT,
        checkpoint_interval=0,
        save_results=False,
        release_gradients=config.release_gradients,
        activations=config.activations,
        nonfinite_loss="continue",
        callbacks=[watch],
        seed=config.seed,
        progress=False,
        log=events,
    )
    start = time.perf_counter()
    try:
        results = trainer.fit(config.steps)
    except (ValueError, NonfiniteGradientError) as error:
        raise UsageError(str(error)) from error
    seconds = time.perf_counter() - start
    trainer.cleanup()
    return Trained(
        results["train_losses"],
        seconds,
        watch.optimizer_seconds,
        results["gradient_bytes"],
        results["activation_bytes"],
    )


def run(job: Job) -> dict[str, Any]:
    """One row of the comparison, keys as in `results.json`."""
    config, spec = job.config, parse_spec(job.optimizer)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    silence_transformers()
    batches, held_out = load_batches(Path(job.tokens), config)
    model = build_model(config.model, config.from_scratch, config.seed, config.dtype)
    with fp32_products(), in_blocks(model, config.chunk_vocabulary):
        loss_before = evaluate(model, held_out)
        warm_up(model, batches[0], release=config.release_gradients, codec=config.activations)
        rss_before = rss_bytes()
        optimizer = spec.build(
            model,
            lr=config.lr,
            weight_decay=config.weight_decay,
            by_role=bool(config.chunk_vocabulary),
        )
        with open_events(Path(job.events), optimizer) as events:
            progress = Progress(spec.text, config.steps, config.tokens_per_step)
            with progress, PeakRss() as peak:
                trained = train(model, batches, optimizer, config, progress, events)
            loss_after = evaluate(model, held_out)
            events.write("validation", step=config.steps, loss=loss_after)
        return {
            "optimizer": spec.text,
            "steps": config.steps,
            "validation_loss_before": loss_before,
            "validation_loss": loss_after,
            "perplexity": perplexity(loss_after),
            "rss_before_bytes": rss_before,
            "rss_peak_bytes": peak.bytes,
            "rss_growth_bytes": peak.bytes - rss_before,
            "rss_process_peak_bytes": max(peak.bytes, peak.bytes_before, process_peak_bytes()),
            "machine": describe_machine(),
            **state_figures(model, spec.kind.state_bytes(optimizer)),
            **training_figures(trained, config),
        }


def state_figures(model: torch.nn.Module, state_bytes: int) -> dict[str, Any]:
    """The part of a row that is about the optimizer's state."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    bits = 8 * state_bytes / parameters
    return {
        "parameters": parameters,
        "state_bytes": state_bytes,
        "state_bits_per_parameter": bits,
    }


def training_figures(trained: Trained, config: RunConfig) -> dict[str, Any]:
    """The part of a row that comes from the training loop."""
    return {
        "first_loss": trained.losses[0],
        "train_loss": statistics.fmean(trained.losses[-LAST_STEPS:]),
        "seconds": trained.seconds,
        "tokens_per_second": config.steps * config.tokens_per_step / trained.seconds,
        "optimizer_ms": statistics.median(trained.optimizer_seconds) * 1e3,
        "gradient_bytes": trained.gradient_bytes,
        "activation_bytes": trained.activation_bytes,
        "losses": trained.losses,
    }


def load_batches(folder: Path, config: RunConfig) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """All training batches, shape (steps, batch, block), and the held-out ones.

    Held in memory as a whole, or pages of the file would count as growth while training.
    """
    tokens = open_tokens(folder)
    if tokens is None:
        raise UsageError(f"{folder} has no tokenized data")
    blocks, held_out = tokens.train(), tokens.validation()
    numbers = training_batches(len(blocks), config.batch_size, config.steps, config.seed)
    held_out_numbers = validation_batches(len(held_out), config.batch_size, config.eval_batches)
    return gather(blocks, numbers), [gather(held_out, chosen) for chosen in held_out_numbers]


def open_events(path: Path, optimizer: torch.optim.Optimizer) -> EventLog:
    """A new event log; of what happens inside the optimizer too, if it is one that tells."""
    path.unlink(missing_ok=True)
    log = EventLog(path, every=STEPS_PER_EVENT)
    return log.attach(optimizer) if isinstance(optimizer, Cosmic) else log


def main(arguments: list[str]) -> int:
    """Do the job in the file named by the only argument; 2 on a mistake of the user."""
    job = Job.load(Path(arguments[0]))
    try:
        row = run(job)
    except UsageError as error:
        print(f"cosmic: error: optimizer {job.optimizer!r}: {error}", file=sys.stderr)
        return 2
    Path(job.result).write_text(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
