"""Checkpoints on the disk: whole, of this model, pruned late, and small in memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, StepLR

from cosmic import Cosmic
from cosmic.train import CheckpointError, checkpoints, files
from models_to_train import TinyModel, digest, loader, quiet

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(folder: Path, steps: int = 4, **options: Any) -> Any:
    """A run with a checkpoint after each step."""
    options = {"checkpoint_interval": 1, "checkpoint_dir": folder, "seed": 0} | options
    trainer = quiet(TinyModel(), loader(), **options)
    trainer.load_checkpoint()
    trainer.fit(steps)
    return trainer


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_old_ones_go_and_no_other_file_stays(tmp_path: Path) -> None:
    trained(tmp_path, 5, keep_checkpoints=3)
    assert names(tmp_path) == [f"step-0000000{step}.pt" for step in (3, 4, 5)]


def test_old_ones_go_only_after_the_new_one_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trained(tmp_path, 2, keep_checkpoints=1)
    seen: list[list[str]] = []

    def sync(folder: Path) -> None:
        seen.append(names(folder))

    monkeypatch.setattr(files, "_sync_folder", sync)
    trainer.fit(3)
    assert seen == [["step-00000002.pt", "step-00000003.pt"]]
    assert names(tmp_path) == ["step-00000003.pt"]


@pytest.mark.parametrize("size", [0, 100, -2000])
def test_half_files_are_passed_over_with_a_warning(size: int, tmp_path: Path) -> None:
    whole = digest(trained(tmp_path / "other", 4))
    trained(tmp_path / "run", 3)
    newest = tmp_path / "run" / "step-00000003.pt"
    newest.write_bytes(newest.read_bytes()[:size])
    trainer = quiet(TinyModel(3), loader(), checkpoint_interval=1, checkpoint_dir=tmp_path / "run")
    with pytest.warns(UserWarning, match=r"step-00000003\.pt cannot be read"):
        assert trainer.load_checkpoint() == 2
    trainer.fit(4)
    assert digest(trainer) == whole
    assert names(tmp_path / "run") == ["step-00000003.pt", "step-00000004.pt"]


def test_none_is_whole(tmp_path: Path) -> None:
    (tmp_path / "step-00000001.pt").write_bytes(b"nothing")
    trainer = quiet(TinyModel(), loader(), checkpoint_dir=tmp_path)
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(CheckpointError, match="none of the 1 checkpoints"),
    ):
        trainer.load_checkpoint()


def test_without_checkpoints_a_run_begins(tmp_path: Path) -> None:
    trainer = quiet(TinyModel(), loader(), checkpoint_dir=tmp_path / "none")
    assert trainer.load_checkpoint() == 0
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        trainer.load_checkpoint(tmp_path / "missing.pt")


def test_another_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, 3)
    other = quiet(TinyModel(), loader(), checkpoint_interval=1, checkpoint_dir=tmp_path)
    with pytest.raises(CheckpointError, match=r"checkpoints up to step 3.*load_checkpoint\(\)"):
        other.fit(2)
    assert names(tmp_path) == ["step-00000002.pt", "step-00000003.pt"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            lambda: TinyModel(width=16),
            r"embedding.weight has shape \(40, 24\) there and \(40, 16\)",
        ),
        (lambda: TinyModel(dtype=torch.bfloat16), r"has dtype torch.float32 there and torch.bfl"),
        (lambda: torch.nn.Sequential(TinyModel()), r"it has no 0\.embedding\.weight"),
    ],
)
def test_another_model_is_named_and_untouched(other: Any, said: str, tmp_path: Path) -> None:
    trained(tmp_path)
    trainer = quiet(other(), loader(), checkpoint_dir=tmp_path)
    before = digest(trainer)
    with pytest.raises(CheckpointError, match=f"of another model: .*{said}"):
        trainer.load_checkpoint()
    assert digest(trainer) == before


def test_another_optimizer(tmp_path: Path) -> None:
    trained(tmp_path)
    trainer = quiet(TinyModel(), loader(), optimizer="adamw", checkpoint_dir=tmp_path)
    with pytest.raises(CheckpointError, match="with the optimizer Cosmic; this run has AdamW"):
        trainer.load_checkpoint()


SCHEDULES: dict[str, Any] = {
    "none": None,
    "cosine": "cosine",
    "StepLR": lambda optimizer: StepLR(optimizer, 1, 0.5),
    "LambdaLR": lambda optimizer: LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "OneCycleLR": lambda optimizer: OneCycleLR(optimizer, 0.1, total_steps=9),
}


@pytest.mark.parametrize("saved", SCHEDULES)
@pytest.mark.parametrize("own", SCHEDULES)
def test_another_schedule(saved: str, own: str, tmp_path: Path) -> None:
    trained(tmp_path, scheduler=SCHEDULES[saved])
    trainer = quiet(TinyModel(2), loader(), scheduler=SCHEDULES[own], checkpoint_dir=tmp_path)
    if saved == own:
        assert trainer.load_checkpoint() == 4
        return
    weights = [parameter.clone() for parameter in trainer.model.parameters()]
    with pytest.raises(CheckpointError, match=r"scheduler.*; this run has"):
        trainer.load_checkpoint()
    assert trainer.step == 0 and not trainer.optimizer.state
    assert all(map(torch.equal, weights, trainer.model.parameters()))


def test_a_schedule_stays_where_the_optimizer_does_not_fit(tmp_path: Path) -> None:
    def groups(*names: str) -> Any:
        return lambda model: Cosmic([model.get_parameter(name) for name in names])

    trained(tmp_path, scheduler="cosine", optimizer=groups("head.weight", "layer.weight"))
    other: dict[str, Any] = {"optimizer": groups("head.weight"), "scheduler": "cosine", "seed": 0}
    other["checkpoint_dir"] = tmp_path
    trainer = quiet(TinyModel(), loader(), **other)
    with pytest.raises(CheckpointError, match="does not fit the optimizer"):
        trainer.load_checkpoint()
    fresh = quiet(TinyModel(), loader(), **{**other, "checkpoint_dir": tmp_path / "new"})
    trainer.fit(1)
    fresh.fit(1)
    assert digest(trainer) == digest(fresh)


def test_a_checkpoint_before_the_first_step_begins_by_the_seed(tmp_path: Path) -> None:
    first = quiet(TinyModel(), loader(), seed=0)
    file = first.save_checkpoint(path=tmp_path / "start.pt")
    first.fit(3)
    torch.manual_seed(99)
    second = quiet(TinyModel(2), loader(), seed=0)
    second.load_checkpoint(file)
    second.fit(3)
    assert digest(first) == digest(second)


def test_another_format_or_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trained(tmp_path)
    monkeypatch.setattr(checkpoints, "CHECKPOINT_FORMAT", 99)
    with pytest.raises(CheckpointError, match=r"is of format 1.*reads format 99"):
        trainer.load_checkpoint()
    monkeypatch.undo()
    monkeypatch.setattr("cosmic._core.__version__", "9.9")
    with pytest.warns(UserWarning, match="not to the same bits"):
        trainer.load_checkpoint()


def test_a_file_of_something_else(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint that Trainer has written"):
        quiet(TinyModel(), loader()).load_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda file: file.write_text("no weights"), "not whole: it is no file of torch.save"),
        (lambda file: file.touch(), "not whole: it is no file of torch.save"),
        (lambda file: torch.save(TinyModel(), file), "more than tensors, numbers and text"),
        (lambda file: torch.save({"kind": "cosmic.train"}, file), "not a checkpoint that Trainer"),
    ],
)
def test_files_that_are_no_checkpoints(write: Any, said: str, tmp_path: Path) -> None:
    write(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=said):
        quiet(TinyModel(), loader()).load_checkpoint(tmp_path / "x.pt")


def test_code_is_neither_written_nor_run(tmp_path: Path) -> None:
    trainer = quiet(TinyModel(), loader())
    trainer.optimizer.param_groups[0]["mine"] = print
    with pytest.raises(CheckpointError, match=r"cannot hold \['optimizer'\].*\['mine'\], which is"):
        trainer.save_checkpoint(path=tmp_path / "x.pt")
    assert names(tmp_path) == []


def test_a_path_of_ones_own(tmp_path: Path) -> None:
    trainer = trained(tmp_path / "run", 3)
    assert trainer.save_checkpoint(step=3, path=tmp_path / "mine.pt") == tmp_path / "mine.pt"
    other = quiet(TinyModel(2), loader())
    assert other.load_checkpoint(tmp_path / "mine.pt") == 3
    assert digest(other) == digest(trainer)
    with pytest.raises(ValueError, match="step is 5, but the run stands at step 3"):
        trainer.save_checkpoint(step=5)


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    sizes = []
    for tied in (False, True):
        trainer = quiet(TinyModel(width=512, tied=tied), loader(), max_grad_norm=None)
        sizes.append(trainer.save_checkpoint(path=tmp_path / "x.pt").stat().st_size)
    assert sizes[0] - sizes[1] == pytest.approx(40 * 512 * 4, rel=0.02)


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files: the write fails in its middle, as on a full disk."""
    trainer = trained(tmp_path, 2)
    kept = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = len(next(iter(kept.values())))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        with pytest.raises(
            CheckpointError, match=r"step-00000003\.pt cannot be written \(File too"
        ):
            trainer.fit(6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == kept
    trainer.fit(6)
    assert digest(trainer) == digest(trained(tmp_path / "other", 6)), "it goes on, to the same bits"


HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_of_another_process_is_found_before_training(tmp_path: Path) -> None:
    options = {"checkpoint_interval": 1, "checkpoint_dir": tmp_path}
    command = [sys.executable, "-c", HOLDER, str(tmp_path / ".lock")]
    with Popen(command, stdin=PIPE, stdout=PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match="another process is writing checkpoints into"):
            quiet(TinyModel(), loader(), **options)
        holder.kill()  # as any run may be
    first = quiet(TinyModel(), loader(), **options)
    first.fit(1)
    assert quiet(TinyModel(), loader(), **options).load_checkpoint(), "the same process may"


def test_results_that_cannot_be_written_are_returned(tmp_path: Path) -> None:
    options = {"save_results": True, "results_prefix": str(tmp_path / "run")}
    trainer = quiet(TinyModel(), loader(), **options)
    (tmp_path / "run.json.unfinished").mkdir()
    with pytest.warns(UserWarning, match="results cannot be written to .*run.json"):
        assert trainer.fit(2)["steps"] == 2


def test_a_folder_that_cannot_be_written_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="checkpoint_dir cannot be written"):
        quiet(TinyModel(), loader(), checkpoint_interval=1, checkpoint_dir=tmp_path / "file" / "x")
    with pytest.raises(OSError, match="the folder of results_prefix cannot be written"):
        quiet(TinyModel(), loader(), save_results=True, results_prefix=str(tmp_path / "file" / "x"))


def test_state_is_no_view_of_the_file(tmp_path: Path) -> None:
    """It would be lost with it."""
    trained(tmp_path, 2)
    trainer = quiet(TinyModel(4), loader(), checkpoint_dir=tmp_path)
    trainer.load_checkpoint()
    before = digest(trainer)
    for path in tmp_path.iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    assert digest(trainer) == before
