"""State tensors that others exchange between steps: the right result, or an error that names them.

Every way that Python allows is drawn, at any moment, for every kind of optimizer. Run with a
sanitized build, too: an address that a step holds and should not is a use after free there.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from cosmic import Cosmic
from cosmic.state.entries import own
from helpers import digest, give_gradients, normal, parameter, same_bits, take_steps
from optimizers import ROWS, Row, params_of

State = dict[str, Any]
_T = TypeVar("_T")
#: Whole blocks and a rest, a matrix that is too small for codecs of rows and columns, a scalar.
SHAPES = ((16, 40), (5, 7), ())
BY_NAME = {row.name: row for row in ROWS}
names = st.sampled_from(sorted(BY_NAME))
few = settings(
    max_examples=600,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)


def started(row: Row) -> Cosmic:
    """On tensors of any size, so that each has the row's codecs."""
    params = [(f"p{k}", parameter(k, *shape)) for k, shape in enumerate(SHAPES)]
    return row.make(params, **dict.fromkeys(row.sizes, 0))


def tensors(optimizer: Cosmic) -> list[tuple[State, str]]:
    """Every tensor of the state, as the dict that holds it and its key."""
    return [
        (optimizer.state[p], key)
        for p in params_of(optimizer)
        for key, value in own(optimizer.state[p]).items()
        if isinstance(value, Tensor) and not key.startswith("packed_")  # which no step touches
    ]


def pick(data: st.DataObject, choices: Sequence[_T]) -> _T:
    """One of them; what is told of a failure is short."""
    found = choices[data.draw(st.integers(0, 10_000)) % len(choices)]
    note(getattr(found, "__name__", None) or str(found[1]))  # type: ignore[index]
    return found


# ---- exchanges that keep every number ----------------------------------------------------------


def moved_elsewhere(state: State, key: str) -> None:
    state[key].share_memory_()


def set_to_a_copy(state: State, key: str) -> None:
    state[key].set_(state[key].clone())


def set_within_a_larger_storage(state: State, key: str) -> None:
    old = state[key].clone()
    room = torch.empty(old.numel() + 11, dtype=old.dtype)
    room[3 : 3 + old.numel()] = old.reshape(-1)
    state[key].set_(room.untyped_storage(), 3, old.shape, old.contiguous().stride())


def another_data(state: State, key: str) -> None:
    state[key].data = state[key].clone()


def freed_and_given_back(state: State, key: str) -> None:
    kept, storage = state[key].clone(), state[key].untyped_storage()
    if state[key].is_shared() or not storage.resizable():
        return  # torch cannot: it refuses NumPy's memory, and crashes on shared memory
    size = storage.nbytes()
    storage.resize_(0)
    storage.resize_(size)
    state[key].copy_(kept)


def another_object(state: State, key: str) -> None:
    state[key] = state[key].clone()


def another_object_with_gaps(state: State, key: str) -> None:
    old = state[key]
    room = torch.zeros((*old.shape, 2), dtype=old.dtype)
    room[..., 0] = old
    state[key] = room[..., 0]


def through_numpy(state: State, key: str) -> None:
    old = state[key]
    if old.dtype != torch.bfloat16:
        state[key] = torch.from_numpy(old.numpy().copy())


def as_a_parameter(state: State, key: str) -> None:
    state[key] = nn.Parameter(state[key].clone(), requires_grad=state[key].is_floating_point())


def taken_out_and_put_back(state: State, key: str) -> None:
    state[key] = state.pop(key)


def with_company(state: State, key: str) -> None:
    state["slow_params"], state["note"], state[f"{key}_of_others"] = torch.zeros(3), "text", None


def written_in_place(state: State, key: str) -> None:
    state[key].copy_(state[key].clone())


KEEPING: list[Callable[[State, str], None]] = [
    moved_elsewhere, set_to_a_copy, set_within_a_larger_storage, another_data,
    freed_and_given_back, another_object, another_object_with_gaps, through_numpy, as_a_parameter,
    taken_out_and_put_back, with_company, written_in_place,
]  # fmt: skip


def all_states_copied(optimizer: Cosmic) -> None:
    for p in params_of(optimizer):
        optimizer.state[p] = copy.deepcopy(optimizer.state[p])


def another_container(optimizer: Cosmic) -> None:
    optimizer.state = defaultdict(dict, optimizer.state)


def a_plain_dict(optimizer: Cosmic) -> None:
    optimizer.state = dict(reversed(list(optimizer.state.items())))  # type: ignore[assignment]


def entries_at_the_top(optimizer: Cosmic) -> None:
    optimizer.state["of a wrapper"] = {"step": 1}  # type: ignore[index]
    optimizer.state[7] = [torch.zeros(2)]  # type: ignore[index]


def looked_at(optimizer: Cosmic) -> None:
    assert optimizer.state[nn.Parameter(torch.zeros(2))] == {}  # a defaultdict makes it


def params_moved(optimizer: Cosmic) -> None:
    for p in params_of(optimizer):
        p.data = p.data.clone()
        p.share_memory_()  # type: ignore[no-untyped-call]


def saved_and_loaded(optimizer: Cosmic) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


WHOLE: list[Callable[[Cosmic], None]] = [
    all_states_copied, another_container, a_plain_dict, entries_at_the_top, params_moved,
    saved_and_loaded,
]  # fmt: skip


def own_digest(optimizer: Cosmic) -> str:
    """Of parameters and of COSMIC's own entries."""
    twin = copy.deepcopy(optimizer)
    for p in params_of(twin):
        twin.state[p] = own(twin.state[p])
    return digest(twin)


@few
@given(data=st.data(), name=names)
def test_what_keeps_the_numbers_keeps_the_bits(data: st.DataObject, name: str) -> None:
    optimizer, twin = started(BY_NAME[name]), started(BY_NAME[name])
    take_steps(twin, 0, 5)
    for step in range(5):
        take_steps(optimizer, step, step + 1)
        for _ in range(data.draw(st.integers(0, 3))):
            if not (found := tensors(optimizer)) or data.draw(st.booleans()):
                pick(data, WHOLE)(optimizer)
            else:
                with torch.no_grad():  # one may have become a parameter
                    pick(data, KEEPING)(*pick(data, found))
    assert own_digest(optimizer) == own_digest(twin)


def test_looking_at_a_strangers_state_changes_nothing() -> None:
    optimizer, twin = started(BY_NAME["budget"]), started(BY_NAME["budget"])
    take_steps(twin, 0, 4)
    for step in range(4):
        looked_at(optimizer)
        take_steps(optimizer, step, step + 1)
    assert own_digest(optimizer) == own_digest(twin)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_shared_tensors_are_updated_in_place(row: Row) -> None:
    """As workers of a Hogwild run see them."""
    optimizer, twin = started(row), started(row)
    take_steps(twin, 0, 5)
    # a budget may choose another rung after each look, at the steps 1 and 3
    first, last = (2, 3) if row.shared else (1, 5)
    take_steps(optimizer, 0, first)
    for state, key in tensors(optimizer):
        state[key].share_memory_()
    held = {id(state): dict(state) for state, _ in tensors(optimizer)}
    take_steps(optimizer, first, last)
    for state, key in tensors(optimizer):
        assert state[key] is held[id(state)][key], key
        assert state[key].is_shared(), key
    take_steps(optimizer, last, 5)
    assert digest(optimizer) == digest(twin)


def test_the_reported_case() -> None:
    w = nn.Parameter(torch.zeros(256, 256))
    optimizer = Cosmic([w], state_dtype="fp32")
    w.grad = torch.ones(256, 256)
    optimizer.step()
    for value in optimizer.state[w].values():
        if isinstance(value, Tensor):
            value.share_memory_()  # type: ignore[no-untyped-call]
    shared = dict(optimizer.state[w])
    for _ in range(4):
        optimizer.step()
    assert w.mean().item() == pytest.approx(-0.005) and int(optimizer.state[w]["step"]) == 5
    assert all(optimizer.state[w][key] is value for key, value in shared.items())
    assert shared["exp_avg"].mean().item() == pytest.approx(1 - 0.9**5)


# ---- exchanges that cannot be followed ---------------------------------------------------------


def freed(state: State, key: str) -> None:
    state[key].untyped_storage().resize_(0)


def freed_behind_an_offset(state: State, key: str) -> None:
    set_within_a_larger_storage(state, key)
    state[key].untyped_storage().resize_(0)


def shrunk(state: State, key: str) -> None:
    storage = state[key].untyped_storage()
    storage.resize_(storage.nbytes() - 1)


def of_another_dtype(state: State, key: str) -> None:
    state[key].data = state[key].to(torch.float16)


def on_another_device(state: State, key: str) -> None:
    state[key] = state[key].to("meta")


def data_on_another_device(state: State, key: str) -> None:
    state[key] = torch.empty_like(state[key], device="meta")


def larger(state: State, key: str) -> None:
    old = state[key]
    old.set_(torch.zeros(old.numel() + 5, dtype=old.dtype))


def of_another_shape(state: State, key: str) -> None:
    state[key] = state[key].reshape(1, -1, 1)


def missing(state: State, key: str) -> None:
    del state[key]


def a_word(state: State, key: str) -> None:
    state[key] = "text"


def nothing(state: State, key: str) -> None:
    state[key] = None


def sparse(state: State, key: str) -> None:
    state[key] = state[key].to_sparse()


BREAKING = [
    freed, freed_behind_an_offset, shrunk, of_another_dtype, on_another_device,
    data_on_another_device, larger, of_another_shape, missing, a_word, nothing, sparse,
]  # fmt: skip


def may_be_missing(key: str) -> bool:
    """Numbers of gates and of signals start anew where there are none."""
    return key.startswith(("gate_", "budget_signal"))


@few
@given(data=st.data(), name=names)
def test_what_cannot_be_followed_is_named_and_changes_nothing(
    data: st.DataObject, name: str
) -> None:
    optimizer, twin = started(BY_NAME[name]), started(BY_NAME[name])
    first = data.draw(st.integers(1, 3))
    take_steps(optimizer, 0, first)
    take_steps(twin, 0, 5)
    if not (found := tensors(optimizer)):
        return
    state, key = pick(data, found)
    kept = dict(state)
    copies = {k: v.clone() for k, v in kept.items() if isinstance(v, Tensor)}
    spoil = pick(data, BREAKING)
    if spoil is missing and may_be_missing(key):
        return
    if key == "step" and spoil in (of_another_dtype, of_another_shape):
        return  # the number is what counts, see below
    with torch.no_grad():
        spoil(state, key)
    before = [p.detach().clone() for p in params_of(optimizer)]
    give_gradients(params_of(optimizer), seed=first)
    index = next(k for k, p in enumerate(params_of(optimizer)) if optimizer.state[p] is state)
    with pytest.raises((ValueError, TypeError)) as caught:
        optimizer.step()
    assert f"'p{index}'" in str(caught.value) and key in str(caught.value)
    for p, old in zip(params_of(optimizer), before, strict=True):
        assert same_bits(p, old)
    state.clear()
    state.update({k: copies.get(k, v) for k, v in kept.items()})  # mended: the run goes on
    take_steps(optimizer, first, 5)
    assert digest(optimizer) == digest(twin)


def test_a_storage_that_was_shrunk_where_it_lay_is_named() -> None:
    """The allocator may give the same address again."""
    optimizer = started(BY_NAME["u4+v4"])
    take_steps(optimizer, 0, 1)
    codes = optimizer.state[params_of(optimizer)[0]]["exp_avg_u4_codes"]
    storage, address = codes.untyped_storage(), codes.data_ptr()
    for less in range(storage.nbytes() - 1, storage.nbytes() - 40, -1):
        storage.resize_(0)
        storage.resize_(less)
        if codes.data_ptr() == address:
            break
    give_gradients(params_of(optimizer), seed=1)
    with pytest.raises(TypeError, match=r"exp_avg_u4_codes.*'p0'.*freed or made smaller"):
        optimizer.step()


class CloneArguments(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """As a mode that puts its own tensors in the place of others'."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = tree_map_only(Tensor, torch.clone, args)
        out = func(*args, **(kwargs or {}))
        return 17 if isinstance(out, int) else out


def test_modes_do_not_come_between_the_plan_and_the_tensors() -> None:
    optimizer, twin = started(BY_NAME["default"]), started(BY_NAME["default"])
    take_steps(twin, 0, 3)
    give_gradients(params_of(optimizer), seed=0)
    with CloneArguments():  # type: ignore[no-untyped-call]
        optimizer.step()
    for state, key in tensors(optimizer):
        state[key].data = state[key].clone()
    take_steps(optimizer, 1, 3)
    assert digest(optimizer) == digest(twin)


def test_a_lazily_negated_view_in_a_parameters_place_is_refused() -> None:
    w = nn.Parameter(torch.ones(4))
    optimizer = Cosmic([("w", w)])
    w.grad = torch.ones(4)
    optimizer.step()
    w.data = torch.view_as_complex(torch.ones(4, 2)).conj().imag
    with pytest.raises(TypeError, match=r"'w'.*lazily"):
        optimizer.step()


def test_parameters_can_be_swapped() -> None:
    """As torch's own conversions do, which demand that nobody else holds them."""
    optimizer = started(BY_NAME["default"])
    take_steps(optimizer, 0, 2)
    p = params_of(optimizer)[1]
    other = nn.Parameter(p.detach() + 1)
    p.grad = None
    torch.utils.swap_tensors(p, other)  # type: ignore[no-untyped-call]
    before = p.detach().clone()
    take_steps(optimizer, 2, 3)
    assert not same_bits(p, before) and not same_bits(p, other)


@pytest.mark.parametrize("held", [None, [], "text", 3])
def test_a_state_that_is_no_dict_is_refused_before_anything_moves(held: object) -> None:
    optimizer, twin = started(BY_NAME["default"]), started(BY_NAME["default"])
    p = params_of(optimizer)[0]
    take_steps(twin, 0, 1)
    optimizer.state[p] = held
    if held is None:  # nothing is kept
        take_steps(optimizer, 0, 1)
        assert digest(optimizer) == digest(twin)
        return
    before = p.detach().clone()
    give_gradients(params_of(optimizer), seed=0)
    with pytest.raises(TypeError, match=r"'p0'.*expected a dict"):
        optimizer.step()
    assert same_bits(p, before)


@pytest.mark.parametrize("step", [3, 3.0, torch.tensor(3.0), torch.tensor([3], dtype=torch.int32)])
def test_a_step_of_another_kind_is_taken_for_its_number(step: object) -> None:
    """AdamW's is a float32 tensor, and others write numbers."""
    optimizer, twin = started(BY_NAME["default"]), started(BY_NAME["default"])
    take_steps(optimizer, 0, 3)
    take_steps(twin, 0, 5)
    for p in params_of(optimizer):
        optimizer.state[p]["step"] = step
    take_steps(optimizer, 3, 5)
    assert digest(optimizer) == digest(twin)


@pytest.mark.parametrize("step", [-1, 2.5, float("nan"), True, "3", None, torch.ones(2), 1j])
def test_a_step_that_is_no_count_is_named(step: object) -> None:
    optimizer = started(BY_NAME["default"])
    take_steps(optimizer, 0, 3)
    optimizer.state[params_of(optimizer)[1]]["step"] = step
    with pytest.raises(ValueError, match=r"'p1'.*has step"):
        optimizer.step()


@pytest.mark.parametrize("what", ["parameter", "gradient"])
def test_freed_memory_of_parameters_and_gradients_is_named(what: str) -> None:
    """Offloading code frees a storage and leaves the views into it."""
    room = normal(0, 100)
    w = nn.Parameter(torch.zeros(64))
    optimizer = Cosmic([("w", w)])
    w.grad = room[8:72]
    optimizer.step()
    if what == "parameter":
        holder = torch.zeros(100)
        w.data = holder[8:72]
    (holder if what == "parameter" else room).untyped_storage().resize_(0)
    with pytest.raises(TypeError, match=r"'w'.*cannot be used.*(storage|memory)"):
        optimizer.step()
