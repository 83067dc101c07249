"""Architectures with the widths that they have, of a few layers, on the meta device: no weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import transformers as tf
from torch import Tensor, nn

__all__ = ["ARCHITECTURES", "Recommender", "made", "mlp"]

LAYERS = 3  # in each stack, the fewest of which sides without names tell that they recur


class Mixer(nn.Module):
    """MLP-Mixer S/16, with the names of timm."""

    def __init__(self, width: int = 512, patches: int = 196) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 16, 16)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(width),
                    "mlp_tokens": _mlp(patches, width // 2),
                    "norm2": nn.LayerNorm(width),
                    "mlp_channels": _mlp(width, 4 * width),
                }
            )
            for _ in range(LAYERS)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1000)


def _mlp(width: int, hidden: int) -> nn.ModuleDict:
    return nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})


class Recommender(nn.Module):
    """Neural collaborative filtering: two embeddings and an MLP, of as many users and items as
    MovieLens has."""

    def __init__(self, users: int = 6040, items: int = 3706, width: int = 64) -> None:
        super().__init__()
        self.users = nn.Embedding(users, width)
        self.items = nn.Embedding(items, width)
        self.mlp = mlp(2 * width, width, width // 2, 1)

    def forward(self, pairs: Tensor) -> Tensor:
        both = torch.cat([self.users(pairs[:, 0]), self.items(pairs[:, 1])], -1)
        return torch.as_tensor(self.mlp(both))


def mlp(*widths: int) -> nn.Sequential:
    """A plain stack."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def labelled(config: Any, labels: int) -> Any:
    config.num_labels = labels
    return config


def _clip() -> nn.Module:
    layers = {"num_hidden_layers": LAYERS}
    return tf.CLIPModel(tf.CLIPConfig(text_config=layers, vision_config=layers))


def _roberta() -> nn.Module:
    config = tf.RobertaConfig(
        num_hidden_layers=LAYERS, type_vocab_size=1, max_position_embeddings=514
    )
    return tf.RobertaForSequenceClassification(labelled(config, 3))


def _qwen2() -> nn.Module:
    config = tf.Qwen2Config(
        num_hidden_layers=LAYERS, vocab_size=151936, hidden_size=896, intermediate_size=4864,
        num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    return tf.Qwen2ForCausalLM(config)


def _gemma() -> nn.Module:
    config = tf.GemmaConfig(
        num_hidden_layers=LAYERS, hidden_size=2048, intermediate_size=16384,
        num_attention_heads=8, num_key_value_heads=1,
    )  # fmt: skip
    return tf.GemmaForCausalLM(config)


def _t5() -> nn.Module:
    """Version 1.1: with a gate, and a head of its own."""
    untied: dict[str, Any] = {"tie_word_embeddings": False}
    config = tf.T5Config(
        num_layers=LAYERS, d_ff=1024, num_heads=6, feed_forward_proj="gated-gelu", **untied
    )
    return tf.T5ForConditionalGeneration(config)


def _bart() -> nn.Module:
    config = tf.BartConfig(encoder_layers=LAYERS, decoder_layers=LAYERS)
    return tf.BartForConditionalGeneration(config)


def _whisper() -> nn.Module:
    config = tf.WhisperConfig(encoder_layers=LAYERS, decoder_layers=LAYERS)
    return tf.WhisperForConditionalGeneration(config)


#: What makes each model.
ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(n_layer=LAYERS)),
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(num_hidden_layers=LAYERS)),
    "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(num_hidden_layers=LAYERS)),
    "qwen2": _qwen2,
    "gemma": _gemma,
    "phi": lambda: tf.PhiForCausalLM(tf.PhiConfig(num_hidden_layers=LAYERS)),
    "phi3": lambda: tf.Phi3ForCausalLM(tf.Phi3Config(num_hidden_layers=LAYERS)),
    "gpt-neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(num_hidden_layers=LAYERS)),
    "opt": lambda: tf.OPTForCausalLM(tf.OPTConfig(num_hidden_layers=LAYERS)),
    "bloom": lambda: tf.BloomForCausalLM(tf.BloomConfig(n_layer=LAYERS, hidden_size=1024)),
    "falcon": lambda: tf.FalconForCausalLM(tf.FalconConfig(num_hidden_layers=LAYERS)),
    "mamba": lambda: tf.MambaForCausalLM(tf.MambaConfig(num_hidden_layers=LAYERS)),
    "t5": _t5,
    "bart": _bart,
    "whisper": _whisper,
    "bert": lambda: tf.BertForPreTraining(tf.BertConfig(num_hidden_layers=LAYERS)),
    "roberta": _roberta,
    "distilbert": lambda: tf.DistilBertForMaskedLM(tf.DistilBertConfig(n_layers=LAYERS)),
    "electra": lambda: tf.ElectraForPreTraining(tf.ElectraConfig(num_hidden_layers=LAYERS)),
    "clip": _clip,
    "vit": lambda: tf.ViTForImageClassification(
        labelled(tf.ViTConfig(num_hidden_layers=LAYERS), 1000)
    ),
    "swin": lambda: tf.SwinForImageClassification(labelled(tf.SwinConfig(), 1000)),
    "convnext": lambda: tf.ConvNextForImageClassification(labelled(tf.ConvNextConfig(), 1000)),
    "resnet": lambda: tf.ResNetForImageClassification(labelled(tf.ResNetConfig(), 1000)),
    "mixer": Mixer,
    "mlp": lambda: mlp(784, 256, 128, 10),
    "mlp-narrow": lambda: mlp(784, 64, 256, 64, 10),
    "recommender": Recommender,
}


def made(name: str) -> nn.Module:
    """The model, without memory."""
    with torch.device("meta"):
        return ARCHITECTURES[name]()
