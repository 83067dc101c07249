"""`cosmic plan` with a batch: its totals and its recommendation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cosmic import estimate_memory
from cosmic.cli import main as cli

pytestmark = pytest.mark.usefixtures("one_thread")


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.main(["plan", "--json", *arguments]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_a_batch_s_bytes_are_the_estimate_s(capsys: pytest.CaptureFixture[str]) -> None:
    batch = ["--batch-size", "4", "--block-size", "32"]
    told = plan(capsys, *batch, "--activations", "q8", "--chunk-vocabulary", "512", "--ram", "4GB")
    found = estimate_memory(
        "tiny-gpt2", batch=(4, 32), activations="q8", chunk_vocabulary=512, ram="4GB"
    )
    for key in ("activation_bytes", "loss_bytes", "largest_gradient_bytes", "fp16_gb", "int8_gb"):
        assert told[key] == getattr(found, key) > 0, key
    assert told["total_bytes"] == found.total_bytes
    assert told["recommendation"] == found.recommendation
    assert told["batch"] == [4, 32] and plan(capsys)["batch"] is None


def test_people_see_activations_and_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--batch-size", "2", "--ram", "1GB"]) == 0
    out = capsys.readouterr().out
    assert "of 2 x 64 tokens, saved for backward" in out and "  the largest" in out
    assert "AdamW in fp32 fits 1.00 GB of memory" in out
    assert cli.main(["plan"]) == 0
    out = capsys.readouterr().out
    assert "activations not counted" in out and "saved for backward" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--activations", "q8"], "--activations needs --batch-size or --block-size"),
        (["--batch-size", "0"], "expected 1 sequence"),
        (["--block-size", "999"], "the model has 256 positions"),
        (["--ram", "lots"], "ram is 'lots'"),
        (["--batch-size", "1", "--activations", "zip"], "'zip'"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
