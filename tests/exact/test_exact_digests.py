"""The promise itself: the same bits on every instruction set and for every number of threads."""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from converted_models import MODELS, batch, gpt2
from cosmic import _core, exact
from cosmic.cli import main as cli
from cosmic.exact import reference
from helpers import normal
from operation_cases import CASES

RECORD = Path(__file__).resolve().parents[1] / "wheels" / "digest.txt"
THREADS = (1, 2, 3, 7)
STEPS = 4


def digest(tensors: list[Tensor]) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


@functools.cache
def of_operations(threads: int) -> dict[str, str]:
    """Digests of all operations and their gradients, at sizes of more than one block."""
    torch.set_num_threads(threads)
    found = {}
    for name, dtype in itertools.product(CASES, (torch.float32, torch.float64)):
        inputs = CASES[name].inputs(dtype, scale=3.0)
        out = CASES[name].exact(*inputs)
        outputs = list(out) if isinstance(out, tuple) else [out]
        torch.autograd.backward(outputs, [normal(50, *o.shape, dtype=dtype) for o in outputs])
        gradients = [t.grad for t in inputs if t.grad is not None]
        found[f"{name}, {dtype}"] = digest([*outputs, *gradients])
    return found


@functools.cache
def of_wide_rows(threads: int) -> str:
    """A layer whose rows and sums take several blocks, and some are not whole."""
    torch.set_num_threads(threads)
    x, w, b = (normal(i, *shape) for i, shape in enumerate([(70, 333), (259, 333), (259,)]))
    norm, logits = normal(3, 259), None
    parameters = [tensor.requires_grad_() for tensor in (x, w, b, norm)]
    targets = torch.arange(70) % 259
    logits = exact.layer_norm(exact.gelu(exact.linear(x, w, b)), (259,), norm)
    loss = exact.cross_entropy(exact.dropout(logits, 0.2, key=5), targets)
    torch.autograd.backward(loss)
    return digest([loss, *(p.grad for p in parameters if p.grad is not None)])


@functools.cache
def of_training(name: str, threads: int, accumulate: str = "fp64") -> str:
    """A converted model's weights after some steps, from weights that are counted."""
    torch.set_num_threads(threads)
    make, inputs = MODELS[name]
    model = make()
    for key, parameter in enumerate(model.parameters()):
        exact.normal_(parameter, 0.0, 0.2, key=key)
    exact.convert(model, accumulate)
    optimizer = exact.VerityAdam(model.parameters(), 1e-2)
    torch.manual_seed(0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        exact.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    return digest(list(model.parameters()))


@pytest.mark.parametrize("threads", THREADS)
def test_operations_on_every_isa(threads: int, on_isa: Any, set_threads: Any) -> None:
    expected = of_operations(1)
    assert len(set(expected.values())) > 2 * len(CASES) - 8
    assert on_isa(of_operations, threads) == expected
    assert on_isa(of_wide_rows, threads) == of_wide_rows(1)


TRAINED = ("GPT-2", "GPT-2, padded", "Llama 3", "BERT", "BERT that fits numbers")


@pytest.mark.parametrize("name", TRAINED)
def test_trainings_on_every_isa(name: str, on_isa: Any, set_threads: Any) -> None:
    assert on_isa(of_training, name, 2) == of_training(name, 1)


@pytest.mark.parametrize("threads", THREADS)
def test_trainings_for_every_number_of_threads(threads: int, set_threads: Any) -> None:
    assert of_training("Llama, padded", threads, "fp32") == of_training("Llama, padded", 1, "fp32")


# ---- the reference training ----------------------------------------------------------------------


@functools.cache
def of_reference(accumulate: str, steps: int) -> str:
    return reference.digest_of(reference.train(accumulate, steps))


@pytest.mark.parametrize("accumulate", ["fp64", "fp32"])
def test_the_reference_training_is_the_cores(accumulate: str, one_thread: None) -> None:
    assert of_reference(accumulate, 5) == _core.reference_training(accumulate, 2, "", 5)


def test_the_digests_of_this_release_are_on_record(one_thread: None) -> None:
    record = dict(line.split() for line in RECORD.read_text().splitlines()[1:])
    assert {**record, "exact": record["fp64"]} == reference.EXPECTED
    assert of_reference("fp64", reference.STEPS) == reference.EXPECTED["fp64"]
    assert of_reference("fp32", reference.STEPS) == reference.EXPECTED["fp32"]


def test_the_reference_training_learns(one_thread: None) -> None:
    losses = []
    for steps in (0, 20):
        model = reference.train("fp64", steps)
        (ids,) = reference.reference_batches(1)
        losses.append(float(model(ids[:, :-1], ids[:, 1:]).detach()))
    assert losses[1] < losses[0] - 0.5


def test_the_command_says_whether_bits_are_as_expected(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    threads = torch.get_num_threads()
    state = torch.get_rng_state()
    assert cli.main(["digest", "--steps", "2", "--threads", "2"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(of_reference("fp64", 2)) and line.count("\n") == 1
    assert "2 threads" in line and "no digest of fp64 after 2 steps is on record" in line
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(reference, "STEPS", 2)
    for expected, status in ((of_reference("fp32", 2), 0), ("0" * 64, 1)):
        monkeypatch.setattr(reference, "EXPECTED", {"fp32": expected})
        assert cli.main(["digest", "--accumulate", "fp32", "--steps", "2", "--json"]) == status
        facts = json.loads(capsys.readouterr().out)
        assert facts["digest"] == of_reference("fp32", 2) and facts["expected"] == expected
        assert facts["isa"] == _core.build_info()["isa"] and facts["accumulate"] == "fp32"
        assert cli.main(["digest", "--accumulate", "fp32", "--steps", "2"]) == status
        assert ("NOT this release's" in capsys.readouterr().out) == bool(status)


@pytest.mark.parametrize(
    ("option", "number"), [("--threads", "0"), ("--threads", "100000"), ("--steps", "-1")]
)
def test_the_command_refuses_nonsense(
    option: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["digest", option, number]) == 2
    assert option in capsys.readouterr().err


# ---- batches, checkpoints ------------------------------------------------------------------------


def started(model: nn.Module) -> exact.VerityAdam:
    return exact.VerityAdam(model.parameters(), 1e-2)


def advance(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch()).loss.backward()
        optimizer.step()


def test_a_run_goes_on_from_a_checkpoint_with_dropout(one_thread: None) -> None:
    torch.manual_seed(0)
    model = exact.convert(gpt2(dropout=0.1))
    optimizer = started(model)
    advance(model, optimizer, 2)
    saved = io.BytesIO()
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
         "random": torch.get_rng_state()}, saved,
    )  # fmt: skip
    advance(model, optimizer, 2)
    saved.seek(0)
    loaded = torch.load(saved, weights_only=True)
    torch.manual_seed(99)
    twin = exact.convert(gpt2(dropout=0.1))
    other = started(twin)
    twin.load_state_dict(loaded["model"])
    other.load_state_dict(loaded["optimizer"])
    torch.set_rng_state(loaded["random"])
    advance(twin, other, 2)
    assert digest(list(twin.parameters())) == digest(list(model.parameters()))


def test_a_sequence_has_the_same_logits_in_any_batch(one_thread: None) -> None:
    model = exact.convert(gpt2()).eval()
    rows = torch.arange(5 * 12).view(5, 12) * 7 % 64
    whole = model(input_ids=rows).logits
    assert all(torch.equal(model(input_ids=row[None]).logits[0], whole[i]) for i, row in
               enumerate(rows))  # fmt: skip


def in_halves(call: Callable[[Tensor], Tensor], rows: Tensor) -> None:
    for half in rows.chunk(2):
        torch.autograd.backward(call(half))


def test_a_batch_in_two_halves_rounds_its_gradients_once_more(one_thread: None) -> None:
    """What is not promised: gradients of two halves are two sums, each rounded."""
    w, rows = normal(0, 33, 50).requires_grad_(), normal(1, 64, 50)
    torch.autograd.backward(exact.sum(exact.gelu(exact.linear(rows, w))))
    assert w.grad is not None
    whole, w.grad = w.grad, None
    in_halves(lambda half: exact.sum(exact.gelu(exact.linear(half, w))), rows)
    assert w.grad is not None and not torch.equal(w.grad, whole)
    torch.testing.assert_close(w.grad, whole, rtol=1e-5, atol=1e-5)
