"""A training loop for models that return their loss."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from cosmic.errors import check_count
from cosmic.logging import EventLog
from cosmic.optimizer import Cosmic
from cosmic.products import fp32_products as products_in_fp32
from cosmic.vocabulary.chunked import chunk_vocabulary as chunked

from .building import make_optimizer
from .callbacks import Callback, check_callbacks
from .checkpoints import CheckpointFolder
from .feed import Feed, check_loader, is_iterator
from .forward import Forward
from .interrupts import Interrupts
from .randomness import random_state
from .record import Record
from .settings import Settings, check_model_is_here
from .stepping import Stepper
from .with_checkpoints import WithCheckpoints

__all__ = ["Trainer"]


class Trainer(WithCheckpoints):
    """Trains a model that returns its loss: evaluation, checkpoints, results, and a run that goes
    on after a kill to the same bits.

    The model is called as those of transformers are, ``model(**batch)``, and its output has a
    ``.loss``. A batch is a mapping with ``labels``, a pair of tensors (ids, labels), or a tensor of
    token ids, shape (sequences, tokens), which are their own labels.

    Args:
        model: on the CPU, with parameters that require grad.
        train_loader: iterable of batches, such as a ``DataLoader``; begun anew wherever it ends.
        val_loader: of held-out batches; None: nothing is evaluated.
        optimizer: ``"cosmic"``, ``"axiom"`` (``cosmic.presets.AXIOM``, state next to nothing),
            ``"adamw"`` (torch's), a function of the model that makes one, or an optimizer.
        lr: highest learning rate of an optimizer that is made by name.
        weight_decay: of the same.
        max_grad_norm: gradients are clipped to this norm; None: not. With ``release_gradients`` by
            the norm of the step before.
        scheduler: ``"cosine"`` (warm-up over a tenth of the steps, at most 100, then down to a
            tenth of ``lr``), a function of the optimizer that makes a scheduler, or a scheduler,
            which is stepped after each step; None: rates stay.
        eval_interval: steps between two evaluations, beside one before the first step and one after
            the last; 0: none.
        eval_batches: held-out batches of each of these; None: all.
        log_interval: steps between two lines of progress and of the log; 0: none.
        checkpoint_interval: steps between two checkpoints, beside one at the end; 0: none.
        checkpoint_dir: folder of this run's checkpoints.
        keep_checkpoints: how many stay there.
        save_results: write ``<results_prefix>.json`` and ``.png`` whenever ``fit`` ends.
        results_prefix: their path without the ending.
        device: ``"cpu"``; there is no other.
        budget: state budget of ``optimizer="cosmic"`` or ``"axiom"``, as of ``Cosmic``.
        release_gradients: step each parameter within backward and free its gradient; of Cosmic.
        activations: codec by which activations are kept, as of ``cosmic.compress_activations``;
            None: as they are.
        chunk_vocabulary: take embedding, head and cross-entropy in blocks, as
            ``cosmic.chunk_vocabulary`` does; a number is the rows of a block.
        accumulate: batches that make one step.
        target_loss: the time to it is measured: of the held-out loss where it is evaluated, else of
            the mean training loss of 20 steps.
        nonfinite_loss: ``"raise"``: a loss that is NaN or infinite ends the run before its step;
            ``"continue"``: it is a step like any other.
        fp32_products: multiply matrices of bfloat16 in float32: ``"needed"`` (where torch has no
            fast products of its own), ``"always"`` or ``"never"``, as ``cosmic.fp32_products``.
        callbacks: called while it goes on.
        seed: of torch's, Python's and numpy's random numbers at the first step; None: as they are.
        progress: show loss and tokens a second on stderr; a text is what they are labelled with.
        log: event log, or the path of one to write; of the optimizer's events too, if it is Cosmic.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range, a loader without
            batches, a parameter that is not on the CPU, or an optimizer that cannot do what is
            asked.
        OSError: a folder cannot be written.
        MissingPackagesError: results are to be drawn and matplotlib is not installed.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None = None,
        *,
        optimizer: Any = "cosmic",
        lr: float = 5e-4,
        weight_decay: float = 0.01,
        max_grad_norm: float | None = None,
        scheduler: Any = None,
        eval_interval: int = 200,
        eval_batches: int | None = 50,
        log_interval: int = 100,
        checkpoint_interval: int = 500,
        checkpoint_dir: str | os.PathLike[str] = "checkpoints",
        keep_checkpoints: int = 2,
        save_results: bool = True,
        results_prefix: str | os.PathLike[str] = "my_run",
        device: str | torch.device = "cpu",
        budget: int | str | None = None,
        release_gradients: bool = False,
        activations: Any = None,
        chunk_vocabulary: bool | int = False,
        accumulate: int = 1,
        target_loss: float | None = None,
        nonfinite_loss: str = "raise",
        fp32_products: str = "needed",
        callbacks: Sequence[Callback] = (),
        seed: int | None = None,
        progress: bool | str = True,
        log: EventLog | str | os.PathLike[str] | None = None,
    ) -> None:
        check_model_is_here(model)
        self._settings = Settings(
            lr=lr, weight_decay=weight_decay, max_grad_norm=max_grad_norm,
            eval_interval=eval_interval, eval_batches=eval_batches, log_interval=log_interval,
            checkpoint_interval=checkpoint_interval, checkpoint_dir=Path(checkpoint_dir),
            keep_checkpoints=keep_checkpoints, save_results=save_results,
            results_prefix=results_prefix, device=device, release_gradients=release_gradients,
            activations=activations, chunk_vocabulary=chunk_vocabulary, accumulate=accumulate,
            target_loss=target_loss, nonfinite_loss=nonfinite_loss,
            fp32_products=fp32_products, seed=seed,
        )  # fmt: skip
        self.model = model
        self.callbacks = check_callbacks(callbacks)
        self._progress, self._scheduler, self._schedule = progress, scheduler, None
        self._feed = Feed(train_loader)
        if val_loader is not None:
            check_loader(val_loader, "val_loader")
            if eval_interval and is_iterator(val_loader):
                raise ValueError(
                    "val_loader is an iterator, which has ended when it is evaluated a second time;"
                    " give an object that begins anew with each iter(), such as a DataLoader or a "
                    "list"
                )
        self._val_loader = val_loader
        self._folder = CheckpointFolder(self._settings.checkpoint_dir, keep_checkpoints)
        if checkpoint_interval:
            self._check_checkpoints()
        self._record = Record()
        self._random = self._place = self._lap = self._saved = None
        self._running = self._stopping = self._cleaned = False
        self._interrupts = Interrupts()
        self._forward = Forward(model, activations, self._settings.step_seed)
        with ExitStack() as stack:
            if chunk_vocabulary is not False:
                self._chunk(stack, optimizer)
            self.optimizer = make_optimizer(
                optimizer, model, lr=lr, weight_decay=weight_decay, budget=budget
            )
            self._stepper = Stepper(
                model, self.optimizer, max_norm=max_grad_norm, release=release_gradients
            )
            stack.callback(self._stepper.remove)
            self._log = self._open_log(stack, log)
            self._stack = stack.pop_all()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cleanup()

    def fit(self, steps: int) -> dict[str, Any]:
        """Train until ``steps`` steps have been taken in all: after ``load_checkpoint``, or called
        again with a higher number, it goes on from where the run stands, with the run's own random
        numbers, whatever was drawn meanwhile.

        A model in evaluation mode, as ``from_pretrained`` of transformers returns it, is put into
        training mode; where the model itself is in training mode, modules within it that are not
        stay so.

        SIGINT and SIGTERM end it after the step that is being taken, with a checkpoint and results.

        Args:
            steps: of the whole run.

        Returns:
            What is written as JSON, too: ``train_losses`` (one a step), ``initial_train_loss`` and
            ``final_train_loss`` (first and last of these), ``train_improvement_pct``;
            ``val_steps``, ``val_losses``, ``val_ppls``, ``initial_val_loss``, ``final_val_loss``,
            ``initial_val_ppl``, ``final_val_ppl``, ``val_improvement_pct`` (of the loss);
            ``peak_vram_gb`` (0: no such memory is used), ``peak_rss_gb`` (of the process, 10^9
            bytes; None where the system does not tell), ``tokens_per_sec`` (of steps alone),
            ``total_time_min`` (with evaluations and checkpoints), ``time_to_loss_s`` (of steps;
            None: not reached); ``parameters`` (that are trained), ``weight_bytes``,
            ``state_bytes``, ``gradient_bytes`` (the most held at a time), ``activation_bytes`` (the
            most that autograd kept), ``adamw_bytes`` (of AdamW's state in fp32),
            ``bits_per_param`` (of state), and ``compression_total``: AdamW's state and all
            gradients over the state and the gradients that were held.

        Raises:
            KeyboardInterrupt: it was interrupted.
            NonfiniteLossError: the loss is no number; the step was not taken.
            CheckpointError: a checkpoint cannot be written, or the folder has checkpoints of later
                steps, which are of another run.
            TypeError, ValueError: a batch without labels, an output without a loss, a loader
                without batches.
        """
        check_count("steps", steps, 1)
        self._refuse_nested_or_cleaned()
        self._refuse_later_checkpoints()
        self._prepare_schedule(steps)
        self._record.steps = steps
        self._running, self._stopping = True, False
        if not self.model.training:  # as transformers gives it back
            self.model.train()
        self._lap = time.perf_counter()
        self._interrupts = Interrupts()
        try:
            with self._interrupts, products_in_fp32(self._settings.fp32_products):
                self._take_up_random_numbers()
                return self._run(steps)
        finally:
            self._interrupts = Interrupts()  # what ended this call ends nothing after it
            self._random = random_state()
            self._lap, self._running = None, False

    def cleanup(self) -> None:
        """Take hooks and blocks from the model, which keeps what it has learned, and close the log.
        The trainer cannot go on after that; a second time does nothing."""
        self._cleaned = True
        self._stack.close()

    # ---- what the constructor does -------------------------------------------------------------

    def _check_checkpoints(self) -> None:
        """See, before anything is trained, that checkpoints can be written and gone on from."""
        self._folder.check()
        if not self._feed.rewinds:
            raise ValueError(
                "train_loader is an iterator, which cannot be brought back to where a checkpoint "
                "was made; give an object that begins anew with each iter(), such as a DataLoader "
                "or a list, one with state_dict() and load_state_dict(), or checkpoint_interval=0"
            )

    def _chunk(self, stack: ExitStack, optimizer: Any) -> None:
        if isinstance(optimizer, torch.optim.Optimizer):
            raise ValueError(
                "chunk_vocabulary cuts parameters before the optimizer is made: give the optimizer "
                "by name, or as a function of the model"
            )
        rows = self._settings.chunk_vocabulary
        options = {} if rows is True else {"rows": rows}
        stack.enter_context(chunked(self.model, **options))

    def _open_log(
        self, stack: ExitStack, log: EventLog | str | os.PathLike[str] | None
    ) -> EventLog | None:
        if log is None or isinstance(log, EventLog):
            return log
        opened = EventLog(log, every=max(1, self._settings.log_interval))
        stack.callback(opened.close)
        if isinstance(self.optimizer, Cosmic):
            opened.attach(self.optimizer)
        return opened
