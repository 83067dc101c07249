"""Parameter groups: added later, changed, named; parameters that freeze, thaw or are tied."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from cosmic import Cosmic
from helpers import UNUSUAL, digest, give_gradients, normal, parameter, refused, same_bits
from optimizers import ROWS, SHAPES, Row, each, gradients, params_of, started, stepped

Groups = list[dict[str, Any]]


def groups() -> Groups:
    """Of fresh parameters; the second and third have options of their own."""
    params = [parameter(k, *shape) for k, shape in enumerate((*SHAPES, (70, 61), (9,)))]
    return [
        {"params": params[:4]},
        {"params": params[4:5], "lr": 0.01, "weight_decay": 0.0},
        {"params": params[5:], "betas": (0.5, 0.75), "maximize": True},
    ]


@each
def test_a_group_added_later_is_one_that_had_no_gradients(row: Row) -> None:
    """With its own options, and the optimizer's where it names none."""
    first, *later = groups()
    ours, twin = row.make([first]), row.make(groups())
    for step in range(6):
        if step in (2, 4):
            ours.add_param_group(later.pop(0))
        present = len(ours.param_groups)
        give_gradients(params_of(ours), step)
        twin.zero_grad()
        several = (p for group in twin.param_groups[:present] for p in group["params"])
        give_gradients(several, step)
        ours.step()
        twin.step()
    assert digest(ours) == digest(twin)
    options = [[g[key] for key in ("lr", "weight_decay", "betas")] for g in ours.param_groups]
    assert options == [
        [3e-3, 0.1, (0.8, 0.95)], [0.01, 0.0, (0.8, 0.95)], [3e-3, 0.1, (0.5, 0.75)]
    ]  # fmt: skip


@each
def test_options_of_a_group_are_used_for_it_alone(row: Row) -> None:
    """A rate of zero in one group holds its parameters still, and no others."""
    several = groups()
    several[1]["lr"] = 0.0
    ours = row.make(several)
    held = [p.detach().clone() for p in params_of(ours)]
    stepped(ours, 0, 2)
    still = [same_bits(p, old) for p, old in zip(params_of(ours), held, strict=True)]
    assert still == [False] * 4 + [True, False]


@pytest.mark.parametrize("row", [row for row in ROWS if row.adamw], ids=lambda row: row.name)
def test_groups_are_stepped_as_adamws(row: Row) -> None:
    ours, adamw = row.make(groups()), AdamW(groups(), **UNUSUAL)
    theirs = [p for group in adamw.param_groups for p in group["params"]]
    for step in range(6):
        give_gradients(params_of(ours), step)
        give_gradients(theirs, step)
        ours.step()
        adamw.step()
    for p, q in zip(params_of(ours), theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


# ---- frozen, thawed and tied parameters --------------------------------------------------------


class Embedding(nn.Module):
    """A norm and an embedding within."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(70, 61)
        self.norm = nn.LayerNorm(61)
        with torch.no_grad():
            self.tokens.weight.copy_(normal(0, 70, 61))


class Tied(nn.Module):
    """An embedding whose weight is also the head's, within modules within modules."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Embedding()
        self.head = nn.Linear(61, 70, bias=False)
        self.head.weight = self.body.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.body.norm(self.body.tokens(tokens)))
        return out


def backward(model: nn.Module, step: int) -> None:
    tokens = torch.arange(24).view(3, 8) * (step + 1) % 70
    loss: Any = nn.functional.cross_entropy(model(tokens).transpose(1, 2), (tokens + 1) % 70)
    loss.backward()


@each
def test_a_tied_weight_is_stepped_once(row: Row) -> None:
    """On the sum of its gradients; the twin is a list of plain parameters."""
    model = Tied()
    ours = row.make(model.parameters())
    twin = row.make([p.detach().clone().requires_grad_() for p in model.parameters()])
    assert [tuple(p.shape) for p in params_of(ours)] == [(70, 61), (61,), (61,)]
    for step in range(4):
        ours.zero_grad()
        backward(model, step)
        for p, q in zip(params_of(ours), params_of(twin), strict=True):
            q.grad = None if p.grad is None else p.grad.clone()
        ours.step()
        twin.step()
    assert digest(ours) == digest(twin)
    assert model.head.weight is model.body.tokens.weight


@each
def test_a_parameter_that_is_given_twice_is_refused(row: Row) -> None:
    """In two groups as torch does, at once; within one torch warns, and stepping is refused."""
    optimizer = started(row)
    again = params_of(optimizer)[0]
    with refused(optimizer, ValueError, "more than one parameter group"):
        optimizer.add_param_group({"params": [again]})
    assert len(optimizer.param_groups) == 1
    with pytest.warns(UserWarning, match="duplicate parameters"):
        twice = row.make([again, again])
    again.grad = normal(1, *again.shape)
    with refused(twice, ValueError, "share memory", "tied weight"):
        twice.step()


@each
def test_a_frozen_parameter_thaws(row: Row) -> None:
    """It has no gradient and no state until then, and freezes again as it is."""
    ours, twin = started(row), started(row)
    frozen = params_of(ours)[0]
    for step in range(6):
        frozen.requires_grad_(step in (2, 3))
        ours.zero_grad()
        loss: Any = torch.zeros(())
        for p, g in zip(params_of(ours), gradients(step), strict=True):
            loss = loss + (p * g).sum()
        loss.backward()
        for k, (q, g) in enumerate(zip(params_of(twin), gradients(step), strict=True)):
            q.grad = g if k or step in (2, 3) else None
        before = frozen.detach().clone()
        ours.step()
        twin.step()
        assert same_bits(frozen, before) != (step in (2, 3))
        assert (frozen in ours.state) == (step >= 2)
    assert digest(ours) == digest(twin)


# ---- names -------------------------------------------------------------------------------------


def named() -> list[tuple[str, nn.Parameter]]:
    return [(f"layer.{k}", parameter(k, *shape)) for k, shape in enumerate(SHAPES)]


NAMED: dict[str, Callable[[], Any]] = {
    "flat": named,
    "generator": lambda: iter(named()),
    "groups": lambda: [{"params": named()[:1]}, {"params": named()[1:], "lr": 3e-3}],
}


@pytest.mark.parametrize("way", NAMED)
@each
def test_names_change_no_bit_and_travel_in_the_state_dict(row: Row, way: str) -> None:
    ours = row.make(NAMED[way]())
    twin = row.make([{"params": [p for _, p in g]} for g in split(ours)])
    stepped(ours, 0, 3)
    stepped(twin, 0, 3)
    assert digest(ours) == digest(twin)
    names = [f"layer.{k}" for k in range(len(SHAPES))]
    assert [info.name for info in ours.tiers()] == names
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert [n for group in saved["param_groups"] for n in group["param_names"]] == names


def split(optimizer: Cosmic) -> list[list[tuple[str, nn.Parameter]]]:
    """Fresh parameters, in groups as the optimizer has them."""
    fresh = iter(named())
    return [[next(fresh) for _ in group["params"]] for group in optimizer.param_groups]


@each
def test_groups_are_the_dicts_that_the_user_gave(row: Row) -> None:
    """So that who has kept them may change them there."""
    several = groups()
    optimizer = row.make(several[:2])
    optimizer.add_param_group(several[2])
    pairs = zip(optimizer.param_groups, several, strict=True)
    assert all(held is given for held, given in pairs)


@each
def test_options_and_groups_are_shown(row: Row) -> None:
    shown = repr(row.make(groups()))
    assert shown.startswith(type(started(row)).__name__ + " (\nParameter Group 0\n")
    for text in ("Parameter Group 2", "    lr: 0.01\n", "    weight_decay: 0.1\n", "betas: (0.5"):
        assert text in shown


# ---- what torch refuses ------------------------------------------------------------------------

BAD_GROUPS: dict[str, Callable[[], Any]] = {
    "no-dict": lambda: [parameter(0, 3)],
    "no-params": lambda: {"lr": 0.1},
    "set": lambda: {"params": {parameter(0, 3)}},
    "number": lambda: {"params": [1.0]},
    "non-leaf": lambda: {"params": [parameter(0, 3) * 2]},
    "without-names": lambda: {"params": [parameter(0, 3)]},
}


def error_of(optimizer: Optimizer, group: Any) -> tuple[type[Exception], str]:
    with pytest.raises(Exception) as caught:
        optimizer.add_param_group(group)
    return caught.type, str(caught.value)


@pytest.mark.parametrize("case", BAD_GROUPS)
@each
def test_a_group_that_torch_refuses_is_refused_by_the_same_error(row: Row, case: str) -> None:
    ours, theirs = row.make(named()), AdamW(named())
    stepped(ours, 0, 1)
    before = digest(ours)
    assert error_of(ours, BAD_GROUPS[case]()) == error_of(theirs, BAD_GROUPS[case]())
    assert len(ours.param_groups) == 1
    assert digest(ours) == before
    twin = stepped(row.make(named()), 0, 2)
    assert digest(stepped(ours, 1, 2)) == digest(twin)
