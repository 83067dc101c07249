"""Where ranks compare what they are about to do: the store by which their process group has met.

No collective: who waits here waits for a key, for as long as the process group would, and knows
afterwards which ranks have not come.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest
from typing import Any, TypeVar

import torch.distributed as dist

from ..errors import DisagreementError

__all__ = ["Meeting", "visited"]

_T = TypeVar("_T")

#: Beyond the patience of the first rank, which tells the others.
_LONGER = 1.5
_ADVICE = (
    "; every rank must make the same optimizer of the same model and step it equally often. "
    "Nothing was stepped."
)


@dataclass
class Meeting:
    """One comparison among some ranks.

    Attributes:
        ranks: global ranks in order; the first one compares.
        rank: this process.
        place: what the keys begin with.
        store: of the process group.
    """

    ranks: Sequence[int]
    rank: int
    place: str
    store: Any

    @classmethod
    def of(cls, ranks: tuple[int, ...]) -> Meeting:
        """The next one of these ranks. The store has its number: where a process group is made
        anew, maybe with other processes, all begin at the first."""
        rank, store = dist.get_rank(), dist.distributed_c10d._get_default_store()
        crowd = f"cosmic/{_digest(repr(ranks))}"
        return cls(ranks, rank, f"{crowd}/{store.add(f'{crowd}/{rank}/met', 1)}", store)

    def compare(self, texts: Mapping[str, str]) -> None:
        """Compare texts, by what they are called, with those of all ranks.

        Raises:
            DisagreementError: on every rank, for the first one that differs, or if a rank has given
                up or has not come in time.
        """
        self._say("", {name: _digest(text) for name, text in texts.items()})
        if self.rank == self.ranks[0]:
            self._tell("verdict", self._verdict(texts))
        verdict = self._heard("verdict")
        if name := verdict.get("differs"):
            if self.rank in verdict["ranks"]:
                self._say("/text", {name: texts[name]})
            if self.rank == self.ranks[0]:
                self._tell("why", {"error": self._difference(name, verdict["ranks"])})
            verdict = self._heard("why")
        _unless_error(verdict)

    def agree(self, own: bool) -> bool:
        """Whether all ranks say so.

        Raises:
            DisagreementError: on every rank, if one has not come in time.
        """
        self._say("", {"says": "yes" if own else ""})
        if self.rank == self.ranks[0]:
            said, error = self._all_said(asking=True)
            verdict = {"error": error, "all": all(one.get("says") for one in said.values())}
            self._tell("verdict", verdict)
        return bool(_unless_error(self._heard("verdict"))["all"])

    def give_up(self, reason: str) -> None:
        """Let the others know that this rank does not come, and why."""
        self._say("", {"": reason})
        if self.rank == self.ranks[0]:
            self._tell("verdict", {"error": f"rank {self.rank} cannot step: {reason}"})

    # ---- what the first rank does -----------------------------------------------------------

    def _verdict(self, texts: Mapping[str, str]) -> dict[str, Any]:
        said, error = self._all_said(asking=False)
        if error:
            return {"error": error}
        for name in texts:
            other = next((r for r in self.ranks if said[r][name] != said[self.rank][name]), None)
            if other is not None:
                return {"differs": name, "ranks": [self.rank, other]}
        return {}

    def _all_said(self, *, asking: bool) -> tuple[dict[int, dict[str, str]], str]:
        """What each rank has said, and what keeps them from going on together."""
        deadline = time.monotonic() + self._patience
        said: dict[int, dict[str, str]] = {}
        for rank in self.ranks:
            key = f"{self.place}/{rank}"
            if self._comes(key, max(deadline - time.monotonic(), 0.1)):
                said[rank] = json.loads(self.store.get(key))
                self.store.delete_key(key)
        if late := [rank for rank in self.ranks if rank not in said]:
            return said, (
                f"ranks {', '.join(map(str, late))} have not come to step() within "
                f"{self._patience:.0f} s, as rank {self.rank} has"
            )
        for rank, found in said.items():
            if "" in found:
                return said, f"rank {rank} cannot step: {found['']}"
            if ("says" in found) != asking:
                one, other = (self.rank, rank) if asking else (rank, self.rank)
                return said, f"rank {one} has a learning rate of 0, and rank {other} has another"
        return said, ""

    def _difference(self, name: str, ranks: Sequence[int]) -> str:
        both = []
        for rank in ranks:
            key = f"{self.place}/{rank}/text"
            if not self._comes(key, self._patience):
                return f"rank {rank} differs in {name}"
            both.append(json.loads(self.store.get(key))[name].split("\n"))
            self.store.delete_key(key)
        one, other = next((a, b) for a, b in zip_longest(*both, fillvalue="nothing") if a != b)
        return f"ranks differ in {name}: rank {ranks[0]} has {one}, rank {ranks[1]} has {other}"

    # ---- the store ----------------------------------------------------------------------------

    @property
    def _patience(self) -> float:
        found: timedelta = self.store.timeout
        return found.total_seconds()

    def _say(self, what: str, found: Mapping[str, str]) -> None:
        self.store.set(f"{self.place}/{self.rank}{what}", json.dumps(found))

    def _tell(self, what: str, found: Mapping[str, Any]) -> None:
        self.store.set(f"{self.place}/{what}", json.dumps(found))

    def _heard(self, what: str) -> dict[str, Any]:
        key = f"{self.place}/{what}"
        if not self._comes(key, self._patience * _LONGER):
            self._say("", {"": "it has waited for the others and given up"})  # if they come later
            return {"error": f"rank {self.ranks[0]} has not come to step(); rank {self.rank} has"}
        found: dict[str, Any] = json.loads(self.store.get(key))
        return found

    def _comes(self, key: str, seconds: float) -> bool:
        try:
            self.store.wait([key], timedelta(seconds=seconds))
        except RuntimeError:  # a DistStoreError where it is late, another where its host is gone
            return False
        return True


def visited(meetings: Sequence[Meeting], visit: Callable[[Meeting], _T]) -> list[_T]:
    """What comes of each meeting, in their order; if one fails, those who wait at a later one
    hear of it."""
    found = []
    for position, meeting in enumerate(meetings):
        try:
            found.append(visit(meeting))
        except DisagreementError as error:
            for later in meetings[position + 1 :]:
                later.give_up(str(error).removesuffix(_ADVICE))
            raise
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unless_error(verdict: dict[str, Any]) -> dict[str, Any]:
    """The verdict, unless it is an error, which is raised."""
    if verdict.get("error"):
        raise DisagreementError(verdict["error"] + _ADVICE)
    return verdict
