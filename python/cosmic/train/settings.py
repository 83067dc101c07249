"""What a run is asked to do, checked before anything begins."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cosmic.errors import check_count, require_packages
from cosmic.products import check_when

from .files import check_folder

__all__ = ["Settings", "check_model_is_here"]

NONFINITE = ("raise", "continue")


@dataclass(frozen=True)
class Settings:
    """The numbers and names of ``Trainer``, which documents them.

    Raises:
        TypeError, ValueError: one is of the wrong type or out of range.
        MissingPackagesError: results are to be drawn and matplotlib is not installed.
        OSError: a folder cannot be written.
    """

    lr: float
    weight_decay: float
    max_grad_norm: float | None
    eval_interval: int
    eval_batches: int | None
    log_interval: int
    checkpoint_interval: int
    checkpoint_dir: Path
    keep_checkpoints: int
    save_results: bool
    results_prefix: str | os.PathLike[str]
    device: str | torch.device
    release_gradients: bool
    activations: Any
    chunk_vocabulary: bool | int
    accumulate: int
    target_loss: float | None
    nonfinite_loss: str
    fp32_products: str
    seed: int | None

    def __post_init__(self) -> None:
        for name, least in (
            ("eval_interval", 0), ("log_interval", 0), ("checkpoint_interval", 0),
            ("keep_checkpoints", 1), ("accumulate", 1),
        ):  # fmt: skip
            check_count(name, getattr(self, name), least)
        if self.eval_batches is not None:
            check_count("eval_batches", self.eval_batches, 1)
        if self.seed is not None:
            check_count("seed", self.seed, 0, below=2**63)
        for name in ("lr", "weight_decay", "max_grad_norm", "target_loss"):
            _check_number(name, getattr(self, name))
        if self.nonfinite_loss not in NONFINITE:
            raise ValueError(
                f"nonfinite_loss is {self.nonfinite_loss!r}; expected one of {', '.join(NONFINITE)}"
            )
        check_when("fp32_products", self.fp32_products)
        if torch.device(self.device).type != "cpu":
            raise ValueError(
                f"device is {str(self.device)!r}; COSMIC trains on the CPU alone: device='cpu'"
            )
        if self.release_gradients and self.accumulate > 1:
            raise ValueError(
                f"accumulate is {self.accumulate} and release_gradients is on: a gradient that is "
                "freed within backward cannot be added to; choose one of them"
            )
        if self.save_results:
            _check_prefix(self.results_prefix)
            require_packages("save_results=True", ["matplotlib"], "demo")
            check_folder(Path(self.results_prefix).parent, "the folder of results_prefix")

    @property
    def step_seed(self) -> int:
        """What random numbers that are a function of the step go by."""
        return self.seed or 0


def _check_prefix(prefix: Any) -> None:
    """See that it names files, not a folder."""
    if not isinstance(prefix, (str, os.PathLike)):
        raise TypeError(f"results_prefix is {prefix!r}; expected a path without its ending")
    name = os.path.basename(os.fspath(prefix))
    if name in ("", ".", ".."):
        raise ValueError(
            f"results_prefix is {os.fspath(prefix)!r}, which names no file; expected such as "
            "'runs/first', for first.json and first.png in runs"
        )


def _check_number(name: str, value: Any) -> None:
    if value is None and name in ("max_grad_norm", "target_loss"):
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; expected a number")
    if not math.isfinite(value) or (value < 0 and name != "target_loss"):
        raise ValueError(f"{name} is {value}; expected a finite number, 0 or more")
    if name == "max_grad_norm" and value == 0:
        raise ValueError("max_grad_norm is 0; expected a number above 0, or None for no clipping")


def check_model_is_here(model: Any) -> None:
    """See that a model has parameters to train, all on the CPU.

    Raises:
        TypeError: it is no module.
        ValueError: it has no parameter that takes gradients, or one elsewhere.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model is {type(model).__name__}; expected a torch.nn.Module")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("the model has no parameter that requires grad: nothing to train")
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu":
            raise ValueError(
                f"parameter {name} is on {parameter.device}; COSMIC trains on the CPU: move the "
                "model there first"
            )
