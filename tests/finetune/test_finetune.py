"""The fine-tuning comparison: its parts, and one small comparison from start to end."""

import csv
import json
import math
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cosmic
from cosmic.finetune import corpus, plot, report
from cosmic.finetune.config import RunConfig, default_out
from cosmic.finetune.errors import UsageError
from cosmic.finetune.optimizers import OPTIMIZERS, OptimizerSpec, parse_spec, parse_specs
from cosmic.train import drawing, memory
from cosmic.train.schedules import lr_factor
from helpers import TEXT

# ---- optimizer specs ----------------------------------------------------------------------


def test_spec_reads_name_and_typed_options() -> None:
    spec = parse_spec("cosmic:budget=10%:tier=1:c_min=0.5")
    assert spec.name == "cosmic"
    assert spec.options == {"budget": "10%", "tier": 1, "c_min": 0.5}
    assert parse_spec("cosmic:budget=4096").options == {"budget": 4096}
    assert parse_spec(spec.text) == spec


def test_slug_is_a_plain_file_name() -> None:
    assert parse_spec("cosmic:budget=10%:tier=1").slug == "cosmic-budget-10pct-tier-1"


def test_budget_goes_to_entries_without_their_own() -> None:
    specs = parse_specs("adamw,cosmic,cosmic:budget=50%", budget="10%")
    assert [spec.text for spec in specs] == ["adamw", "cosmic:budget=10%", "cosmic:budget=50%"]


def test_an_optimizer_that_cannot_release_gradients_is_named() -> None:
    assert [s.text for s in parse_specs("cosmic,cosmic:tier=0", release_gradients=True)]
    with pytest.raises(UsageError, match=r"'adamw' cannot release gradients.*--optimizer cosmic"):
        parse_specs("cosmic,adamw", release_gradients=True)


def test_budget_can_make_two_entries_the_same() -> None:
    with pytest.raises(UsageError, match="given twice"):
        parse_specs("cosmic,cosmic:budget=10%", budget="10%")


MOMENTS = 2 * 4 * (16 * 16 + 16)  # of a layer 16 x 16 with its bias, in float32
STATE_BYTES = {
    "adamw": MOMENTS + 2 * 4,  # and a float32 count of steps a tensor
    "cosmic": MOMENTS + 2 * 8,  # and an int64 one
    # matrix: row and column sums, count, update size, shape; bias: count and two scalars
    "axiom": 4 * (16 + 16) + 8 + 8 + 2 * 8 + 8 + 2 * 8,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_in_the_table_steps_and_counts_its_state(name: str) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(16, 16)
    optimizer = OptimizerSpec(name).build(layer, lr=0.1, weight_decay=0.0)
    before = layer.weight.detach().clone()
    layer(torch.ones(1, 16)).sum().backward()
    optimizer.step()
    assert not torch.equal(layer.weight, before)
    assert OPTIMIZERS[name].state_bytes(optimizer) == STATE_BYTES[name]


def test_option_of_the_spec_wins_over_the_shared_one() -> None:
    layer = torch.nn.Linear(2, 2)
    spec = parse_spec("cosmic:lr=0.5")
    optimizer = spec.build(layer, lr=0.1, weight_decay=0.2)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert optimizer.param_groups[0]["weight_decay"] == 0.2


@pytest.mark.parametrize("text", ["adamw", "cosmic:budget=10%", "cosmic:matrix_rule=muon"])
def test_options_are_tried_without_the_memory_of_a_model(text: str) -> None:
    layer = torch.nn.Linear(10_000, 10_000, device="meta", dtype=torch.bfloat16)
    optimizer = parse_spec(text).build(layer, lr=0.1, weight_decay=0.0, stand_ins=True)
    (weight,) = (p for g in optimizer.param_groups for p in g["params"] if p.dim() == 2)
    assert (weight.shape, weight.dtype) == (layer.weight.shape, torch.bfloat16)
    assert weight.untyped_storage().nbytes() == 2


def test_value_that_the_optimizer_refuses_is_told_in_its_words() -> None:
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(UsageError, match=r"optimizer 'cosmic:gate=loud': .*loud"):
        parse_spec("cosmic:gate=loud").build(layer, lr=0.1, weight_decay=0.0)


# ---- names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "dataset", "folder"),
    [
        ("tiny-gpt2", "python-stdlib", "tiny-gpt2-python-stdlib"),
        ("a/b", "wikitext:x:train[:1%]", "a-b-wikitext-x-train-1pct"),
        ("./m", "../t.txt", "m-t.txt"),
    ],
)
def test_default_folder_is_safe_on_every_file_system(model: str, dataset: str, folder: str) -> None:
    assert default_out(model, dataset) == Path("runs") / folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wikitext", ("wikitext", None, "train")),
        ("wikitext:raw", ("wikitext", "raw", "train")),
        ("imdb:test", ("imdb", None, "test")),
        ("imdb:train[:1%]", ("imdb", None, "train[:1%]")),
        ("a/b:raw:train[10:20]", ("a/b", "raw", "train[10:20]")),
    ],
)
def test_hub_dataset_name(text: str, expected: tuple[str, str | None, str]) -> None:
    assert corpus.parse_hub_name(text) == corpus.HubName(*expected)


@pytest.mark.parametrize("text", ["", ":raw", "a::train", "a:b:train:c"])
def test_bad_hub_dataset_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"id\[:config\]\[:split\]"):
        corpus.parse_hub_name(text)


# ---- learning rate ----------------------------------------------------------------------


@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_learning_rate_rises_then_falls_to_a_tenth(warmup: int) -> None:
    factors = [lr_factor(step, 100, warmup) for step in range(100)]
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup] == max(factors) == 1.0
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert factors[-1] == pytest.approx(0.1, abs=0.001)
    assert min(factors) > 0


# ---- memory -------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["kernel", "sampling"])
def test_peak_memory_counts_what_was_freed_again(
    by: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if by == "sampling":
        monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "no" / "such" / "file")
    size = 200_000_000
    before = memory.rss_bytes()
    with memory.PeakRss() as peak:
        block = np.ones(size, np.uint8)
        if by == "sampling":
            while peak.bytes < before + 0.95 * size:
                time.sleep(0.001)  # until the thread has looked
        del block
    assert peak.bytes > before + 0.9 * size
    with memory.PeakRss() as calm:
        pass
    assert calm.bytes < before + 0.5 * size, "an earlier peak does not count"


def test_the_peak_before_is_kept() -> None:
    block = np.ones(200_000_000, np.uint8)
    held = memory.rss_bytes()
    del block
    with memory.PeakRss() as peak:
        pass
    assert peak.bytes_before > 0.9 * held


# ---- table, files, picture ----------------------------------------------------------------


def make_row(name: str, loss: float) -> dict[str, Any]:
    return {
        "optimizer": name,
        "train_loss": loss,
        "validation_loss": loss,
        "perplexity": math.exp(loss),
        "seconds": 12.5,
        "tokens_per_second": 4321.0,
        "optimizer_ms": 1.25,
        "state_bytes": 8_000_000,
        "state_bits_per_parameter": 64.0,
        "rss_growth_bytes": 9_100_000,
        "rss_peak_bytes": 500_000_000,
        "rss_process_peak_bytes": 600_000_000,
        "losses": [loss + 1, loss],
        "machine": {},
    }


def test_table_has_a_line_an_optimizer_and_explains_itself() -> None:
    text = report.format_table([make_row("adamw", 2.0), make_row("cosmic:tier=0", math.nan)])
    lines = text.splitlines()
    (adamw,) = (line for line in lines if line.strip().startswith("adamw"))
    assert adamw.split() == [
        "adamw", "2.000", "2.000", "7.4", "12.5", "4,321", "1.25", "8.00", "64.00", "9.1", "500.0",
        "600.0",
    ]  # fmt: skip
    (broken,) = (line for line in lines if line.strip().startswith("cosmic:tier=0"))
    assert broken.split()[1:4] == ["diverged"] * 3
    assert "RSS growth is" in text


def test_results_are_strict_json_even_of_a_diverged_run(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    report.write_results(
        file, [make_row("a", math.inf)], machine={"cpu": "x"}, arguments={"lr": 0.1}, data={}
    )
    content = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert content["rows"][0]["train_loss"] is None
    assert content["rows"][0]["state_bytes"] == 8_000_000
    assert content["machine"] == {"cpu": "x"}


def test_smoothing_is_a_mean_of_the_steps_before() -> None:
    assert drawing.smooth([4.0, 2.0, 0.0, 1.0], 2).tolist() == [4.0, 3.0, 1.0, 0.5]


def test_smoothing_does_not_spread_a_divergence_backwards() -> None:
    assert drawing.smooth([4.0, 2.0, math.nan, 1.0], 1).tolist()[:2] == [4.0, 2.0]


def test_picture_of_a_diverged_run(tmp_path: Path) -> None:
    rows = [make_row("adamw", 2.0), make_row("cosmic", math.nan)]
    plot.draw(tmp_path / "p.png", rows, "title", "subtitle")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


# ---- from start to end --------------------------------------------------------------------

OPTIMIZER_LIST = "adamw,cosmic:state_dtype=fp32,cosmic:budget=25%"


@dataclass(frozen=True)
class Finished:
    """A small comparison that has been run."""

    out: Path
    stdout: str
    stderr: str
    results: dict[str, Any]


def compare(folder: Path, *options: str) -> Finished:
    """A comparison on a model of some thousand weights and a local text."""
    (folder / "text.txt").write_text(TEXT)
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "vocab_size": 300}
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": "gpt2"} | shape))
    command = [sys.executable, "-m", "cosmic.cli.main", "finetune", "--from-scratch"]
    command += ["--model", str(folder / "model"), "--dataset", str(folder / "text.txt")]
    command += ["--steps", "30", "--batch-size", "4", "--block-size", "16", "--lr", "0.01"]
    command += ["--eval-batches", "4", "--threads", "1", "--out", str(folder / "out"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "out" / "results.json").read_text())
    return Finished(folder / "out", done.stdout, done.stderr, results)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Three optimizers."""
    return compare(tmp_path_factory.mktemp("run"), "--optimizer", OPTIMIZER_LIST)


def test_released_gradients_train_as_well(tmp_path: Path) -> None:
    """By default with cosmic alone; the steps are counted, their hooks' seconds too."""
    done = compare(tmp_path, "--release-gradients", "--dtype", "bf16", "--budget", "50%")
    (row,) = done.results["rows"]
    assert row["optimizer"] == "cosmic:budget=50%"
    assert done.results["arguments"]["release_gradients"]
    assert row["validation_loss"] < row["validation_loss_before"] - 0.5
    assert row["optimizer_ms"] > 0
    assert row["state_bytes"] <= 0.5 * 8 * row["parameters"]
    lines = (done.out / "cosmic-budget-50pct.events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["step"] for e in events if e["event"] == "step"] == [10, 20, 30]


def test_vocabulary_in_blocks_and_packed_activations(finished: Finished, tmp_path: Path) -> None:
    """Both flags hold for every optimizer of the comparison; the losses stay near."""
    flags = ("--activations", "q8", "--chunk-vocabulary", "64")
    small = compare(tmp_path, "--optimizer", "adamw,cosmic:state_dtype=fp32", *flags).results
    assert small["arguments"]["activations"] == "q8"
    assert small["arguments"]["chunk_vocabulary"] == 64
    for before, after in zip(finished.results["rows"][:2], small["rows"], strict=True):
        assert after["optimizer"] == before["optimizer"]
        assert after["parameters"] == before["parameters"]
        assert after["activation_bytes"] < before["activation_bytes"]
        assert after["validation_loss"] == pytest.approx(before["validation_loss"], rel=0.02)


def test_codecs_and_rows_that_are_refused() -> None:
    given: dict[str, Any] = {
        **{"model": "m", "dataset": "d", "steps": 1, "batch_size": 1, "block_size": 2, "lr": 0.1},
        **{"weight_decay": 0.0, "warmup": 0, "eval_batches": 1, "seed": 0, "dtype": "fp32"},
        "from_scratch": True,
    }
    with pytest.raises(UsageError, match=r"--activations: codec is 'q9'"):
        RunConfig(**given, activations="q9")
    with pytest.raises(UsageError, match="--chunk-vocabulary must be at least 1, not 0"):
        RunConfig(**given, chunk_vocabulary=0)


def test_a_budget_too_small_is_one_sentence_though_backward_finds_it(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"error: optimizer .*the budget is 1 bytes"):
        compare(
            tmp_path, "--release-gradients", "--optimizer", "cosmic:budget=1:tier=2", "--steps", "1"
        )


def test_results_name_machine_arguments_and_data(finished: Finished) -> None:
    machine = finished.results["machine"]
    assert machine["torch"] == torch.__version__
    assert machine["cosmic"] == cosmic.__version__
    assert machine["threads"] == 1
    assert machine["isa"] and machine["cpu"] and machine["cores"]
    arguments = finished.results["arguments"]
    assert arguments.pop("optimizers") == OPTIMIZER_LIST.split(",")
    assert RunConfig(**arguments).steps == 30
    assert finished.results["data"]["train_tokens"] > finished.results["data"]["validation_tokens"]


def test_all_optimizers_start_alike_and_learn(finished: Finished) -> None:
    rows = finished.results["rows"]
    assert [row["optimizer"] for row in rows] == OPTIMIZER_LIST.split(",")
    assert len({row["first_loss"] for row in rows}) == 1, "same weights and same first batch"
    assert len({row["validation_loss_before"] for row in rows}) == 1
    for row in rows:
        assert row["validation_loss"] < row["validation_loss_before"] - 0.5
        assert row["perplexity"] == pytest.approx(math.exp(row["validation_loss"]))
        assert row["rss_peak_bytes"] == row["rss_before_bytes"] + row["rss_growth_bytes"]
        assert row["rss_process_peak_bytes"] >= row["rss_peak_bytes"] > 10_000_000
        assert row["optimizer_ms"] > 0 and row["tokens_per_second"] > 0
        assert row["gradient_bytes"] == 4 * row["parameters"]
        assert row["activation_bytes"] > 0


def test_full_state_follows_adamw_step_by_step(finished: Finished) -> None:
    """Only so if every batch, not the first alone, is the same."""
    with (finished.out / "losses.csv").open() as file:
        header, *lines = list(csv.reader(file))
    losses = np.asarray(lines, dtype=float)
    assert header == ["step", *OPTIMIZER_LIST.split(",")]
    assert losses.shape == (30, 4)
    np.testing.assert_allclose(losses[:, 1], losses[:, 2], rtol=1e-3)


def test_state_is_counted(finished: Finished) -> None:
    adamw, full, quarter = finished.results["rows"]
    assert adamw["state_bits_per_parameter"] == pytest.approx(64, rel=0.05)
    assert full["state_bits_per_parameter"] == pytest.approx(64, rel=0.05)
    assert quarter["state_bytes"] <= 0.25 * 8 * quarter["parameters"]


def test_picture_table_and_progress(finished: Finished) -> None:
    assert (finished.out / "comparison.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert finished.stdout.count("\n cosmic") == 2 and "perplexity" in finished.stdout
    assert finished.stderr.count("adamw: step ") == 10, "a line every tenth, not a bar"
    assert "\r" not in finished.stderr


def test_event_logs(finished: Finished) -> None:
    events: dict[str, list[dict[str, Any]]] = {
        slug: [json.loads(line) for line in (finished.out / name).read_text().splitlines()]
        for slug in ("adamw", "cosmic-state_dtype-fp32", "cosmic-budget-25pct")
        for name in [f"{slug}.events.jsonl"]
    }
    for lines in events.values():
        assert lines[-1]["event"] == "validation"
        assert [line["step"] for line in lines if line["event"] == "loss"] == [10, 20, 30]
    full = events["cosmic-state_dtype-fp32"]
    assert full[0]["event"] == "run"
    assert {"run", "step", "loss", "validation"} <= {e["event"] for e in full}
