"""The optimizer and the schedule that a run is asked for by name, function or object."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from cosmic.grouping.groups import param_groups
from cosmic.optimizer import Cosmic
from cosmic.presets import AXIOM

from .schedules import CosineSchedule

__all__ = ["make_optimizer", "make_schedule"]


def make_optimizer(
    optimizer: Any, model: torch.nn.Module, *, lr: float, weight_decay: float, budget: Any
) -> torch.optim.Optimizer:
    """An optimizer of the model.

    Args:
        optimizer: ``"cosmic"``; ``"axiom"``, which leaves gradients that are not finite to the
            trainer as ``"cosmic"`` does; ``"adamw"``; a function of the model that makes one; or
            one.
        model: whose parameters it steps.
        lr: of an optimizer by name.
        weight_decay: likewise.
        budget: of ``"cosmic"`` and ``"axiom"``.

    Raises:
        TypeError: it is nothing of that, or the function returns something else.
        ValueError: an unknown name, a budget for another optimizer than these two, or one that
            steps nothing of the model.
    """
    if budget is not None and optimizer not in ("cosmic", "axiom"):
        raise ValueError(
            "budget goes with optimizer='cosmic' or 'axiom'; give it to the optimizer that you make"
        )
    if isinstance(optimizer, torch.optim.Optimizer):
        return _of_model(optimizer, model)
    if optimizer == "cosmic":
        return Cosmic(param_groups(model), lr=lr, weight_decay=weight_decay, budget=budget)
    if optimizer == "axiom":
        return AXIOM(param_groups(model), lr, weight_decay, detect_anomaly=False, budget=budget)
    if optimizer == "adamw":
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay)
    if isinstance(optimizer, str):
        raise ValueError(
            f"optimizer is {optimizer!r}; known by name are 'cosmic', 'axiom' and 'adamw'"
        )
    if isinstance(optimizer, type):
        raise TypeError(
            f"optimizer is the class {optimizer.__name__}; give a function that makes one, such as "
            f"lambda model: {optimizer.__name__}(model.parameters())"
        )
    if not callable(optimizer):
        raise TypeError(
            f"optimizer is {type(optimizer).__name__}; expected 'cosmic', 'axiom', 'adamw', an "
            "optimizer of torch, or a function of the model that makes one"
        )
    made = optimizer(model)
    if not isinstance(made, torch.optim.Optimizer):
        raise TypeError(
            f"the function given as optimizer returned {type(made).__name__}; expected an "
            "optimizer of torch"
        )
    return _of_model(made, model)


def _of_model(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> torch.optim.Optimizer:
    """See that it has something of the model's to step."""
    trained = {id(param) for param in model.parameters() if param.requires_grad}
    held = (id(param) for group in optimizer.param_groups for param in group["params"])
    if trained.isdisjoint(held):
        raise ValueError(
            f"the {type(optimizer).__name__} has none of the parameters that the model trains: "
            "nothing would be learned; make it of this model's parameters, after adapters were "
            "added or weights replaced, or give a function of the model"
        )
    return optimizer


def make_schedule(scheduler: Any, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """What sets the learning rates after each step; None where nothing does.

    Raises:
        TypeError, ValueError: it is no schedule.
    """
    if scheduler is None:
        return None
    if scheduler == "cosine":
        return CosineSchedule(optimizer, steps)
    if isinstance(scheduler, str):
        raise ValueError(f"scheduler is {scheduler!r}; known by name is 'cosine'")
    is_one = hasattr(scheduler, "step") and not isinstance(scheduler, type)
    make: Callable[[Any], Any] = scheduler
    made = scheduler if is_one else make(optimizer) if callable(scheduler) else None
    for method in ("step", "state_dict", "load_state_dict"):
        if not hasattr(made, method):
            raise TypeError(
                f"scheduler gives {type(made).__name__}, without {method}(); expected 'cosine', a "
                "scheduler of torch, or a function of the optimizer that makes one"
            )
    _check_schedule(made, optimizer)
    return made


def _check_schedule(made: Any, optimizer: torch.optim.Optimizer) -> None:
    kind = type(made).__name__
    try:
        inspect.signature(made.step).bind()
    except TypeError:
        raise TypeError(
            f"the scheduler's step() wants arguments, but it is stepped after each step without "
            f"any; step a {kind} in on_evaluate(trainer, loss, perplexity) of a Callback"
        ) from None
    except ValueError:  # no signature to be had
        pass
    own = getattr(made, "optimizer", optimizer)
    if isinstance(own, torch.optim.Optimizer) and own is not optimizer:
        raise ValueError(
            f"the {kind} is of another optimizer than the one that is stepped; give a function of "
            "the optimizer that makes it"
        )
