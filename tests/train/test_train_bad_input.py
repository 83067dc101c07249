"""What a trainer refuses, and what it says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models_to_train import TinyModel, ids, loader, quiet

pytestmark = pytest.mark.usefixtures("one_thread")


class WithoutLoss(TinyModel):
    def forward(self, input_ids: Tensor, labels: Tensor) -> Any:
        return super().forward(input_ids, labels).loss


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"device": "cuda"}, ValueError, "device is 'cuda'; COSMIC trains on the CPU alone"),
        ({"eval_interval": -1}, ValueError, "eval_interval is -1; expected 0 or more"),
        ({"log_interval": 1.5}, TypeError, "log_interval is 1.5; expected an int"),
        ({"keep_checkpoints": 0}, ValueError, "keep_checkpoints is 0"),
        ({"lr": math.nan}, ValueError, "lr is nan"),
        ({"max_grad_norm": 0}, ValueError, "max_grad_norm is 0"),
        ({"optimizer": "sgd"}, ValueError, "optimizer is 'sgd'; known by name"),
        ({"optimizer": lambda m: m}, TypeError, "returned TinyModel"),
        ({"optimizer": 3}, TypeError, "optimizer is int"),
        (
            {"optimizer": "adamw", "budget": "5%"},
            ValueError,
            "budget goes with optimizer='cosmic'",
        ),
        ({"optimizer": "adamw", "release_gradients": True}, TypeError, "AdamW cannot step within"),
        ({"accumulate": 2, "release_gradients": True}, ValueError, "cannot be added to"),
        ({"activations": "q9"}, ValueError, "codec is 'q9'"),
        ({"nonfinite_loss": "ignore"}, ValueError, "nonfinite_loss is 'ignore'"),
        ({"seed": -1}, ValueError, "seed is -1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_arguments(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        quiet(TinyModel(), loader(), **options)


@pytest.mark.parametrize(
    ("model", "data", "kind", "said"),
    [
        (TinyModel, list, ValueError, "train_loader has no batches"),
        (TinyModel, lambda: 3, TypeError, "train_loader is int"),
        (TinyModel, lambda: iter([]), ValueError, "train_loader has no batches"),
        (TinyModel, lambda: [{"input_ids": ids(0, 2)}], ValueError, r"no labels \(it has input_i"),
        (TinyModel, lambda: [(ids(0, 2),)], ValueError, "it has no labels"),
        (TinyModel, lambda: ["text"], TypeError, "a batch is str"),
        (TinyModel, lambda: [torch.ones(2, 3)], TypeError, r"torch.float32 and shape \(2, 3\)"),
        (WithoutLoss, loader, TypeError, "returned Tensor without a loss"),
        (lambda: nn.Linear(2, 2, device="meta"), loader, ValueError, "weight is on meta"),
        (nn.ReLU, loader, ValueError, "no parameter that requires grad"),
        (int, loader, TypeError, "model is int"),
    ],
)
def test_bad_models_and_loaders(model: Any, data: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        quiet(model(), data()).fit(1)


def test_bad_schedules_and_evaluations() -> None:
    with pytest.raises(ValueError, match="scheduler is 'linear'"):
        quiet(TinyModel(), loader(), scheduler="linear").fit(1)
    with pytest.raises(TypeError, match=r"scheduler gives float, without step\(\)"):
        quiet(TinyModel(), loader(), scheduler=lambda optimizer: 0.5).fit(1)
    with pytest.raises(ValueError, match="give Trainer a val_loader"):
        quiet(TinyModel(), loader()).evaluate()
    with pytest.raises(ValueError, match="val_loader has no batches"):
        quiet(TinyModel(), loader(), [])
    with pytest.raises(ValueError, match="nothing to predict"):
        quiet(TinyModel(), loader(), iter([]), eval_interval=0).evaluate()
    with pytest.raises(ValueError, match="steps is 0"):
        quiet(TinyModel(), loader()).fit(0)
