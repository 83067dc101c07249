"""Every bad input has its own clear error, raised before anything has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic, _core
from fresh_processes import Program, outputs_of
from helpers import (
    UNUSUAL,
    digest,
    give_gradients,
    normal,
    parameter,
    parameters,
    refused,
    set_gradient,
    take_steps,
)


def running(**options: Any) -> tuple[Cosmic, list[nn.Parameter]]:
    """An optimizer of two parameters in mid-run, gradients in place."""
    params = parameters((40, 9), (129,))
    optimizer = Cosmic([("body", params[0]), ("head", params[1])], **{**UNUSUAL, **options})
    take_steps(optimizer, 0, 3)
    give_gradients(params, 9)
    return optimizer, params


# ---- options -----------------------------------------------------------------------------------

#: What option `gate` may be.
GATES = "None, 'snr', 'agar', 'trust' or 'agc', or several joined by a plus"

BAD_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "lr-negative": ({"lr": -1e-3}, "finite number >= 0"),
    "lr-nan": ({"lr": float("nan")}, "finite number >= 0"),
    "lr-infinite": ({"lr": float("inf")}, "finite number >= 0"),
    "lr-text": ({"lr": "fast"}, "finite number >= 0"),
    "lr-none": ({"lr": None}, "finite number >= 0"),
    "lr-tensor-of-two": ({"lr": torch.tensor([0.1, 0.2])}, "finite number >= 0"),
    "lr-tensor-negative": ({"lr": torch.tensor(-0.1)}, "finite number >= 0"),
    "betas-1": ({"betas": (0.9, 1.0)}, "two numbers in [0, 1)"),
    "betas-negative": ({"betas": (-0.1, 0.9)}, "two numbers in [0, 1)"),
    "betas-nan": ({"betas": (float("nan"), 0.9)}, "two numbers in [0, 1)"),
    "betas-three": ({"betas": (0.9, 0.99, 0.999)}, "two numbers in [0, 1)"),
    "betas-one-number": ({"betas": 0.9}, "two numbers in [0, 1)"),
    "eps-negative": ({"eps": -1e-8}, "finite number >= 0"),
    "eps-nan": ({"eps": float("nan")}, "finite number >= 0"),
    "weight_decay-negative": ({"weight_decay": -0.1}, "finite number >= 0"),
    "maximize-text": ({"maximize": "yes"}, "True or False"),
    "maximize-1": ({"maximize": 1}, "True or False"),
    "tier-3": ({"tier": 3}, "None, 0, 1 or 2"),
    "tier-negative": ({"tier": -1}, "None, 0, 1 or 2"),
    "tier-text": ({"tier": "full"}, "None, 0, 1 or 2"),
    "tier-bool": ({"tier": True}, "None, 0, 1 or 2"),
    "tier-float": ({"tier": 1.0}, "None, 0, 1 or 2"),
    "rung-unknown": ({"rung": "tier3"}, "unknown rung 'tier3'"),
    "rung-of-no-kernel": ({"rung": "tier1:q8"}, "with one of fp32, v4, factored"),
    "rung-codec-missing": ({"rung": "tier1:"}, "unknown rung 'tier1:'"),
    "rung-of-no-combination": ({"rung": "tier2:u1+fp32"}, "unknown rung 'tier2:u1+fp32'"),
    "rung-number": ({"rung": 1}, "expected text such as 'tier1'"),
    "rung-slow": ({"rung": "tier2:fp32+fp32+slow"}, "give 'beta_slow'"),
    "state_dtype-unknown": ({"state_dtype": "int8"}, "'fp32', 'bf16'"),
    "state_dtype-three": ({"state_dtype": "fp32+fp32+fp32"}, "'fp32', 'bf16'"),
    "state_dtype-empty": ({"state_dtype": ""}, "'fp32', 'bf16'"),
    "state_dtype-float16": ({"state_dtype": torch.float16}, "'fp32', 'bf16'"),
    "state_dtype-list": ({"state_dtype": ["fp32"]}, "'fp32', 'bf16'"),
    **{
        f"gate-{name}": ({"gate": gate}, GATES)
        for name, gate in (
            ("unknown", "and"),
            ("bool", True),
            ("empty", ""),
            ("twice", "trust+trust"),
            ("ends-in-plus", "trust+"),
            ("begins-with-plus", "+trust"),
            ("space", " trust"),
            ("spaces", "trust + agc"),
            ("one-unknown", "trust+lamb"),
            ("implied", "update_clipping"),
            ("of-a-preset", "trust+calibrated_agar"),
            ("none", "none"),
            ("list", ["trust"]),
        )
    },
    "trust_min-negative": ({"trust_min": -1e-9}, "finite number >= 0"),
    "trust_min-infinite": ({"trust_min": float("inf")}, "finite number >= 0"),
    "trust_clip-0": ({"trust_clip": 0}, "finite number > 0"),
    "trust_clip-nan": ({"trust_clip": float("nan")}, "finite number > 0"),
    "agc_clip-below": ({"agc_clip": -1.0}, "finite number >= 0"),
    "agc_clip-none": ({"agc_clip": None}, "finite number >= 0"),
    "clip_update-0": ({"clip_update": 0.0}, "None, or a finite number > 0"),
    "clip_update-text": ({"clip_update": "1"}, "None, or a finite number > 0"),
    "param_floor-negative": ({"param_floor": -1.0}, "finite number >= 0"),
    "norm_decay-1": ({"norm_decay": 1.0}, "number in [0, 1)"),
    "norm_decay-negative": ({"norm_decay": -0.1}, "number in [0, 1)"),
    "norm_granularity-unknown": ({"norm_granularity": "column"}, "'tensor', 'row' or 'group'"),
    "norm_granularity-none": ({"norm_granularity": None}, "'tensor', 'row' or 'group'"),
    "c_min-negative": ({"c_min": -0.1}, "number in [0, 1]"),
    "c_min-above-1": ({"c_min": 1.1}, "number in [0, 1]"),
    "beta_slow-1": ({"beta_slow": 1.0}, "None, or a number in (0, 1)"),
    "beta_slow-0": ({"beta_slow": 0.0}, "None, or a number in (0, 1)"),
    "alpha-negative": ({"alpha": -1.0}, "finite number >= 0"),
    "alpha-nan": ({"alpha": float("nan")}, "finite number >= 0"),
    "slow_warmup-negative": ({"slow_warmup": -5}, "number of steps >= 0"),
    "slow_warmup-text": ({"slow_warmup": "long"}, "number of steps >= 0"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_bad_option_is_refused_by_the_constructor(case: str) -> None:
    option, expected = BAD_OPTIONS[case]
    (name,) = option
    with pytest.raises(ValueError) as caught:
        Cosmic(parameters((3,)), **option)
    assert f"'{name}'" in str(caught.value) and expected in str(caught.value)


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_bad_option_is_refused_in_a_later_group(case: str) -> None:
    option, expected = BAD_OPTIONS[case]
    optimizer, _ = running()
    with refused(optimizer, ValueError, "param_groups[1]", expected):
        optimizer.add_param_group({"params": parameters((3,)), "param_names": ["a"], **option})
    assert len(optimizer.param_groups) == 1
    optimizer.step()


@pytest.mark.parametrize("budget", [None, "10%"])
@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_bad_option_is_refused_in_mid_run(case: str, budget: str | None) -> None:
    option, expected = BAD_OPTIONS[case]
    optimizer, _ = running(budget=budget)
    twin, _ = running(budget=budget)
    group = optimizer.param_groups[0]
    good = {name: group[name] for name in option}
    group.update(option)
    with refused(optimizer, ValueError, "param_groups[0]", *option, expected):
        optimizer.step()
    group.update(good)
    optimizer.step()
    twin.step()
    assert digest(optimizer) == digest(twin), "the run goes on as if nothing had happened"


def test_a_rung_and_a_tier_are_refused_together() -> None:
    with pytest.raises(ValueError, match=r"param_groups\[0\] has tier 2 and rung 'tier1:v4'"):
        Cosmic(parameters((3,)), tier=2, rung="tier1:v4")
    optimizer, _ = running(tier=2)
    optimizer.param_groups[0]["rung"] = "tier0"
    with refused(optimizer, ValueError, "tier 2 and rung 'tier0'", "None for one of them"):
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_a_second_moment_alone_is_not_of_float64(dtype: torch.dtype) -> None:
    params = parameters((3,), dtype=dtype)
    optimizer = Cosmic([("body", params[0])], rung="tier1:v4")
    give_gradients(params, 0)
    with refused(optimizer, ValueError, "'body'", str(dtype), "'tier1:v4'", "float32 arithmetic"):
        optimizer.step()


def test_moments_in_float64_are_of_parameters_in_float64() -> None:
    params = parameters((3,))
    optimizer = Cosmic([("body", params[0])], rung="tier2:fp64+fp64")
    give_gradients(params, 0)
    with refused(optimizer, ValueError, "'body'", "torch.float32", "in float64"):
        optimizer.step()


def test_an_option_that_went_missing_is_named() -> None:
    optimizer, _ = running()
    for name in ("eps", "tier", "rung"):
        kept = optimizer.param_groups[0].pop(name)
        with refused(optimizer, ValueError, "param_groups[0]", f"'{name}'"):
            optimizer.step()
        optimizer.param_groups[0][name] = kept


@pytest.mark.parametrize(
    ("options", "error", "fragments"),
    [
        ({"budget": "lots"}, ValueError, ("'lots'", "'64MB'", "'10%'")),
        ({"budget": "10 parsecs"}, ValueError, ("'10 parsecs'", "KiB")),
        ({"budget": "-5MB"}, ValueError, ("'-5MB'", "'64MB'")),
        ({"budget": "MB"}, ValueError, ("'MB'", "'64MB'")),
        ({"budget": ""}, ValueError, ("''", "'64MB'")),
        ({"budget": -1}, ValueError, ("-1 bytes", "0 or more")),
        ({"budget": 1.5}, TypeError, ("1.5", "an int of bytes")),
        ({"budget": True}, TypeError, ("True", "an int of bytes")),
        ({"nonfinite": "ignore"}, ValueError, ("'ignore'", "'propagate', 'raise' or 'skip'")),
        ({"seed": -1}, ValueError, ("-1", "2**64 - 1")),
        ({"seed": 2**64}, ValueError, ("2**64 - 1",)),
        ({"seed": 1.5}, ValueError, ("1.5", "an int")),
        ({"reallocate_every": 0}, ValueError, ("0", ">= 1")),
        ({"reallocate_every": 2.5}, ValueError, ("2.5", "an int")),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_bad_option_of_the_whole_optimizer(
    options: dict[str, Any], error: type[Exception], fragments: tuple[str, ...]
) -> None:
    with pytest.raises(error) as caught:
        Cosmic(parameters((3,)), **options)
    for fragment in (*options, *fragments):
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    "option", [{"budget": "10%"}, {"nonfinite": "skip"}, {"seed": 1}, {"reallocate_every": 9}]
)
def test_an_option_of_the_whole_optimizer_is_refused_in_a_group(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(ValueError, match=rf"param_groups\[0\] has '{name}'.*whole optimizer"):
        Cosmic([{"params": parameters((3,)), **option}])


@pytest.mark.parametrize(
    "option",
    [{"budget": "lots"}, {"seed": "x"}, {"nonfinite": "ignore"}, {"reallocate_every": 0}],
)
def test_an_option_of_the_whole_optimizer_goes_bad_in_mid_run(option: dict[str, Any]) -> None:
    optimizer, _ = running()
    ((name, value),) = option.items()
    setattr(optimizer, name, value)
    with refused(optimizer, ValueError, name, repr(value)):
        optimizer.step()


# ---- parameters --------------------------------------------------------------------------------

BAD_PARAMS: dict[str, tuple[Callable[[], Tensor], str]] = {
    "int64": (lambda: torch.zeros(3, dtype=torch.int64), "torch.int64"),
    "bool": (lambda: torch.zeros(3, dtype=torch.bool), "torch.bool"),
    "sparse": (lambda: torch.zeros(3, 3).to_sparse(), "torch.sparse_coo"),
    "meta": (lambda: torch.zeros(3, device="meta"), "meta"),
}


@pytest.mark.parametrize("case", BAD_PARAMS)
def test_a_parameter_that_cannot_be_stepped_is_named(case: str) -> None:
    make, fragment = BAD_PARAMS[case]
    good = parameters((3,), (4,))
    for groups, place in [
        ([make()], "parameter 0 (param_groups[0]['params'][0])"),
        ([{"params": good}, {"params": [make()]}], "parameter 2 (param_groups[1]['params'][0])"),
        ([("body", good[0]), ("head.bias", make())], "parameter 'head.bias'"),
    ]:
        with pytest.raises(TypeError) as caught:
            Cosmic(groups)  # type: ignore[arg-type]
        assert place in str(caught.value) and fragment in str(caught.value)


@pytest.mark.parametrize("case", BAD_PARAMS)
def test_a_parameter_that_cannot_be_stepped_is_not_added(case: str) -> None:
    make, fragment = BAD_PARAMS[case]
    optimizer, _ = running()
    group = {"params": [("extra", make())]}
    with refused(optimizer, TypeError, "'extra'", fragment):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1
    optimizer.step()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (slice(0, 60), slice(0, 60)), (slice(0, 60), slice(59, 100)), (slice(0, 50), slice(9, 20)),
        (slice(0, 100, 2), slice(0, 100, 3)), (slice(0, 100, 5), slice(50, 60)),
    ],
    ids=["same", "one-element", "inside", "interleaved", "gapped-and-dense"],
)  # fmt: skip
@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
def test_parameters_that_share_memory(first: slice, second: slice, nonfinite: str) -> None:
    base = normal(0, 100)
    a, b = nn.Parameter(base[first]), nn.Parameter(base[second])
    named = [("in.weight", parameter(1, 30)), ("a", a), ("b", b)]
    optimizer = Cosmic(named, nonfinite=nonfinite)
    give_gradients((p for _, p in named), 0)
    with refused(optimizer, ValueError, "'a'", "'b'", "share memory", "tied weight"):
        optimizer.step()
    b.grad = None  # alone, the other steps
    optimizer.step()


def test_a_parameter_that_overlaps_itself() -> None:
    p = nn.Parameter(torch.zeros(1, 4).expand(3, 4))
    optimizer = Cosmic([("wide", p)])
    p.grad = torch.ones(3, 4)
    with refused(optimizer, ValueError, "'wide'", "overlaps itself"):
        optimizer.step()


class Wrapper(Tensor):
    """A subclass without memory of its own, as DTensor is."""

    @staticmethod
    def __new__(cls) -> Wrapper:
        return Tensor._make_wrapper_subclass(cls, (600,))

    @classmethod
    def __torch_dispatch__(cls, *_: Any, **__: Any) -> Any:  # nn.Parameter detaches
        return cls()


def without_memory() -> Tensor:
    plain = torch.ones(600)
    plain.untyped_storage().resize_(0)
    return plain


MEMORYLESS: dict[str, Callable[[], Tensor]] = {
    "wrapper": Wrapper,
    "freed": without_memory,
}


@pytest.mark.parametrize("where", ["parameter", "gradient"])
@pytest.mark.parametrize("case", MEMORYLESS)
def test_a_tensor_without_memory_of_its_own(case: str, where: str) -> None:
    p = nn.Parameter(MEMORYLESS[case]() if where == "parameter" else torch.ones(600))
    optimizer = Cosmic([("wrapped", p)])
    p.grad = MEMORYLESS[case]() if where == "gradient" or case == "wrapper" else torch.ones(600)
    with pytest.raises(TypeError, match=r"'wrapped'.*no memory of its own"):
        optimizer.step()


def test_memory_that_is_freed_in_mid_run() -> None:
    optimizer, params = running()
    before = params[0].detach().clone()
    params[1].untyped_storage().resize_(0)
    with pytest.raises(TypeError, match=r"'head'.*no memory of its own"):
        optimizer.step()
    assert torch.equal(params[0], before)
    assert [int(optimizer.state[p]["step"]) for p in params] == [3, 3]


def test_a_parameter_of_too_many_dimensions() -> None:
    p = nn.Parameter(torch.zeros((1,) * 16))
    optimizer = Cosmic([("deep", p)])
    p.grad = torch.ones_like(p)
    with refused(optimizer, TypeError, "'deep'", "16 dimensions", "at most 15"):
        optimizer.step()


@pytest.mark.parametrize("gate", [None, "snr"])
@pytest.mark.parametrize("tier", [0, 1, 2])
def test_a_conjugated_parameter(tier: int, gate: str | None) -> None:
    p = nn.Parameter(normal(0, 5, dtype=torch.complex64).conj())
    with pytest.raises(TypeError, match=r"'z' is a lazily conjugated.*resolve_conj"):
        Cosmic([("z", p)], tier=tier, gate=gate)


# ---- what breaks in mid-run --------------------------------------------------------------------


def break_shape(p: nn.Parameter) -> None:
    p.data = normal(1, 7, 3)
    p.grad = normal(2, 7, 3)


def break_rank(p: nn.Parameter) -> None:
    p.data = p.data.view(3, 43)
    p.grad = normal(2, 3, 43)


def break_dtype(p: nn.Parameter) -> None:
    p.data = p.data.double()
    p.grad = None
    set_gradient(p, normal(2, 129, dtype=torch.float64))


def break_gradient_shape(p: nn.Parameter) -> None:
    assert p.grad is not None
    p.grad.data = normal(2, 128)


def break_gradient_rank(p: nn.Parameter) -> None:
    assert p.grad is not None
    p.grad.data = normal(2, 1, 129)


def break_gradient_dtype(p: nn.Parameter) -> None:
    set_gradient(p, normal(2, 129, dtype=torch.float64))


def break_gradient_to_integers(p: nn.Parameter) -> None:
    set_gradient(p, torch.ones(129, dtype=torch.int32))


def break_gradient_to_sparse(p: nn.Parameter) -> None:
    p.grad = normal(2, 129).to_sparse()


def break_into_the_other(p: nn.Parameter, other: nn.Parameter) -> None:
    p.data = other.data.view(-1)[:129]


BREAKS: dict[str, tuple[Callable[[nn.Parameter], None], type[Exception], tuple[str, ...]]] = {
    "shape": (break_shape, ValueError, ("(129,)", "(7, 3)", "optimizer.reset(param)")),
    "rank": (break_rank, ValueError, ("(129,)", "(3, 43)", "optimizer.reset(param)")),
    "dtype": (break_dtype, ValueError, ("float32", "float64", "optimizer.reset(param)")),
    "gradient-shape": (break_gradient_shape, ValueError, ("gradient", "(128)", "(129)")),
    "gradient-rank": (break_gradient_rank, ValueError, ("gradient", "(1, 129)", "(129)")),
    "gradient-float64": (
        break_gradient_dtype, TypeError, ("gradient", "float64", "float32", "cast one of them")
    ),
    "gradient-integer": (break_gradient_to_integers, TypeError, ("gradient", "torch.int32")),
    "gradient-sparse": (
        break_gradient_to_sparse, TypeError,
        ("gradient", "sparse_coo", "make sparse gradients dense"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("nonfinite", ["propagate", "raise", "skip"])
@pytest.mark.parametrize("budget", [None, "1000%"], ids=["no-budget", "budget"])
@pytest.mark.parametrize("case", BREAKS)
def test_a_tensor_that_broke_is_named_and_nothing_steps(
    case: str, budget: str | None, nonfinite: str
) -> None:
    """The broken one is the second: the first must not have been stepped either."""
    breaks, error, fragments = BREAKS[case]
    optimizer, (_, head) = running(budget=budget, nonfinite=nonfinite, min_tier=2)
    breaks(head)
    with refused(optimizer, error, "'head'", *fragments):
        optimizer.step()
    with refused(optimizer, error, "'head'", *fragments):
        optimizer.step()


@pytest.mark.parametrize("state_dtype", ["fp32", "u4+factored", "q8+rowmean"])
@pytest.mark.parametrize("case", ["shape", "sparse"])
def test_a_first_gradient_that_cannot_be_read_is_named(case: str, state_dtype: str) -> None:
    """State may be chosen by the first gradient, which is looked at then."""
    p = parameter(0, 24, 40)
    optimizer = Cosmic([("matrix", p)], state_dtype=state_dtype, min_compress_size=0)
    p.grad = normal(1, 24, 40)
    if case == "shape":
        p.grad.data = normal(1, 40, 24)
    else:
        p.grad = p.grad.to_sparse()
    error, fragment = {"shape": (ValueError, "(40, 24)"), "sparse": (TypeError, "sparse_coo")}[case]
    with refused(optimizer, error, "'matrix'", "gradient", fragment):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.parametrize("case", BREAKS)
def test_a_run_goes_on_after_a_break_was_mended(case: str) -> None:
    breaks, error, _ = BREAKS[case]
    optimizer, (body, head) = running()
    twin, _ = running()
    data = head.data
    breaks(head)
    with pytest.raises(error):
        optimizer.step()
    head.grad = None
    head.data = data
    head.grad_dtype = torch.float32
    give_gradients([body, head], 9)
    optimizer.step()
    twin.step()
    assert digest(optimizer) == digest(twin)


def test_a_parameter_that_moved_into_another() -> None:
    optimizer, (body, head) = running()
    head.data = body.data.view(-1)[:129]
    with refused(optimizer, ValueError, "'body'", "'head'", "share memory"):
        optimizer.step()


@pytest.mark.parametrize("case", ["shape", "rank", "dtype"])
def test_the_advice_to_delete_the_state_helps(case: str) -> None:
    optimizer, (_, head) = running()
    BREAKS[case][0](head)
    del optimizer.state[head]
    before = head.detach().clone()
    optimizer.step()
    assert not torch.equal(head, before)
    assert int(optimizer.state[head]["step"]) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_float64_goes_with_float64_only(dtype: torch.dtype) -> None:
    p = parameter(0, 5, dtype=torch.float64)
    set_gradient(p, normal(1, 5, dtype=dtype))
    optimizer = Cosmic([("wide", p)])
    name = str(dtype).removeprefix("torch.")
    with refused(optimizer, TypeError, "'wide'", name, "float64 goes with float64 only"):
        optimizer.step()


# ---- the environment ---------------------------------------------------------------------------

STEP_UNDER_ISA = """
import torch
from cosmic import Cosmic
for nonfinite in ("propagate", "raise", "skip"):
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = Cosmic([p], nonfinite=nonfinite)
    try:
        optimizer.step()
    except RuntimeError as error:
        print(error)
    assert torch.equal(p, torch.ones(3)) and not optimizer.state
"""


def test_an_unknown_isa_is_refused() -> None:
    unknown = ("sse9", "AVX2")
    programs = [Program(STEP_UNDER_ISA, {"COSMIC_ISA": isa}) for isa in unknown]
    for isa, output in zip(unknown, outputs_of(programs), strict=True):
        messages = output.strip().splitlines()
        assert len(messages) == 3
        for message in messages:
            assert "COSMIC_ISA" in message and f"'{isa}'" in message
            assert all(name in message for name in _core.build_info()["isa_available"])
