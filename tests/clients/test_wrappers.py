"""Wrappers around an optimizer, of pytorch_optimizer and of torch: each trains COSMIC as it trains
torch.optim.AdamW.

``SAM`` and ``WSAM`` hand ``foreach=True`` on to the constructor of what they wrap, which takes an
optimizer of torch's own; the other wrappers' rows have it where it stays with them.
"""

from __future__ import annotations

import importlib
import inspect
import random
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import pytest
import pytorch_optimizer as po
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from cosmic import Cosmic
from cosmic.presets import CASMO, TurboAdam
from cosmic.state.entries import foreign
from cosmic.step.options import WHOLE_OPTIONS
from helpers import digest, through_a_file

WORDS, WIDTH, CLASSES, BATCH = 512, 16, 8, 64
STEPS, MIDDLE = 30, 16

Batch = tuple[Tensor, Tensor]


class Model(nn.Module):
    """A table and two matrices that codecs compress (4,096 elements or more), and small tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(WORDS, WIDTH), nn.LayerNorm(128)
        self.hidden, self.head = nn.Linear(2 * WIDTH, 128), nn.Linear(128, CLASSES)

    def forward(self, words: Tensor) -> Any:
        return self.head(gelu(self.norm(self.hidden(self.table(words).flatten(1)))))


def fresh(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return Model()


def batch(step: int) -> Batch:
    """The class is what is left of the first word; some words are frequent."""
    lots = torch.rand(BATCH, 2, generator=torch.Generator().manual_seed(step))
    words = (lots**3 * WORDS).long()
    return words, words[:, 0] % CLASSES


def loss_of(model: nn.Module, data: Batch) -> Any:
    return cross_entropy(model(data[0]).float(), data[1])


# ---- what is wrapped ---------------------------------------------------------------------------


class Kind(NamedTuple):
    """An optimizer's class and options; some wrappers take these, others the optimizer."""

    make: type[Optimizer]
    own: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        # eps is large enough that rounding is not magnified where gradients are near zero
        return {"lr": 1e-2, "eps": 1e-4, "weight_decay": 0.1, **self.own}

    def __call__(self, params: Any) -> Any:
        make: Callable[..., Optimizer] = self.make
        return make(params, **self.options)


#: The middle is just after a look at the gradients, before the step that spends the budget anew.
_BUDGET = {"budget": "20%", "reallocate_every": 3}

KINDS = {
    "AdamW": Kind(AdamW, {}),
    "fp32": Kind(Cosmic, {"state_dtype": "fp32"}),
    "default": Kind(Cosmic, {}),
    "budget": Kind(Cosmic, _BUDGET),
    # every option of the whole optimizer, which some wrappers repeat in the groups
    "signal": Kind(Cosmic, {**_BUDGET, "policy": "signal", "nonfinite": "skip", "seed": 7}),
    "CASMO": Kind(CASMO, {"c_min": 0.5, "state_dtype": "q8"}),
    "TurboAdam": Kind(TurboAdam, {}),
}


# ---- the wrappers ------------------------------------------------------------------------------


def plain(wrapper: Any, model: nn.Module, data: Batch) -> Any:
    """As one trains with torch's optimizers."""
    loss = loss_of(model, data)
    loss.backward()
    wrapper.step()
    return loss.detach()


def by_closure(wrapper: Any, model: nn.Module, data: Batch, first: bool = True) -> Any:
    """``first``: whether gradients are to be there before the step."""
    losses: list[Any] = []

    def closure() -> Any:
        wrapper.zero_grad()
        losses.append(loss_of(model, data))
        losses[-1].backward()
        return losses[-1].detach()

    if first:
        closure()
    wrapper.step(closure)
    return losses[0].detach()


def by_slow_weights(wrapper: Any, model: nn.Module, data: Batch) -> Any:
    """As around an evaluation, before each step."""
    wrapper.backup_and_load_cache()
    wrapper.clear_and_load_backup()
    return plain(wrapper, model, data)


def between_averages(wrapper: Any, model: nn.Module, data: Batch) -> Any:
    wrapper.eval()
    wrapper.train()
    return plain(wrapper, model, data)


def by_batch(wrapper: Any, model: nn.Module, data: Batch) -> Any:
    wrapper.update_rho_t()  # which follows the learning rate, and is in no checkpoint
    wrapper.set_closure(cross_entropy, *data)
    return wrapper.step()[1]


def by_tasks(wrapper: Any, model: nn.Module, data: Batch) -> Any:
    halves = zip(model(data[0]).chunk(2), data[1].chunk(2), strict=True)
    losses = [cross_entropy(*half) for half in halves]
    wrapper.pc_backward(losses)
    wrapper.step()
    return torch.stack(losses).detach().mean()


def scaled(wrapper: Any, model: nn.Module, data: Batch) -> Any:
    wrapper.backward(loss := loss_of(model, data))
    wrapper.clip_main_grads(1.0)
    wrapper.step()
    return loss.detach()


def _gsam(kind: Kind, model: nn.Module, **options: Any) -> Any:
    inner = kind(model.parameters())
    rho = po.ProportionScheduler(LambdaLR(inner, lambda _: 1.0), 1e-2, 0.0, 0.05, 0.01)
    return po.GSAM(model.parameters(), inner, model, rho, **options)


class Row(NamedTuple):
    """A wrapper.

    Attributes:
        make: it, around an optimizer of a model's parameters.
        step: trains on a batch by it.
        rounding: what that of two ways to compute a step may come to.
        exact: whether it saves the optimizer's state as the optimizer does.
    """

    make: Callable[[Kind, nn.Module], Any]
    step: Callable[[Any, nn.Module, Batch], Any] = plain
    rounding: float = 1e-5
    exact: bool = True


def _of_class(wrapper: Callable[..., Any], **options: Any) -> Callable[[Kind, nn.Module], Any]:
    return lambda kind, model: wrapper(model.parameters(), kind.make, **options, **kind.options)


def _of_keywords(wrapper: Callable[..., Any], **options: Any) -> Callable[[Kind, nn.Module], Any]:
    return lambda kind, m: wrapper(kind.make, params=m.parameters(), **options, **kind.options)


def _of_optimizer(wrapper: Callable[..., Any], **options: Any) -> Callable[[Kind, nn.Module], Any]:
    return lambda kind, model: wrapper(kind(model.parameters()), **options)


def _wsam(kind: Kind, model: nn.Module, **options: Any) -> Any:
    return _of_class(partial(po.WSAM, model), **options)(kind, model)


def _trac(kind: Kind, model: nn.Module) -> Any:
    """It looks for one factor of the learning rate, by where all tensors together have gone: those
    that a policy has for tables by themselves mislead it."""
    inner = kind(model.parameters())
    if isinstance(inner, Cosmic):
        inner.param_groups[0]["lr_scale"] = 1.0
    return po.TRAC(inner, s_prev=0.1, eps=1e-4)


def _in_half(kind: Kind, model: nn.Module) -> Any:
    return po.SafeFP16Optimizer(kind(model.half().parameters()))


#: TRAC and ScheduleFreeWrapper have an eps and a weight decay of their own, and keep an optimizer's
#: class from getting them: they are given optimizers.
ROWS = {
    "Lookahead": Row(_of_keywords(po.Lookahead, k=3), by_slow_weights),
    "Lookahead reset": Row(_of_optimizer(po.Lookahead, k=3, pullback_momentum="reset")),
    "Lookahead pullback": Row(_of_optimizer(po.Lookahead, k=3, pullback_momentum="pullback")),
    "SAM": Row(_of_class(po.SAM), by_closure, exact=False),
    "SAM adaptive": Row(_of_class(po.SAM, adaptive=True, use_gc=True), by_closure, exact=False),
    "GSAM": Row(_gsam, by_batch),
    "GSAM foreach": Row(partial(_gsam, foreach=True), by_batch),
    "LookSAM": Row(_of_class(po.LookSAM, k=3), by_closure),
    "LookSAM foreach": Row(_of_class(po.LookSAM, k=3, foreach=True), by_closure),
    "FriendlySAM": Row(_of_class(po.FriendlySAM), by_closure),
    "FriendlySAM foreach": Row(_of_class(po.FriendlySAM, foreach=True), by_closure),
    "WSAM": Row(_wsam, partial(by_closure, first=False)),
    "WSAM coupled": Row(partial(_wsam, decouple=False, gamma=0.5, max_norm=1.0), by_closure),
    "TRAC": Row(_trac),
    "ScheduleFreeWrapper": Row(_of_optimizer(po.ScheduleFreeWrapper), between_averages),
    "OrthoGrad": Row(_of_keywords(po.OrthoGrad)),
    "OrthoGrad foreach": Row(_of_keywords(po.OrthoGrad, foreach=True), by_closure),
    "PCGrad": Row(_of_optimizer(po.PCGrad), by_tasks),
    "Magma": Row(_of_keywords(po.Magma)),
    "Magma foreach": Row(_of_optimizer(po.Magma, foreach=True, mask_prob=0.9), by_closure),
    "SafeFP16Optimizer": Row(_in_half, scaled, rounding=1e-3),
}

each = pytest.mark.parametrize("row", ROWS)
each_kind = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "AdamW"])


# ---- runs --------------------------------------------------------------------------------------


class Training:
    """A model, its optimizer in a wrapper, and a schedule of the wrapper."""

    def __init__(self, row: str, kind: str, seed: int = 0) -> None:
        self.row, self.model = ROWS[row], fresh(seed)
        self.wrapper = self.kept = self.row.make(KINDS[kind], self.model)
        self.inner: Any = vars(self.wrapper).get("optimizer") or self.wrapper.base_optimizer
        # SafeFP16Optimizer has no groups, and is no optimizer to a schedule.
        scheduled = self.wrapper if hasattr(self.wrapper, "param_groups") else self.inner
        self.schedule = LambdaLR(scheduled, lambda step: min((step + 1) / 3, 1 - step / 100))
        self.losses: list[float] = []
        self.middle: dict[str, Any] = {}
        torch.manual_seed(1)  # Magma draws masks of it, PCGrad an order of the other
        random.seed(1)

    def steps(self, first: int, last: int) -> Training:
        for step in range(first, last):
            if step == 0 and hasattr(self.wrapper, "train"):
                self.wrapper.train()
            self.losses.append(float(self.row.step(self.wrapper, self.model, batch(step))))
            self.schedule.step()
            self.wrapper.zero_grad()
            assert all(p.grad is None for p in self.params)
            factor = min((step + 2) / 3, 1 - (step + 1) / 100)
            assert [g["lr"] for g in self.inner.param_groups] == [pytest.approx(1e-2 * factor)]
        return self

    @property
    def gain(self) -> float:
        return self.losses[0] - self.losses[-1]

    @property
    def params(self) -> list[Tensor]:
        """Those that are stepped: of SafeFP16Optimizer copies in float32."""
        return [p for group in self.inner.param_groups for p in group["params"]]

    @property
    def others(self) -> list[Any]:
        """Names of what the wrapper keeps in the optimizer's state, by parameter and beside."""
        of_adamw = {"step", "exp_avg", "exp_avg_sq"}
        kept = [set(foreign(self.inner.state[p])) - of_adamw for p in self.params]
        return [*kept, {key for key in self.inner.state if not isinstance(key, Tensor)}]

    def saved(self) -> dict[str, Any]:
        parts = enumerate((self.model, self.kept, self.schedule))
        saved = through_a_file({str(k): part.state_dict() for k, part in parts})
        return {**saved, "random": (torch.get_rng_state(), random.getstate())}

    def load(self, saved: dict[str, Any]) -> None:
        for k, part in enumerate((self.model, self.kept, self.schedule)):
            part.load_state_dict(saved[str(k)])
        torch.set_rng_state(saved["random"][0])
        random.setstate(saved["random"][1])


@cache
def whole(row: str, kind: str) -> Training:
    """A run that nothing interrupted, with what it saved in the middle."""
    training = Training(row, kind).steps(0, MIDDLE)
    training.middle = training.saved()
    return training.steps(MIDDLE, STEPS)


def assert_close(found: list[Any], expected: list[Any], rounding: float = 1e-5) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=rounding)


@each
def test_with_moments_in_float32_it_is_adamw_to_rounding(row: str) -> None:
    ours, theirs = whole(row, "fp32"), whole(row, "AdamW")
    assert_close(ours.params, theirs.params, ROWS[row].rounding)
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-3)
    assert theirs.gain > 0.2


@each
@each_kind
def test_it_trains_about_as_well_as_adamw(row: str, kind: str) -> None:
    share = 0.4 if kind == "CASMO" else 0.8  # which takes smaller steps
    assert whole(row, kind).gain > share * whole(row, "AdamW").gain
    groups = whole(row, kind).inner.param_groups
    assert not any(option in group for group in groups for option in WHOLE_OPTIONS)


@each
@each_kind
def test_what_the_wrapper_keeps_is_kept_and_not_counted(row: str, kind: str) -> None:
    training, inner = whole(row, kind), whole(row, kind).inner
    assert training.others == whole(row, "AdamW").others
    assert inner.state_bytes() == sum(info.nbytes for info in inner.tiers())
    if kind != "signal":  # which goes by gradients, and those differ
        assert inner.state_bytes() == without_a_wrapper(kind).state_bytes()
    if inner.budget is not None:
        assert inner.budget_bytes() == int(0.2 * 8 * sum(p.numel() for p in training.params))
        spent = 0.5 if kind == "budget" else 0.8  # the default policy leaves what brings nothing
        assert spent * inner.budget_bytes() < inner.state_bytes() <= inner.budget_bytes()


@cache
def without_a_wrapper(kind: str) -> Cosmic:
    model = fresh()
    optimizer: Cosmic = KINDS[kind](model.parameters())
    for step in range(3):
        plain(optimizer, model, batch(step))
    return optimizer


@each
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_from_its_middle_as_if_nothing_had_been(row: str, kind: str) -> None:
    """The second one is of another seed: nothing comes from it but what was saved. SAM's checkpoint
    is what torch saves of any optimizer, and loading rounds all of it to the parameters' dtype, by
    which here and there a code is drawn otherwise."""
    expected, resumed = whole(row, kind), Training(row, kind, seed=5)
    resumed.load(expected.middle)
    resumed.steps(MIDDLE, STEPS)
    assert_close(resumed.params, expected.params, 1e-5 if ROWS[row].exact else 1e-3)
    if ROWS[row].exact:
        assert digest(resumed.inner) == digest(expected.inner)


@pytest.mark.parametrize("kind", KINDS)
def test_sam_goes_on_with_the_same_bits_by_the_state_of_what_it_wraps(kind: str) -> None:
    first, resumed = Training("SAM", kind), Training("SAM", kind, seed=5)
    first.kept, resumed.kept = first.inner, resumed.inner
    resumed.load(first.steps(0, MIDDLE).saved())
    resumed.wrapper.param_groups = resumed.inner.param_groups  # as SAM does when it loads
    resumed.wrapper.state = resumed.inner.state
    resumed.steps(MIDDLE, STEPS)
    assert digest(resumed.inner) == digest(whole("SAM", kind).inner)


def test_rows_are_all_wrappers_that_there_are() -> None:
    """By the name of the argument that is an optimizer; those of schedules have it, too."""
    kinds = {name: kind for name, kind in vars(po).items() if isinstance(kind, type)}
    taken = {name: inspect.signature(kind).parameters.keys() for name, kind in kinds.items()}
    optimizer = {"optimizer", "base_optimizer", "optimizer_class"}
    wrappers = {name for name in taken if taken[name] & optimizer}
    found = {w for w in wrappers if not w.endswith(("LR", "Scheduler", "Restarts"))}
    # CPUOffloadOptimizer wants an accelerator, whatever the optimizer.
    assert found == {row.split()[0] for row in ROWS} | {"CPUOffloadOptimizer"}


# ---- torch's own -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated")  # where torch itself uses it
@pytest.mark.parametrize("kind", ["fp32", "default"])
def test_torch_applies_an_optimizer_a_parameter_in_backward(kind: str) -> None:
    """With moments in float32 as it does AdamW; else with the bits of such optimizers by hand."""
    optim: Any = importlib.import_module("torch.distributed.optim")
    model, twin = fresh(), fresh()
    optim._apply_optimizer_in_backward(KINDS[kind].make, model.parameters(), KINDS[kind].options)
    other = KINDS["AdamW" if kind == "fp32" else kind]
    by_hand: list[Any] = [other([p]) for p in twin.parameters()]
    for step in range(10):
        loss_of(model, batch(step)).backward()
        assert all(p.grad is None for p in model.parameters())
        loss_of(twin, batch(step)).backward()
        for optimizer in by_hand:
            optimizer.step()
            optimizer.zero_grad()
    assert_close(list(model.parameters()), list(twin.parameters()))
    if kind != "fp32":
        applied = optim._get_in_backward_optimizers(model)
        assert [digest(a) for a in applied] == [digest(b) for b in by_hand]
