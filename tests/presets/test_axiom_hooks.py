"""Preset AXIOM with hooks: gradients are released, and no bit of a step depends on it."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from backward_steps import Tied
from cosmic import NonfiniteGradientError
from cosmic.presets import AXIOM
from helpers import digest, normal, parameter, refused, through_a_file

STEPS = 6


@pytest.fixture(autouse=True)
def _one_thread(set_threads: Callable[[int], None]) -> None:
    """The model is small."""
    set_threads(1)


def made(**options: Any) -> tuple[Tied, AXIOM]:
    torch.manual_seed(0)
    model = Tied()
    decayed = [(n, p) for n, p in model.named_parameters() if p.ndim > 1]
    others = [(n, p) for n, p in model.named_parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "lr": 0.02}]
    return model, AXIOM(groups, lr=0.01, weight_decay=0.1, **options)


def train(model: Tied, optimizer: AXIOM, first: int = 0, last: int = STEPS) -> None:
    """The loop as it is written by hand, with hooks and without."""
    for step in range(first, last):
        optimizer.zero_grad()
        loss = model.loss(step)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(loss=loss.item())


def spoil(model: nn.Module, name: str, element: int = 3) -> Any:
    """The gradients of this parameter have a NaN from now on, before anyone sees them."""

    def spoiled(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient.view(-1)[element] = math.nan
        return gradient

    param: Any = model.get_parameter(name)
    return param.register_hook(spoiled)


@contextmanager
def scale_is_told() -> Iterator[None]:
    with pytest.warns(UserWarning, match="lr_scale=.* multiplies the learning rate") as told:
        yield
    assert len(told) == 1


# ---- the same bits -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"budget": "20%"},
        {"gate": "snr"},
        {"budget": "5%", "policy": "role"},
        {"nonfinite": "skip"},
    ],
    ids=str,
)
def test_hooks_change_no_bit_wherever_they_come_and_go(options: dict[str, Any]) -> None:
    found = set()
    for register, remove in ((None, None), (0, None), (0, 3), (2, 4), (3, None)):
        model, optimizer = made(**options)
        for step in range(STEPS):
            if step == register:
                optimizer.register_hooks(model=model)
            if step == remove:
                optimizer.remove_hooks()
            train(model, optimizer, step, step + 1)
            within = register is not None and register <= step and (remove or STEPS) > step
            assert all((p.grad is None) == within for p in model.parameters())
        found.add(digest(optimizer))
    assert len(found) == 1


def test_both_may_be_called_again() -> None:
    model, optimizer = made()
    plain_model, plain = made()
    optimizer.remove_hooks()
    optimizer.register_hooks()
    mode = optimizer._backward
    train(model, optimizer, 0, 2)
    optimizer.register_hooks(model=model)
    assert optimizer._backward is mode
    train(model, optimizer, 2, 4)
    optimizer.remove_hooks()
    optimizer.remove_hooks()
    assert optimizer._backward is None
    train(model, optimizer, 4, STEPS)
    train(plain_model, plain)
    assert digest(optimizer) == digest(plain)
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_a_mode_that_another_handle_left_may_be_entered_again() -> None:
    model, optimizer = made()
    optimizer.register_hooks()
    assert optimizer._hooks is not None
    optimizer._hooks.remove()
    optimizer.register_hooks()
    assert optimizer._backward is optimizer._hooks
    train(model, optimizer)
    optimizer.remove_hooks()
    with optimizer.step_in_backward(model), pytest.raises(RuntimeError, match="on already"):
        optimizer.register_hooks()


# ---- the scale of the rate -----------------------------------------------------------------------


@pytest.mark.parametrize("budget", [None, "20%"])
def test_a_scale_is_that_of_the_rate_while_there_are_hooks(budget: str | None) -> None:
    """With its decay, under a budget with the factors of its policy; a power of two is exact."""
    model, optimizer = made(budget=budget)
    twin_model, twin = made(budget=budget)
    train(model, optimizer, 0, 1)
    train(twin_model, twin, 0, 1)
    with scale_is_told():
        optimizer.register_hooks(lr_scale=4.0)
    assert optimizer.get_lr() == [0.01, 0.02]
    twin.set_lr([0.04, 0.08])
    train(model, optimizer, 1, 3)
    train(twin_model, twin, 1, 3)
    optimizer.remove_hooks()
    twin.set_lr([0.01, 0.02])
    train(model, optimizer, 3, STEPS)
    train(twin_model, twin, 3, STEPS)
    assert digest(optimizer) == digest(twin)


@pytest.mark.parametrize("given", [0.5, {"table": 0.5, "vector": 2.0}], ids=str)
def test_it_multiplies_a_groups_own(given: Any) -> None:
    results = []
    for scale, own in ((4.0, given), (1.0, _times(given, 4.0))):
        torch.manual_seed(0)
        model = Tied()
        optimizer = AXIOM([{"params": list(model.named_parameters()), "lr_scale": own}], lr=0.01)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            optimizer.register_hooks(lr_scale=scale)
        train(model, optimizer)
        results.append(digest(optimizer))
    assert results[0] == results[1]


def _times(own: Any, factor: float) -> Any:
    if isinstance(own, float):
        return factor * own
    return {role: factor * own.get(role, 1.0) for role in ("table", "matrix", "vector")}


def test_a_new_scale_takes_the_place_of_the_old() -> None:
    found = []
    for scales in ((8.0, 4.0), (4.0,)):
        model, optimizer = made()
        for scale in scales:
            with scale_is_told():
                optimizer.register_hooks(lr_scale=scale)
        train(model, optimizer)
        found.append(digest(optimizer))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", [CosineAnnealingLR, LambdaLR])
def test_schedulers_and_the_scale_do_not_meet(kind: Any) -> None:
    """Neither does a scheduler lose the scale nor does the scale's end lose its place."""
    runs = []
    for scale in (1.0, 2.0):
        model, optimizer = made()
        argument: Any = 10 if kind is CosineAnnealingLR else lambda step: 1 / (1 + step)
        scheduler = kind(optimizer, argument)
        rates = []
        for step in range(STEPS):
            if step == 2 and scale != 1:
                with scale_is_told():
                    optimizer.register_hooks(lr_scale=scale)
            if step == 4:
                optimizer.remove_hooks()
            train(model, optimizer, step, step + 1)
            scheduler.step()
            rates.append(optimizer.get_lr())
        runs.append((rates, digest(optimizer)))
    assert runs[0][0] == runs[1][0]
    assert runs[0][1] != runs[1][1]


def test_a_checkpoint_has_neither_hooks_nor_their_scale() -> None:
    """The rate is the groups'; who loads it says again what hooks there are to be."""
    model, optimizer = made()
    with scale_is_told():
        optimizer.register_hooks(lr_scale=4.0)
    train(model, optimizer, 0, 3)
    other_model, other = copy.deepcopy((model, optimizer))
    loaded_model, loaded = made()
    loaded_model.load_state_dict(model.state_dict())
    loaded.load_state_dict(through_a_file(optimizer.state_dict()))
    for one_model, one in ((other_model, other), (loaded_model, loaded)):
        assert one._backward is None
        with scale_is_told():
            one.register_hooks(lr_scale=4.0)
        train(one_model, one, 3, STEPS)
    train(model, optimizer, 3, STEPS)
    assert digest(optimizer) == digest(other) == digest(loaded)


@pytest.mark.parametrize("scale", [0, -1.0, math.nan, math.inf, "25", True], ids=str)
def test_what_is_no_scale_is_refused_and_hooks_stay_as_they_were(scale: Any) -> None:
    _, optimizer = made()
    with pytest.raises(ValueError, match=r"lr_scale is .* expected a number > 0"):
        optimizer.register_hooks(lr_scale=scale)
    assert optimizer._backward is None


def test_a_model_of_others_is_refused() -> None:
    model, optimizer = made()
    with pytest.raises(ValueError, match="parameters that are not the model's"):
        optimizer.register_hooks(model=nn.Linear(3, 3).requires_grad_(False))
    assert optimizer._backward is None
    assert optimizer.nonfinite == "raise"
    optimizer.register_hooks(model=model)
    with pytest.raises(ValueError, match="does not have"):
        optimizer.register_hooks(model=nn.ModuleList([model, nn.Linear(3, 3)]))


# ---- clipping ------------------------------------------------------------------------------------


def test_they_clip_by_the_norm_of_the_step_before() -> None:
    """Of the last one without hooks, too."""
    model, optimizer = made(max_grad_norm=0.3)
    twin_model, twin = made()
    for one_model, one in ((model, optimizer), (twin_model, twin)):
        train(one_model, one, 0, 1) if one is optimizer else _clipped(one_model, one, 0, 0.3)
    optimizer.register_hooks(model=model)
    twin._gradient_norm = optimizer._gradient_norm
    assert twin._gradient_norm is not None and twin._gradient_norm > 0.3
    mode = twin.step_in_backward(twin_model, max_norm=0.3)
    train(model, optimizer, 1, 4)
    train(twin_model, twin, 1, 4)
    assert digest(optimizer) == digest(twin)
    optimizer.remove_hooks()
    mode.remove()
    train(model, optimizer, 4, 5)
    _clipped(twin_model, twin, 4, 0.3)
    assert digest(optimizer) == digest(twin)


def test_the_mode_that_is_entered_by_hand_clips_and_tells_alike() -> None:
    found = []
    for by_hand in (False, True):
        model, optimizer = made(max_grad_norm=0.3)
        if by_hand:
            optimizer.step_in_backward(model)
        else:
            optimizer.register_hooks(model=model)
        train(model, optimizer)
        spoil(model, "head.weight")
        with pytest.raises(NonfiniteGradientError, match=r"embedding\.weight"):
            train(model, optimizer, STEPS, STEPS + 1)
        found.append(digest(optimizer))
    assert found[0] == found[1]


def _clipped(model: Tied, optimizer: AXIOM, step: int, max_norm: float) -> None:
    optimizer.zero_grad()
    model.loss(step).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()


# ---- gradients that are not finite ---------------------------------------------------------------


def test_a_bad_gradient_stops_its_tensor_alone_and_is_told_by_the_step() -> None:
    model, optimizer = made()
    twin_model, twin = made(nonfinite="skip")
    for one_model, one in ((model, optimizer), (twin_model, twin)):
        one.register_hooks(model=one_model)
        train(one_model, one, 0, 2)
    name = "body.0.weight"
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    handles = [spoil(one, name) for one in (model, twin_model)]
    with pytest.raises(NonfiniteGradientError, match="1 gradients had 1 elements") as caught:
        train(model, optimizer, 2, 3)
    assert repr(name) in str(caught.value) and "all others were" in str(caught.value)
    train(twin_model, twin, 2, 3)  # asked for "skip", which says nothing
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, _ in model.named_parameters()} - {name}
    assert digest(optimizer) == digest(twin)
    for handle in handles:
        handle.remove()
    train(model, optimizer, 3, 5)
    train(twin_model, twin, 3, 5)
    assert digest(optimizer) == digest(twin)
    assert optimizer.stats()[0]["skipped_steps"] == 1
    optimizer.remove_hooks()
    spoil(model, name)
    with refused(optimizer, NonfiniteGradientError, repr(name), "nothing was stepped"):
        train(model, optimizer, 5, 6)


def test_where_all_gradients_are_bad_nothing_moves_and_all_are_counted() -> None:
    model, optimizer = made()
    optimizer.register_hooks()
    for name, _ in model.named_parameters():
        spoil(model, name, 0)
    with refused(optimizer, NonfiniteGradientError, "gradients had", "and 4 more"):
        train(model, optimizer, 0, 1)


def test_propagate_is_as_without_hooks() -> None:
    found = []
    for within in (False, True):
        model, optimizer = made(detect_anomaly=False)
        if within:
            optimizer.register_hooks()
        spoil(model, "body.0.weight", 5)
        with pytest.warns(RuntimeWarning, match="1 elements of gradients"):
            train(model, optimizer, 0, 1)
        found.append(digest(optimizer))
    assert found[0] == found[1]


def test_what_was_asked_for_is_there_again_without_hooks() -> None:
    _, optimizer = made()
    optimizer.register_hooks()
    assert optimizer.nonfinite == "skip"
    assert copy.deepcopy(optimizer).nonfinite == "raise"
    optimizer.add_param_group({"params": [("late", parameter(0, 4))], "nonfinite": "raise"})
    optimizer.remove_hooks()
    assert optimizer.nonfinite == "raise"
    optimizer.nonfinite = "propagate"
    optimizer.register_hooks()
    assert optimizer.nonfinite == "propagate"


# ---- what cannot be with them --------------------------------------------------------------------


def test_a_closure_is_refused() -> None:
    model, optimizer = made(max_grad_norm=1.0)
    optimizer.register_hooks()
    with refused(optimizer, RuntimeError, "step(closure)"):
        optimizer.step(lambda: float(model.loss(0)))


def test_a_second_backward_before_the_step_is_refused() -> None:
    model, optimizer = made()
    optimizer.register_hooks()
    model.loss(0).backward()  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="second gradient"):
        model.loss(1).backward()  # type: ignore[no-untyped-call]


def test_a_step_that_compiles_is_one_that_does_not() -> None:
    """torch.compile goes around the step, and the loss that it is told is kept."""
    found = []
    for compiled in (False, True):
        model, optimizer = made()

        def step(optimizer: AXIOM = optimizer) -> None:
            optimizer.step(1.5)

        run = torch.compile(step, backend="eager") if compiled else step
        for seed in range(2):
            optimizer.zero_grad()
            model.loss(seed).backward()  # type: ignore[no-untyped-call]
            run()
        assert optimizer.last_loss == 1.5
        found.append(digest(optimizer))
    assert found[0] == found[1]


def test_gradients_of_many_equal_layers_take_the_memory_of_one() -> None:
    """Counted while backward runs: never more than two tensors have a gradient at a time."""
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(12)))
    optimizer = AXIOM(model.parameters())
    optimizer.register_hooks(model=model)
    most = 0

    def count(_: Any) -> None:
        nonlocal most
        most = max(most, sum(p.grad.nbytes for p in model.parameters() if p.grad is not None))

    for p in model.parameters():
        register: Any = p.register_post_accumulate_grad_hook
        register(count)
    model(normal(0, 8, 64)).square().sum().backward()
    optimizer.step()
    assert most <= optimizer.memory_usage(model).gradient_bytes == 64 * 64 * 4
