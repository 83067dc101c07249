"""exact.convert: what a model computes stays, what it is stays, what is not known is refused."""

from __future__ import annotations

import copy
import functools
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from converted_models import MODELS, batch, bert, gpt2, ids, llama
from cosmic import UnsupportedTensorError, exact
from helpers import normal


def loss_and_gradients(model: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
    model.zero_grad()
    loss = model(**inputs).loss
    torch.autograd.backward(loss)
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize(
    ("name", "accumulate"),
    [*((name, "fp64") for name in MODELS), ("GPT-2, padded", "fp32"), ("Llama", "fp32")],
)
def test_loss_and_gradients_stay_and_all_is_exact(name: str, accumulate: str) -> None:
    make, inputs = MODELS[name]
    model = make()
    expected = loss_and_gradients(model.double(), _wide(inputs))
    converted = exact.convert(model.float(), accumulate)
    assert converted is model
    found = loss_and_gradients(model, inputs)
    assert len(found) == len(expected) > 10
    largest = max(float(gradient.abs().max()) for gradient in expected[1:])
    for ours, theirs in zip(found, expected, strict=True):
        scale = max(float(theirs.abs().max()), 1e-3 * largest)  # some are 0 but for rounding
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=1e-5 * scale)
    assert exact.check(model, **inputs) == []


def _wide(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}


def test_what_a_model_is_stays() -> None:
    model = gpt2()
    parameters, names = dict(model.named_parameters()), [n for n, _ in model.named_modules()]
    calls: list[str] = []
    model.transformer.h[0].mlp.c_fc.register_forward_hook(lambda *_: calls.append("c_fc"))
    model.transformer.wpe.weight.requires_grad_(False)
    model.transformer.h[1].eval()
    exact.convert(model)
    assert {n: id(p) for n, p in model.named_parameters()} == {
        n: id(p) for n, p in parameters.items()
    }
    assert [n for n, _ in model.named_modules()] == names
    assert model.lm_head.weight is model.transformer.wte.weight
    assert not model.transformer.wpe.weight.requires_grad
    assert not model.transformer.h[1].attn.training and model.transformer.h[0].training
    assert type(model).__name__ == "GPT2LMHeadModel"
    model(input_ids=ids())
    assert calls == ["c_fc"]
    assert isinstance(model.lm_head, nn.Linear) and isinstance(model.lm_head, exact.Linear)


def test_exact_modules_are_known() -> None:
    model = nn.Sequential(exact.Conv1D(4, 4), exact.Linear(4, 4), exact.Attention())
    for module in exact.convert(model, accumulate="fp32"):
        assert module.accumulate == "fp32"


def test_a_second_conversion_changes_the_sums_alone() -> None:
    model = exact.convert(llama())
    classes = [type(module) for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    first = loss_and_gradients(model, batch())
    exact.convert(model)
    again = loss_and_gradients(model, batch())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert [type(module) for module in model.modules()] == classes
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    exact.convert(model, accumulate="fp32")
    assert not torch.equal(loss_and_gradients(model, batch())[1], first[1])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_compute_the_same_bits(copied: Any) -> None:
    model = exact.convert(bert(dropout=0.1))
    results = []
    for twin in (model, copied(model)):
        torch.manual_seed(3)
        results.append(loss_and_gradients(twin, batch()))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_saved_model_loads_as_an_ordinary_one(tmp_path: Any) -> None:
    from transformers import AutoModelForCausalLM

    model = exact.convert(llama())
    model.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(plain.lm_head) is nn.Linear
    assert plain.config._attn_implementation == "sdpa"
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    torch.testing.assert_close(
        plain(input_ids=ids()).logits, model(input_ids=ids()).logits, rtol=1e-4, atol=1e-4
    )


def test_a_model_that_shares_its_configuration_keeps_torchs_attention() -> None:
    model = gpt2()
    other = type(model)(model.config)
    other.loss_type = "ForCausalLM"
    before = other(input_ids=ids()).logits
    exact.convert(model)
    assert torch.equal(other(input_ids=ids()).logits, before)


def test_words_are_generated_as_before() -> None:
    """With a cache of keys, whose masks are not square."""
    model = llama().eval()
    prompt = {"input_ids": ids(), "attention_mask": torch.ones(2, 12, dtype=torch.int64)}
    expected = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    exact.convert(model)
    assert torch.equal(model.generate(**prompt, max_new_tokens=8, do_sample=False), expected)


def test_what_attention_does_not_compute_is_refused() -> None:
    model = exact.convert(gpt2())
    assert model(input_ids=ids(), output_attentions=True).attentions == ()
    with pytest.raises(ValueError, match="is given softcap, which is not computed"):
        model(input_ids=ids(), softcap=30.0)


# ---- models of torch's modules -------------------------------------------------------------------


class Plain(nn.Module):
    """Calls functions by name, and adds what must be repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 8)
        self.place = nn.Parameter(normal(0, 1, 5, 8))
        self.scale = nn.Parameter(normal(1, 1)[0])
        self.body = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.SiLU(), nn.Dropout(0.0))
        self.mix = nn.Parameter(normal(2, 8, 8))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids) + self.place
        x = x * self.scale + torch.tanh(self.body(x)) @ self.mix
        heads = x.view(*x.shape[:2], 2, 4).transpose(1, 2)
        x = x + F.scaled_dot_product_attention(heads, heads, heads, is_causal=True).transpose(
            1, 2
        ).flatten(2)
        x = F.dropout(F.gelu(F.layer_norm(x, (8,))), 0.0)
        logits = F.linear(F.rms_norm(x, (8,)), self.table.weight)
        shares = torch.softmax(logits, -1).mean()
        loss = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), label_smoothing=0.1)
        return loss + shares + F.mse_loss(x, torch.zeros_like(x)) + self.mix.sigmoid().sum()


IDS = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 0], [1, 1, 1, 2, 2]])


def test_functions_that_are_called_by_name_are_exact() -> None:
    model, twin = Plain(), Plain()
    twin.load_state_dict(model.state_dict())
    assert exact.check(model, IDS)
    exact.convert(model)
    assert exact.check(model, IDS) == []
    losses = [m(IDS) for m in (model, twin)]
    for loss in losses:
        torch.autograd.backward(loss)
    torch.testing.assert_close(*losses)
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6, msg=name)


def test_nothing_is_exchanged_outside_of_a_forward() -> None:
    model = exact.convert(Plain())
    x = normal(0, 64, 64)
    expected = F.gelu(x)

    class Broken(Exception):
        pass

    def broken(*_: Any) -> None:
        raise Broken

    model(IDS)
    for handle in (
        model.body.register_forward_pre_hook(broken),
        model.register_forward_pre_hook(broken, prepend=True),
        model.register_forward_hook(broken),
    ):
        with pytest.raises(Broken):
            model(IDS)
        handle.remove()
        assert torch.equal(F.gelu(x), expected)
        stack: Any = torch.overrides._get_current_function_mode_stack
        assert stack() == []
    assert exact.check(model, IDS) == []


def test_float64_models_are_converted() -> None:
    model = exact.convert(Plain().double())
    assert model(IDS).dtype == torch.float64
    assert exact.check(model, IDS) == []
    with pytest.raises(ValueError, match="would round float64"):
        exact.convert(model, accumulate="fp32")


# ---- what is refused -----------------------------------------------------------------------------


class Own(nn.Module):
    """Nothing is known of it, and there is nothing in it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


def test_unknown_modules_are_named_and_nothing_is_changed() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(4, 4, 1), Own(), nn.Tanh())
    classes = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=r"1 \(torch.*Conv1d\); 2 \(.*Own\)\. Nothing was changed"):
        exact.convert(model)
    assert [type(module) for module in model.modules()] == classes
    with pytest.warns(UserWarning, match="left as they were") as caught:
        exact.convert(model, strict=False)
    assert len(caught) == 1
    assert [type(module) for module in model] == [exact.Linear, nn.Conv1d, Own, exact.Tanh]


def test_an_unknown_model_of_transformers_is_refused() -> None:
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=64, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, word_embed_proj_dim=16, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    model = OPTForCausalLM(config)
    with pytest.raises(ValueError, match=r"the model itself \(transformers.*OPTForCausalLM\)"):
        exact.convert(model)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Embedding(4, 4, max_norm=1.0), "max_norm is 1.0"),
        (nn.Dropout(1.0), "below 1"),
        (nn.Dropout(0.5, inplace=True), "inplace is True"),
        (nn.CrossEntropyLoss(torch.ones(3)), "class weights"),
        (nn.Softmax(), "dim is None"),
    ],
)
def test_options_that_are_not_computed_are_refused(module: nn.Module, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        exact.convert(nn.Sequential(module))


def test_other_positions_are_refused() -> None:
    model = llama(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    with pytest.raises(ValueError, match=r"model.rotary_emb .*'dynamic'; 'default', 'linear'"):
        exact.convert(model)


def test_a_forward_of_its_own_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].forward = functools.partial(model[0].forward)
    with pytest.raises(ValueError, match="convert before what sets it"):
        exact.convert(model)


def test_other_dtypes_and_things_are_refused() -> None:
    with pytest.raises(UnsupportedTensorError, match=r"0.weight is torch.bfloat16.*\.float\(\)"):
        exact.convert(nn.Sequential(nn.Linear(4, 4)).bfloat16())
    with pytest.raises(TypeError, match=r"expected an nn\.Module"):
        exact.convert([nn.Linear(4, 4)])  # type: ignore[type-var]
    with pytest.raises(ValueError, match="'fp64', 'fp32' or 'exact'"):
        exact.convert(nn.Linear(4, 4), accumulate="fp16")


def test_torch_compile_is_refused() -> None:
    model = exact.convert(nn.Sequential(nn.Linear(4, 4), nn.GELU()))
    compiled = torch.compile(model, backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Exception, match="check_tensors"):
            compiled(normal(0, 2, 4))
    torch.compiler.reset()
