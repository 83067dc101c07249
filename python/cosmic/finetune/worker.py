"""Trains one optimizer in a process of its own: `python -m cosmic.finetune.worker JOB.json`.

A process for each, because memory that one training returns to the allocator would hide
what the next one takes.
"""

import json
import math
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cosmic.finetune.batches import training_batches, validation_batches
from cosmic.finetune.config import RunConfig
from cosmic.finetune.errors import UsageError
from cosmic.finetune.job import Job
from cosmic.finetune.machine import describe_machine
from cosmic.finetune.memory import PeakRss, rss_bytes
from cosmic.finetune.models import build_model, silence_transformers
from cosmic.finetune.optimizers import OptimizerSpec, parse_spec
from cosmic.finetune.progress import Progress
from cosmic.finetune.tokens import Blocks, open_tokens

CLIP_NORM = 1.0
FINAL_LR = 0.1  # of the highest
LAST_STEPS = 20  # their mean is the train loss


@dataclass(frozen=True)
class Trained:
    """What the loop measured: seconds of a whole step and of `optimizer.step()` alone."""

    losses: list[float]
    seconds: float
    optimizer_seconds: list[float]
    peak_rss: int


def lr_factor(step: int, steps: int, warmup: int) -> float:
    """Share of the highest learning rate at a step: linear warm-up, then cosine to a tenth."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    return FINAL_LR + (1 - FINAL_LR) * (1 + math.cos(math.pi * done)) / 2


def batch_at(blocks: Blocks, numbers: Any) -> torch.Tensor:
    """Token ids of some blocks, shape (batch, block)."""
    return torch.from_numpy(blocks[numbers].astype("int64"))


def evaluate(model: Any, blocks: Blocks, config: RunConfig) -> float:
    """Mean loss a token over the held-out batches."""
    batches = validation_batches(len(blocks), config.batch_size, config.eval_batches)
    model.eval()
    total, rows = 0.0, 0
    with torch.no_grad():
        for numbers in batches:
            ids = batch_at(blocks, numbers)
            total += model(input_ids=ids, labels=ids).loss.item() * len(numbers)
            rows += len(numbers)
    model.train()
    return total / rows


def train(
    model: Any, blocks: Blocks, optimizer: torch.optim.Optimizer, config: RunConfig, label: str
) -> Trained:
    """Run all steps. Data order and dropout follow from the seed alone."""
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor(step, config.steps, config.warmup)
    )
    batches = training_batches(len(blocks), config.batch_size, config.steps, config.seed)
    losses: list[float] = []
    optimizer_seconds: list[float] = []
    torch.manual_seed(config.seed)
    with PeakRss() as peak, Progress(label, config.steps, config.tokens_per_step) as progress:
        start = time.perf_counter()
        for numbers in batches:
            ids = batch_at(blocks, numbers)
            optimizer.zero_grad(set_to_none=True)
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            before = time.perf_counter()
            optimizer.step()
            optimizer_seconds.append(time.perf_counter() - before)
            schedule.step()
            losses.append(loss.item())
            progress.update(losses[-1])
        seconds = time.perf_counter() - start
    return Trained(losses, seconds, optimizer_seconds, peak.bytes)


def run(job: Job) -> dict[str, Any]:
    """One row of the comparison, keys as in `results.json`."""
    config, spec = job.config, parse_spec(job.optimizer)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    silence_transformers()
    tokens = open_tokens(Path(job.tokens))
    if tokens is None:
        raise UsageError(f"{job.tokens} has no tokenized data")
    blocks, held_out = tokens.train(), tokens.validation()
    model = build_model(config.model, config.from_scratch, config.seed, config.dtype)
    loss_before = evaluate(model, held_out, config)
    warm_up(model, blocks, config)
    rss_before = rss_bytes()
    optimizer = spec.build(model.named_parameters(), lr=config.lr, weight_decay=config.weight_decay)
    with ExitStack() as stack:
        attach_events(stack, spec, optimizer, Path(job.events))
        trained = train(model, blocks, optimizer, config, spec.text)
    loss_after = evaluate(model, held_out, config)
    parameters = sum(p.numel() for p in model.parameters())
    state_bytes = spec.kind.state_bytes(optimizer)
    return {
        "optimizer": spec.text,
        "parameters": parameters,
        "steps": config.steps,
        "first_loss": trained.losses[0],
        "train_loss": statistics.fmean(trained.losses[-LAST_STEPS:]),
        "validation_loss_before": loss_before,
        "validation_loss": loss_after,
        "perplexity": math.exp(min(loss_after, 700.0)),
        "seconds": trained.seconds,
        "tokens_per_second": config.steps * config.tokens_per_step / trained.seconds,
        "optimizer_ms": statistics.median(trained.optimizer_seconds) * 1e3,
        "state_bytes": state_bytes,
        "state_bits_per_parameter": 8 * state_bytes / parameters,
        "rss_before_bytes": rss_before,
        "rss_peak_bytes": trained.peak_rss,
        "rss_growth_bytes": trained.peak_rss - rss_before,
        "machine": describe_machine(),
        "losses": trained.losses,
    }


def warm_up(model: Any, blocks: Blocks, config: RunConfig) -> None:
    """One forward and backward, so that memory counts neither its buffers nor the gradients."""
    ids = batch_at(blocks, list(range(min(config.batch_size, len(blocks)))))
    model(input_ids=ids, labels=ids).loss.backward()


def attach_events(
    stack: ExitStack, spec: OptimizerSpec, optimizer: torch.optim.Optimizer, path: Path
) -> None:
    """Log the optimizer's events while the stack is open, if it is one that has any."""
    if spec.name == "cosmic":
        from cosmic.logging import EventLog

        stack.enter_context(EventLog(path)).attach(optimizer)


def main(arguments: list[str]) -> int:
    """Do the job in the file named by the only argument; 2 on a mistake of the user."""
    job = Job.load(Path(arguments[0]))
    try:
        row = run(job)
    except UsageError as error:
        print(f"cosmic: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    Path(job.result).write_text(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
