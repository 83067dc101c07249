"""Options that are tensors or arrays of too many elements, or none: refused by name, everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cosmic import Cosmic
from cosmic.presets import CASMO, TurboAdam
from helpers import digest, give_gradients, parameters, refused, take_steps

KINDS: dict[str, type[Cosmic]] = {"cosmic": Cosmic, "turboadam": TurboAdam, "casmo": CASMO}
NUMBERS = ("lr", "eps", "weight_decay")

#: What is no number. Made anew for every test.
VALUES: dict[str, Callable[[], Any]] = {
    "two": lambda: torch.tensor([0.1, 0.2]),
    "two-integers": lambda: torch.tensor([1, 2]),
    "none": lambda: torch.tensor([]),
    "matrix": lambda: torch.full((2, 2), 0.1),
    "nan": lambda: torch.tensor(float("nan")),
    "infinite": lambda: torch.tensor([float("inf")]),
    "negative": lambda: torch.tensor([[-0.1]]),
    "complex": lambda: torch.tensor(0.1 + 0.1j),
    "meta": lambda: torch.ones((), device="meta"),
    "array": lambda: np.array([0.1, 0.2]),
    "list": lambda: [0.1],
    "number-complex": lambda: 0.1j,
    "number-true": lambda: True,
    "number-text": lambda: "0.1",
    "number-none": lambda: None,
    "number-huge": lambda: 10**400,
    "parameter": lambda: nn.Parameter(torch.ones(3)),
}


def start(kind: str, **options: Any) -> Cosmic:
    return KINDS[kind](parameters((3, 40), (9,)), **options)


def refused_everywhere(kind: str, name: str, make: Callable[[], Any]) -> None:
    """In the constructor, in a group of it, in one that is added, and when it is set later."""
    with pytest.raises(ValueError, match=rf"param_groups\[0\]\['{name}'\] is "):
        start(kind, **{name: make()})
    groups = [{"params": parameters((3,))}, {"params": parameters((4,)), name: make()}]
    with pytest.raises(ValueError, match=rf"param_groups\[1\]\['{name}'\] is "):
        KINDS[kind](groups)
    optimizer, twin = start(kind), start(kind)
    with refused(optimizer, ValueError, f"param_groups[1]['{name}'] is "):
        optimizer.add_param_group({"params": parameters((3,)), name: make()})
    assert len(optimizer.param_groups) == 1
    for steps in (0, 2):
        take_steps(optimizer, 0, steps)
        take_steps(twin, 0, steps)
        give_gradients(optimizer.param_groups[0]["params"], steps)
        good, optimizer.param_groups[0][name] = optimizer.param_groups[0][name], make()
        for _ in range(2):
            with refused(optimizer, ValueError, f"param_groups[0]['{name}'] is "):
                optimizer.step()
        optimizer.param_groups[0][name] = good
    optimizer.step()
    take_steps(twin, 2, 3)
    assert digest(optimizer) == digest(twin)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_is_none_is_refused(kind: str, name: str, value: str) -> None:
    refused_everywhere(kind, name, VALUES[value])


BETAS: dict[str, Callable[[], Any]] = {
    "one": lambda: torch.tensor([0.9]),
    "three": lambda: torch.tensor([0.9, 0.9, 0.9]),
    "scalar": lambda: torch.tensor(0.9),
    "none": lambda: torch.tensor([]),
    "matrix": lambda: torch.full((2, 2), 0.9),
    "first-of-two": lambda: (torch.tensor([0.9, 0.8]), 0.99),
    "second-of-two": lambda: (0.9, torch.tensor([0.9, 0.8])),
    "meta": lambda: (torch.ones((), device="meta"), 0.99),
    "complex": lambda: (0.9j, 0.99),
    "text": lambda: "0.9",
    "nothing": lambda: None,
}


@pytest.mark.parametrize("value", BETAS)
@pytest.mark.parametrize("kind", KINDS)
def test_betas_that_are_not_two_numbers_are_refused(kind: str, value: str) -> None:
    refused_everywhere(kind, "betas", BETAS[value])


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_of_one_element_is_a_number(kind: str, shape: tuple[int, ...]) -> None:
    def made(values: dict[str, Any]) -> Cosmic:
        optimizer = start(kind, **values)
        take_steps(optimizer, 0, 2)
        optimizer.param_groups[0].update({**values, "lr": values["lr"] * 2})
        take_steps(optimizer, 2, 4)
        return optimizer

    numbers = {"lr": 0.125, "eps": 0.25, "weight_decay": 0.5}
    tensors = {name: torch.full(shape, number) for name, number in numbers.items()}
    betas = torch.tensor([0.5, 0.75]).view(2, *shape)
    ours = made({**tensors, "betas": betas})
    assert digest(ours) == digest(made({**numbers, "betas": (0.5, 0.75)}))


#: Options that a plan is made for: what they were is compared with what they are.
PLANNED = {
    "cosmic": ("min_compress_size", "tier", "rung", "state_dtype", "gate", "beta_slow"),
    "casmo": ("min_compress_size", "rung", "exact", "granularity", "tau_init_steps"),
    "turboadam": ("v_bits", "m_codec", "compress_m", "block_size"),
}


@pytest.mark.parametrize("value", ["two", "two-integers", "none", "meta", "array"])
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in PLANNED.items() for name in names]
)
def test_what_a_plan_depends_on_is_compared_with_care(kind: str, name: str, value: str) -> None:
    """A tensor's == is no bool."""
    optimizer = start(kind)
    take_steps(optimizer, 0, 2)
    give_gradients(optimizer.param_groups[0]["params"], 2)
    optimizer.param_groups[0][name] = VALUES[value]()
    with refused(optimizer, ValueError, "param_groups[0]", name):
        optimizer.step()


@pytest.mark.parametrize("value", ["two", "two-integers", "none", "meta"])
@pytest.mark.parametrize("name", ["budget", "policy", "nonfinite", "seed", "reallocate_every"])
def test_options_of_the_whole_are_compared_with_care(name: str, value: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{name} is "):
        start("cosmic", **{name: VALUES[value]()})
    optimizer = start("cosmic")
    take_steps(optimizer, 0, 2)
    give_gradients(optimizer.param_groups[0]["params"], 2)
    setattr(optimizer, name, VALUES[value]())
    before = digest(optimizer)
    with pytest.raises((TypeError, ValueError), match=f"^{name} is "):
        optimizer.step()
    assert digest(optimizer) == before
