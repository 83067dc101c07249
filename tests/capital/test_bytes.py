"""Exact bytes of state, and budgets that are never exceeded."""

from __future__ import annotations

import inspect
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cosmic import Cosmic, Rung
from cosmic.capital.budget import resolve_budget
from cosmic.capital.ladder import DEFAULT_STATE_DTYPE
from cosmic.capital.policies import worth
from cosmic.rungs import Geometry, combinations, without_momentum
from helpers import (
    UNUSUAL,
    digest,
    give_gradients,
    normal,
    parameters,
    state_tensors,
    take_steps,
    with_slow_average,
)

SHAPES = ((300, 7), (129,), (1,), (), (0, 3), (64, 64))
NUMEL = 300 * 7 + 129 + 1 + 1 + 0 + 64 * 64

FULL: dict[str, Any] = {"state_dtype": "fp32"}


def tensor_bytes(optimizer: Cosmic) -> int:
    return sum(t.numel() * t.element_size() for t in state_tensors(optimizer))


# ---- every rung's price ------------------------------------------------------------------------

#: Options, bytes an element, bytes a tensor: a counter of 8, the two float64 averages of tier 1, or
#: the one number that it clips by, the gate's four.
PRICES: dict[str, tuple[dict[str, Any], int, int]] = {
    "tier0": ({"tier": 0}, 0, 0),
    "tier1": ({"tier": 1}, 0, 8 + 16),
    "tier1:fp32": ({"rung": "tier1:fp32"}, 4, 8 + 8),
    "fp32": (FULL, 8, 8),
    "bf16": ({"state_dtype": "bf16"}, 4, 8),
    "bf16+fp32": ({"state_dtype": "bf16+fp32"}, 6, 8),
    "fp32+bf16": ({"state_dtype": "fp32+bf16"}, 6, 8),
    "fp32+slow": ({**FULL, "beta_slow": 0.99}, 12, 8),
    "bf16+slow": ({"state_dtype": "bf16", "beta_slow": 0.99}, 6, 8),
    "bf16+fp32+slow": ({"state_dtype": "bf16+fp32", "beta_slow": 0.99}, 8, 8),
}


@pytest.mark.parametrize("gate", [None, "snr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("rung", PRICES)
def test_state_takes_the_bytes_that_its_rung_costs(
    rung: str, dtype: torch.dtype, gate: str | None
) -> None:
    options, per_element, per_tensor = PRICES[rung]
    params = parameters(*SHAPES, dtype=dtype)
    optimizer = Cosmic(params, gate=gate, **{**UNUSUAL, **options})
    take_steps(optimizer, 0, 2)

    real = NUMEL * (2 if dtype.is_complex else 1)
    per_tensor += 32 if gate else 0
    assert optimizer.state_bytes() == per_element * real + per_tensor * len(SHAPES)
    assert optimizer.state_bytes() == tensor_bytes(optimizer)
    assert optimizer.state_bytes() == sum(info.nbytes for info in optimizer.tiers())
    for info in optimizer.tiers():
        assert Rung.parse(info.rung).nbytes(info.numel) + (32 if gate else 0) == info.nbytes


#: Bits of a block's codes and of its word, first moments; then second moments.
BLOCKS = {
    "q8": (8 * 128, 16), "u4": (4 * 128, 16), "u2": (2 * 128, 16), "u1": (128, 16),
    "ustate": (2 * 128, 32), "costate": (128, 32),
}  # fmt: skip
SQUARE_BLOCKS = {"q8": (8 * 128, 32), "v4": (4 * 128, 16)}
SQUARE_BLOCKS |= {f"vlog{bits}": (bits * 128, 32) for bits in (2, 3, 4, 6, 8)}
#: What a block's word is called where it is no scale; bytes of numbers of the whole tensor.
WORDS = {"ustate": "mean"}
NUMBERS = {"ustate": {"_ustate_steps": 8}, "costate": {"_costate_alpha": 4}}
PLAIN = {"fp32": 4, "bf16": 2}

COMPRESSED_SHAPES = ((300, 7), (129,), (1,), (), (0, 3), (64, 65), (3, 5, 7, 16), (128,), (2, 16))
#: Matrices of rows and columns that they can be seen as; the others cannot.
SEEN_AS: dict[torch.dtype, dict[tuple[int, ...], tuple[int, int]]] = {
    torch.float32: {(64, 65): (64, 65), (3, 5, 7, 16): (105, 16), (2, 16): (2, 16)},
    torch.complex64: {
        (64, 65): (64, 130), (3, 5, 7, 16): (105, 32), (2, 16): (2, 32)
    },
}  # fmt: skip
SEEN_AS[torch.bfloat16] = SEEN_AS[torch.float32]


def moment_planes(codec: str, second: bool, numel: int, matrix: tuple[int, int]) -> dict[str, int]:
    """Bytes of every tensor of a moment, by what follows its name."""
    blocks = -(-numel // 128)
    vectors = {"_row": 4 * matrix[0], "_col": 4 * matrix[1]}
    match codec:
        case "fp32" | "bf16":
            return {"": PLAIN[codec] * numel}
        case "factored":
            return vectors
        case "rowmean" | "colmean":
            kept = "_row" if codec == "rowmean" else "_col"
            return {kept: vectors[kept]}
        case _:
            codes, word = (SQUARE_BLOCKS if second else BLOCKS)[codec]
            of_words = f"_{codec}_{WORDS.get(codec, 'scale')}"
            planes = {f"_{codec}_codes": blocks * codes // 8, of_words: blocks * word // 8}
            return planes | NUMBERS.get(codec, {})


def place(codecs: Iterable[str], param: Tensor) -> dict[str, int]:
    """Bytes of what says where codes belong: 8 for each real dimension."""
    dims = param.dim() + param.is_complex()
    return {"packed_shape": 8 * dims} if set(codecs) - set(PLAIN) else {}


NAMES = [f"{m}+{v}" for m, v in combinations()]


@pytest.mark.parametrize("dtype", SEEN_AS, ids=str)
@pytest.mark.parametrize(
    ("state_dtype", "slow"),
    [(n, slow) for n in NAMES for slow in (False, True) if not slow or n in with_slow_average()],
)
def test_compressed_state_takes_exactly_its_bytes(
    state_dtype: str, dtype: torch.dtype, slow: bool
) -> None:
    """Codes of whole blocks, words, rows and columns: tensor by tensor."""
    m, v = state_dtype.split("+")
    params = parameters(*COMPRESSED_SHAPES, dtype=dtype)
    optimizer = Cosmic(
        params, **UNUSUAL, state_dtype=state_dtype, min_compress_size=0,
        beta_slow=0.99 if slow else None, gate="snr",
    )  # fmt: skip
    take_steps(optimizer, 0, 2)

    for param, info in zip(params, optimizer.tiers(), strict=True):
        numel = param.numel() * (2 if dtype.is_complex else 1)
        matrix = SEEN_AS[dtype].get(tuple(param.shape), (0, 0))
        used = v
        if v in ("factored", "rowmean", "colmean"):
            used = v if matrix != (0, 0) else "v4"
            if used == "rowmean":  # the one of the two that keeps more
                used = info.codecs["exp_avg_sq"]
                assert used in ("rowmean", "colmean")
        codecs = {"exp_avg": m, "exp_avg_sq": used} | ({"exp_avg_slow": m} if slow else {})
        assert info.codecs == codecs
        want = {"step": 8, "gate_snr": 32} | place(codecs.values(), param)
        want |= {
            slot + plane: size
            for slot, codec in codecs.items()
            for plane, size in moment_planes(codec, slot == "exp_avg_sq", numel, matrix).items()
        }
        held = optimizer.state[param].items()
        assert {k: t.nbytes for k, t in held if isinstance(t, Tensor)} == want
        assert info.nbytes == sum(want.values())
        rung = Rung.parse(info.rung)
        assert rung.nbytes(Geometry.of(param)) == info.nbytes - 32
        if used not in ("factored", "rowmean", "colmean"):  # as if it had one dimension
            dimension = sum(place(codecs.values(), torch.zeros(numel)).values())
            assert rung.nbytes(numel) - dimension == info.nbytes - 32 - want.get("packed_shape", 0)
    assert optimizer.state_bytes() == tensor_bytes(optimizer)
    assert optimizer.state_bytes() == sum(info.nbytes for info in optimizer.tiers())


@pytest.mark.parametrize("dtype", SEEN_AS, ids=str)
@pytest.mark.parametrize("v", without_momentum())
def test_a_second_moment_alone_takes_exactly_its_bytes(v: str, dtype: torch.dtype) -> None:
    params = parameters(*COMPRESSED_SHAPES, dtype=dtype)
    optimizer = Cosmic(params, **UNUSUAL, rung=f"tier1:{v}", min_compress_size=0, gate="snr")
    take_steps(optimizer, 0, 2)
    for param, info in zip(params, optimizer.tiers(), strict=True):
        numel = param.numel() * (2 if dtype.is_complex else 1)
        matrix = SEEN_AS[dtype].get(tuple(param.shape), (0, 0))
        of_matrix = v in ("factored", "rowmean", "colmean")
        used = "v4" if of_matrix and matrix == (0, 0) else v
        if used == "rowmean":  # the one of the two that keeps more
            used = info.codecs["exp_avg_sq"]
            assert used in ("rowmean", "colmean")
        assert (info.tier, info.rung) == (1, f"tier1:{used}")
        planes = moment_planes(used, True, numel, matrix)
        want = {"step": 8, "update_rms": 8, "gate_snr": 32} | place([used], param)
        want |= {f"exp_avg_sq{plane}": size for plane, size in planes.items()}
        held = optimizer.state[param].items()
        assert {k: t.nbytes for k, t in held if isinstance(t, Tensor)} == want
        assert info.nbytes == sum(want.values())
        assert Rung.parse(info.rung).nbytes(Geometry.of(param)) == info.nbytes - 32
    assert optimizer.state_bytes() == tensor_bytes(optimizer)


@pytest.mark.parametrize("rung", ["tier1:v4", "tier1:factored", "tier2:u4+v4"])
def test_a_fixed_rung_of_small_tensors_is_kept_in_full(rung: str) -> None:
    optimizer = Cosmic(parameters(*SHAPES), **UNUSUAL, rung=rung, min_compress_size=2101)
    take_steps(optimizer, 0, 1)
    small = "tier1:fp32" if rung.startswith("tier1") else "tier2:fp32+fp32"
    found = {info.numel: info.rung for info in optimizer.tiers()}
    assert found == {n: rung if n == 4096 else small for n in (2100, 129, 1, 0, 4096)}


@pytest.mark.parametrize("threshold", [0, 2100, 2101, 4096, 4097])
def test_tensors_below_min_compress_size_are_kept_in_full(threshold: int) -> None:
    optimizer = Cosmic(
        parameters(*SHAPES), **UNUSUAL, state_dtype="u4+v4", min_compress_size=threshold
    )
    take_steps(optimizer, 0, 1)
    for info in optimizer.tiers():
        full = info.numel < threshold
        assert info.rung == ("tier2:fp32+fp32" if full else "tier2:u4+v4"), info
        blocks = -(-info.numel // 128)
        dims = len(SHAPES[int(info.name)])
        assert info.nbytes == 8 + (8 * info.numel if full else 2 * 66 * blocks + 8 * dims)
    assert optimizer.state_bytes() == tensor_bytes(optimizer)


def test_plain_moments_are_not_subject_to_min_compress_size() -> None:
    optimizer = Cosmic(parameters((10,)), state_dtype="bf16", min_compress_size=1000)
    take_steps(optimizer, 0, 1)
    assert optimizer.state_bytes() == 2 * 20 + 8


def test_float64_keeps_moments_of_8_bytes_and_says_so() -> None:
    p = nn.Parameter(normal(0, 10, dtype=torch.float64))
    optimizer = Cosmic([p], state_dtype="bf16")
    take_steps(optimizer, 0, 1)
    assert optimizer.state_bytes() == tensor_bytes(optimizer) == 16 * 10 + 8
    assert optimizer.tiers()[0].codecs == {"exp_avg": "fp64", "exp_avg_sq": "fp64"}


def test_a_parameter_without_a_gradient_holds_nothing() -> None:
    a, b = parameters((10,), (20,))
    optimizer = Cosmic([a, b], **FULL)
    a.grad = normal(0, 10)
    optimizer.step()
    assert optimizer.state_bytes() == tensor_bytes(optimizer) == 8 * 10 + 8
    assert [info.name for info in optimizer.tiers()] == ["0"]


# ---- forms of a budget -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (1000, 1000), (0, 0), ("100B", 100), ("64KB", 64_000), ("1.5MB", 1_500_000),
        ("0.25 GB", 250_000_000), ("2TB", 2 * 10**12), ("64KiB", 65_536), ("1MiB", 2**20),
        ("1GiB", 2**30), ("1TiB", 2**40), ("64mb", 64_000_000), (" 10 % ", 800), ("0%", 0),
        ("0.1%", 8), ("12.5%", 1000), ("150%", 12_000), ("2.01KB", 2010), ("0.29%", 23),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_budget_means(budget: int | str, expected: int) -> None:
    """Percentages are of the two fp32 moments of AdamW, here for 1000 elements."""
    assert resolve_budget(budget, 1000) == expected
    optimizer = Cosmic([nn.Parameter(torch.zeros(1000))], budget=budget)
    assert optimizer.budget_bytes() == expected


@pytest.mark.parametrize("budget", [0, 100, 5000, 20_000, "0%", "1%", "10%", "60%", "100%", "200%"])
@pytest.mark.parametrize("gate", [None, "snr"])
@pytest.mark.parametrize("state_dtype", ["fp32", "u2+v4"])
def test_a_budget_is_kept_and_used(budget: int | str, gate: str | None, state_dtype: str) -> None:
    params = parameters(*SHAPES)
    optimizer = Cosmic(
        params, budget=budget, gate=gate, reallocate_every=2, state_dtype=state_dtype,
        min_compress_size=0, policy="role",
    )  # fmt: skip
    limit = resolve_budget(budget, NUMEL)
    assert limit is not None
    gates = 32 * len(params) if gate else 0
    if gates > limit:
        give_gradients(params, 0)
        with pytest.raises(ValueError, match="budget"):
            optimizer.step()
        return
    for step in range(5):
        take_steps(optimizer, step, step + 1)
        assert optimizer.state_bytes() == tensor_bytes(optimizer) <= limit
    m, _, v = state_dtype.partition("+")
    full = Rung(2, m, "none", v or m)
    # what is left would not lift any tensor to a rung that is worth more
    left = limit - optimizer.state_bytes()
    for info in optimizer.tiers():
        held = Rung.parse(info.rung)
        for rung in (Rung(1), full):
            assert info.role is not None
            if info.numel and worth(rung, info.role) > worth(held, info.role):
                held_bytes = info.nbytes - (32 if gate else 0)
                geometry = Geometry.of(params[int(info.name)])
                assert rung.nbytes(geometry) - held_bytes > left, info


@pytest.mark.parametrize("gate", [None, "snr"])
def test_a_budget_too_small_names_one_that_suffices(gate: str | None) -> None:
    def optimizer_with(budget: int) -> Cosmic:
        fixed, free = parameters((300, 7), (129,)), parameters((40, 40), (5,))
        groups: list[dict[str, Any]] = [{"params": fixed, "tier": 2}, {"params": free}]
        return Cosmic(groups, budget=budget, gate=gate, **FULL)

    tight = optimizer_with(1000)
    give_gradients((p for g in tight.param_groups for p in g["params"]), 0)
    before = digest(tight)
    with pytest.raises(ValueError, match="budget is 1000 bytes") as caught:
        tight.step()
    assert digest(tight) == before
    found = re.search(r"at least (\d+) bytes", str(caught.value))
    assert found, caught.value

    needed = int(found[1])
    enough = optimizer_with(needed)
    take_steps(enough, 0, 3)
    assert enough.state_bytes() <= needed
    with pytest.raises(ValueError, match=f"at least {needed} bytes"):
        take_steps(optimizer_with(needed - 1), 0, 1)


# ---- random lives of an optimizer --------------------------------------------------------------


@dataclass
class Life:
    """An optimizer to which anything may happen between two steps."""

    budget: int | str
    gate: str | None
    policy: str
    made: int = 0

    def __post_init__(self) -> None:
        self.optimizer = self.new_optimizer([self.new_group(((40, 9), (129,)), None, None)])
        self.frozen: set[int] = set()

    def new_group(
        self, shapes: tuple[tuple[int, ...], ...], tier: int | None, state_dtype: str | None
    ) -> dict[str, Any]:
        params = [nn.Parameter(normal(self.made + k, *s)) for k, s in enumerate(shapes)]
        self.made += len(params)
        if self.gate == "agar" and state_dtype == "u1+rowmean":
            state_dtype = "q8+v4"  # the gate knows no codecs as coarse
        return {"params": params, "tier": tier, "state_dtype": state_dtype}

    def new_optimizer(self, groups: list[dict[str, Any]]) -> Cosmic:
        return Cosmic(
            groups,
            budget=self.budget,
            gate=self.gate,
            policy=self.policy,
            reallocate_every=2,
            min_compress_size=0,
        )

    @property
    def params(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def reload(self) -> None:
        file = io.BytesIO()
        torch.save(self.optimizer.state_dict(), file)
        file.seek(0)
        groups = [
            {key: group[key] for key in ("params", "tier", "state_dtype")}
            for group in self.optimizer.param_groups
        ]
        self.optimizer = self.new_optimizer(groups)
        self.optimizer.load_state_dict(torch.load(file, weights_only=True))

    def step(self, seed: int) -> None:
        """A step; if fixed tiers do not fit any more, they are freed and it is taken then."""
        for k, p in enumerate(self.params):
            scale = 10.0 ** ((seed + k) % 5 - 2)  # the strongest tensor is another every step
            p.grad = None if k in self.frozen else normal(seed + k, *p.shape, scale=scale)
        try:
            self.optimizer.step()
        except ValueError as error:
            event("fixed tiers did not fit")
            assert "the budget is" in str(error)
            self.check()
            for group in self.optimizer.param_groups:
                group["tier"] = group["gate"] = None
            self.optimizer.step()
        self.check()

    def check(self) -> None:
        used = self.optimizer.state_bytes()
        assert used == tensor_bytes(self.optimizer)
        live = [p for p in self.params if p.grad is not None or p in self.optimizer.state]
        limit = resolve_budget(self.budget, sum(p.numel() for p in live))
        assert limit is not None
        assert used <= limit


sizes = st.sampled_from([(1,), (), (7,), (128,), (5, 60), (600, 20), (0, 2)])
shapes = st.lists(sizes, min_size=1, max_size=3)
groups = st.tuples(
    shapes.map(tuple),
    st.sampled_from([None, None, 0, 1, 2]),
    st.sampled_from([None, None, "fp32", "bf16", "u4+factored", "q8+q8", "u1+rowmean"]),
)
actions = st.one_of(
    st.tuples(st.just("add"), groups),
    st.tuples(st.just("freeze"), st.integers(0, 3)),
    st.tuples(st.just("thaw"), st.integers(0, 3)),
    st.tuples(st.just("tier"), st.sampled_from([None, 0, 1, 2])),
    st.tuples(st.just("reload"), st.none()),
    st.tuples(st.just("nothing"), st.none()),
)
budgets = st.one_of(
    st.sampled_from([0, 60, 300, 1100, 1500, 2960, 3200, 4200, 6000, 9000]), st.integers(0, 12_000),
    st.integers(0, 120).map(lambda n: f"{n}%"), st.integers(1, 6).map(lambda n: f"{n / 1000}MB"),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@example(budget=3200, gate=None, policy="signal", script=[("freeze", 1)])
@given(
    budget=budgets,
    gate=st.sampled_from([None, "snr", "agar"]),
    policy=st.sampled_from(["calibrated", "role", "signal", "uniform"]),
    script=st.lists(actions, min_size=1, max_size=10),
)
def test_no_life_exceeds_its_budget(
    budget: int | str, gate: str | None, policy: str, script: list[tuple[str, Any]]
) -> None:
    life = Life(budget, gate, policy)
    life.step(0)
    for seed, (action, argument) in enumerate(script, start=1):
        if action == "add":
            life.optimizer.add_param_group(life.new_group(*argument))
        elif action == "freeze":
            life.frozen.add(argument)
        elif action == "thaw":
            life.frozen.discard(argument)
        elif action == "tier":
            life.optimizer.param_groups[-1]["tier"] = argument
        elif action == "reload":
            life.reload()
            life.check()
        life.step(10 * seed)
        life.step(10 * seed + 1)  # two steps: the gradients have been looked at


@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
@pytest.mark.parametrize(("before", "after"), [(None, 1000), ("50%", 1000), ("50%", "80%")])
def test_a_budget_changed_in_mid_run_holds_at_the_next_step(
    before: int | str | None, after: int | str, nonfinite: str
) -> None:
    params = parameters(*[(100,)] * 5)
    optimizer = Cosmic(params, budget=before, nonfinite=nonfinite, policy="uniform", **FULL)
    take_steps(optimizer, 0, 2)
    optimizer.budget = after
    take_steps(optimizer, 2, 3)
    limit = optimizer.budget_bytes()
    assert limit is not None and optimizer.state_bytes() <= limit
    assert sum(info.tier == 2 for info in optimizer.tiers()) == (0 if after == 1000 else 3)
    optimizer.budget = None
    take_steps(optimizer, 3, 4)
    assert all(info.tier == 2 for info in optimizer.tiers())


@pytest.mark.parametrize("budget", [100, "25%", "1KB"])
def test_loading_more_state_than_the_budget_holds(budget: int | str) -> None:
    """What was saved without a budget is cut down, and never stepped over it."""
    rich, poor = (Cosmic(parameters((40, 9), (129,)), budget=b, **FULL) for b in (None, budget))
    take_steps(rich, 0, 2)
    poor.load_state_dict(rich.state_dict())
    take_steps(poor, 2, 3)
    limit = poor.budget_bytes()
    assert limit is not None and poor.state_bytes() <= limit


# ---- state that a user takes away --------------------------------------------------------------


@pytest.mark.parametrize("how", ["del", "clear"])
def test_deleted_state_starts_anew(how: str) -> None:
    """``del optimizer.state[param]`` resets a parameter, as in torch.optim."""
    params, fresh_params = parameters((100,), (30,)), parameters((100,), (30,))
    optimizer = Cosmic(params, **UNUSUAL, **FULL)
    take_steps(optimizer, 0, 2)
    if how == "del":
        for p in params:
            del optimizer.state[p]
    else:
        optimizer.state.clear()
    fresh = Cosmic(fresh_params, **UNUSUAL, **FULL)
    with torch.no_grad():
        for p, q in zip(params, fresh_params, strict=True):
            q.copy_(p)
    take_steps(optimizer, 2, 4)
    take_steps(fresh, 2, 4)
    assert digest(optimizer) == digest(fresh)
    assert optimizer.state_bytes() == tensor_bytes(optimizer) == 8 * 130 + 16


def test_a_slot_that_a_user_replaces_is_used() -> None:
    p, q = (nn.Parameter(normal(0, 50)) for _ in range(2))
    optimizer, twin = (Cosmic([param], **UNUSUAL, **FULL) for param in (p, q))
    take_steps(optimizer, 0, 2)
    take_steps(twin, 0, 2)
    moment: Tensor = optimizer.state[p]["exp_avg"]
    optimizer.state[p]["exp_avg"] = torch.zeros_like(moment)
    twin.state[q]["exp_avg"].zero_()
    take_steps(optimizer, 2, 4)
    take_steps(twin, 2, 4)
    assert digest(optimizer) == digest(twin)


def test_the_default_takes_under_4_and_a_half_bits_on_gpt2() -> None:
    """GPT-2's 124 million parameters, by shape: nothing is allocated."""
    config = transformers.GPT2Config()
    with torch.device("meta"):
        shapes = [tuple(p.shape) for p in transformers.GPT2LMHeadModel(config).parameters()]
    default = inspect.signature(Cosmic).parameters
    assert default["state_dtype"].default is None
    m, _, v = DEFAULT_STATE_DTYPE.partition("+")
    total = numel = 0
    for shape in shapes:
        n = math.prod(shape)
        small = n < default["min_compress_size"].default
        rung = Rung(2, "fp32", "none", "fp32") if small else Rung(2, m, "none", v)
        matrix = (shape[0], shape[1]) if len(shape) == 2 else None
        total += rung.nbytes(Geometry(n, matrix, dims=len(shape)))
        numel += n
    assert numel == 124_439_808
    assert 8 * total / numel <= 4.5
