"""Batches of a loader, epoch after epoch, and where among them a run stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from .errors import CheckpointError
from .randomness import random_state, set_random_state

__all__ = ["Feed", "check_loader", "generators_of", "is_iterator"]


def check_loader(loader: Any, what: str) -> None:
    """See that a loader can be iterated and does not say that it is empty.

    Raises:
        TypeError: it cannot be iterated.
        ValueError: it has no batches.
    """
    if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
        raise TypeError(f"{what} is {type(loader).__name__}; expected an iterable of batches")
    try:
        length = len(loader)
    except TypeError:  # of an iterable dataset
        return
    if length == 0:
        raise ValueError(f"{what} has no batches; is drop_last=True on less than one batch?")


def is_iterator(loader: Any) -> bool:
    """Whether it can be gone through once only. A ``DataLoader`` is not asked for an iterator,
    which would start its workers and draw a random number."""
    return hasattr(loader, "__next__") and iter(loader) is loader


def generators_of(loader: Any) -> list[torch.Generator]:
    """The random generators that a DataLoader and its samplers draw from, each once."""
    sampler, batch_sampler = (
        getattr(loader, "sampler", None),
        getattr(loader, "batch_sampler", None),
    )
    places = (loader, sampler, batch_sampler, getattr(batch_sampler, "sampler", None))
    found = (getattr(place, "generator", None) for place in places)
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


class Feed:
    """Batches without end: a loader is begun anew wherever it ends.

    A loader's own ``state_dict`` and ``load_state_dict`` are used where it has them. Any other is
    brought back to a place by beginning the epoch anew with the random numbers that it began with
    and passing over the batches that were taken.

    Args:
        loader: iterable of batches, such as a ``DataLoader``.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        check_loader(loader, "train_loader")
        self._loader: Any = loader
        self._batches: Iterator[Any] | None = None
        self._epoch = self._taken = 0
        self._start: dict[str, Any] | None = None  # random numbers at the epoch's start

    @property
    def rewinds(self) -> bool:
        """Whether the loader can be brought back to a place: an iterator cannot."""
        return self._stateful or not is_iterator(self._loader)

    def take(self) -> Any:
        """The next batch.

        Raises:
            ValueError: the loader has no batches, or is an iterator that has ended.
        """
        while True:
            if self._batches is None:
                self._begin()
            assert self._batches is not None
            try:
                batch = next(self._batches)
            except StopIteration:
                self._refuse_end()
                self._batches, self._epoch, self._taken = None, self._epoch + 1, 0
                continue
            self._taken += 1
            return batch

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands, of tensors, numbers and what the loader says of itself."""
        return {
            "epoch": self._epoch,
            "taken": self._taken,
            "start": self._start,
            "generators": self._generator_states(),
            "loader": self._loader.state_dict() if self._stateful else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where a run stood. Draws random numbers: theirs are to be set afterwards.

        Raises:
            CheckpointError: the loader ends before that place.
        """
        self._epoch, self._taken, self._start = state["epoch"], state["taken"], state["start"]
        self._batches = None
        self._start_workers()
        if state["loader"] is not None and self._stateful:
            self._loader.load_state_dict(state["loader"])
            self._batches = iter(self._loader)
        elif self._start is not None:
            set_random_state(self._start["random"])
            self._set_generators(self._start["generators"])
            self._tell_epoch()
            self._batches = iter(self._loader)
            self._pass_over(self._taken)
        self._set_generators(state["generators"])

    @property
    def _stateful(self) -> bool:
        return hasattr(self._loader, "state_dict") and hasattr(self._loader, "load_state_dict")

    def _start_workers(self) -> None:
        """Workers that stay draw a random number when they are started, but not in later epochs:
        started before an epoch begins, they draw none in any."""
        stay = getattr(self._loader, "persistent_workers", False)
        if stay and getattr(self._loader, "_iterator", None) is None:
            iter(self._loader)

    def _begin(self) -> None:
        self._start_workers()
        self._start = {"random": random_state(), "generators": self._generator_states()}
        self._tell_epoch()
        self._batches = iter(self._loader)

    def _tell_epoch(self) -> None:
        """As a DistributedSampler wants it, which shuffles by the epoch's number."""
        tell = getattr(getattr(self._loader, "sampler", None), "set_epoch", None)
        if callable(tell):
            tell(self._epoch)

    def _pass_over(self, count: int) -> None:
        assert self._batches is not None
        for passed in range(count):
            try:
                next(self._batches)
            except StopIteration:
                raise CheckpointError(
                    f"train_loader ends after {passed} batches, but the checkpoint was made after "
                    f"batch {count} of epoch {self._epoch}: give the loader of that run"
                ) from None

    def _refuse_end(self) -> None:
        if self._taken == 0 and self._epoch == 0:
            raise ValueError("train_loader has no batches")
        if self._taken == 0:
            raise ValueError(
                f"train_loader has no batches when it is begun anew, after epoch {self._epoch}: "
                "its data set can be gone through once only; let its __iter__ begin at the start"
            )
        if is_iterator(self._loader):
            raise ValueError(
                f"train_loader is an iterator and has ended after {self._taken} batches; give an "
                "object that begins anew with each iter(), such as a DataLoader or a list"
            )

    def _generator_states(self) -> list[torch.Tensor]:
        return [generator.get_state() for generator in generators_of(self._loader)]

    def _set_generators(self, states: list[torch.Tensor]) -> None:
        for generator, state in zip(generators_of(self._loader), states, strict=False):
            generator.set_state(state)
