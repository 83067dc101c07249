"""What holds within the context, what it leaves behind and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as tf
from torch import Tensor, nn

import cosmic
from cosmic import Cosmic
from language_models import VOCABULARY, batch, close, made, twins

# Peft asks the model by a name that transformers is about to drop.
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
]

TIED = ["gpt2", "llama"]  # the one is, the other is not
ROWS = 60


def whole(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def trained(
    model: Any, steps: int, *, chunked: bool, in_backward: bool = False, **options: Any
) -> dict[str, Tensor]:
    """The weights after some steps."""
    handle = cosmic.chunk_vocabulary(model, rows=ROWS) if chunked else None
    optimizer = Cosmic(cosmic.param_groups(model), **{"lr": 1e-2, "state_dtype": "fp32", **options})
    mode = optimizer.step_in_backward(model) if in_backward else None
    for seed in range(steps):
        model(**batch(seed)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if mode is not None:
        mode.remove()
    if handle is not None:
        handle.remove()
    return whole(model)


@pytest.mark.parametrize("name", [*TIED, "gpt-j"])
def test_steps_are_those_of_the_whole_model(name: str) -> None:
    """With an eps that keeps Adam from following what has no gradient but rounding, as a bias of
    keys."""
    plain, chunked = twins(name)
    expected = trained(plain, 5, chunked=False, eps=1e-4)
    found = trained(chunked, 5, chunked=True, eps=1e-4)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-5, atol=1e-5)
    moved = (expected["lm_head.weight"] - whole(made(name))["lm_head.weight"]).abs()
    assert moved.mean() > 0.02


@pytest.mark.parametrize("name", [*TIED, "gpt-j"])
@pytest.mark.parametrize("options", [{}, {"budget": "20%"}])
def test_steps_in_backward_have_the_same_bits(name: str, options: dict[str, Any]) -> None:
    one, other = twins(name)
    expected = trained(one, 4, chunked=True, **options)
    found = trained(other, 4, chunked=True, in_backward=True, **options)
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize("name", TIED)
def test_each_block_is_stepped_and_freed_before_the_next_gradient_is_there(name: str) -> None:
    model = made(name)
    most: list[int] = []
    with cosmic.chunk_vocabulary(model, rows=ROWS) as handle:
        params = list(model.parameters())
        optimizer = Cosmic(cosmic.param_groups(model), lr=1e-2)

        def look(param: Tensor) -> None:
            most.append(sum(p.grad.nbytes for p in params if p.grad is not None))

        for param in params:
            param.register_post_accumulate_grad_hook(look)
        with optimizer.step_in_backward(model):
            model(**batch()).loss.backward()
            optimizer.step()
        largest = max(p.nbytes for p in params)
    assert len(most) == len(params)
    assert max(most) <= max(largest, handle.block_bytes)
    assert handle.block_bytes == 4 * 32 * 51


@pytest.mark.parametrize("name", [*TIED, "gpt-j", "gemma3"])
def test_leaving_gives_the_model_back(name: str) -> None:
    model = made(name)
    before = (
        {n: id(m) for n, m in model.named_modules()},
        {n: id(p) for n, p in model.named_parameters()},
    )
    attributes = set(vars(model))
    version = model.lm_head.weight._version
    with pytest.raises(KeyError), cosmic.chunk_vocabulary(model, rows=ROWS) as handle:
        model(**batch()).loss.backward()
        with torch.no_grad():
            model.lm_head.weight_3.add_(1.0)
        inside = whole(model)
        raise KeyError
    handle.remove()
    after = (
        {n: id(m) for n, m in model.named_modules()},
        {n: id(p) for n, p in model.named_parameters()},
    )
    assert after == before
    assert set(vars(model)) == attributes
    assert model.loss_function.__name__ == "ForCausalLMLoss"
    assert all(torch.equal(tensor, inside[key]) for key, tensor in model.state_dict().items())
    assert model.lm_head.weight._version > version
    assert model(**batch()).logits is not None
    plain = made(name)
    plain(**batch()).loss.backward()
    close(plain, model)  # gradients are left behind, too
    with cosmic.chunk_vocabulary(model, rows=ROWS):  # and taken along
        assert model.lm_head.weight_0.grad is not None
    close(plain, model)


def test_a_wrapper_set_in_between_stays() -> None:
    model = made("llama")
    handle = cosmic.chunk_vocabulary(model, rows=ROWS)
    inner, calls = model.forward, []

    def forward(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return inner(*args, **kwargs)

    model.forward = forward
    assert model(**batch()).logits is None
    handle.remove()
    assert model(**batch()).logits is not None
    assert len(calls) == 2


@pytest.mark.parametrize("name", TIED)
def test_checkpoints_are_the_models_own(name: str, tmp_path: Path) -> None:
    model, other = made(name), made(name)
    with torch.no_grad():
        for param in other.parameters():
            param.add_(0.25)
    expected = whole(other)
    keys = list(model.state_dict())
    with cosmic.chunk_vocabulary(model, rows=ROWS):
        assert sorted(model.state_dict()) == sorted(keys)
        assert str(model.load_state_dict(expected)) == "<All keys matched successfully>"
        assert all(torch.equal(model.state_dict()[key], expected[key]) for key in keys)
        size = model.num_parameters()
        model.save_pretrained(tmp_path / "inside")
        with pytest.raises(RuntimeError, match=r"size mismatch for .*weight.*\(7, 32\)"):
            model.load_state_dict({**expected, "lm_head.weight": torch.zeros(7, 32)})
        missing = {key: tensor for key, tensor in expected.items() if key != "lm_head.weight"}
        with pytest.raises(RuntimeError, match=r'Missing key.*"lm_head.weight"'):
            model.load_state_dict(missing)
        with pytest.raises(RuntimeError, match=r'Unexpected key.*"lm_head.weight_0"'):
            model.load_state_dict({**expected, "lm_head.weight_0": torch.zeros(51, 32)})
    assert size == other.num_parameters()
    loaded = type(model).from_pretrained(tmp_path / "inside")
    assert all(torch.equal(loaded.state_dict()[key], expected[key]) for key in keys)


@pytest.mark.parametrize("name", TIED)
def test_blocks_are_tables_to_the_optimizer(name: str) -> None:
    model = made(name)
    with cosmic.chunk_vocabulary(model, rows=ROWS):
        roles = {
            name: group["role"]
            for group in cosmic.param_groups(model)
            for name in group["param_names"]
        }
        by_name = {row.name: row.role for row in cosmic.estimate_memory(model, "50%").tensors}
        blocks = [name for name in roles if name.rpartition(".")[2].startswith("weight_")]
    assert len(blocks) == (4 if name == "gpt2" else 8)
    for block in blocks:
        assert roles[block] == ("head" if block.startswith("lm_head") else "embedding")
        assert by_name[block] == "table"


def test_estimates_count_the_largest_block() -> None:
    config = tf.LlamaConfig(
        vocab_size=50000, hidden_size=512, num_hidden_layers=1, intermediate_size=1024
    )
    with torch.device("meta"):
        model = tf.LlamaForCausalLM(config)
    options: dict[str, Any] = {"release_gradients": True, "groups": cosmic.param_groups}
    before = cosmic.estimate_memory(model, **options)
    with cosmic.chunk_vocabulary(model) as handle:
        within = cosmic.estimate_memory(model, **options)
    assert before.gradient_bytes == 50000 * 512 * 4
    assert within.gradient_bytes == handle.block_bytes == -(-50000 // 7) * 512 * 4
    assert within.weight_bytes == before.weight_bytes


def test_a_model_without_head_has_its_embedding_in_blocks() -> None:
    def encoder() -> Any:
        torch.manual_seed(0)
        config = tf.BertConfig(
            vocab_size=203, hidden_size=32, num_hidden_layers=1, num_attention_heads=2
        )
        return tf.BertModel(config).eval()

    plain, chunked = encoder(), encoder()
    ids = batch()["input_ids"]
    plain(ids).last_hidden_state[..., 0].square().sum().backward()
    with cosmic.chunk_vocabulary(chunked, rows=ROWS):
        assert chunked.get_input_embeddings().weight_3.shape == (50, 32)
        chunked(ids).last_hidden_state[..., 0].square().sum().backward()
    close(plain, chunked)


def test_adapters_beside_train_on_a_frozen_vocabulary() -> None:
    plain, chunked = (
        peft.get_peft_model(
            made("llama"), peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
        )
        for _ in range(2)
    )
    chunked.load_state_dict(plain.state_dict())
    plain(**batch()).loss.backward()
    with cosmic.chunk_vocabulary(chunked, rows=ROWS):
        out = chunked(**batch())
        assert out.logits is None
        out.loss.backward()
    close(plain, chunked)


def test_hooks_go_with_their_modules() -> None:
    model = made("gpt2")
    model.enable_input_require_grads()
    seen: list[tuple[int, ...]] = []
    hook = model.transformer.wte.register_forward_hook(lambda m, i, o: seen.append(o.shape))
    with cosmic.chunk_vocabulary(model, rows=ROWS):
        model.requires_grad_(False)
        assert model(**batch()).loss.requires_grad  # by the hook on the embedding
        hook.remove()
        model(**batch())
    assert seen == [(3, 17, 32)]


def test_trainer_trains_and_evaluates_within(tmp_path: Path) -> None:
    model = made("gpt2")
    examples = [
        {"input_ids": row, "labels": row} for row in batch(3)["input_ids"].tolist() for _ in "ab"
    ]
    arguments = tf.TrainingArguments(
        output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=2, report_to=[],
        prediction_loss_only=True, save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    with cosmic.chunk_vocabulary(model, rows=ROWS):
        optimizer = Cosmic(cosmic.param_groups(model), lr=1e-2)
        trainer = tf.Trainer(
            model=model, args=arguments, train_dataset=examples, eval_dataset=examples,
            optimizers=(optimizer, None),
        )  # fmt: skip
        before = trainer.evaluate()["eval_loss"]
        trainer.train()
        assert trainer.evaluate()["eval_loss"] < before - 0.1


# ---- what is refused -------------------------------------------------------------------------


def _adapted_head() -> nn.Module:
    return peft.get_peft_model(made("llama"), peft.LoraConfig(target_modules=["lm_head"]))


def _adapted_embedding() -> nn.Module:
    return peft.get_peft_model(made("llama"), peft.LoraConfig(target_modules=["embed_tokens"]))


def _masked() -> nn.Module:
    return tf.BertForMaskedLM(
        tf.BertConfig(vocab_size=203, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    )


def _option(name: str, value: object) -> Callable[[], nn.Module]:
    def model() -> nn.Module:
        out = made("llama")
        setattr(out.model.embed_tokens, name, value)
        return out  # type: ignore[no-any-return]

    return model


def _third() -> nn.Module:
    out = made("gpt2")
    out.transformer.h[0].extra = nn.Linear(32, VOCABULARY, bias=False)
    out.transformer.h[0].extra.weight = out.lm_head.weight
    return out  # type: ignore[no-any-return]


def _own_loss_function() -> nn.Module:
    out = made("llama")
    out.loss_function = lambda logits, labels, **_: logits.mean()
    return out  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: nn.Linear(3, 4), "Linear names no embedding and no output head"),
        (_adapted_head, "the output head is a peft.*Linear;.*Leave the head out of adapters"),
        (_adapted_embedding, "the input embedding is a peft.*Embedding;.*Adapters on"),
        (_masked, "loss_function is ForMaskedLMLoss; .* knows ForCausalLMLoss alone"),
        (_option("max_norm", 1.0), "max_norm=1.0"),
        (_option("sparse", True), "sparse=True"),
        (_third, r"transformer.h.0.extra.weight is the weight of the embedding or the head"),
        (_own_loss_function, r"loss_function is <lambda>"),
    ],
)
def test_models_that_cannot_be_chunked_say_why(
    model: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cosmic.chunk_vocabulary(model())


def test_arguments_of_other_kinds_are_refused() -> None:
    with pytest.raises(TypeError, match="model is a str"):
        cosmic.chunk_vocabulary("gpt2")  # type: ignore[arg-type]
    for rows in (1.5, True, "8"):
        with pytest.raises(TypeError, match=r"rows is .*expected a whole number"):
            cosmic.chunk_vocabulary(made("gpt2"), rows=rows)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rows is 0; expected 1 or more"):
        cosmic.chunk_vocabulary(made("gpt2"), rows=0)


def test_what_would_break_the_blocks_is_refused_within() -> None:
    model = made("gpt2")
    with cosmic.chunk_vocabulary(model, rows=ROWS):
        with pytest.raises(RuntimeError, match="chunked already"):
            cosmic.chunk_vocabulary(model)
        with pytest.raises(RuntimeError, match="cannot be cast or moved"):
            model.to(torch.bfloat16)
        with pytest.raises(RuntimeError, match="cannot be cast or moved"):
            model.to_empty(device="cpu")
        with pytest.raises(RuntimeError, match="cannot be copied"):
            copy.deepcopy(model)
        with pytest.raises(RuntimeError, match="resize before"):
            model.resize_token_embeddings(300)
        model.to("cpu").tie_weights()  # change nothing
        model(**batch()).loss.backward()
    plain = made("gpt2")
    plain(**batch()).loss.backward()
    close(plain, model)


def test_an_optimizer_of_the_whole_weights_is_noticed() -> None:
    model = made("gpt2")
    optimizer = Cosmic(model.parameters(), lr=1e-3)
    with (
        cosmic.chunk_vocabulary(model, rows=ROWS),
        pytest.raises(ValueError, match=r"the optimizer does not have.*wte\.weight_0"),
    ):
        optimizer.step_in_backward(model)


class _Clamps(tf.LlamaForCausalLM):
    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.lm_head(self.model(input_ids).last_hidden_state)
        return self.loss_function(logits.clamp(-5, 5), labels, vocab_size=VOCABULARY)


class _Softmaxes(_Clamps):
    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.lm_head(self.model(input_ids).last_hidden_state)
        return self.loss_function(torch.softmax(logits, -1), labels, vocab_size=VOCABULARY)


class _Forgets(_Clamps):
    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        return self.lm_head(self.model(input_ids).last_hidden_state)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (_Clamps, TypeError, "to its logits, clamp, for which"),
        (_Softmaxes, TypeError, "to its logits, softmax, for which"),
        (_Forgets, RuntimeError, "_Forgets was given labels but did not call its loss_function"),
    ],
)
def test_a_model_that_wants_its_logits_is_told(
    kind: type[Any], error: type[Exception], message: str
) -> None:
    model = kind(made("llama").config)
    with cosmic.chunk_vocabulary(model, rows=ROWS), pytest.raises(error, match=message):
        model(**batch())
