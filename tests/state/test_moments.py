"""The door to moments: read, written, started anew, whatever codecs keep them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import AdamW

from cosmic import Cosmic, Moments
from cosmic.rungs import Rung, combinations, without_momentum
from helpers import (
    UNUSUAL,
    digest,
    give_gradients,
    normal,
    parameter,
    parameters,
    refused,
    take_steps,
)

#: Rungs that keep moments, by name; `costate` knows its first moment only with the next gradient.
RUNGS = [f"tier2:{m}+{v}" for m, v in combinations() if m != "costate"]
RUNGS += [f"tier2:{m}+{v}+centered" for m, v in combinations("belief")]
RUNGS += [f"tier1:{v}" for v in without_momentum()]
#: Codecs that keep every number, to its rounding; those of one number a row or a column do not.
BY_ELEMENT = [r for r in RUNGS if not r.split("+centered")[0].endswith(("ored", "mean"))]
SHAPE = (24, 150)


def trained(rung: str, *, steps: int = 5, **options: Any) -> tuple[Cosmic, nn.Parameter]:
    w = parameter(0, *SHAPE)
    gate = "agar" if rung.endswith("+centered") else None
    optimizer = Cosmic(
        [("w", w)], **{**UNUSUAL, "rung": rung, "gate": gate, "min_compress_size": 0, **options}
    )
    take_steps(optimizer, 0, steps)
    return optimizer, w


def given_moments(optimizer: Cosmic, w: Tensor) -> Moments:
    """Some that each rung keeps as well as it can."""
    held = optimizer.moments(w)
    m = None if held.exp_avg is None else normal(1, *SHAPE) * 0.1
    v = None if held.exp_avg_sq is None else normal(2, *SHAPE).square() + 0.5
    return Moments(m, v, None, 7)


def test_without_state_there_are_none() -> None:
    w = parameter(0, *SHAPE)
    assert Cosmic([w]).moments(w) == Moments(None, None, None, 0)
    assert Cosmic([w]).state[w] == {}  # looking has made nothing that counts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_plain_moments_are_adamws(dtype: torch.dtype) -> None:
    w, same = parameter(0, 5, 7, dtype=dtype), parameter(0, 5, 7, dtype=dtype)
    optimizer, adamw = Cosmic([w], state_dtype="fp32"), AdamW([same])
    for step in range(3):
        give_gradients([w], step)
        same.grad = w.grad.clone() if w.grad is not None else None
        optimizer.step()
        adamw.step()
    found, expected = optimizer.moments(w), adamw.state[same]
    assert found.step == int(expected["step"]) == 3
    for mine, theirs in ((found.exp_avg, "exp_avg"), (found.exp_avg_sq, "exp_avg_sq")):
        assert mine is not None and mine.shape == w.shape
        exact = torch.complex128 if dtype.is_complex else torch.float64
        close = 2e-2 if dtype == torch.bfloat16 else 1e-6
        torch.testing.assert_close(
            mine.to(exact), expected[theirs].to(exact), rtol=close, atol=close
        )


@pytest.mark.parametrize("rung", RUNGS)
def test_they_are_copies(rung: str) -> None:
    optimizer, w = trained(rung)
    before = digest(optimizer)
    for moment in optimizer.moments(w)[:2]:
        if moment is not None:
            moment.zero_()
    assert digest(optimizer) == before


@pytest.mark.parametrize("rung", BY_ELEMENT)
def test_what_is_written_is_read(rung: str) -> None:
    optimizer, w = trained(rung)
    given = given_moments(optimizer, w)
    optimizer.set_moments(w, exp_avg=given.exp_avg, exp_avg_sq=given.exp_avg_sq, step=given.step)
    found = optimizer.moments(w)
    assert found.step == 7
    bits = {"fp32": 1e-6, "bf16": 1e-2, "q8": 4e-2, "u4": 0.3, "v4": 0.3, "ustate": 1.0}
    coarse = {"u1": 2.0, "u2": 1.0, "vlog2": 1.0, "vlog3": 0.6, "vlog4": 0.3}
    m, v = Rung.parse(rung).m, Rung.parse(rung).v
    known = {**coarse, **bits, "vlog6": 0.1, "vlog8": 4e-2, "none": 0}
    for mine, wanted, codec in ((found.exp_avg, given.exp_avg, m), (found.exp_avg_sq, given[1], v)):
        if wanted is None:
            assert mine is None
            continue
        assert mine is not None
        most = max(known[codec], known[v]) if codec == m else known[codec]
        if rung.endswith("centered"):
            most = max(most, 1e-2 if "bf16" in rung else 1e-5)
        error = (mine - wanted).norm() / wanted.norm()
        assert error <= most, (rung, codec, float(error))


@pytest.mark.parametrize("rung", RUNGS)
def test_writing_what_was_read_changes_little(rung: str) -> None:
    optimizer, w = trained(rung)
    before = optimizer.moments(w)
    optimizer.set_moments(w, **before._asdict())
    after = optimizer.moments(w)
    assert after.step == before.step == 5
    if before.exp_avg_sq is not None and after.exp_avg_sq is not None:
        assert (after.exp_avg_sq - before.exp_avg_sq).norm() <= 0.7 * before.exp_avg_sq.norm()
    if rung == "tier2:fp32+fp32":
        assert torch.equal(before.exp_avg, after.exp_avg)  # type: ignore[arg-type]
        assert torch.equal(before.exp_avg_sq, after.exp_avg_sq)  # type: ignore[arg-type]


def as_mask(rows: list[int]) -> Tensor:
    mask = torch.zeros(SHAPE[0], dtype=torch.bool)
    mask[rows] = True
    return mask


@pytest.mark.parametrize("rung", BY_ELEMENT)
def test_rows_are_written_and_others_keep_their_bits(rung: str) -> None:
    """But in blocks that rows share, which are encoded anew as a whole."""
    optimizer, w = trained(rung)
    before = optimizer.moments(w)
    given: dict[str, Any] = {
        name: value for name, value in (("exp_avg", 0.0), ("exp_avg_sq", 2.0))
        if getattr(before, name) is not None
    }  # fmt: skip
    optimizer.set_moments(w, **given, rows=[3, 17])
    after = optimizer.moments(w)
    first, last = 3 * 150, 4 * 150 - 1
    again, end = 17 * 150, 18 * 150 - 1
    untouched = torch.ones(SHAPE).view(-1)
    for a, b in ((first, last), (again, end)):
        untouched[a // 128 * 128 : (b // 128 + 1) * 128] = 0
    keeps = untouched.view(SHAPE).bool()
    for name, value in given.items():
        old, new = getattr(before, name), getattr(after, name)
        if "ustate" not in rung:
            coarse = 1.5 if "u1" in rung or "u2" in rung else 0.6
            assert (new[[3, 17]] - value).abs().max() <= coarse * max(value, old.abs().max()), name
        if "ustate" not in rung and not rung.endswith("centered"):
            assert torch.equal(old[keeps], new[keeps]), name


ROWS_FORMS = [
    5, -1, slice(2, 9, 3), [0, 23], (4,), torch.tensor([1, 2]), as_mask([6, 7]), slice(0, 0), [],
]  # fmt: skip


@pytest.mark.parametrize("rows", ROWS_FORMS, ids=str)
@pytest.mark.parametrize("rung", ["tier2:fp32+fp32", "tier2:u4+v4"])
def test_rows_are_what_indexing_takes(rung: str, rows: Any) -> None:
    optimizer, w = trained(rung)
    before = optimizer.moments(w)
    assert before.exp_avg is not None and before.exp_avg_sq is not None
    every = torch.arange(SHAPE[0])
    chosen = every[rows if not isinstance(rows, tuple) else list(rows)].reshape(-1)
    optimizer.set_moments(w, exp_avg=0.0, exp_avg_sq=0.0, rows=rows)
    after = optimizer.moments(w)
    assert after.exp_avg is not None and after.exp_avg_sq is not None
    assert int(after.exp_avg[chosen].count_nonzero()) == 0
    assert int(after.exp_avg_sq[chosen].count_nonzero()) == 0
    others = [k for k in range(SHAPE[0]) if k not in set(chosen.tolist())]
    if rung == "tier2:fp32+fp32":
        assert torch.equal(after.exp_avg[others], before.exp_avg[others])


@pytest.mark.parametrize("none", [set, dict, lambda: np.flatnonzero([0]), lambda: iter(()), list])
def test_no_rows_are_no_rows(none: Callable[[], Any]) -> None:
    """As where no neuron is dead."""
    optimizer, w = trained("tier2:fp32+fp32")
    before = digest(optimizer)
    optimizer.set_moments(w, exp_avg=0.0, exp_avg_sq=0.0, rows=none())
    optimizer.reset(w, rows=none())
    optimizer.reset(rows=none())
    assert digest(optimizer) == before


@pytest.mark.parametrize(
    "three", [lambda: iter([3]), lambda: map(int, "3"), lambda: np.int64(3), lambda: {3},
              lambda: np.array([3])],
)  # fmt: skip
def test_rows_may_be_anything_that_names_them_once(three: Callable[[], Any]) -> None:
    optimizer, w = trained("tier2:fp32+fp32")
    optimizer.set_moments(w, exp_avg=0.0, exp_avg_sq=0.0, rows=three())
    found = optimizer.moments(w).exp_avg
    assert found is not None
    assert [k for k in range(SHAPE[0]) if not found[k].any()] == [3]


def test_rows_that_one_parameter_lacks_reset_none() -> None:
    a, b = parameters((30, 5), (10, 5))
    optimizer = Cosmic([a, b], state_dtype="fp32")
    take_steps(optimizer, 0, 1)
    with refused(optimizer, ValueError, "parameter 1", "rows is [20]"):
        optimizer.reset(rows=[20])


def test_one_number_is_of_both_parts_of_a_complex_square() -> None:
    w = parameter(0, 5, 7, dtype=torch.complex64)
    optimizer = Cosmic([w])
    take_steps(optimizer, 0, 1)
    optimizer.set_moments(w, exp_avg_sq=2.0, rows=[1])
    found = optimizer.moments(w).exp_avg_sq
    assert found is not None and bool((found[1] == 2 + 2j).all())


def test_a_default_device_does_not_matter() -> None:
    optimizer, w = trained("tier2:u4+v4")
    with torch.device("meta"):
        optimizer.set_moments(w, exp_avg=0.0, exp_avg_sq=0.0, rows=[3])
        optimizer.reset(w, rows=slice(5, 6))
        exported = optimizer.to_adamw_state_dict()
    assert exported["state"][0]["step"].device.type == "cpu"
    found = optimizer.moments(w).exp_avg
    assert found is not None and not found[3].any() and not found[5].any()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data(), layout=st.sampled_from(["contiguous", "transposed", "channels_last"]))
def test_rows_are_rows_in_any_layout(data: st.DataObject, layout: str) -> None:
    value = normal(0, 12, 6, 5, 7)
    if layout == "transposed":
        value = value.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    if layout == "channels_last":
        value = value.contiguous(memory_format=torch.channels_last)
    w = nn.Parameter(value)
    optimizer = Cosmic([w], state_dtype="u4+v4", min_compress_size=0)
    take_steps(optimizer, 0, 2)
    row = data.draw(st.integers(0, 11))
    optimizer.set_moments(w, exp_avg=0.0, exp_avg_sq=0.0, rows=row)
    after = optimizer.moments(w)
    assert after.exp_avg is not None and after.exp_avg_sq is not None
    assert int(after.exp_avg[row].count_nonzero()) == 0
    assert int(after.exp_avg_sq[row].count_nonzero()) == 0
    assert all(int(after.exp_avg_sq[k].count_nonzero()) > 0 for k in range(12) if k != row)


@pytest.mark.parametrize("rung", RUNGS)
def test_reset_starts_a_parameter_anew_and_rows_at_zero(rung: str) -> None:
    optimizer, w = trained(rung)
    optimizer.state[w]["of others"] = 1
    optimizer.reset(w, rows=slice(4, 8))
    found = optimizer.moments(w)
    assert found.step == 5
    # Codecs without a level at zero cannot keep it, nor can a mean a column.
    first = None if any(m in rung for m in ("u1", "u2", "ustate")) else found.exp_avg
    second = None if "mean" in rung or "vlog" in rung else found.exp_avg_sq
    for moment in (first, second):
        if moment is not None:
            assert moment[4:8].abs().max() <= 1e-9
    optimizer.reset(w)
    assert optimizer.state[w] == {"of others": 1}
    assert optimizer.moments(w) == Moments(None, None, None, 0)


def test_reset_of_all_is_a_new_optimizer() -> None:
    params = parameters((24, 150), (7,))
    optimizer = Cosmic(params, lr=0.0)
    take_steps(optimizer, 0, 3)
    optimizer.reset()
    assert optimizer.state_bytes() == 0
    fresh = Cosmic(parameters((24, 150), (7,)), lr=0.0)
    take_steps(optimizer, 3, 5)
    take_steps(fresh, 3, 5)
    assert digest(optimizer) == digest(fresh)


@pytest.mark.parametrize("rung", ["tier0", "tier1", "tier1:muon"])
def test_rungs_without_moments_have_none_to_give(rung: str) -> None:
    optimizer, w = trained(rung)
    assert optimizer.moments(w)[:3] == (None, None, None)
    before = digest(optimizer)
    optimizer.reset(w, rows=[1])  # nothing is kept by row
    assert digest(optimizer) == before
    with refused(optimizer, ValueError, "'w'", rung, "exp_avg"):
        optimizer.set_moments(w, exp_avg=0.0)


def test_a_first_moment_that_began_in_mid_run_is_told_as_adamw_takes_it() -> None:
    optimizer, w = trained("tier1:fp32", steps=4)
    optimizer.param_groups[0]["rung"] = "tier2:fp32+fp32"
    take_steps(optimizer, 4, 6)
    assert optimizer.state[w]["exp_avg_start"] == 4
    found = optimizer.moments(w)
    assert found.exp_avg is not None and found.step == 6
    beta1 = UNUSUAL["betas"][0]
    corrected = optimizer.state[w]["exp_avg"] / (1 - beta1**2)
    torch.testing.assert_close(found.exp_avg / (1 - beta1**6), corrected)
    optimizer.set_moments(w, exp_avg=found.exp_avg)
    assert "exp_avg_start" not in optimizer.state[w]
    again = optimizer.moments(w).exp_avg
    assert again is not None
    torch.testing.assert_close(again, found.exp_avg)


def test_a_parameter_without_state_gets_that_of_its_rung() -> None:
    a, b = parameters((64, 65), (64, 65))
    optimizer = Cosmic([a, b], state_dtype="u4+v4")
    take_steps_of(optimizer, a)
    optimizer.set_moments(b, **optimizer.moments(a)._asdict())
    assert [t.rung for t in optimizer.tiers()] == ["tier2:u4+v4"] * 2
    assert optimizer.moments(b).step == 3
    give_gradients([a, b], 9)
    optimizer.step()
    assert optimizer.moments(b).step == 4


def take_steps_of(optimizer: Cosmic, *params: Tensor) -> None:
    for step in range(3):
        give_gradients(params, step)
        optimizer.step()


def test_a_parameter_can_grow_and_keep_its_moments() -> None:
    """As a vocabulary does."""
    old = parameter(0, 40, 64)
    optimizer = Cosmic([old], state_dtype="u4+v4", min_compress_size=0)
    take_steps(optimizer, 0, 3)
    kept = optimizer.moments(old)
    grown = nn.Parameter(torch.cat([old.detach(), torch.zeros(8, 64)]))
    optimizer.param_groups[0]["params"][0] = grown
    optimizer.set_moments(grown, exp_avg=0.0, exp_avg_sq=0.0, step=kept.step)
    optimizer.set_moments(grown, exp_avg=kept.exp_avg, exp_avg_sq=kept.exp_avg_sq, rows=slice(40))
    found = optimizer.moments(grown)
    assert found.exp_avg is not None and found.exp_avg_sq is not None and kept.exp_avg is not None
    assert (found.exp_avg[:40] - kept.exp_avg).norm() < 0.2 * kept.exp_avg.norm()
    assert int(found.exp_avg[40:].count_nonzero()) == 0
    take_steps(optimizer, 3, 4)
    assert old not in optimizer.state and optimizer.moments(grown).step == 4


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"exp_avg": torch.zeros(3)}, "exp_avg has shape (3,); expected (24, 150)"),
    ({"exp_avg": torch.zeros(2, 150), "rows": [1]}, "expected (1, 150)"),
    ({"exp_avg": float("nan")}, "exp_avg is not finite"),
    ({"exp_avg_sq": -1.0}, "exp_avg_sq is negative"),
    ({"exp_avg_slow": 0.0}, "keeps none"),
    ({"step": -1}, "step is -1; expected an int >= 0"),
    ({"step": 1.5}, "step is 1.5; expected an int >= 0"),
    ({"step": 2**62}, "below 2**62"),
    ({"exp_avg": 2.0**126}, "exp_avg has"),
    ({"exp_avg_sq": 1e30}, "exp_avg_sq has"),
    ({"exp_avg": torch.zeros(SHAPE, dtype=torch.complex64)}, "exp_avg is complex"),
    ({"exp_avg": 0.0, "rows": True}, "rows is True"),
    ({"exp_avg": 0.0, "rows": torch.tensor(True)}, "rows is tensor(True)"),
    ({"exp_avg": 0.0, "rows": 24}, "rows is 24"),
    ({"exp_avg": 0.0, "rows": [1.5]}, "rows is [1.5]"),
    ({"exp_avg": 0.0, "rows": torch.ones(3, dtype=torch.bool)}, "rows is tensor"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[m for _, m in WRONG])
@pytest.mark.parametrize("rung", ["tier2:fp32+fp32", "tier2:u4+factored"])
def test_what_cannot_be_written_changes_nothing(
    rung: str, wrong: dict[str, Any], message: str
) -> None:
    optimizer, w = trained(rung)
    with refused(optimizer, ValueError, "'w'", message):
        optimizer.set_moments(w, **wrong)


def test_a_stranger_is_refused() -> None:
    optimizer, _ = trained("tier2:fp32+fp32")
    other = parameter(3, 2)
    for call in (optimizer.moments, optimizer.reset, optimizer.set_moments):
        with refused(optimizer, ValueError, "(2,)", "not in this optimizer"):
            call(other)


def test_costate_says_why_it_cannot_tell() -> None:
    from cosmic.presets import TurboAdam

    w = parameter(0, 64, 65)
    optimizer = TurboAdam([("w", w)], m_codec="costate")
    take_steps(optimizer, 0, 1)
    with refused(optimizer, ValueError, "'w'", "costate"):
        optimizer.moments(w)


def test_a_restart_of_momentum_by_strangers_meets_a_key_error() -> None:
    """Codes of zero would be the most negative number: no entry of codes is called ``exp_avg``."""
    optimizer, w = trained("tier2:u4+v4")
    with pytest.raises(KeyError):
        optimizer.state[w]["exp_avg"].zero_()
    with pytest.raises(KeyError):
        optimizer.state[w]["exp_avg_sq"].zero_()
    before = w.detach().clone()
    optimizer.reset(w, rows=slice(None))
    w.grad = torch.zeros_like(w)
    optimizer.param_groups[0]["weight_decay"] = 0.0
    optimizer.step()
    assert torch.equal(w, before)


@pytest.mark.parametrize("rung", RUNGS)
def test_moments_that_were_written_are_stepped_with(rung: str) -> None:
    """A run goes on from them to the same bits as its copy does from a checkpoint."""
    optimizer, w = trained(rung)
    given = given_moments(optimizer, w)
    optimizer.set_moments(w, exp_avg=given.exp_avg, exp_avg_sq=given.exp_avg_sq, step=given.step)
    twin = copy.deepcopy(optimizer)
    take_steps(optimizer, 5, 7)
    take_steps(twin, 5, 7)
    assert digest(twin) == digest(optimizer)
    assert bool(torch.isfinite(w).all())
