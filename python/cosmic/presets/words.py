"""Options by a word, for who does not want to choose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .. import backends

__all__ = ["preset"]

#: Below this many elements AdamW's own state is 8 MB, and nothing is worth saving.
_SMALL = 1_000_000
#: From this many on even 4 bits an element are half a gigabyte.
_LARGE = 1_000_000_000


def _modern() -> dict[str, Any]:
    return {"matrix_rule": "muon"}


def _lean() -> dict[str, Any]:
    return {"budget": "3%"}


_WORDS: dict[str, Callable[[], dict[str, Any]]] = {"modern": _modern, "lean": _lean}


def preset(word: str, model: nn.Module | None = None) -> dict[str, Any]:
    """Options of ``Cosmic`` by a word: ``Cosmic(params, lr, **preset("modern"))``.

    * ``"modern"``: ``matrix_rule="muon"``, hidden matrices by orthogonalized momentum in 1 bit, and
      everything else as by default: the least loss without a budget that has been measured
      (``docs/matrix_rule.md``), at AdamW's rate. Meant for fresh weights, and for groups of
      ``param_groups(model)``, which knows what a hidden matrix is.
    * ``"lean"``: ``budget="3%"`` of AdamW's state, spent by the default policy
      (``docs/budget.md``).
    * ``"auto"``: by the elements ``n`` of ``model`` that train: below a million
      ``state_dtype="fp32"``, AdamW itself, as there is nothing to save; from a thousand million on
      ``"lean"``; between them ``"modern"``, but the defaults on a machine whose instruction set in
      use is ``"scalar"``, where orthogonalizing takes too long.

    Options of groups are in every checkpoint, and loading one restores them on whatever machine;
    a budget is of the whole optimizer and is to be given again. Nothing is measured here, and on
    one machine the same model has the same options.

    Args:
        word: ``"modern"``, ``"lean"`` or ``"auto"``.
        model: needed for ``"auto"`` alone.

    Returns:
        Arguments of ``Cosmic`` by name; to be changed at will.

    Raises:
        ValueError: for another word.
        TypeError: for ``"auto"`` without a module.
    """
    if word == "auto":
        return _auto(model)
    if word not in _WORDS:
        raise ValueError(f"word is {word!r}; expected 'modern', 'lean' or 'auto'")
    return _WORDS[word]()


def _auto(model: nn.Module | None) -> dict[str, Any]:
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is a {type(model).__name__}; expected an nn.Module: preset('auto', model) goes "
            "by its size"
        )
    numel = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if numel < _SMALL:
        return {"state_dtype": "fp32"}
    if numel >= _LARGE:
        return _lean()
    return {} if backends.selected() == "scalar" else _modern()
