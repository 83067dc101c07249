"""Output heads, and what a model calls its input embedding.

A head is found by what the model says of itself (``get_output_embeddings`` of transformers), by
names that heads have, by as many outputs as an embedding has rows, and at last by its place, where
a model ends with a linear layer. Each may take a hidden layer for a head, which is then stepped as
AdamW does it. The other error is the bad one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from torch import nn
from torch.nn.modules.conv import _ConvNd

from .uses import Path, in_stack, paths, type_name

__all__ = ["heads_of", "input_embeddings_of", "is_linear", "sizes_of"]

_HEAD = re.compile(
    r"((.*_)?(heads?|classifiers?|score|logits)|cls|fc_out|embed_out|proj_out|qa_outputs|output"
    r"|output_projection|output_layer|unembed(ding)?|generator)",
    re.IGNORECASE,
)
_TABLES = (nn.Embedding, nn.EmbeddingBag)
#: How many times as long as wide a table is at least that a layer within a stack is compared with:
#: more than the 4 of the layers that widen.
_ASPECT = 4


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer by its type or, of other packages, by its type's name;
    ``Conv1D`` of transformers is one."""
    name = type_name(module)
    return isinstance(module, nn.Linear) or name.endswith("Linear") or name == "Conv1D"


def heads_of(model: nn.Module) -> set[int]:
    """The ids of the modules that are output heads."""
    every = list(paths(model))
    said = [module for path in every for module in _said(path, "get_output_embeddings")]
    found = {id(linear) for module in said for linear in module.modules() if is_linear(linear)}
    for path in every:
        name, module = path[-1]
        if isinstance(module, nn.AdaptiveLogSoftmaxWithLoss):
            found |= {id(linear) for linear in module.modules() if is_linear(linear)}
        elif _HEAD.fullmatch(name) and not in_stack(path):
            found |= set(map(id, _ends(module)))
    found |= set(map(id, _as_wide_as_a_table(every)))
    knows = any(hasattr(path[-1].module, "get_output_embeddings") for path in every)
    return found if found or knows else set(map(id, _last(every)))


def input_embeddings_of(model: nn.Module) -> set[int]:
    """The ids of the modules that transformers' models call their input embeddings."""
    said = (module for path in paths(model) for module in _said(path, "get_input_embeddings"))
    return {id(module) for module in said if not isinstance(module, _ConvNd)}


def _said(path: Path, method: str) -> Iterator[nn.Module]:
    """What a model answers, if it has an answer."""
    asked = getattr(path[-1].module, method, None)
    if not callable(asked):
        return
    try:
        answer = asked()
    except (AttributeError, NotImplementedError, TypeError):
        return
    if isinstance(answer, nn.Module):
        yield answer


def _ends(module: nn.Module) -> list[nn.Module]:
    """The layers that a head ends with: several where it is a list of heads."""
    below = module._modules
    if is_linear(module) or isinstance(module, _ConvNd):
        return [module]
    for wrapped in (below.get("modules_to_save"), below.get("base_layer")):  # of peft
        if wrapped is not None:
            return _ends(wrapped)
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        return [end for child in module.children() for end in _ends(child)]
    layers = [m for m in module.modules() if is_linear(m) or isinstance(m, _ConvNd)]
    return layers[-1:] or [module]


def _as_wide_as_a_table(every: Iterable[Path]) -> Iterator[nn.Module]:
    """Layers with an output for each row of an embedding. Within a stack of blocks that may be by
    chance: only those as large as the largest one count there."""
    every = list(every)
    modules = [path[-1].module for path in every]
    tables = [(m.num_embeddings, m.embedding_dim) for m in modules if isinstance(m, _TABLES)]
    lengths, largest = {length for length, _ in tables}, max(tables, default=(0, 0))
    for path in every:
        sizes = sizes_of(path[-1].module)
        if sizes is None or sizes[0] not in lengths:
            continue
        if not in_stack(path) or (sizes == largest and sizes[0] > _ASPECT * sizes[1]):
            yield path[-1].module


def sizes_of(module: nn.Module) -> tuple[int, int] | None:
    """Outputs and inputs of a linear layer, without touching its weight, which may be made anew by
    a parametrization each time that it is read."""
    if not is_linear(module):
        return None
    out, into = ("nf", "nx") if type_name(module) == "Conv1D" else ("out_features", "in_features")
    sizes = getattr(module, out, None), getattr(module, into, None)
    return (sizes[0], sizes[1]) if isinstance(sizes[0], int) and isinstance(sizes[1], int) else None


def _last(every: Iterable[Path]) -> Iterator[nn.Module]:
    """The linear layer that a model ends with, if it does."""
    holders = [path for path in every if any(True for _ in path[-1].module.parameters(False))]
    if holders and is_linear(holders[-1][-1].module) and not in_stack(holders[-1]):
        yield holders[-1][-1].module
