"""A run whose whole state can be saved, and taken up by another process."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import checkpoints
from .building import make_schedule
from .errors import CheckpointError
from .randomness import random_state, seed_everything, set_random_state
from .running import Running
from .schedules import CosineSchedule
from .weights import load_weights, saved_weights

__all__ = ["WithCheckpoints"]


class WithCheckpoints(Running):
    """Saves and loads what a run needs to go on to the same bits."""

    _scheduler: Any  # as it was asked for
    _random: dict[str, Any] | None  # random numbers between two calls of fit
    _place: dict[str, Any] | None  # where the loader is to go first
    _running: bool
    _cleaned: bool

    def save_checkpoint(
        self, step: int | None = None, path: str | os.PathLike[str] | None = None
    ) -> Path:
        """Write all that the run needs to go on: weights, the optimizer's and the schedule's state,
        losses, random numbers, and the place in the loader.

        The file is written beside its place, made durable and then put there: a kill at any moment
        leaves the checkpoints before it. Older ones of ``checkpoint_dir`` are deleted after that.

        Args:
            step: None, or the step at which the run stands.
            path: file to write; None: ``step-<step>.pt`` in ``checkpoint_dir``.

        Returns:
            The file.

        Raises:
            ValueError: the run stands at another step.
            CheckpointError: it cannot be written, or holds what cannot be loaded safely.
        """
        if step is not None and step != self.step:
            raise ValueError(f"step is {step}, but the run stands at step {self.step}")
        self._note_time()
        content = self._content()
        if path is None:
            written = self._folder.save(self.step, content)
        else:
            written = Path(path)
            checkpoints.write(written, content)
        self._write_event("checkpoint", path=str(written))
        return written

    def load_checkpoint(self, path: str | os.PathLike[str] | None = None) -> int:
        """Go to where a run stood; ``fit`` goes on from there to the same bits. Learning rates and
        all other options of the optimizer's groups are the checkpoint's from then on, whatever
        ``lr`` or an optimizer was given here, and so are random numbers, whatever the ``seed``.

        Args:
            path: file to read; None: the newest of ``checkpoint_dir`` that is whole. Where there is
                none at all nothing changes, so that a script may always begin with this.

        Returns:
            The step at which the run stands now.

        Raises:
            CheckpointError: it cannot be read, is of another format, or of another model (the first
                entry that differs is named), optimizer or scheduler. Nothing has changed then.
        """
        self._refuse_nested_or_cleaned()
        if path is None:
            found = self._folder.latest()
            if found is None:
                return self.step
            file, content = found
        else:
            file = Path(path)
            content = checkpoints.read(file)
        checkpoints.check_model(file, content["model"], saved_weights(self.model))
        _check_kind(file, "optimizer", content["optimizer"]["kind"], self.optimizer)
        self._prepare_schedule(content["record"]["steps"])
        _check_kind(file, "scheduler", content["schedule"]["kind"], self._schedule)
        with self._loaded_schedule(file, content["schedule"]["state"]):
            self._load_optimizer(file, content["optimizer"]["state"])
        load_weights(self.model, content["model"])
        self._record.load_state_dict(content["record"])
        self._random = checkpoints.copied(content["random"])
        self._place = checkpoints.copied(content["feed"])
        return self.step

    # ---- what a checkpoint is made of ----------------------------------------------------------

    def _content(self) -> dict[str, Any]:
        schedule = None if self._schedule is None else self._schedule.state_dict()
        return {
            "model": saved_weights(self.model),
            "optimizer": {
                "kind": type(self.optimizer).__name__,
                "state": self.optimizer.state_dict(),
            },
            "schedule": {"kind": _kind(self._schedule), "state": schedule},
            "record": self._record.state_dict(),
            "random": self._own_random_state(),
            "feed": self._place or self._feed.state_dict(),
        }

    def _own_random_state(self) -> dict[str, Any] | None:
        """The run's random numbers; None before its first step if it begins by a seed."""
        if self._running:
            return random_state()
        begins_by_seed = self._settings.seed is not None and self.step == 0
        return self._random or (None if begins_by_seed else random_state())

    @contextmanager
    def _loaded_schedule(self, file: Path, state: Any) -> Iterator[None]:
        """The schedule at a checkpoint's place; as it was, if what is done within fails."""
        if self._schedule is None:
            yield
            return
        before = copy.deepcopy(self._schedule.state_dict())
        try:
            try:
                self._schedule.load_state_dict(checkpoints.copied(state))
            except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
                raise CheckpointError(
                    f"checkpoint {file} does not fit the scheduler: {error}"
                ) from error
            yield
        except BaseException:
            self._schedule.load_state_dict(before)
            raise

    def _load_optimizer(self, file: Path, state: Any) -> None:
        try:
            self.optimizer.load_state_dict(checkpoints.copied(state))
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f"checkpoint {file} does not fit the optimizer: {error}"
            ) from error

    def _prepare_schedule(self, steps: int) -> None:
        """Make the schedule when the number of steps is known; tell it where that has changed."""
        if self._schedule is None:
            self._schedule = make_schedule(self._scheduler, self.optimizer, steps)
        elif isinstance(self._schedule, CosineSchedule):
            self._schedule.set_steps(steps)

    def _take_up_random_numbers(self) -> None:
        """The run's own, not those of what else this process did; and the loader's place."""
        if self._place is not None:
            self._feed.load_state_dict(self._place)
            self._place = None
        if self._random is not None:
            set_random_state(self._random)
        elif self._settings.seed is not None:
            seed_everything(self._settings.seed)

    def _refuse_nested_or_cleaned(self) -> None:
        if self._running:
            raise RuntimeError("fit() is running: a callback may save, but neither fit nor load")
        if self._cleaned:
            raise RuntimeError("this Trainer was cleaned up; make a new one to go on")

    def _refuse_later_checkpoints(self) -> None:
        """Checkpoints of another run would be taken for this one's, and kept in its place."""
        if not self._settings.checkpoint_interval:
            return
        later = [step for step in self._folder.whole_steps() if step > self.step]
        if later:
            raise CheckpointError(
                f"{self._folder.folder} has checkpoints up to step {later[-1]}, and this run is at "
                f"step {self.step}: load_checkpoint() to go on from them, or give another "
                "checkpoint_dir, or delete them"
            )


def _kind(one: Any) -> str | None:
    return None if one is None else type(one).__name__


def _check_kind(file: Path, what: str, saved: str | None, own: Any) -> None:
    if saved != _kind(own):
        raise CheckpointError(
            f"checkpoint {file} was made with {f'the {what} {saved}' if saved else f'no {what}'}; "
            f"this run has {_kind(own) or 'none'}"
        )
