"""Changes of options at known steps."""

from __future__ import annotations

from typing import Any

import pytest

from cosmic import Cosmic
from cosmic.controllers import Change, Staged
from helpers import digest, parameter, refused, take_steps


def made(*changes: Any, steps: int = 0) -> Cosmic:
    groups = [
        {"params": [parameter(0, 64)], "role": "bias"},
        {"params": [parameter(1, 8, 8)], "tag": "ffn_up"},
    ]
    optimizer = Cosmic(groups, lr=0.1, weight_decay=0.5)
    optimizer.add_controller(Staged(changes))
    take_steps(optimizer, 0, steps)
    return optimizer


def options(optimizer: Cosmic, option: str) -> list[Any]:
    return [group[option] for group in optimizer.param_groups]


def test_changes_are_made_in_order_of_their_steps() -> None:
    """Those of one step in the order given."""
    changes = (
        (4, "weight_decay", "mul", 0.5),
        (2, "weight_decay", "add", 0.25),
        Change(4, "weight_decay", "add", 1.0),
        (3, "lr_scale", "mul", 0.3, "ffn_up"),
        (3, "eps", "set", 1e-6, 0),
        (3, "betas", "set", (0.5, 0.9), "bias"),
    )
    seen = [
        tuple(options(made(*changes, steps=s), "weight_decay")) for s in range(6)
    ]  # fmt: skip
    assert seen == [(0.5,) * 2, (0.5,) * 2, (0.75,) * 2, (0.75,) * 2, (1.375,) * 2, (1.375,) * 2]
    last = made(*changes, steps=5)
    assert options(last, "lr_scale") == [None, 0.3]
    assert options(last, "eps") == [1e-6, 1e-8]
    assert options(last, "betas") == [(0.5, 0.9), (0.9, 0.999)]


def test_a_change_holds_from_the_step_after() -> None:
    optimizer, twin = made((2, "weight_decay", "set", 0.0)), made((9, "lr_scale", "set", 1.0))
    take_steps(optimizer, 0, 2)
    take_steps(twin, 0, 2)
    assert digest(optimizer) == digest(twin)
    for group in twin.param_groups:
        group["weight_decay"] = 0.0
    take_steps(optimizer, 2, 4)
    take_steps(twin, 2, 4)
    assert digest(optimizer) == digest(twin)


def test_one_that_comes_late_makes_up_for_what_it_has_missed_once() -> None:
    optimizer = made((50, "eps", "set", 1.0), steps=5)
    optimizer.add_controller(Staged([(1, "weight_decay", "mul", 0.5)], name="late"))
    take_steps(optimizer, 5, 8)
    assert options(optimizer, "weight_decay") == [0.25, 0.25]


def test_a_value_that_is_a_mapping_is_the_group_s_own() -> None:
    scale = {"matrix": 0.5}
    optimizer = made((1, "lr_scale", "set", scale), steps=1)
    scale["matrix"] = 7.0
    optimizer.param_groups[0]["lr_scale"]["matrix"] = 3.0
    assert optimizer.param_groups[1]["lr_scale"] == {"matrix": 0.5}


def test_a_value_that_the_option_cannot_have_is_refused_and_taken_back() -> None:
    """The step itself has been taken in full; the changes are left out from then on."""
    changes = ((2, "eps", "add", 1.0), (2, "weight_decay", "add", -0.5), (3, "eps", "set", 1e-6))
    optimizer, twin = made(*changes, steps=1), made((3, "eps", "set", 1e-6), steps=1)
    for one in (optimizer, twin):
        one.param_groups[1]["weight_decay"] = 0.25
    with pytest.raises(
        ValueError, match=r"controller 'Staged': .*weight_decay.* -0.25.*taken back"
    ):
        take_steps(optimizer, 1, 2)
    take_steps(twin, 1, 2)
    assert digest(optimizer) == digest(twin)
    assert options(optimizer, "weight_decay") == [0.5, 0.25]
    assert options(optimizer, "eps") == [1e-8, 1e-8]
    assert optimizer.state_dict()["cosmic"]["controllers"]["Staged"]["numbers"] == {"made": 2}
    for one in (optimizer, twin):
        take_steps(one, 2, 5)
    assert options(optimizer, "eps") == [1e-6, 1e-6]
    assert digest(optimizer) == digest(twin)


def test_what_only_the_next_step_refuses_is_taken_back_and_raised_once() -> None:
    """Parts of a parameter that took no gradients when they were checked, and has state by then."""
    late = Cosmic([{"params": [("b", parameter(1, 8, 8))]}])
    late.param_groups[0]["params"][0].requires_grad_(False)
    staged = Staged([(2, "parts", "set", {"b": (0, 2)}), (2, "eps", "set", 1e-6)], name="cuts")
    late.add_controller(staged)
    late.remove_controller(staged)
    late.param_groups[0]["params"][0].requires_grad_(True)
    late.add_controller(Staged([(2, "weight_decay", "set", 0.25)]))
    late._controllers.insert(0, staged)
    take_steps(late, 0, 2)
    assert late.param_groups[0]["parts"] == {"b": (0, 2)}
    before = digest(late)
    with pytest.raises(
        ValueError, match=r"state is of parts.*controller 'cuts' moved .*taken back"
    ):
        take_steps(late, 2, 3)
    assert digest(late) == before
    assert late.param_groups[0]["parts"] is None
    assert late.param_groups[0]["eps"] == 1e-8
    assert late.param_groups[0]["weight_decay"] == 0.25  # which had no part in it
    take_steps(late, 2, 5)
    assert late.param_groups[0]["parts"] is None
    assert digest(late) != before


def test_an_error_of_a_step_that_has_nothing_to_do_with_moves_leaves_them() -> None:
    optimizer = made((2, "gate", "set", "snr"), steps=2)
    optimizer.param_groups[1]["eps"] = -1.0
    with pytest.raises(ValueError, match=r"eps.* -1") as error:
        take_steps(optimizer, 2, 3)
    assert "taken back" not in str(error.value)
    assert options(optimizer, "gate") == ["snr", "snr"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ((1, "eps", "set"), TypeError, r"changes\[0\] is .*expected \(step, option"),
        (("1", "eps", "set", 1.0), ValueError, r"changes\[0\] has step '1'"),
        ((0, "eps", "set", 1.0), ValueError, "has step 0; expected an int >= 1"),
        ((1, "lr", "mul", 0.5), ValueError, "option 'lr', which learning rate schedulers set"),
        ((1, "params", "set", []), ValueError, "option 'params'"),
        ((1, "eps", "pow", 2.0), ValueError, "operation 'pow'; expected 'set', 'add' or 'mul'"),
        ((1, "eps", "mul", "2"), ValueError, "value '2'; expected a finite number to mul"),
        ((1, "eps", "add", float("nan")), ValueError, "value nan"),
        ((1, "eps", "set", 1.0, 2.5), TypeError, "is of 2.5; expected a group's number"),
    ],
)
def test_what_is_no_change_is_refused_at_construction(
    change: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Staged([change])


def test_nothing_to_change_is_refused() -> None:
    with pytest.raises(ValueError, match="changes is empty"):
        Staged([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((1, "epsilon", "set", 1.0), r"param_groups\[0\] has no option 'epsilon'"),
        ((1, "betas", "mul", 0.5), r"\['betas'\] is \(0.9, 0.999\); expected a number to mul 0.5"),
        ((1, "eps", "set", 1.0, 2), "of groups 2 at step 1, and none of the 2 parameter groups"),
        ((1, "eps", "set", 1.0, "ffn_down"), "of groups 'ffn_down'"),
        (
            (5, "gate", "set", "bogus"),
            r"'second' at step 5: param_groups\[0\]\['gate'\] is 'bogus'",
        ),
        ((5, "weight_decay", "add", -0.7, 1), r"at step 5: param_groups\[1\].*weight_decay"),
        ((5, "parts", "set", (0, 2)), "would be 0 32, 1 32 along dimension 0 and are none"),
        ((5, "parts", "set", (0, 3)), "64 along dimension 0 are not 3 equal parts"),
        ((5, "parts", "set", {"nobody": (0, 2)}), "'nobody', which matches no parameter"),
    ],
)
def test_what_the_groups_do_not_have_is_refused_when_attached(change: Any, message: str) -> None:
    optimizer = made((9, "eps", "set", 1.0))
    saved = optimizer.state_dict()["cosmic"]
    with pytest.raises(ValueError, match=message):
        optimizer.add_controller(Staged([change], name="second"))
    assert optimizer.state_dict()["cosmic"] == saved


def test_changes_are_foreseen_one_after_the_other() -> None:
    """A value that a change needs may come from an earlier one."""
    optimizer = made((2, "clip_update", "set", 2.0), (4, "clip_update", "mul", 0.5), steps=5)
    assert options(optimizer, "clip_update") == [1.0, 1.0]


def test_those_that_a_checkpoint_has_made_are_not_foreseen_again() -> None:
    change = (1, "weight_decay", "add", -0.4)
    saved = made(change, steps=2).state_dict()
    optimizer = made((9, "eps", "set", 1.0))
    optimizer.remove_controller(optimizer.controllers[0])
    optimizer.load_state_dict(saved)
    optimizer.add_controller(Staged([change]))
    take_steps(optimizer, 2, 3)
    assert options(optimizer, "weight_decay") == [pytest.approx(0.1)] * 2


def test_other_changes_than_were_saved_are_refused() -> None:
    saved = made((1, "eps", "set", 1.0), (2, "eps", "set", 2.0), steps=2).state_dict()
    optimizer = made((1, "eps", "set", 1.0))
    with refused(optimizer, ValueError, "2 changes have been made, but it has 1"):
        optimizer.load_state_dict(saved)
