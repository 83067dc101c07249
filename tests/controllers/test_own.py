"""Controllers of users' own: what they may move, and which numbers are saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch

from cosmic import Cosmic
from cosmic.controllers import Controller, Observation
from helpers import digest, parameter, take_steps, through_a_file


class Doing(Controller):
    """Does at every step what it is told."""

    START: ClassVar[dict[str, float | int | None]] = {"looks": 0}

    def __init__(self, does: Callable[[Doing, Observation], object]) -> None:
        super().__init__(every=1)
        self.does = does

    def observe(self, seen: Observation) -> None:
        self.numbers["looks"] += 1
        self.does(self, seen)


def bare() -> Cosmic:
    return Cosmic([{"params": [parameter(0, 8, 8)]}, {"params": [parameter(1, 8)]}], lr=0.1)


@pytest.mark.parametrize(
    ("does", "message"),
    [
        (lambda seen: seen.move(0, "lr", 0.5), r"param_groups\[0\] has 'lr', which .*'lr_scale'"),
        (lambda seen: seen.move(0, "params", []), r"param_groups\[0\] has 'params', which holds"),
        (lambda seen: seen.move(9, "eps", 0.5), r"no param_groups\[9\].*from 0 to 1"),
        (lambda seen: seen.move(-1, "eps", 0.5), r"no param_groups\[-1\]"),
        (
            lambda seen: seen.move(0, "nope", 0.5),
            r"\[0\] has no option 'nope'; it has .*betas, .*eps",
        ),
        (lambda seen: seen.scale_lr(2, 0.5), r"no param_groups\[2\]"),
    ],
)
def test_what_cannot_be_moved_is_named(does: Callable[[Observation], object], message: str) -> None:
    optimizer, twin = bare(), bare()
    controller = Doing(lambda _, seen: does(seen))
    optimizer.add_controller(controller)
    with pytest.raises(ValueError, match="controller 'Doing': .*" + message):
        take_steps(optimizer, 0, 1)
    take_steps(twin, 0, 1)
    assert digest(optimizer) == digest(twin)
    assert controller.numbers == {"looks": 0}
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_number_that_comes_later_is_saved_and_loaded() -> None:
    def counts(controller: Doing, seen: Observation) -> None:
        controller.numbers["half"] = seen.step / 2

    optimizer, fresh = bare(), bare()
    optimizer.add_controller(Doing(counts))
    take_steps(optimizer, 0, 3)
    fresh.add_controller(Doing(counts))
    fresh.load_state_dict(through_a_file(optimizer.state_dict()))
    assert fresh.controllers[0].state_dict() == {"looks": 3, "half": 1.5}
    fresh.load_state_dict(bare().state_dict())
    assert fresh.controllers[0].state_dict() == {"looks": 0}


@pytest.mark.parametrize("value", [[1.0], "1", True, torch.ones(1), float("nan")], ids=repr)
@pytest.mark.parametrize("key", ["looks", "more"])
def test_what_could_not_be_loaded_is_refused_when_it_is_kept(key: str, value: Any) -> None:
    optimizer = bare()
    optimizer.add_controller(Doing(lambda own, seen: own.numbers.update({key: value})))
    with pytest.raises(ValueError, match=f"controller 'Doing' has {key} .*; expected"):
        take_steps(optimizer, 0, 1)
    assert optimizer.controllers[0].state_dict() == {"looks": 0}


def test_what_starts_as_no_number_is_refused_when_attached() -> None:
    class Lists(Doing):
        START: ClassVar[Any] = {"looks": 0, "seen": []}

    optimizer = bare()
    with pytest.raises(ValueError, match=r"Lists.START has 'seen': \[\]; expected an int"):
        optimizer.add_controller(Lists(lambda own, seen: None))
    assert optimizer.controllers == ()


def test_one_that_was_never_set_up_is_refused() -> None:
    class Bare(Controller):
        def __init__(self) -> None:
            self.seen = 0

        def observe(self, seen: Observation) -> None:
            self.seen += 1

    with pytest.raises(TypeError, match=r"Bare.__init__ has not called super\(\).__init__"):
        bare().add_controller(Bare())
