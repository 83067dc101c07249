"""Losses and gradients in blocks are those of the whole, up to the order of sums."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import cosmic
from cosmic.vocabulary import tiles
from cosmic.vocabulary.cross_entropy import summed_cross_entropy
from language_models import MODELS, VOCABULARY, batch, close, gradients, made, oracle, twins

TIED = ["gpt2", "llama"]  # the one is, the other is not


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch, set_threads: Callable[[int], None]) -> None:
    """Several tiles a block; and small models are slower on several threads."""
    set_threads(1)
    monkeypatch.setattr(tiles, "TILE_BYTES", 4 * 51 * 13)
    monkeypatch.setattr(tiles, "_LEAST_ROWS", 7)


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_has_the_loss_and_the_gradients_of_the_whole(name: str) -> None:
    plain, chunked = twins(name)
    inputs = batch()
    expected = plain(**inputs).loss
    expected.backward()
    with cosmic.chunk_vocabulary(chunked, rows=60):
        out = chunked(**inputs)
        assert out.logits is None
        out.loss.backward()
    torch.testing.assert_close(out.loss, expected, rtol=1e-6, atol=0)
    close(plain, chunked)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt-j"])
@pytest.mark.parametrize("rows", [1, 29, 202, 203, 5000])
def test_any_size_of_block_gives_the_same(name: str, rows: int) -> None:
    plain, chunked = twins(name)
    plain(**batch()).loss.backward()
    with cosmic.chunk_vocabulary(chunked, rows=rows) as handle:
        chunked(**batch()).loss.backward()
        assert handle.block_bytes <= 4 * rows * plain.get_input_embeddings().weight.shape[1]
    close(plain, chunked)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt-j", "gemma2"])
def test_bfloat16_is_as_near_to_float64_as_the_whole_is(name: str) -> None:
    """Over some batches together: of one alone either may be nearer, by an eighth."""
    errors: dict[str, list[list[float]]] = {"plain": [], "chunked": []}
    for seed in range(4):
        plain, chunked = twins(name, torch.bfloat16)
        exact = copy.deepcopy(plain).double()
        inputs = batch(seed)
        torch.autograd.backward(oracle(exact, inputs))
        plain(**inputs).loss.backward()
        with cosmic.chunk_vocabulary(chunked, rows=60):
            chunked(**inputs).loss.backward()
        outer = {n for n, p in exact.named_parameters() if VOCABULARY in p.shape}
        for kind, model in (("plain", plain), ("chunked", chunked)):
            parts = (outer, gradients(exact).keys() - outer)
            errors[kind].append([distance(model, exact, some) for some in parts])
    of_plain, of_chunked = (np.linalg.norm(found, axis=0) for found in errors.values())
    assert (of_chunked <= 1.2 * of_plain).all(), (of_chunked, of_plain)


@pytest.mark.parametrize("name", TIED)
def test_every_argument_of_the_loss_holds(name: str) -> None:
    inputs = batch()
    ids, labels = inputs["input_ids"], inputs["labels"]
    calls: list[dict[str, Any]] = [
        {"input_ids": ids, "labels": labels, "num_items_in_batch": 40},
        {"input_ids": ids, "labels": labels, "num_items_in_batch": torch.tensor(40)},
        {"input_ids": ids, "labels": labels, "shift_labels": labels.roll(-1, 1)},
        {"input_ids": ids, "labels": ids, "ignore_index": int(ids[0, 3])},
        {"input_ids": ids[:1, :1], "labels": labels[:1, :1]},  # no target
        {"input_ids": ids, "labels": torch.full_like(labels, -100)},
    ]
    for call in calls:
        plain, chunked = twins(name)
        expected = plain(**call).loss
        expected.backward()
        with cosmic.chunk_vocabulary(chunked, rows=60):
            loss = chunked(**call).loss
            loss.backward()
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0, equal_nan=True)
        close(plain, chunked)


def distance(model: Any, exact: Any, names: Iterable[str]) -> float:
    """The length of all these gradients' errors together."""
    found, true = gradients(model), gradients(exact)
    pairs = [(found[name], true[name]) for name in names]
    squares = [(a - b).square().sum() for a, b in pairs if a is not None and b is not None]
    return float(torch.stack(squares).sum().sqrt())


def _embedded(model: Any, inputs: dict[str, Tensor]) -> None:
    rows = torch.randn(3, 17, 32, generator=torch.Generator().manual_seed(3))
    model(inputs_embeds=rows, labels=inputs["labels"]).loss.backward()


def _twice_forward(model: Any, inputs: dict[str, Tensor]) -> None:
    (model(**inputs).loss + 2 * model(**batch(2)).loss).backward()


def _twice_backward(model: Any, inputs: dict[str, Tensor]) -> None:
    loss = model(**inputs).loss
    loss.backward(retain_graph=True)
    (3 * loss).backward()


def _accumulated(model: Any, inputs: dict[str, Tensor]) -> None:
    for seed in (1, 2):
        model(**batch(seed)).loss.backward()


def _checkpointed_layers(model: Any, inputs: dict[str, Tensor]) -> None:
    model.activation_checkpointing_enable()
    model(**inputs).loss.backward()


def _checkpointed_whole(model: Any, inputs: dict[str, Tensor]) -> None:
    def loss(ids: Tensor) -> Any:
        return model(input_ids=ids, labels=inputs["labels"], use_cache=False).loss

    checkpoint(loss, inputs["input_ids"], use_reentrant=False).backward()


def _mixed_with_logits(model: Any, inputs: dict[str, Tensor]) -> None:
    (model(**inputs).loss + oracle(model, batch(2))).backward()


def _own_loss(model: Any, inputs: dict[str, Tensor]) -> None:
    torch.autograd.backward(oracle(model, inputs))


def _reads_the_weight(model: Any, inputs: dict[str, Tensor]) -> None:
    penalty = model.get_output_embeddings().weight.square().mean()
    (model(**inputs).loss + penalty).backward()


def _partly(model: Any, inputs: dict[str, Tensor]) -> None:
    """Some gradients first, then all: nothing is left over from the first."""
    loss = model(**inputs).loss
    some = [p for p in model.parameters() if p.requires_grad][1:3]
    torch.autograd.grad(loss, some, retain_graph=True)
    loss.backward()


def _tuple(model: Any, inputs: dict[str, Tensor]) -> None:
    model(**inputs, return_dict=False)[0].backward()


def _by_position(model: Any, inputs: dict[str, Tensor]) -> None:
    model.forward(**inputs).loss.backward()


@pytest.mark.parametrize("name", TIED)
@pytest.mark.parametrize(
    "train",
    [
        _embedded, _twice_forward, _twice_backward, _accumulated, _checkpointed_layers,
        _checkpointed_whole, _mixed_with_logits, _own_loss, _reads_the_weight, _partly, _tuple,
        _by_position,
    ],
)  # fmt: skip
def test_no_gradient_is_lost_or_counted_twice(
    name: str, train: Callable[[Any, dict[str, Tensor]], None]
) -> None:
    plain, chunked = twins(name)
    train(plain.train(), batch())
    with cosmic.chunk_vocabulary(chunked.train(), rows=60):
        train(chunked, batch())
    close(plain, chunked)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt-j"])
@pytest.mark.parametrize("frozen", ["embedding", "head", "both", "body"])
def test_frozen_weights_take_no_gradient_and_others_all(name: str, frozen: str) -> None:
    plain, chunked = twins(name)
    for model in (plain, chunked):
        outer = {id(p) for p in model.get_input_embeddings().parameters()}
        head = {id(p) for p in model.get_output_embeddings().parameters()}
        stays = {"embedding": outer, "head": head, "both": outer | head}.get(frozen, outer | head)
        for param in model.parameters():
            param.requires_grad_((id(param) in stays) == (frozen == "body"))
    plain(**batch()).loss.backward()
    with cosmic.chunk_vocabulary(chunked, rows=60):
        chunked(**batch()).loss.backward()
    close(plain, chunked)


def test_a_padding_row_takes_no_gradient_from_lookups() -> None:
    plain, chunked = twins("llama")
    inputs = batch()
    inputs["input_ids"][:, 4:8] = plain.model.embed_tokens.padding_idx
    plain(**inputs).loss.backward()
    with cosmic.chunk_vocabulary(chunked, rows=60):
        chunked(**inputs).loss.backward()
    close(plain, chunked)
    assert not chunked.model.embed_tokens.weight.grad[0].any()


def test_gradients_scaled_by_frequency_are_the_embeddings() -> None:
    plain, chunked = twins("gpt2")
    for model in (plain, chunked):
        model.transformer.wte.scale_grad_by_freq = True
    plain(**batch()).loss.backward()
    with cosmic.chunk_vocabulary(chunked, rows=60):
        chunked(**batch()).loss.backward()
    close(plain, chunked)


@pytest.mark.parametrize("name", TIED)
def test_autocast_is_as_near_as_the_whole_is(name: str) -> None:
    plain, chunked = twins(name)
    exact = made(name).double()
    torch.autograd.backward(oracle(exact, batch()))
    with torch.autocast("cpu", torch.bfloat16):
        plain(**batch()).loss.backward()
        with cosmic.chunk_vocabulary(chunked, rows=60):
            chunked(**batch()).loss.backward()
    everything = gradients(exact).keys()
    of_plain, of_chunked = (distance(model, exact, everything) for model in (plain, chunked))
    assert of_chunked <= 1.1 * of_plain


@pytest.mark.parametrize("name", TIED)
def test_without_a_graph_there_is_a_loss_alone(name: str) -> None:
    plain, chunked = twins(name)
    expected = plain(**batch()).loss
    with cosmic.chunk_vocabulary(chunked, rows=60), torch.no_grad():
        out = chunked.eval()(**batch())
    torch.testing.assert_close(out.loss, expected.detach(), rtol=1e-6, atol=0)
    assert not out.loss.requires_grad


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt-j"])
def test_generation_and_logits_are_unchanged(name: str) -> None:
    plain, chunked = twins(name)
    ids = batch()["input_ids"]
    with torch.no_grad():
        expected = plain(ids).logits
        text = plain.generate(ids, max_new_tokens=5, do_sample=False)
        with cosmic.chunk_vocabulary(chunked, rows=60):
            assert torch.equal(chunked(ids).logits, expected)
            assert torch.equal(chunked.generate(ids, max_new_tokens=5, do_sample=False), text)


@pytest.mark.parametrize("name", TIED)
def test_hooks_that_pack_saved_tensors_leave_the_loss_alone(name: str) -> None:
    """Hooks that lose everything but leaves, as packing of activations does some of it."""

    def gradients_of_hidden(hook: Callable[[Tensor], Tensor]) -> Tensor:
        hidden = torch.randn(51, 32, generator=torch.Generator().manual_seed(5)).requires_grad_()
        model = made(name)
        with cosmic.chunk_vocabulary(model, rows=60):
            blocks = model.get_output_embeddings().blocks
            with torch.autograd.graph.saved_tensors_hooks(hook, lambda packed: packed):
                loss = summed_cross_entropy(hidden * 1, torch.arange(51), blocks, None)
            torch.autograd.backward(loss)
        assert hidden.grad is not None
        return hidden.grad

    lost = gradients_of_hidden(lambda t: t if t.is_leaf else torch.zeros_like(t))
    assert torch.equal(lost, gradients_of_hidden(lambda t: t))
    assert lost.any()


def test_a_second_derivative_is_refused() -> None:
    model = made("llama")
    with cosmic.chunk_vocabulary(model, rows=60):
        loss = model(**batch()).loss
        with pytest.raises(RuntimeError, match="create_graph=True"):
            torch.autograd.grad(loss, [model.lm_head.weight_0], create_graph=True)


def test_a_weight_that_changed_before_backward_is_noticed() -> None:
    for name in TIED:
        model = made(name)
        with cosmic.chunk_vocabulary(model, rows=60):
            loss = model(**batch()).loss
            with torch.no_grad():
                model.get_output_embeddings().weight_1.add_(1.0)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                loss.backward()


def test_labels_that_are_no_tokens_are_refused() -> None:
    model = made("gpt2")
    inputs = batch()
    with cosmic.chunk_vocabulary(model, rows=60):
        for label in (VOCABULARY, -7):
            labels = inputs["labels"].clone()
            labels[1, 3] = label
            with pytest.raises(IndexError, match=f"label {label} is out of bounds.*203 rows"):
                model(input_ids=inputs["input_ids"], labels=labels)
        with pytest.raises(ValueError, match="45 labels for 51 tokens"):
            model(input_ids=inputs["input_ids"], labels=inputs["labels"][:, :15])
        with pytest.raises(TypeError, match="float32; expected int64"):
            model(input_ids=inputs["input_ids"], labels=inputs["labels"].float())
        model(**inputs).loss.backward()  # and nothing is left over of them
