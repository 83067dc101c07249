"""What one comparison does: everything that all of its optimizers share."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cosmic.activations.codecs import CodecChoice
from cosmic.finetune.errors import UsageError
from cosmic.models.shapes import WITHOUT_WEIGHTS

DTYPES = ("fp32", "bf16")


@dataclass(frozen=True)
class RunConfig:
    """One comparison.

    Args:
        model: hub id, local folder, or the name of a known architecture (`cosmic.models.shapes`).
        dataset: hub id with `:config` and `:split`, local file, or "python-stdlib".
        steps: optimizer steps.
        batch_size: sequences a step.
        block_size: tokens a sequence.
        lr: highest learning rate.
        weight_decay: decoupled, on every parameter.
        warmup: steps of linear warm-up before the cosine down to a tenth of `lr`.
        eval_batches: held-out batches that make one validation loss.
        seed: of weights, batch order and dropout.
        dtype: "fp32" or "bf16", of the weights.
        from_scratch: random weights and a tokenizer trained on the dataset.
        threads: of each training process; None leaves the choice to torch.
        release_gradients: step each parameter within backward and free its gradient.
        activations: codec by which activations are kept between forward and backward; None: as
            they are.
        chunk_vocabulary: take embedding, head and loss in blocks of the vocabulary; a number is the
            rows of a block.

    Raises:
        UsageError: a number that is out of range.
    """

    model: str
    dataset: str
    steps: int
    batch_size: int
    block_size: int
    lr: float
    weight_decay: float
    warmup: int
    eval_batches: int
    seed: int
    dtype: str
    from_scratch: bool
    threads: int | None = None
    release_gradients: bool = False
    activations: str | None = None
    chunk_vocabulary: int | bool = False

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value is not False and not value >= least:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} must be at least {least}, not {value}")
        if not 0 < self.lr < float("inf"):
            raise UsageError(f"--lr must be a positive number, not {self.lr}")
        if not self.weight_decay < float("inf"):
            raise UsageError(f"--weight-decay must be finite, not {self.weight_decay}")
        if self.seed >= 2**63:
            raise UsageError(f"--seed must be below 2**63, not {self.seed}")
        if self.dtype not in DTYPES:
            raise UsageError(f"--dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        if self.activations is not None:
            _check_codec(self.activations)

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.block_size

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _check_codec(name: str) -> None:
    try:
        CodecChoice.named(name)
    except ValueError as error:
        raise UsageError(f"--activations: {error}") from error


_LEAST: dict[str, float] = {
    "steps": 1,
    "batch_size": 1,
    "block_size": 2,
    "weight_decay": 0,
    "warmup": 0,
    "eval_batches": 1,
    "seed": 0,
    "threads": 1,
    "chunk_vocabulary": 1,
}


def default_lr(model: str) -> float:
    """AdamW's best in the demo; otherwise usual for weights that are trained already."""
    return 1.5e-3 if model in WITHOUT_WEIGHTS else 5e-4


def default_out(model: str, dataset: str) -> Path:
    """`runs/<model>-<dataset>`, with only characters that every file system takes."""

    def safe(text: str) -> str:
        return re.sub(r"[^A-Za-z0-9._]+", "-", text.replace("%", "pct")).strip("-.") or "x"

    return Path("runs") / f"{safe(model)}-{safe(dataset)}"
