"""What a run has seen so far, and the results that follow from it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from cosmic.capital.budget import ADAMW_BYTES
from cosmic.planning.vacant import held_bytes

from .evaluating import perplexity

__all__ = ["Record", "results", "state_bytes"]

GB = 1e9
LAST_STEPS = 20  # their mean is what a target is held against, where nothing is held out
_COUNTER_BYTES = 4  # AdamW's step, a float32 a tensor


@dataclass
class Record:
    """Losses, times and bytes of a run, which its checkpoints keep.

    Args:
        steps: of the whole run, as ``fit`` was last asked.
        train_losses: one a step.
        val_steps: after which it was evaluated; 0 is before the first.
        val_losses: one an evaluation.
        tokens: that it trained on.
        train_seconds: of its steps.
        total_seconds: of ``fit``, with evaluations and checkpoints.
        time_to_loss: ``train_seconds`` when the target was reached.
        gradient_bytes: the most that gradients took at a time.
        activation_bytes: the most that autograd kept of a forward.
        peak_rss_bytes: the most resident memory of the process.
    """

    steps: int = 0
    train_losses: list[float] = field(default_factory=list)
    val_steps: list[int] = field(default_factory=list)
    val_losses: list[float] = field(default_factory=list)
    tokens: int = 0
    train_seconds: float = 0.0
    total_seconds: float = 0.0
    time_to_loss: float | None = None
    gradient_bytes: int = 0
    activation_bytes: int | None = None
    peak_rss_bytes: int | None = None

    @property
    def step(self) -> int:
        """Steps that were taken."""
        return len(self.train_losses)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def note_time_to(self, target: float | None, *, by_validation: bool) -> None:
        """Note the time if the target was reached just now for the first time."""
        losses = self.val_losses[-1:] if by_validation else self.train_losses[-LAST_STEPS:]
        if target is None or self.time_to_loss is not None or not losses:
            return
        enough = by_validation or len(losses) == LAST_STEPS
        if enough and statistics.fmean(losses) <= target:
            self.time_to_loss = self.train_seconds


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state: by its own ``state_bytes()``, or of all tensors in it."""
    if callable(own := getattr(optimizer, "state_bytes", None)):
        return int(own())
    slots = (slot for state in optimizer.state.values() for slot in state.values())
    return sum(slot.nbytes for slot in slots if isinstance(slot, torch.Tensor))


def results(
    record: Record, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """What ``fit`` returns; the documentation of ``Trainer.fit`` has each key."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    count = sum(parameter.numel() for parameter in trained)
    kept = [*model.parameters(), *model.buffers()]
    held = state_bytes(optimizer)
    adamw = ADAMW_BYTES * count + _COUNTER_BYTES * len(trained)
    all_gradients = sum(parameter.nbytes for parameter in trained)
    ours = held + record.gradient_bytes
    return {
        "steps": record.step,
        "train_losses": list(record.train_losses),
        **_change("train", record.train_losses),
        "val_steps": list(record.val_steps),
        "val_losses": list(record.val_losses),
        "val_ppls": [perplexity(loss) for loss in record.val_losses],
        **_ends("val", "ppl", [perplexity(loss) for loss in record.val_losses]),
        **_change("val", record.val_losses),
        "peak_vram_gb": 0.0,
        "peak_rss_gb": None if record.peak_rss_bytes is None else record.peak_rss_bytes / GB,
        "tokens_per_sec": record.tokens / record.train_seconds if record.train_seconds else None,
        "total_time_min": record.total_seconds / 60,
        "time_to_loss_s": record.time_to_loss,
        "parameters": count,
        "weight_bytes": sum({id(one): held_bytes(one) for one in kept}.values()),
        "state_bytes": held,
        "gradient_bytes": record.gradient_bytes,
        "activation_bytes": record.activation_bytes,
        "adamw_bytes": adamw,
        "bits_per_param": 8 * held / count,
        "compression_total": (adamw + all_gradients) / ours if ours else None,
    }


def _ends(split: str, what: str, values: Sequence[float]) -> dict[str, float | None]:
    first, last = (values[0], values[-1]) if values else (None, None)
    return {f"initial_{split}_{what}": first, f"final_{split}_{what}": last}


def _change(split: str, losses: Sequence[float]) -> dict[str, float | None]:
    """First and last loss, and by how many per cent of the first the last is lower."""
    percent = 100 * (losses[0] - losses[-1]) / losses[0] if losses and losses[0] else None
    return {**_ends(split, "loss", losses), f"{split}_improvement_pct": percent}
