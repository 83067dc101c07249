"""Copies in 16 bits that a step leaves of its parameters: their bits, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backward_steps import give
from cosmic import Cosmic, NonfiniteGradientError, Rung, UnsupportedTensorError
from cosmic.presets import AXIOM, CASMO, Muon, Tiger, TurboAdam
from cuts import Stepped
from helpers import UNUSUAL, digest, normal, parameters, refused, same_bits, set_gradient

SHAPES = ((258, 131), (37,), (8, 4, 3, 5), (1, 1000), (640, 512))

#: Ways in which a step comes to its parameters: by blocks, by parts, as whole matrices, by rows.
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "values": {"state_dtype": "fp32"},
    "signs": {"rung": "tier0"},
    "second moment": {"rung": "tier1:v4"},
    "parts": {"parts": {"0": (0, 2), "4": (1, 4)}},
    "whole matrices": {"matrix_rule": "muon", "role": "matrix"},
    "matrices in turn": {"matrix_rule": "muon", "role": "matrix", "matrix_every": 3},
    "by row": {"gate": "trust", "norm_granularity": "row"},
    "before the step": {"gate": "agc", "exact": True},
    "to nearest": {"stochastic_rounding": False},
}


def made(dtype: torch.dtype, **options: Any) -> Cosmic:
    params = parameters(*SHAPES, dtype=dtype)
    params[0] = nn.Parameter(normal(9, 131, 258, dtype=dtype).t())  # dense, in another order
    params[1] = nn.Parameter(normal(8, 37, 3, dtype=dtype)[:, 1])  # with gaps
    return Cosmic([(str(k), p) for k, p in enumerate(params)], **{**UNUSUAL, **options})


def params_of(optimizer: Cosmic) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def give_bf16(optimizer: Cosmic, seed: int) -> None:
    for k, p in enumerate(params_of(optimizer)):
        dtype = p.dtype if p.dtype == torch.float64 else torch.bfloat16
        set_gradient(p, normal(100 * seed + k, *p.shape, dtype=dtype))


def copies_of(optimizer: Cosmic, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """One contiguous, one with gaps, one in another order, and so on, of numbers that are wrong."""
    out = []
    for k, p in enumerate(params_of(optimizer)):
        fresh = torch.full(p.shape, 7.0, dtype=dtype)
        if k % 3 == 1:
            fresh = torch.full((*p.shape, 2), 7.0, dtype=dtype)[..., 0]
        elif k % 3 == 2:
            fresh = fresh.transpose(0, -1).contiguous().transpose(0, -1)
        out.append(fresh)
    return out


def is_copy(copy: Tensor, param: Tensor) -> bool:
    return same_bits(copy, torch.empty_like(copy).copy_(param.detach()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("to", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_copies_have_the_bits_of_copy_(dtype: torch.dtype, to: torch.dtype, way: str) -> None:
    optimizer, plain = (made(dtype, **WAYS[way]) for _ in range(2))
    copies = copies_of(optimizer, to)
    for step in range(4):
        for one in (optimizer, plain):
            give_bf16(one, step)
        optimizer.step(copy_to=copies)
        plain.step()
        for copy_, p in zip(copies, params_of(optimizer), strict=True):
            assert is_copy(copy_, p)
    assert digest(optimizer) == digest(plain)


@pytest.mark.parametrize("gradient", [torch.float32, torch.bfloat16], ids=str)
def test_copies_of_what_is_read_in_place(gradient: torch.dtype) -> None:
    param = nn.Parameter(normal(0, 300, 512))
    optimizer, copy_ = Cosmic([param]), torch.zeros(300, 512, dtype=torch.bfloat16)
    set_gradient(param, normal(1, 300, 512, dtype=gradient))
    optimizer.step(copy_to=[copy_])
    assert is_copy(copy_, param)


@pytest.mark.parametrize("preset", [AXIOM, CASMO, Muon, Tiger, TurboAdam], ids=lambda p: p.__name__)
def test_presets_leave_copies(preset: type[Cosmic]) -> None:
    params = [nn.Parameter(normal(k, 64, 256)) for k in range(2)]
    optimizer, copies = preset(params), [torch.zeros(64, 256, dtype=torch.bfloat16) for _ in params]
    for k, param in enumerate(params):
        set_gradient(param, normal(5 + k, 64, 256))
    optimizer.step(copy_to=copies)
    assert all(is_copy(copy_, param) for copy_, param in zip(copies, params, strict=True))


def test_copies_of_doubles() -> None:
    optimizer = made(torch.float64)
    copies = copies_of(optimizer)
    give_bf16(optimizer, 0)
    optimizer.step(copy_to=copies)
    assert all(map(is_copy, copies, params_of(optimizer)))


def test_by_parameter_and_by_place_and_none() -> None:
    optimizer = made(torch.float32)
    params, copies = params_of(optimizer), copies_of(optimizer)
    give_bf16(optimizer, 0)
    optimizer.step(copy_to={params[1]: copies[1], params[3]: None})
    assert [bool((c != 7).any()) for c in copies] == [False, True, False, False, False]
    optimizer.step(copy_to=[copies[0], None, None, None, copies[4]])
    assert [bool((c != 7).any()) for c in copies] == [True, True, False, False, True]
    before = copies[0].clone()
    optimizer.step()
    assert same_bits(before, copies[0]) and not is_copy(copies[0], params[0])


def test_a_parameter_without_gradient_leaves_its_copy() -> None:
    optimizer = made(torch.float32)
    params, copies = params_of(optimizer), copies_of(optimizer)
    give_bf16(optimizer, 0)
    optimizer.step(copy_to=copies)
    copies[2].fill_(7.0)
    params[2].grad = None
    optimizer.step(copy_to=copies)
    assert bool((copies[2] == 7).all()) and is_copy(copies[3], params[3])


def test_two_sets_in_turn_take_the_same_plan() -> None:
    optimizer = made(torch.float32)
    sets = [copies_of(optimizer), copies_of(optimizer)]
    plans = set()
    for step in range(6):
        give_bf16(optimizer, step)
        optimizer.step(copy_to=sets[step % 2])
        plans.add(id(optimizer._compiled))
        assert all(map(is_copy, sets[step % 2], params_of(optimizer)))
        if step:
            assert not any(map(is_copy, sets[1 - step % 2], params_of(optimizer)))
    assert len(plans) == 1


def test_versions_of_what_is_written() -> None:
    optimizer = made(torch.float32)
    copies = copies_of(optimizer)
    before = [c._version for c in copies]
    give_bf16(optimizer, 0)
    params_of(optimizer)[4].grad = None
    optimizer.step(copy_to=copies)
    assert [c._version > old for c, old in zip(copies, before, strict=True)] == [True] * 4 + [False]


def test_closures_hooks_and_schedulers() -> None:
    optimizer = made(torch.float32)
    copies, seen = copies_of(optimizer), []
    optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(set(kwargs)))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)

    def closure() -> float:
        give_bf16(optimizer, 0)
        return 3.0

    assert optimizer.step(closure, copy_to=copies) == 3.0
    schedule.step()
    assert seen == [{"copy_to"}]
    assert all(map(is_copy, copies, params_of(optimizer)))


def test_a_step_that_is_compiled_around() -> None:
    optimizer = made(torch.float32)
    copies = copies_of(optimizer)
    give_bf16(optimizer, 0)

    @torch.compile(backend="eager")
    def train() -> None:
        optimizer.step(copy_to=copies)

    train()
    assert all(map(is_copy, copies, params_of(optimizer)))


@pytest.mark.parametrize("mode", ["skip", "raise"])
def test_steps_that_are_not_taken_write_nothing(mode: str) -> None:
    optimizer = made(torch.float32, nonfinite=mode)
    copies = copies_of(optimizer)
    give_bf16(optimizer, 0)
    gradient = params_of(optimizer)[3].grad
    assert gradient is not None
    gradient[0, 5] = torch.nan
    if mode == "skip":
        optimizer.step(copy_to=copies)
    else:
        with pytest.raises(NonfiniteGradientError):
            optimizer.step(copy_to=copies)
    assert all(bool((c == 7).all()) for c in copies)


def test_within_backward() -> None:
    ours, ordinary = made(torch.float32), made(torch.float32)
    copies, other = copies_of(ours), copies_of(ours)
    grads = [normal(5 + k, *p.shape) for k, p in enumerate(params_of(ours))]
    with ours.step_in_backward(copy_to=copies) as handle:
        give(params_of(ours), grads)
        ours.step()
        assert all(map(is_copy, copies, params_of(ours)))
        handle.copy_to = {p: c for p, c in zip(params_of(ours), other, strict=True)}
        before = [c.clone() for c in copies]
        give(params_of(ours), grads)
        ours.step()
        assert all(map(is_copy, other, params_of(ours))) and all(map(same_bits, copies, before))
        with pytest.raises(ValueError, match=r"give copy_to to step_in_backward"):
            ours.step(copy_to=copies)
    for _ in range(2):
        for p, g in zip(params_of(ordinary), grads, strict=True):
            p.grad = g.clone()
        ordinary.step()
    assert digest(ours) == digest(ordinary)


# ---- what is refused, before anything has changed -----------------------------------------------

Spoil = Callable[[Cosmic, list[Tensor]], Any]


def _with(place: int, make: Callable[[Cosmic], Any]) -> Spoil:
    def spoiled(optimizer: Cosmic, copies: list[Tensor]) -> list[Any]:
        return [*copies[:place], make(optimizer), *copies[place + 1 :]]

    return spoiled


def _on_gradient(optimizer: Cosmic) -> Tensor:
    gradient = params_of(optimizer)[3].grad
    assert gradient is not None
    return gradient.reshape(1, -1)


BAD: dict[str, tuple[Spoil, type[Exception], tuple[str, ...]]] = {
    "float32": (_with(4, lambda o: torch.zeros(640, 512)), UnsupportedTensorError,
                ("'4'", "copy_to is float32", "bfloat16 or float16")),
    "shape": (_with(4, lambda o: torch.zeros(512, 640, dtype=torch.bfloat16)), ValueError,
              ("'4'", "(512, 640)", "(640, 512)")),
    "device": (_with(3, lambda o: torch.zeros(1, 1000, dtype=torch.bfloat16, device="meta")),
               UnsupportedTensorError, ("'3'", "copy_to", "meta")),
    "expanded": (_with(3, lambda o: torch.zeros(1, 1, dtype=torch.bfloat16).expand(1, 1000)),
                 ValueError, ("'3'", "overlaps itself")),
    "a number": (_with(1, lambda o: 3.0), TypeError, ("'1'", "float", "None")),
    "the gradient": (_with(3, _on_gradient), ValueError, ("'3'", "shares memory", "gradient of")),
    "too few": (lambda o, c: c[:3], ValueError, ("3 entries", "expected 5")),
    "a foreign key": (lambda o, c: {torch.zeros(3): c[0]}, ValueError, ("no parameter",)),
    "one tensor": (lambda o, c: c[0], TypeError, ("Tensor", "sequence")),
    "one for two": (lambda o, c: {params_of(o)[0]: _pair()[0], params_of(o)[4]: _pair()[1]},
                    ValueError, ("'0'", "shares memory", "the copy of parameter '4'")),
}  # fmt: skip

_SHARED = torch.zeros(640 * 512, dtype=torch.bfloat16)


def _pair() -> tuple[Tensor, Tensor]:
    return _SHARED[: 258 * 131].view(258, 131), _SHARED.view(640, 512)


@pytest.mark.parametrize("what", BAD)
def test_refused_before_anything_changes(what: str) -> None:
    spoil, error, fragments = BAD[what]
    optimizer = made(torch.float32)
    give_bf16(optimizer, 0)
    optimizer.step()
    copies = copies_of(optimizer)
    given = spoil(optimizer, copies)
    with refused(optimizer, error, *fragments):
        optimizer.step(copy_to=given)
    assert all(bool((c == 7).all()) for c in copies)


def test_a_copy_that_is_the_parameter() -> None:
    param = nn.Parameter(normal(0, 64, 64, dtype=torch.bfloat16))
    optimizer = Cosmic([param])
    param.grad = normal(1, 64, 64, dtype=torch.bfloat16)
    with refused(optimizer, ValueError, "shares memory"):
        optimizer.step(copy_to=[param.detach()])


@pytest.mark.parametrize("what", ["float32", "shape", "one for two", "too few"])
def test_refused_where_backward_steps(what: str) -> None:
    spoil, error, fragments = BAD[what]
    optimizer = made(torch.float32)
    with refused(optimizer, error, *fragments):
        optimizer.step_in_backward(copy_to=spoil(optimizer, copies_of(optimizer)))
    assert optimizer._backward is None


def test_a_copy_that_was_refused_is_forgotten() -> None:
    """No later step writes to memory that may be gone by then."""
    subject = Stepped(normal(1, 4, 128), Rung.parse("tier2:fp32+fp32"))
    gradient = normal(2, 4, 128)
    over_it = gradient.view(torch.bfloat16)[:, ::2]
    subject.param.grad, before = gradient, gradient.clone()
    group, states, plan = [subject.group], subject.states, subject.plan
    assert plan.begin(group, states)
    with pytest.raises(ValueError, match="shares memory"):
        plan.step_one(group, states, 1, 0, 0, subject.param, over_it)
    subject.step(normal(3, 4, 128))
    assert same_bits(gradient, before)


def test_columns_of_one_matrix_are_apart() -> None:
    params = [nn.Parameter(normal(k, 20, 8)) for k in range(2)]
    optimizer = Cosmic(params)
    both = torch.zeros(20, 16, dtype=torch.bfloat16)
    for p in params:
        p.grad = normal(5, 20, 8)
    optimizer.step(copy_to=[both[:, :8], both[:, 8:]])
    assert same_bits(both, torch.cat([p.detach() for p in params], 1).bfloat16())


def test_a_copy_of_the_optimizer_has_no_copies() -> None:
    optimizer = made(torch.float32)
    copies = copies_of(optimizer)
    give_bf16(optimizer, 0)
    optimizer.step(copy_to=copies)
    twin = copy.deepcopy(optimizer)
    before = [c.clone() for c in copies]
    give_bf16(twin, 1)
    twin.step()
    assert all(map(same_bits, copies, before))
