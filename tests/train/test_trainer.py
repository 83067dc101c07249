"""What a run reports, calls and writes, and how it ends."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic, param_groups
from cosmic.logging import EventLog
from cosmic.presets import AXIOM
from cosmic.train import Callback, NonfiniteLossError, StepInfo
from models_to_train import Output, TinyModel, batches, digest, held_out, ids, loader, quiet

pytestmark = pytest.mark.usefixtures("one_thread")

# ---- results --------------------------------------------------------------------------------


def test_results_follow_from_the_lists_and_the_bytes_held(tmp_path: Path) -> None:
    trainer = quiet(
        TinyModel(),
        loader(),
        held_out(),
        budget="40%",
        eval_interval=5,
        save_results=True,
        results_prefix=str(tmp_path / "run"),
    )
    results = trainer.fit(12)
    train, val = results["train_losses"], results["val_losses"]
    assert len(train) == 12 and results["val_steps"] == [0, 5, 10, 12]
    assert (results["initial_train_loss"], results["final_train_loss"]) == (train[0], train[-1])
    assert results["train_improvement_pct"] == 100 * (train[0] - train[-1]) / train[0]
    assert results["val_improvement_pct"] == 100 * (val[0] - val[-1]) / val[0] > 0
    assert results["val_ppls"] == [math.exp(loss) for loss in val]
    assert results["initial_val_ppl"] == math.exp(val[0])
    assert results["final_val_ppl"] == math.exp(val[-1])
    count = sum(parameter.numel() for parameter in trainer.model.parameters())
    held = trainer.optimizer.state_bytes()  # type: ignore[attr-defined]
    assert results["state_bytes"] == held <= 0.4 * 8 * count
    assert results["bits_per_param"] == 8 * held / count
    assert results["gradient_bytes"] == results["weight_bytes"] == 4 * count
    assert results["adamw_bytes"] == 8 * count + 4 * 4
    ratio = (results["adamw_bytes"] + 4 * count) / (held + 4 * count)
    assert results["compression_total"] == ratio
    assert results["peak_vram_gb"] == 0.0
    assert results["peak_rss_gb"] > 0.05 and results["total_time_min"] > 0
    assert results["tokens_per_sec"] > 0 and results["time_to_loss_s"] is None
    assert json.loads((tmp_path / "run.json").read_text()) == json.loads(json.dumps(results))
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_released_gradients_are_held_one_at_a_time() -> None:
    model = TinyModel()
    results = quiet(model, loader(), release_gradients=True).fit(2)
    assert results["gradient_bytes"] == max(p.nbytes for p in model.parameters())
    held = results["state_bytes"] + results["gradient_bytes"]
    assert results["compression_total"] == (results["adamw_bytes"] + 4 * 2520) / held


def test_adamw_is_its_own_yardstick() -> None:
    results = quiet(TinyModel(), loader(), optimizer="adamw").fit(2)
    assert results["state_bytes"] == results["adamw_bytes"]
    assert results["compression_total"] == 1.0


def test_activations_are_counted_and_packed() -> None:
    plain, packed = (
        quiet(TinyModel(width=256), loader(), activations=codec, seed=0).fit(2)
        for codec in (None, "u4")
    )
    assert packed["activation_bytes"] < 0.15 * plain["activation_bytes"]
    assert plain["train_losses"][0] == packed["train_losses"][0], "forward is exact"
    assert plain["train_losses"][1] != packed["train_losses"][1]


def test_time_to_a_loss() -> None:
    trainer = quiet(TinyModel(), loader(), held_out(), eval_interval=2, target_loss=3.3)
    results = trainer.fit(20)
    reached = next(index for index, loss in enumerate(results["val_losses"]) if loss <= 3.3)
    assert 0 < reached < len(results["val_losses"]) - 1
    assert 0 < results["time_to_loss_s"] < trainer._record.train_seconds
    assert quiet(TinyModel(), loader(), target_loss=0.0).fit(2)["time_to_loss_s"] is None


def test_validation_loss_is_a_mean_a_token() -> None:
    """Of batches of different sizes and with labels that are ignored."""
    model = TinyModel(dropout=0.0)
    labels = ids(1, 3)
    labels[0, 4:] = -100
    pairs = [(ids(1, 3), labels), (ids(2, 1), ids(2, 1)), (ids(3, 1), torch.full((1, 12), -100))]
    total = count = 0.0
    for inputs, wanted in pairs[:2]:
        kept = int((wanted[:, 1:] != -100).sum())
        total += kept * model(inputs, wanted).loss.item()
        count += kept
    loss, perplexity = quiet(model, pairs, pairs).evaluate()
    assert loss == pytest.approx(total / count, rel=1e-6)
    assert perplexity == math.exp(loss)
    assert quiet(model, pairs, pairs).evaluate(max_batches=1)[0] != loss
    assert model.training


def test_a_diverged_run_is_strict_json(tmp_path: Path) -> None:
    trainer = quiet(
        Diverging(),
        loader(),
        optimizer="adamw",
        nonfinite_loss="continue",
        save_results=True,
        results_prefix=str(tmp_path / "run"),
    )
    assert math.isnan(trainer.fit(4)["final_train_loss"])
    content = json.loads((tmp_path / "run.json").read_text(), parse_constant=pytest.fail)
    assert content["final_train_loss"] is None


class Diverging(TinyModel):
    """Its third loss is no number."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, input_ids: Tensor, labels: Tensor) -> Output:
        self.calls += self.training
        out = super().forward(input_ids, labels)
        return Output(out.loss * float("nan")) if self.calls == 3 else out


def test_a_loss_that_is_no_number_ends_the_run_before_its_step(tmp_path: Path) -> None:
    trainer = quiet(
        Diverging(),
        loader(),
        checkpoint_interval=1,
        checkpoint_dir=tmp_path / "c",
        save_results=True,
        results_prefix=str(tmp_path / "run"),
        seed=0,
    )
    with pytest.raises(NonfiniteLossError, match=r"step 3 is nan.*checkpoint is step 2's"):
        trainer.fit(4)
    assert json.loads((tmp_path / "run.json").read_text())["steps"] == 2
    assert all(bool(p.isfinite().all()) for p in trainer.model.parameters())


# ---- what is stepped ------------------------------------------------------------------------


def test_accumulated_batches_are_one_larger_batch() -> None:
    data = ids(0, 16)
    one = quiet(TinyModel(dropout=0.0), batches(data, 8), optimizer="adamw")
    two = quiet(TinyModel(dropout=0.0), batches(data), optimizer="adamw", accumulate=2)
    losses = one.fit(4)["train_losses"], two.fit(4)["train_losses"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_release_is_the_ordinary_step() -> None:
    trainers = [
        quiet(TinyModel(tied=True), loader(), release_gradients=release, seed=0)
        for release in (False, True)
    ]
    for trainer in trainers:
        trainer.fit(5)
    assert digest(trainers[0]) == digest(trainers[1])


@pytest.mark.parametrize("release", [False, True])
def test_axiom_by_name_is_the_preset(release: bool) -> None:
    def preset(model: nn.Module) -> AXIOM:
        return AXIOM(param_groups(model), 1e-2, 0.01)

    trainers = [
        quiet(TinyModel(tied=True), loader(), optimizer=way, release_gradients=release, seed=0)
        for way in ("axiom", preset)
    ]
    results = [trainer.fit(5) for trainer in trainers]
    assert [type(trainer.optimizer) for trainer in trainers] == [AXIOM, AXIOM]
    assert trainers[0]._record.train_losses == trainers[1]._record.train_losses
    weights = [trainer.model.state_dict() for trainer in trainers]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert results[0]["state_bytes"] < 0.2 * results[0]["adamw_bytes"]


def test_axiom_by_name_takes_a_budget() -> None:
    results = [
        quiet(TinyModel(), loader(), optimizer="axiom", budget=budget).fit(1)
        for budget in (None, "40%")
    ]
    assert 2 * results[0]["state_bytes"] < results[1]["state_bytes"]
    assert results[1]["state_bytes"] <= 0.4 * results[1]["adamw_bytes"]


def test_an_optimizer_a_function_and_schedulers() -> None:
    model = TinyModel()
    made = quiet(
        model,
        loader(),
        optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=0.4),
        scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1, gamma=0.5),
    )
    made.fit(2)
    assert made.optimizer.param_groups[0]["lr"] == 0.1
    optimizer = Cosmic(model.parameters(), lr=0.1)
    assert quiet(model, loader(), optimizer=optimizer).optimizer is optimizer


def test_a_model_in_evaluation_mode_is_trained_in_training_mode() -> None:
    model = TinyModel(dropout=0.5).eval()
    trainer = quiet(model, loader(), seed=0)
    trainer.fit(2)
    assert all(module.training for module in model.modules())
    whole = quiet(TinyModel(dropout=0.5), loader(), seed=0)
    whole.fit(2)
    assert digest(trainer) == digest(whole)
    model.dropout.eval()  # a part that the caller keeps so
    trainer.fit(3)
    assert model.training and not model.dropout.training


def test_what_the_optimizer_does_not_have_neither_clips_nor_stays() -> None:
    model, alone = TinyModel(dropout=0.0), TinyModel(dropout=0.0)
    for other in (alone.embedding, alone.layer):
        other.requires_grad_(False)
    options = {"max_grad_norm": 0.01, "optimizer": lambda m: torch.optim.SGD([m.head.weight], 1.0)}
    for one in (model, alone):
        quiet(one, batches(ids(0, 8)), **options).fit(4)
    assert torch.equal(model.head.weight, alone.head.weight)


def test_cleanup_leaves_an_ordinary_model() -> None:
    model = TinyModel()
    with quiet(model, loader(), release_gradients=True) as trainer:
        trainer.fit(1)
    trainer.cleanup()
    out = model(ids(0, 2), ids(0, 2))
    out.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(RuntimeError, match="cleaned up"):
        trainer.fit(2)


# ---- callbacks, log, progress ---------------------------------------------------------------


class Told(Callback):
    """Keeps what it is told."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.events: list[str] = []
        self.infos: list[StepInfo] = []
        self.stop_at = stop_at

    def on_step_end(self, trainer: Any, info: StepInfo) -> bool | None:
        self.events.append(f"step {info.step}")
        self.infos.append(info)
        return info.step != self.stop_at

    def on_evaluate(self, trainer: Any, loss: float, perplexity: float) -> None:
        self.events.append(f"evaluate {trainer.step}")

    def on_checkpoint(self, trainer: Any, path: Path) -> None:
        self.events.append(path.name)

    def on_end(self, trainer: Any, results: dict[str, Any]) -> None:
        self.events.append(f"end {results['steps']}")


def test_callbacks_and_the_order_of_things(tmp_path: Path) -> None:
    told = Told()
    trainer = quiet(
        TinyModel(),
        loader(),
        held_out(),
        eval_interval=2,
        checkpoint_interval=2,
        checkpoint_dir=tmp_path,
        callbacks=[told],
    )
    trainer.fit(3)
    assert told.events == [
        "evaluate 0", "step 1", "step 2", "evaluate 2", "step-00000002.pt", "step 3",
        "evaluate 3", "step-00000003.pt", "end 3",
    ]  # fmt: skip
    assert [info.tokens for info in told.infos] == [48, 48, 48]
    assert all(0 < info.optimizer_seconds < info.seconds for info in told.infos)


def test_a_callback_stops_the_run(tmp_path: Path) -> None:
    told = Told(stop_at=2)
    options = {"checkpoint_interval": 10, "checkpoint_dir": tmp_path}
    assert quiet(TinyModel(), loader(), callbacks=[told], **options).fit(9)["steps"] == 2
    assert told.events[-2:] == ["step-00000002.pt", "end 2"]


def test_a_log_of_losses_and_of_the_optimizer(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with quiet(TinyModel(), loader(), held_out(), log=path, log_interval=2) as trainer:
        trainer.fit(5)
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "loss"] == [2, 4]
    assert [e["step"] for e in events if e["event"] == "validation"] == [0, 5]
    assert [e["step"] for e in events if e["event"] == "step"] == [2, 4]
    with EventLog(tmp_path / "own.jsonl") as own:
        quiet(TinyModel(), loader(), log=own, log_interval=1).fit(1)
        own.write("mine")


def test_progress_is_a_line_now_and_then(capfd: pytest.CaptureFixture[str]) -> None:
    quiet(TinyModel(), loader(), progress="mine", log_interval=2).fit(5)
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["mine: step 2/5", "mine: step 4/5"]
    quiet(TinyModel(), loader(), progress=True, log_interval=0).fit(2)
    assert capfd.readouterr().err == ""


# ---- interrupts -----------------------------------------------------------------------------


class Signal(Callback):
    """Sends this process a signal in its third step."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_step_end(self, trainer: Any, info: StepInfo) -> None:
        if info.step == 3:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_and_tells(
    number: signal.Signals, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"checkpoint_interval": 50, "checkpoint_dir": tmp_path / "c", "seed": 1}
    trainer = quiet(
        TinyModel(),
        loader(),
        callbacks=[Signal(number)],
        save_results=True,
        results_prefix=str(tmp_path / "run"),
        **options,
    )
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(9)
    assert signal.getsignal(number) == before
    assert "stopping after this step" in capfd.readouterr().err
    assert json.loads((tmp_path / "run.json").read_text())["steps"] == 3
    resumed = quiet(TinyModel(2), loader(), **options)
    assert resumed.load_checkpoint() == 3
    resumed.fit(9)
    whole = quiet(TinyModel(), loader(), seed=1)
    whole.fit(9)
    assert digest(resumed) == digest(whole)


def test_after_an_interrupt_there_is_nothing_left_of_it() -> None:
    trainer = quiet(TinyModel(), loader(), held_out(), callbacks=[Signal(signal.SIGINT)])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(9)
    assert trainer.evaluate()[0] > 0
    assert trainer.fit(5)["steps"] == 5


class SignalAtTheEnd(Callback):
    """The process is sent a signal while the last checkpoint or the results are written."""

    def on_checkpoint(self, trainer: Any, path: Path) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_an_interrupt_at_the_end_is_not_lost(tmp_path: Path) -> None:
    trainer = quiet(
        TinyModel(),
        loader(),
        callbacks=[SignalAtTheEnd()],
        checkpoint_interval=9,
        checkpoint_dir=tmp_path / "c",
        save_results=True,
        results_prefix=tmp_path / "run",
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(2)
    assert json.loads((tmp_path / "run.json").read_text())["steps"] == 2


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert quiet(TinyModel(), loader(), callbacks=[Signal(signal.SIGINT)]).fit(5)["steps"] == 5
    finally:
        signal.signal(signal.SIGINT, before)
