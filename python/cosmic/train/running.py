"""The steps of a run, and what is done between them."""

from __future__ import annotations

import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from cosmic.errors import MissingPackagesError
from cosmic.logging import EventLog
from cosmic.products import fp32_products

from .batches import IGNORED, model_inputs, predictions, token_count
from .callbacks import Callback, StepInfo
from .checkpoints import CheckpointFolder
from .errors import NonfiniteLossError
from .evaluating import mean_loss, perplexity
from .feed import Feed
from .files import write_json
from .forward import Forward
from .interrupts import Interrupts
from .memory import process_peak_bytes
from .progress import Progress
from .record import Record, results
from .settings import Settings
from .stepping import Stepper

__all__ = ["Running"]


class _Asked(Exception):
    """The run is to end: it was interrupted, and stands between two steps."""


class Running(ABC):
    """A run that takes steps, evaluates, saves and tells; ``Trainer`` makes what it works on."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    callbacks: list[Callback]
    _settings: Settings
    _folder: CheckpointFolder
    _feed: Feed
    _forward: Forward
    _stepper: Stepper
    _record: Record
    _schedule: Any
    _val_loader: Iterable[Any] | None
    _log: EventLog | None
    _progress: bool | str
    _interrupts: Interrupts
    _lap: float | None  # when time was last noted, within fit
    _saved: int | None  # step of the last checkpoint
    _stopping: bool

    @property
    def step(self) -> int:
        """Steps that were taken, those of a loaded checkpoint with them."""
        return self._record.step

    def stop(self) -> None:
        """End ``fit`` after the step that is being taken."""
        self._stopping = True

    def evaluate(self, max_batches: int | None = 50) -> tuple[float, float]:
        """Loss a token and perplexity on the held-out batches. Changes nothing in the run.

        Args:
            max_batches: no more than so many; None: all.

        Raises:
            ValueError: there is no ``val_loader``, or nothing in it.
        """
        if self._val_loader is None:
            raise ValueError("there is nothing to evaluate on: give Trainer a val_loader")
        with fp32_products(self._settings.fp32_products):
            loss = mean_loss(
                self.model,
                self._val_loader,
                max_batches=max_batches,
                before_each=self._end_if_asked,
            )
        return loss, perplexity(loss)

    @abstractmethod
    def save_checkpoint(self) -> Path:
        """Write a checkpoint."""

    def _run(self, steps: int) -> dict[str, Any]:
        try:
            with self._shown(steps) as progress:
                if self.step == 0:
                    self._evaluate_once()
                while self.step < steps and not self._stopping:
                    info = self._take_step()
                    if progress is not None:
                        progress.update(info.loss, info.tokens)
                    self._after_step(info, is_last=self.step == steps)
                    self._end_if_asked()
            self._evaluate_once()
        except _Asked:
            self._save_once()
            self._end()
            raise KeyboardInterrupt from None
        except NonfiniteLossError:
            self._end()
            raise
        self._save_once()
        found = self._end()
        if self._interrupts.asked:  # while this was being written
            raise KeyboardInterrupt
        return found

    def _take_step(self) -> StepInfo:
        start, record, accumulate = time.perf_counter(), self._record, self._settings.accumulate
        lr = float(self.optimizer.param_groups[0]["lr"])
        losses, tokens = [], 0
        self._stepper.begin()
        for part in range(accumulate):
            inputs = model_inputs(self._feed.take())
            loss = self._forward(inputs, record.step * accumulate + part)
            losses.append(self._checked(loss.item(), inputs))
            tokens += token_count(inputs)
            self._stepper.backward(loss / accumulate if accumulate > 1 else loss)
            del loss  # and with it what is left of the graph
        optimizer_seconds = self._stepper.step()
        if self._schedule is not None:
            self._schedule.step()
        seconds = time.perf_counter() - start
        record.train_losses.append(sum(losses) / accumulate)
        record.tokens += tokens
        record.train_seconds += seconds
        record.gradient_bytes = max(record.gradient_bytes, self._stepper.gradient_bytes)
        record.activation_bytes = self._forward.activation_bytes
        return StepInfo(
            record.step, record.train_losses[-1], lr, tokens, seconds, optimizer_seconds
        )

    def _checked(self, loss: float, inputs: Mapping[str, Any]) -> float:
        if self._settings.nonfinite_loss == "raise" and not math.isfinite(loss):
            if not predictions(self.model, inputs):
                raise NonfiniteLossError(
                    f"the loss of step {self.step + 1} is {loss}, as its batch has nothing to "
                    f"predict: each of its labels is {IGNORED}, or its sequences have one token or "
                    "are none. The step was not taken; leave such batches out"
                )
            kept = self._folder.steps() if self._settings.checkpoint_interval else []
            last = f"; the last checkpoint is step {kept[-1]}'s" if kept else ""
            raise NonfiniteLossError(
                f"the loss of step {self.step + 1} is {loss}: the step was not taken{last}. A "
                "lower lr or max_grad_norm may help; nonfinite_loss='continue' goes on regardless"
            )
        return loss

    def _after_step(self, info: StepInfo, *, is_last: bool) -> None:
        settings = self._settings
        if settings.log_interval and info.step % settings.log_interval == 0:
            self._write_event("loss", loss=info.loss)
        self._record.note_time_to(settings.target_loss, by_validation=self._evaluates)
        for callback in self.callbacks:
            self._heed(callback.on_step_end(self, info))
        if is_last or self._stopping:
            return  # what is to be done at the end is done there
        if settings.eval_interval and info.step % settings.eval_interval == 0:
            self._evaluate_once()
        if settings.checkpoint_interval and info.step % settings.checkpoint_interval == 0:
            self._save_once()

    def _evaluate_once(self) -> None:
        """Evaluate, if that is wanted and was not done at this step."""
        record = self._record
        if not self._evaluates or record.val_steps[-1:] == [record.step]:
            return
        loss, ppl = self.evaluate(self._settings.eval_batches)
        record.val_steps.append(record.step)
        record.val_losses.append(loss)
        record.note_time_to(self._settings.target_loss, by_validation=True)
        self._write_event("validation", loss=loss, perplexity=ppl)
        for callback in self.callbacks:
            self._heed(callback.on_evaluate(self, loss, ppl))

    def _save_once(self) -> None:
        """Write a checkpoint, if that is wanted and was not done at this step."""
        if not self._settings.checkpoint_interval or self._saved == self.step:
            return
        path = self.save_checkpoint()
        self._saved = self.step
        for callback in self.callbacks:
            self._heed(callback.on_checkpoint(self, path))

    def _end(self) -> dict[str, Any]:
        self._note_time()
        found = results(self._record, self.model, self.optimizer)
        if self._settings.save_results:
            from .picture import draw_results

            prefix = self._settings.results_prefix
            try:
                write_json(Path(f"{prefix}.json"), found)
                draw_results(Path(f"{prefix}.png"), found, type(self.model).__name__)
            except OSError as error:  # the run itself stands, and so does what ends it
                warnings.warn(
                    f"results cannot be written to {prefix}.json and .png ({error.strerror}); they "
                    "are what fit() returns",
                    stacklevel=3,
                )
        for callback in self.callbacks:
            callback.on_end(self, found)
        return found

    # ---- smaller pieces ------------------------------------------------------------------------

    @property
    def _evaluates(self) -> bool:
        return self._val_loader is not None and self._settings.eval_interval > 0

    def _shown(self, steps: int) -> Any:
        """The bar or the lines of this call of ``fit``; None where none are wanted."""
        if not self._progress:
            return nullcontext()
        label = self._progress if isinstance(self._progress, str) else "training"
        every = self._settings.log_interval or steps + 1
        return Progress(label, steps, done=self.step, every=every)

    def _end_if_asked(self) -> None:
        if self._interrupts.asked:
            raise _Asked

    def _heed(self, answer: bool | None) -> None:
        if answer is False:
            self.stop()

    def _write_event(self, event: str, **fields: Any) -> None:
        if self._log is not None:
            self._log.write(event, step=self.step, **fields)

    def _note_time(self) -> None:
        """Bring the record's time and peak up to now."""
        if self._lap is not None:
            now = time.perf_counter()
            self._record.total_seconds += now - self._lap
            self._lap = now
        with suppress(MissingPackagesError):  # a system that does not tell
            peak = process_peak_bytes()
            self._record.peak_rss_bytes = max(peak, self._record.peak_rss_bytes or 0)
