"""What is known of modules: which have an exact counterpart, and which only put others together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from . import modules

__all__ = ["full_name", "known_glue", "of_transformers", "plain", "refusal", "swaps"]

_SWAPS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: modules.Linear,
    nn.Embedding: modules.Embedding,
    nn.LayerNorm: modules.LayerNorm,
    nn.RMSNorm: modules.RMSNorm,
    nn.Dropout: modules.Dropout,
    nn.GELU: modules.GELU,
    nn.SiLU: modules.SiLU,
    nn.Tanh: modules.Tanh,
    nn.Sigmoid: modules.Sigmoid,
    nn.Softmax: modules.Softmax,
    nn.CrossEntropyLoss: modules.CrossEntropyLoss,
}

#: Modules of torch whose forward is exact as it is: copies, comparisons, nothing at all.
_PLAIN: tuple[type[nn.Module], ...] = (
    nn.Flatten, nn.Identity, nn.ModuleDict, nn.ModuleList, nn.ParameterDict, nn.ParameterList,
    nn.ReLU, nn.ReLU6, nn.Sequential, nn.Unflatten,
)  # fmt: skip

#: Classes of transformers 5 whose forward has been read: it is made of modules, functions with an
#: exact counterpart, sums of two tensors, copies.
_GLUE: dict[str, str] = {
    "gpt2.modeling_gpt2": "GPT2Attention GPT2Block GPT2LMHeadModel GPT2MLP GPT2Model",
    "llama.modeling_llama": (
        "LlamaAttention LlamaDecoderLayer LlamaForCausalLM LlamaMLP LlamaModel"
    ),
    "bert.modeling_bert": (
        "BertAttention BertCrossAttention BertEmbeddings BertEncoder BertForMaskedLM "
        "BertForNextSentencePrediction BertForPreTraining BertForSequenceClassification "
        "BertForTokenClassification BertIntermediate BertLayer BertLMHeadModel "
        "BertLMPredictionHead BertModel BertOnlyMLMHead BertOnlyNSPHead BertOutput BertPooler "
        "BertPredictionHeadTransform BertPreTrainingHeads BertSelfAttention BertSelfOutput"
    ),
}
_GLUE_NAMES = {
    f"transformers.models.{file}.{name}" for file, names in _GLUE.items() for name in names.split()
}


def full_name(module: nn.Module) -> str:
    """A module's class with its package."""
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}"


def of_transformers() -> bool:
    """Whether transformers is in use, in a release whose modules are known."""
    package = sys.modules.get("transformers")
    return package is not None and int(package.__version__.partition(".")[0]) >= 5


def swaps() -> dict[type[nn.Module], type[nn.Module]]:
    """Exact counterparts, class by class; transformers' where it is in use."""
    if not of_transformers():
        return _SWAPS
    from .of_transformers import SWAPS

    return {**_SWAPS, **SWAPS}


def plain(module: nn.Module) -> bool:
    """Whether a module is exact as it is."""
    name = full_name(module)
    return type(module) in _PLAIN or name == "transformers.activations.LinearActivation"


def known_glue(module: nn.Module) -> bool:
    """Whether a module only puts others together: of transformers one that is known; of anyone
    else one that has others."""
    if full_name(module) in _GLUE_NAMES:
        return True
    ours = type(module).__module__.partition(".")[0] not in ("torch", "transformers")
    return ours and next(module.children(), None) is not None


def refusal(module: nn.Module) -> str | None:
    """Why a module of a class that has a counterpart cannot have it, or None."""
    if "forward" in vars(module):
        return "it has a forward of its own; convert before what sets it"
    for kind, ask in _ASK.items():
        if isinstance(module, kind):
            return ask(module)
    if full_name(module).endswith(".LlamaRotaryEmbedding"):
        from .of_transformers import rotary_refusal

        return rotary_refusal(module)
    return None


def _weighted(module: Any) -> str | None:
    return None if module.weight is None else "it has class weights, which are not computed"


def _of_some_dimension(module: Any) -> str | None:
    return None if module.dim is not None else "dim is None; expected a dimension"


_ASK: dict[type[nn.Module], Callable[[Any], str | None]] = {
    nn.Embedding: modules.embedding_refusal,
    nn.Dropout: modules.dropout_refusal,
    nn.CrossEntropyLoss: _weighted,
    nn.Softmax: _of_some_dimension,
}
