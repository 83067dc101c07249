"""State that some ranks save and others load: all of them played by one process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from worlds import KINDS, World, differing, numbers_of, ranks_of, whole_checkpoint

WORLDS = (1, 2, 3, 8)


@functools.cache
def checkpoint_of(kind: str, ranks: int) -> dict[str, Any]:
    """Made once: nothing that loads one changes it."""
    return whole_checkpoint(KINDS[kind], ranks)


@pytest.fixture(autouse=True)
def one_thread(set_threads: Callable[[int], None]) -> None:
    """Tensors are small."""
    set_threads(1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_ranks_get_their_bits_back(kind: str) -> None:
    for ranks in WORLDS:
        saved = checkpoint_of(kind, ranks)
        for rank in numbers_of(ranks):
            with ranks_of(ranks, rank) as mesh:
                before = World(KINDS[kind], mesh).train(0, 3)
                loaded = World(KINDS[kind], mesh)
                loaded.optimizer.load_state_dict(saved)
                for index, states in enumerate(zip(before.states(), loaded.states(), strict=True)):
                    here = before.params[index].to_local().numel()  # type: ignore[attr-defined]
                    assert here == 0 or differing(*states) == [], f"{ranks} {rank} {index}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_form_does_not_depend_on_the_number_of_ranks(kind: str) -> None:
    forms = []
    for ranks in WORLDS:
        saved = checkpoint_of(kind, ranks)
        forms.append(
            {
                (index, key): (value.dtype, value.shape) if isinstance(value, Tensor) else value
                for index, state in saved["state"].items()
                for key, value in state.items()
            }
        )
    assert forms[0] and all(form == forms[0] for form in forms)


def loaded_anew(kind: str, saved: dict[str, Any], ranks: int, **about: Any) -> dict[str, Any]:
    """A checkpoint of so many ranks that have loaded one and taken no step."""
    return whole_checkpoint(KINDS[kind], ranks, steps=0, start=saved, **about)


@pytest.mark.parametrize("kind", ["u4+v4", "q8", "bf16", "fp32", "slow", "default", "tier0"])
def test_what_lies_in_rows_is_cut_to_the_byte(kind: str) -> None:
    shapes = ((256, 128), (5, 256))
    for before in WORLDS:
        saved = whole_checkpoint(KINDS[kind], before, shapes=shapes)
        for after in WORLDS:
            again = loaded_anew(kind, saved, after, shapes=shapes)
            for index, state in saved["state"].items():
                found = differing(state, again["state"][index])
                tables = {"gate_snr", "gate_agc", "gate_norms", "exp_avg_sq_col"}
                assert set(found) <= tables, f"{before} to {after}, {index}"


@pytest.mark.parametrize("kind", ["bf16", "fp32", "tier1:factored", "tier0"])
def test_one_number_an_element_needs_no_blocks(kind: str) -> None:
    for before, after in ((2, 3), (8, 1), (1, 8), (3, 2)):
        saved = checkpoint_of(kind, before)
        again = loaded_anew(kind, saved, after)
        for index, state in saved["state"].items():
            plain = {k: v for k, v in state.items() if k in ("exp_avg", "exp_avg_sq", "step")}
            found = {key: again["state"][index][key] for key in plain}
            assert differing(plain, found) == [], f"{before} to {after}, {index}"


def moments_of(kind: str, saved: dict[str, Any], ranks: int, **about: Any) -> list[Any]:
    """First and second moments of every parameter, decoded by ranks that have loaded them."""
    with ranks_of(0, 0) as mesh:
        whole = World(KINDS[kind], mesh, **about)
    out = [[torch.zeros(p.shape), torch.zeros(p.shape)] for p in whole.params]
    for rank in numbers_of(ranks):
        with ranks_of(ranks, rank) as mesh:
            world = World(KINDS[kind], mesh, **about)
            world.optimizer.load_state_dict(saved)
            for param, into in zip(world.params, out, strict=True):
                found = world.optimizer.moments(param)
                rows = -(-param.shape[0] // ranks)
                at = slice(min(rank * rows, param.shape[0]), (rank + 1) * rows)
                for moment, whole_moment in zip(
                    (found.exp_avg, found.exp_avg_sq), into, strict=True
                ):
                    if moment is not None:
                        local = moment.to_local() if hasattr(moment, "to_local") else moment
                        whole_moment[at] = local
    return out


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / one.norm().clamp(min=1e-30))


@pytest.mark.parametrize("kind", ["default", "u4+v4", "q8", "ustate", "agar", "muon"])
@pytest.mark.parametrize(("before", "after"), [(2, 3), (8, 1), (3, 8)])
def test_decoded_moments_are_close(kind: str, before: int, after: int) -> None:
    saved = checkpoint_of(kind, before)
    was, now = (moments_of(kind, saved, ranks) for ranks in (before, after))
    for index, pair in enumerate(zip(was, now, strict=True)):
        for name, limit, one, other in zip(("m", "v"), (0.6, 0.25), *pair, strict=True):
            assert distance(one, other) < limit, f"{name} of {index}"


@pytest.mark.parametrize("rows", [24, 512])
def test_means_of_columns_stay_the_same_moment(rows: int) -> None:
    """Shards whose gradients are of other sizes, and of other columns."""
    shape = (rows, 128)
    scale = torch.linspace(0.1, 4.0, rows)[:, None] * torch.linspace(1, 3, 128)
    about: dict[str, Any] = {"shapes": (shape,)}
    for before, after in ((2, 3), (3, 2), (2, 1), (3, 1), (3, 8)):
        saved = whole_checkpoint(KINDS["default"], before, scale=scale, **about)
        was = moments_of("default", saved, before, **about)[0][1]
        now = moments_of("default", saved, after, **about)[0][1]
        assert torch.allclose(was.mean(dim=1), now.mean(dim=1), rtol=1e-3)
        assert distance(was.mean(dim=0), now.mean(dim=0)) < 0.05
        assert distance(was, now) < 0.15


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [1, 3])
def test_one_process_without_shards_takes_it_and_gives_it(kind: str, ranks: int) -> None:
    saved = checkpoint_of(kind, ranks)
    with ranks_of(0, 0) as mesh:
        alone = World(KINDS[kind], mesh)
        alone.optimizer.load_state_dict(saved)
        given = alone.optimizer.state_dict()
    for state in given["state"].values():
        for key, value in state.items():
            if key.endswith(("_codes", "_scale", "_row", "_col")):
                assert value.dim() == 1
    again = loaded_anew(kind, given, ranks)
    for index, state in saved["state"].items():
        if ranks == 1:
            assert differing(state, again["state"][index]) == [], index
        assert again["state"][index].keys() == state.keys()
