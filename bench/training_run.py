"""One training in a process of its own: `python bench/training_run.py RUN.json TOKENS OUT`.

Trains as `cosmic finetune` does, but with two parameter groups.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import peers
from cosmic.finetune.config import RunConfig
from cosmic.finetune.worker import (
    evaluate,
    load_batches,
    state_figures,
    train,
    training_figures,
)
from cosmic.logging import EventLog
from cosmic.models.building import build_model
from cosmic.models.configs import silence_transformers
from cosmic.train.progress import Progress
from shared.variants import parameter_groups, variant

KEPT = (
    *("validation_loss", "train_loss", "optimizer_ms", "seconds"),
    *("parameters", "state_bytes", "state_bits_per_parameter"),
)


@dataclass(frozen=True)
class Run:
    """What one process trains. `config` has its learning rate and its seed."""

    variant: str
    factor: float
    config: RunConfig

    @property
    def key(self) -> dict[str, Any]:
        """All that the result depends on; a run whose key has a result is not run again."""
        config = self.config.to_dict()
        return {
            "variant": self.variant,
            "version": variant(self.variant).version,
            "factor": self.factor,
            **config,
        }

    def save(self, path: Path) -> None:
        """Write the file that `load` reads."""
        path.write_text(json.dumps(asdict(self)))

    @staticmethod
    def load(path: Path) -> Run:
        """Read what `save` has written."""
        content = json.loads(path.read_text())
        return Run(**content | {"config": RunConfig(**content["config"])})


def measure(run: Run, tokens: Path) -> dict[str, Any]:
    """Train and evaluate; the figures of `KEPT`."""
    config = run.config
    torch.set_num_threads(config.threads or 1)
    silence_transformers()
    batches, held_out = load_batches(tokens, config)
    model = build_model(config.model, config.from_scratch, config.seed, config.dtype)
    groups = parameter_groups(model, config.lr, run.factor)
    optimizer = variant(run.variant).make(groups, config.weight_decay)
    with EventLog(os.devnull) as events:
        progress = Progress(run.variant, config.steps, config.tokens_per_step)
        trained = train(model, batches, optimizer, config, progress, events)
    figures = {
        "validation_loss": evaluate(model, held_out),
        **state_figures(model, peers.state_bytes(optimizer)),
        **training_figures(trained, config),
    }
    return {name: figures[name] for name in KEPT}


def main() -> None:
    job, tokens, out = map(Path, sys.argv[1:])
    out.write_text(json.dumps(measure(Run.load(job), tokens)))


if __name__ == "__main__":
    main()
