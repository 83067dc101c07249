"""torch.distributed.checkpoint in one process: saved, a fresh optimizer shaped, loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import filesystem, state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from cosmic import Cosmic
from cosmic.presets import CASMO, TurboAdam
from helpers import digest, normal

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch.distributed")

KINDS: dict[str, tuple[type[Cosmic], dict[str, Any]]] = {
    "default": (Cosmic, {}),
    "fp32": (Cosmic, {"state_dtype": "fp32"}),
    "q8": (Cosmic, {"state_dtype": "q8", "gate": "snr"}),
    "agar": (Cosmic, {"state_dtype": "u4+v4", "gate": "agar"}),
    "slow": (Cosmic, {"beta_slow": 0.99}),
    "tier0": (Cosmic, {"tier": 0}),
    "budget": (Cosmic, {"budget": "20%", "reallocate_every": 2}),
    "signal": (Cosmic, {"budget": "20%", "policy": "signal", "reallocate_every": 2}),
    "parts": (Cosmic, {"parts": {"0": (0, {"gate": 80, "up": 48}), "[4]": (0, 2)}}),
    "turboadam": (TurboAdam, {}),
    "casmo-lagged": (CASMO, {"exact": False}),
}
FLAT = pytest.mark.parametrize("flat", [True, False], ids=["flattened", "nested"])


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.LayerNorm(128), nn.Linear(128, 10))


def made(kind: str, net: nn.Module) -> Cosmic:
    optimizer_type, options = KINDS[kind]
    return optimizer_type(net.parameters(), lr=1e-2, **options)


def train(net: nn.Module, optimizer: Cosmic, first: int, last: int) -> None:
    for step in range(first, last):
        optimizer.zero_grad()
        net(normal(step, 32, 64)).square().mean().backward()
        optimizer.step()


def everything(net: nn.Module, optimizer: Cosmic, flat: bool) -> dict[str, Any]:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    return {
        "model": net.state_dict(),
        "optim": get_optimizer_state_dict(net, optimizer, options=options),
        "about": optimizer.state_dict()["cosmic"],
    }


def load(net: nn.Module, optimizer: Cosmic, path: Path, flat: bool) -> None:
    """The recipe of docs/state.md."""
    metadata = filesystem.FileSystemReader(path).read_metadata().state_dict_metadata
    optimizer.shape_state(net, metadata, prefix="optim.")
    state = everything(net, optimizer, flat)
    state_dict_loader.load(state, checkpoint_id=path)
    net.load_state_dict(state["model"])
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    set_optimizer_state_dict(net, optimizer, state["optim"], options=options)
    optimizer.load_state_dict({**optimizer.state_dict(), "cosmic": state["about"]})


@FLAT
@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_optimizer_goes_on_with_the_same_bits(
    kind: str, flat: bool, tmp_path: Path
) -> None:
    net = model()
    optimizer = made(kind, net)
    train(net, optimizer, 0, 3)
    state_dict_saver.save(everything(net, optimizer, flat), checkpoint_id=tmp_path)
    train(net, optimizer, 3, 6)

    again = model()
    resumed = made(kind, again)
    load(again, resumed, tmp_path, flat)
    assert resumed._steps == 3
    train(again, resumed, 3, 6)
    if kind != "casmo-lagged":  # what a group has seen is no state of a parameter
        assert digest(resumed) == digest(optimizer)
    assert resumed.tiers() == optimizer.tiers()


@FLAT
def test_entries_of_others_come_along(flat: bool, tmp_path: Path) -> None:
    net = model()
    optimizer = Cosmic(net.parameters())
    train(net, optimizer, 0, 2)
    for p in net.parameters():
        optimizer.state[p].update(slow_params=p.detach() + 1, counter=3)
    state_dict_saver.save(everything(net, optimizer, flat), checkpoint_id=tmp_path)
    again = model()
    resumed = Cosmic(again.parameters())
    load(again, resumed, tmp_path, flat)
    for p in again.parameters():
        assert torch.equal(resumed.state[p]["slow_params"], p.detach() + 1)
        assert resumed.state[p]["counter"] == 3


@FLAT
def test_frozen_parameters_have_nothing_to_load(flat: bool, tmp_path: Path) -> None:
    def frozen() -> nn.Sequential:
        net = model()
        net[0].requires_grad_(False)
        return net

    net = frozen()
    optimizer = Cosmic(net.parameters())
    train(net, optimizer, 0, 2)
    state_dict_saver.save(everything(net, optimizer, flat), checkpoint_id=tmp_path)
    again = frozen()
    resumed = Cosmic(again.parameters())
    load(again, resumed, tmp_path, flat)
    assert digest(resumed) == digest(optimizer)


def test_without_the_shapes_a_load_says_what_is_missing(tmp_path: Path) -> None:
    net = model()
    optimizer = Cosmic(net.parameters(), state_dtype="u4+v4")
    train(net, optimizer, 0, 2)
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    saved = get_optimizer_state_dict(net, optimizer, options=options)
    again = model()
    fresh = Cosmic(again.parameters(), state_dtype="q8")
    with pytest.raises(ValueError, match=r"its state has .* \{\}|its state has no"):
        set_optimizer_state_dict(again, fresh, saved, options=options)


def test_a_checkpoint_of_something_else_is_named() -> None:
    net = model()
    optimizer = Cosmic(net.parameters())
    for metadata in ({}, {"optim.state.0.weight.exp_avg": torch.zeros(3)}, {"other": None}):
        with pytest.raises(ValueError, match=r"no state of Cosmic's .*'optim\.state\.'.*prefix"):
            optimizer.shape_state(net, metadata, prefix="optim.")
    assert not optimizer.state


def test_a_state_that_was_shaped_and_never_loaded_is_no_run_of_its_own() -> None:
    """It is that of a first step: nothing was learnt."""
    net, same = model(), model()
    optimizer = Cosmic(net.parameters(), state_dtype="fp32")
    train(net, optimizer, 0, 1)
    described = {
        f"state.{name}.{key}": value
        for name, p in net.named_parameters()
        for key, value in optimizer.state[p].items()
    }
    shaped = Cosmic(same.parameters(), state_dtype="fp32")
    shaped.shape_state(same, described)
    for p in same.parameters():
        tensors = [t for t in shaped.state[p].values() if isinstance(t, Tensor)]
        assert tensors and all(not t.any() for t in tensors)
    train(same, shaped, 0, 1)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), same.parameters(), strict=True))
