"""Preset TurboAdam as an optimizer: arguments, bytes, checkpoints and copies."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import AdamW

from cosmic import Cosmic
from cosmic.presets import TurboAdam
from helpers import digest, give_gradients, normal, parameter, parameters, take_steps
from turboadam_options import CODECS, EVERY_SIZE, only_param, params_of
from turboadam_packages import release_0_1_0, release_0_2_0

SHAPES = ((40, 129), (511,), (7, 3), (1,), ())

# ---- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("release", [release_0_1_0, release_0_2_0])
def test_every_argument_of_the_package_is_taken_with_its_default(
    release: Callable[[], Any],
) -> None:
    ours = inspect.signature(TurboAdam).parameters
    theirs = inspect.signature(release().TurboAdam).parameters
    assert {name: p.default for name, p in theirs.items()} == {
        name: ours[name].default for name in theirs if name in ours
    }


def test_positional_arguments_are_in_the_packages_order() -> None:
    ours, theirs = (
        [name for name, p in inspect.signature(of).parameters.items() if p.kind != p.KEYWORD_ONLY]
        for of in (TurboAdam, release_0_2_0().TurboAdam)
    )
    assert ours == theirs


def test_groups_begin_with_what_the_packages_begin_with() -> None:
    ours, theirs = (
        of([parameter(0, 3)], lr=0.1, betas=(0.8, 0.9), rounding_seed=2**32 + 5).param_groups[0]
        for of in (TurboAdam, release_0_2_0().TurboAdam)
    )
    assert {k: ours[k] for k in theirs if k != "params"} == {
        k: v for k, v in theirs.items() if k != "params"
    }


def test_options_of_a_group_are_its_own() -> None:
    groups: list[dict[str, Any]] = [
        {"params": parameter(0, 5000)},
        {"params": parameter(1, 5000), "v_bits": 3},
        {"params": parameter(2, 5000), "compress_m": False},
        {"params": parameter(3, 5000), "compress_v": False},
        {"params": parameter(4, 5000), "m_codec": "costate", "betas": (0.95, 0.9)},
        {"params": parameter(5, 5000), "min_m_compress_elements": 5001},
        {"params": parameter(6, 5000), "min_v_compress_elements": 5001},
        {"params": parameter(7, 4095)},
        {"params": parameter(8, 4096), "v_bits": 8, "lr": 0.5},
    ]
    optimizer = TurboAdam(groups)
    optimizer.add_param_group({"params": parameter(9, 10), **EVERY_SIZE, "v_bits": 2})
    take_steps(optimizer, 0, 1)
    assert [info.rung.removeprefix("tier2:") for info in optimizer.tiers()] == [
        "ustate+vlog4", "ustate+vlog3", "fp32+vlog4", "ustate+fp32", "costate+vlog4", "fp32+vlog4",
        "ustate+fp32", "fp32+fp32", "ustate+vlog8", "ustate+vlog2",
    ]  # fmt: skip


def test_the_step_factor_of_a_group_is_used() -> None:
    a, b = parameter(0, 5000), parameter(1, 5000)
    groups: list[dict[str, Any]] = [{"params": a}, {"params": b, "m_step_factor": 2.5}]
    optimizer = TurboAdam(groups)
    take_steps(optimizer, 0, 1)
    for param, factor in ((a, 1.1), (b, 2.5)):
        assert optimizer.state[param]["exp_avg_ustate_steps"][0].item() == pytest.approx(factor)


REFUSED: list[tuple[dict[str, Any], type[Exception], tuple[str, ...]]] = [
    ({"lr": -1.0}, ValueError, ("'lr'", "-1.0")),
    ({"eps": float("nan")}, ValueError, ("'eps'", "nan")),
    ({"weight_decay": float("inf")}, ValueError, ("'weight_decay'", "inf")),
    ({"betas": (1.0, 0.9)}, ValueError, ("'betas'", "[0, 1)")),
    ({"betas": (0.9,)}, ValueError, ("'betas'", "two numbers")),
    ({"betas": (0.9, 0.8)}, ValueError, ("(0.9, 0.8)", "beta1**2 < beta2", "costate")),
    ({"betas": (0.5, 0.25)}, ValueError, ("(0.5, 0.25)", "beta1**2 < beta2")),
    ({"block_size": 64}, ValueError, ("block_size", "64", "128")),
    ({"m_block_size": 128}, ValueError, ("m_block_size", "128", "64")),
    ({"v_bits": 5}, ValueError, ("v_bits", "5", "(2, 3, 4, 6, 8)")),
    ({"v_bits": "4"}, ValueError, ("v_bits", "'4'")),
    ({"v_codec": "v8"}, ValueError, ("v_codec", "'v8'", "'v_log'", "'v4'")),
    ({"v_codec": "v4", "v_bits": 8}, ValueError, ("v_codec", "'v4'", "8", "'ustate'")),
    ({"v_codec": "v4", "m_codec": "costate"}, ValueError, ("'costate'", "m_codec 'ustate'")),
    ({"m_codec": "mstate"}, ValueError, ("m_codec", "'mstate'", "'ustate'", "'costate'")),
    ({"min_m_compress_elements": -1}, ValueError, ("min_m_compress_elements", "-1")),
    ({"min_v_compress_elements": 1.5}, ValueError, ("min_v_compress_elements", "1.5")),
    ({"min_v_compress_elements": True}, ValueError, ("min_v_compress_elements", "True")),
    ({"m_step_factor": 0.0}, ValueError, ("m_step_factor", "0.0")),
    ({"m_step_factor": float("inf")}, ValueError, ("m_step_factor", "inf")),
    ({"null_pct": -0.1}, ValueError, ("null_pct", "-0.1")),
    ({"amp_pct": 1.5}, ValueError, ("amp_pct", "1.5")),
    ({"capturable": True}, NotImplementedError, ("capturable", "CPU")),
    ({"error_feedback": True}, NotImplementedError, ("error_feedback", "compress_m=False")),
]


@pytest.mark.parametrize(("options", "error", "fragments"), REFUSED, ids=lambda x: str(x)[:40])
def test_a_bad_option_is_named(
    options: dict[str, Any], error: type[Exception], fragments: tuple[str, ...]
) -> None:
    """Of the optimizer, and of a group, which is not added then."""
    for group in (0, 1):
        with pytest.raises(error) as caught:
            if group == 0:
                TurboAdam([parameter(0, 3)], **options)
            else:
                optimizer = TurboAdam([parameter(0, 3)])
                optimizer.add_param_group({"params": parameter(1, 3), **options})
        message = str(caught.value)
        missing = [f for f in (f"param_groups[{group}]", *fragments) if f not in message]
        assert not missing, message
    assert len(optimizer.param_groups) == 1


def test_the_seed_is_an_int_of_the_whole_optimizer() -> None:
    with pytest.raises(TypeError, match=r"rounding_seed is 1\.5; expected an int"):
        TurboAdam([parameter(0, 3)], rounding_seed=1.5)  # type: ignore[arg-type]
    groups: list[dict[str, Any]] = [{"params": parameter(0, 3)}, {"params": parameter(1, 3)}]
    groups[1]["rounding_seed"] = 7
    with pytest.raises(ValueError, match=r"param_groups\[1\]: rounding_seed is 7; expected 5"):
        TurboAdam(groups, rounding_seed=5)


def test_betas_that_ustate_does_not_have_are_those_of_others() -> None:
    others: list[dict[str, Any]] = [{"m_codec": "costate"}, {"compress_m": False}]
    for options in others:
        optimizer = TurboAdam([parameter(0, 5000)], betas=(0.95, 0.9), **options)
        take_steps(optimizer, 0, 3)
        assert only_param(optimizer).isfinite().all()


# ---- bytes -------------------------------------------------------------------------------------


def bytes_of_the_package(numel: int, **options: Any) -> int:
    """Of all its tensors, and 8 for its counter and each dimension of a packed tensor: these are
    Python numbers in memory, but a checkpoint must hold them as ours does, in int64."""
    package = release_0_2_0()
    optimizer = package.TurboAdam([nn.Parameter(torch.zeros(numel))], **options)
    give_gradients([only_param(optimizer)], 0)
    optimizer.step()
    state = optimizer.state[only_param(optimizer)]
    assert type(state["step"]) is int
    packed = "ustate" in state or "v_state" in state
    return int(package.utils.state_tensor_bytes(state)) + 8 + 8 * packed


AROUND = [1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193, 4095, 4096, 4097, 8191, 8192, 8193]
sizes = st.one_of(st.sampled_from(AROUND), st.integers(1, 20_000))
least = st.sampled_from([{}, {"min_m_compress_elements": 0}, {"min_v_compress_elements": 0},
                         EVERY_SIZE])  # fmt: skip


@settings(max_examples=150, deadline=None)
@example(numel=1, v_bits=2, options=EVERY_SIZE)
@example(numel=65, v_bits=8, options=EVERY_SIZE)
@given(numel=sizes, v_bits=st.sampled_from([2, 3, 4, 6, 8]), options=least)
def test_state_takes_no_more_bytes_than_the_packages(
    numel: int, v_bits: int, options: dict[str, Any]
) -> None:
    optimizer = TurboAdam([nn.Parameter(torch.zeros(numel))], v_bits=v_bits, **options)
    take_steps(optimizer, 0, 1)
    held = optimizer.state[only_param(optimizer)].values()
    ours = sum(t.numel() * t.element_size() for t in held if isinstance(t, Tensor))
    assert optimizer.state_bytes() == ours
    assert ours <= bytes_of_the_package(numel, v_bits=v_bits, **options)


@pytest.mark.parametrize("numel", [641, 4095, 4096, 4097, 70_001])
def test_costate_takes_no_more_bytes_than_the_packages(numel: int) -> None:
    """Of the first moment alone, from six blocks on: the last one is padded. The package's number
    of elements counts as our dimension does."""
    old = release_0_1_0().TurboAdam(
        [nn.Parameter(torch.zeros(numel))], compress_v=False, min_m_compress_elements=0
    )
    ours = TurboAdam(
        [nn.Parameter(torch.zeros(numel))], compress_v=False, m_codec="costate", **EVERY_SIZE
    )
    give_gradients([only_param(old)], 0)
    old.step()
    take_steps(ours, 0, 1)
    manager = old.state[only_param(old)]["m_mgr"]
    kept = [manager._alpha, *(x for x in manager._encoded.values() if isinstance(x, Tensor))]
    assert type(manager._original_numel) is int
    theirs = sum(t.numel() * t.element_size() for t in kept) + 8
    assert ours.state_bytes() - 8 - 4 * numel <= theirs


@pytest.mark.parametrize(("v_bits", "bits"), [(2, 4.5), (3, 5.5), (4, 6.5), (6, 8.5), (8, 10.5)])
def test_bits_a_parameter(v_bits: int, bits: float) -> None:
    """2.25 of the first moment, v_bits and a quarter of the second; 16 bytes are numbers of the
    tensor, and as many its shape."""
    optimizer = TurboAdam([nn.Parameter(torch.zeros(1024, 1024))], v_bits=v_bits)
    take_steps(optimizer, 0, 1)
    assert optimizer.state_bytes() == bits * 2**20 / 8 + 16 + 16
    assert f"{8 * optimizer.state_bytes() / 2**20:.2f}" == f"{bits:.2f}"


# ---- checkpoints and copies --------------------------------------------------------------------


def of_shapes(**options: Any) -> TurboAdam:
    return TurboAdam(parameters(*SHAPES), lr=3e-3, weight_decay=0.1, **options)


def by_state_dict(optimizer: TurboAdam, options: dict[str, Any]) -> TurboAdam:
    """Through a file, into an optimizer whose seed is another."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    new = of_shapes(**options, rounding_seed=3)
    with torch.no_grad():
        for p, q in zip(params_of(new), params_of(optimizer), strict=True):
            p.copy_(q)
    new.load_state_dict(torch.load(file, weights_only=True))
    return new


def by_deepcopy(optimizer: TurboAdam, options: dict[str, Any]) -> TurboAdam:
    return copy.deepcopy(optimizer)


def by_pickle(optimizer: TurboAdam, options: dict[str, Any]) -> TurboAdam:
    loaded = pickle.loads(pickle.dumps(optimizer))
    assert isinstance(loaded, TurboAdam)
    return loaded


@pytest.mark.parametrize("way", [by_state_dict, by_deepcopy, by_pickle])
@pytest.mark.parametrize("codec", CODECS)
def test_a_copy_goes_on_with_the_same_bits(codec: str, way: Callable[..., TurboAdam]) -> None:
    whole = of_shapes(**CODECS[codec], rounding_seed=11)
    take_steps(whole, 0, 3)
    copied = way(whole, CODECS[codec])
    before = digest(copied)
    assert before == digest(whole)
    take_steps(whole, 3, 6)
    assert digest(copied) == before
    take_steps(copied, 3, 6)
    assert digest(copied) == digest(whole)


def test_the_bits_above_depend_on_the_seed() -> None:
    one, other = of_shapes(**EVERY_SIZE), of_shapes(**EVERY_SIZE, rounding_seed=3)
    take_steps(one, 0, 3)
    take_steps(other, 0, 3)
    assert digest(one) != digest(other)


@pytest.mark.parametrize("way", [by_deepcopy, by_pickle])
def test_a_copy_loads_what_lacks_the_presets_options(way: Callable[..., TurboAdam]) -> None:
    """Cosmic's own checkpoint: its codecs are the preset's from the next step on."""
    saved = Cosmic(parameters(*SHAPES), state_dtype="u4+v4", min_compress_size=0)
    take_steps(saved, 0, 2)
    optimizer = way(of_shapes(**EVERY_SIZE, v_bits=3), {})
    optimizer.load_state_dict(saved.state_dict())
    take_steps(optimizer, 2, 3)
    assert {info.rung for info in optimizer.tiers()} == {"tier2:ustate+vlog3"}
    assert [int(optimizer.state[p]["step"]) for p in params_of(optimizer)] == [3] * len(SHAPES)


@pytest.mark.parametrize("codec", CODECS)
def test_a_checkpoint_of_adamw_goes_on(codec: str) -> None:
    """After 30 steps. Moments stay within what codecs lose of them; gradients that mostly agree
    go on to move parameters as AdamW would."""
    theirs = AdamW(parameters(*SHAPES), lr=1e-3, betas=(0.9, 0.99))
    steps_with_a_mean(theirs, 0, 30)
    ours = TurboAdam([nn.Parameter(p.detach().clone()) for p in params_of(theirs)],
                     **CODECS[codec])  # fmt: skip
    ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["betas"] == (0.9, 0.99)
    start = [p.detach().clone() for p in params_of(theirs)]
    steps_with_a_mean(theirs, 30, 40)
    steps_with_a_mean(ours, 30, 40)
    assert [int(ours.state[p]["step"]) for p in params_of(ours)] == [40] * len(SHAPES)
    for p, q, before in zip(params_of(ours), params_of(theirs), start, strict=True):
        if p.numel() > 100:
            ours_moved, theirs_moved = ((x.detach() - before).flatten() for x in (p, q))
            cosine = nn.functional.cosine_similarity(ours_moved, theirs_moved, 0)
            assert cosine.item() > (0.999999 if codec == "neither" else 0.8)
            length = (ours_moved.norm() / theirs_moved.norm()).item()
            # two bits of v alone scatter the lengths of single updates
            assert length == pytest.approx(1, abs=0.6 if codec == "v-alone" else 0.35)


def steps_with_a_mean(optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        for k, p in enumerate(params_of(optimizer)):
            p.grad = normal(1000 * step + k, *p.shape) + normal(k, *p.shape).sign()
        optimizer.step()
