"""A model's embedding, its head and whose loss they serve, and what of them cannot be chunked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .modules import Blocked

__all__ = ["Vocabulary", "vocabulary_of"]

_LOSS = "ForCausalLMLoss"  # transformers' name of the cross-entropy of next tokens
_SCALED = "ScaledWordEmbedding"  # transformers' embeddings that multiply by ``embed_scale``


@dataclass(frozen=True)
class Vocabulary:
    """What has one row a token.

    Attributes:
        embedding: the input embedding; None where there is none to chunk.
        factor: what the embedding multiplies its rows by; None: 1.
        head: the output head; None where there is none.
        owner: the model that calls the head and its ``loss_function``; None without head.
    """

    embedding: nn.Embedding | None
    factor: float | Tensor | None
    head: nn.Linear | None
    owner: nn.Module | None

    @property
    def tied(self) -> bool:
        """Whether embedding and head are one weight."""
        if self.embedding is None or self.head is None:
            return False
        return self.embedding.weight is self.head.weight

    @property
    def modules(self) -> list[nn.Embedding | nn.Linear]:
        return [module for module in (self.embedding, self.head) if module is not None]


def vocabulary_of(model: nn.Module) -> Vocabulary:
    """Find embedding and head by what a model of transformers says of itself.

    Raises:
        RuntimeError: if they are in blocks already.
        ValueError: for a model without either, and for what cannot be chunked.
    """
    if any(isinstance(module, Blocked) for module in model.modules()):
        raise RuntimeError("the model's vocabulary is chunked already; leave that first")
    embedding = next(_said(model, "get_input_embeddings"), (None, None))[1]
    owner, head = next(_said(model, "get_output_embeddings"), (None, None))
    if embedding is None and head is None:
        raise ValueError(
            f"{type(model).__name__} names no embedding and no output head by "
            "get_input_embeddings() and get_output_embeddings(), as models of transformers do"
        )
    factor = None
    if embedding is not None:
        factor = _check_embedding(embedding)
    if head is not None and owner is not None:
        _check_head(head, owner)
    found = Vocabulary(embedding, factor, head, owner)  # type: ignore[arg-type]
    for module in found.modules:
        _check_module(module)
    _check_unshared(model, found)
    return found


def _said(model: nn.Module, method: str) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Who answers such a question, and what; wrappers that only pass it on are not asked."""
    for module in model.modules():
        if not hasattr(type(module), method) or not hasattr(type(module), "loss_function"):
            continue
        try:
            answer = getattr(module, method)()
        except (AttributeError, NotImplementedError):
            continue
        if isinstance(answer, nn.Module):
            yield module, answer


def _check_embedding(embedding: nn.Module) -> float | Tensor | None:
    """The factor of an embedding that can be chunked."""
    kind = type(embedding)
    scaled = kind.__name__.endswith(_SCALED) and issubclass(kind, nn.Embedding)
    if kind is not nn.Embedding and not scaled:
        raise ValueError(
            f"the input embedding is a {_full_name(embedding)}; chunk_vocabulary() takes "
            "nn.Embedding and transformers' scaled ones. Adapters on it can be merged first"
        )
    assert isinstance(embedding, nn.Embedding)
    for option in ("max_norm", "sparse"):
        if getattr(embedding, option):
            raise ValueError(
                f"the input embedding has {option}={getattr(embedding, option)!r}, which a "
                "gradient in blocks does not have; set it to its default"
            )
    factor = getattr(embedding, "embed_scale", None) if scaled else None
    if isinstance(factor, Tensor):
        return factor.to(embedding.weight.dtype)
    return None if factor is None else float(factor)


def _check_head(head: nn.Module, owner: nn.Module) -> None:
    if type(head) is not nn.Linear:
        raise ValueError(
            f"the output head is a {_full_name(head)}; chunk_vocabulary() takes an nn.Linear. "
            "Leave the head out of adapters and of quantization"
        )
    function = owner.loss_function
    if getattr(function, "__name__", None) != _LOSS:
        raise ValueError(
            f"{type(owner).__name__}.loss_function is {getattr(function, '__name__', function)}; "
            f"chunk_vocabulary() knows {_LOSS} alone, the cross-entropy of next tokens"
        )


def _full_name(module: nn.Module) -> str:
    """With its package, as adapters' modules have torch's names."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _check_module(module: nn.Embedding | nn.Linear) -> None:
    weight = module.weight
    name = type(module).__name__
    if type(weight) is not nn.Parameter or type(weight.data) is not Tensor:
        raise ValueError(f"the {name}'s weight is a {type(weight).__name__}; expected a plain one")
    if not weight.is_floating_point() or weight.layout != torch.strided:
        raise ValueError(
            f"the {name}'s weight is {weight.dtype} of {weight.layout}; expected a dense one of "
            "floating dtype"
        )
    if "forward" in vars(module) or module._backward_hooks or module._backward_pre_hooks:
        raise ValueError(
            f"the {name} has a forward of its own or backward hooks, which would be lost; call "
            "chunk_vocabulary() before what sets them"
        )


def _check_unshared(model: nn.Module, found: Vocabulary) -> None:
    """A third user of a weight would not know of its blocks."""
    weights = {id(module.weight) for module in found.modules}
    for name, module in model.named_modules():
        if any(module is known for known in found.modules):
            continue
        for own, param in module._parameters.items():
            if param is not None and id(param) in weights:
                raise ValueError(
                    f"{name}.{own} is the weight of the embedding or the head, too; "
                    "chunk_vocabulary() knows these two alone as sharing one"
                )
