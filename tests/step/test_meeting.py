"""Ranks that compare what they are about to do: here threads with one store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from cosmic.errors import DisagreementError
from cosmic.step.meeting import Meeting, visited

RANKS = (2, 3, 5)  # global ones of a mesh: none of them need be 0
PATIENCE = timedelta(seconds=3)


def held(visit: Callable[[Meeting], None], ranks: tuple[int, ...] = RANKS) -> list[str]:
    """What each rank's meeting ends in: nothing, or its error."""
    store = dist.HashStore()  # type: ignore[attr-defined]
    store.set_timeout(PATIENCE)

    def of_rank(rank: int) -> str:
        try:
            visit(Meeting(RANKS, rank, "here", store))
        except DisagreementError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(RANKS)) as pool:
        return list(pool.map(of_rank, ranks))


def texts(options: str = "a\nb", parameters: str = "w") -> Mapping[str, str]:
    return {"options": options, "parameters": parameters}


def test_ranks_that_are_alike_go_on() -> None:
    assert held(lambda meeting: meeting.compare(texts())) == ["", "", ""]


@pytest.mark.parametrize("other", RANKS)
def test_the_first_difference_is_named_on_every_rank(other: int) -> None:
    def visit(meeting: Meeting) -> None:
        differs = meeting.rank == other
        meeting.compare(texts("a\nb\nlr=2" if differs else "a\nb\nlr=1", "v" if differs else "w"))

    found = held(visit)
    assert len(set(found)) == 1
    assert found[0].startswith("ranks differ in options: rank 2 has lr=")
    assert found[0].endswith("Nothing was stepped.")


def test_a_line_that_one_rank_lacks_is_a_difference() -> None:
    found = held(lambda meeting: meeting.compare(texts("a\nb" if meeting.rank < 5 else "a")))
    assert len(set(found)) == 1
    assert "rank 2 has b, rank 5 has nothing" in found[0]


@pytest.mark.parametrize("other", RANKS)
def test_who_cannot_step_lets_the_others_know(other: int) -> None:
    def visit(meeting: Meeting) -> None:
        if meeting.rank == other:
            return meeting.give_up("ValueError: the budget is 3 bytes")
        return meeting.compare(texts())

    found = dict(zip(RANKS, held(visit), strict=True))
    assert found.pop(other) == ""
    expected = f"rank {other} cannot step: ValueError: the budget is 3 bytes"
    assert all(said.startswith(expected) for said in found.values())


@pytest.mark.parametrize("others", [True, False])
def test_ranks_agree_where_all_say_so(others: bool) -> None:
    said: list[bool] = []
    errors = held(lambda meeting: said.append(meeting.agree(meeting.rank == 3 or others)))
    assert (errors, said) == ([""] * 3, [others] * 3)


@pytest.mark.parametrize("asking", RANKS)
def test_who_asks_where_others_compare_is_told(asking: int) -> None:
    def visit(meeting: Meeting) -> None:
        if meeting.rank == asking:
            meeting.agree(True)
        else:
            meeting.compare(texts())

    found = held(visit)
    assert len(set(found)) == 1
    assert f"rank {asking} has a learning rate of 0, and rank" in found[0]


def test_a_rank_that_does_not_come_is_named() -> None:
    found = held(lambda meeting: meeting.compare(texts()), ranks=(2, 5))
    assert all(said.startswith("ranks 3 have not come to step() within 3 s") for said in found)


def test_who_comes_too_late_learns_that_the_others_have_gone() -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]
    store.set_timeout(timedelta(seconds=1))
    store.set("here/5", "{}")
    for rank, expected in ((3, "rank 2 has not come"), (2, "rank 3 cannot step: it has waited")):
        with pytest.raises(DisagreementError, match=expected):
            Meeting(RANKS, rank, "here", store).compare(texts())


def test_the_first_rank_that_does_not_come_is_named() -> None:
    found = held(lambda meeting: meeting.compare(texts()), ranks=(3, 5))
    assert [said.split(";")[0] for said in found] == ["rank 2 has not come to step()"] * 2


def test_who_is_in_two_meetings_tells_the_second_how_the_first_went() -> None:
    crowds = {2: [(2, 3)], 3: [(2, 3), (3, 5)], 5: [(3, 5)]}

    def visit(of: Meeting) -> None:
        meetings = [Meeting(ranks, of.rank, f"{ranks}", of.store) for ranks in crowds[of.rank]]
        visited(meetings, lambda meeting: meeting.compare(texts("b" if of.rank == 2 else "a")))

    first, both, second = held(visit)
    assert first == both
    assert first.startswith("ranks differ in options: rank 2 has b, rank 3 has a; every rank")
    assert second == f"rank 3 cannot step: {first}"
