"""A model's parameters in groups, one for each role that they have."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..state.members import listed
from ..state.roles import Kind
from .fused import Parts, parts_of
from .heads import heads_of, input_embeddings_of
from .kinds import kind_of, most_cautious
from .overrides import Overrides, checked_overrides, overridden
from .uses import Use, uses

__all__ = ["ParamGroups", "param_groups"]

_LOGGER = logging.getLogger("cosmic")
_VECTORS: tuple[Kind, ...] = ("norm", "bias", "vector")
_TABLES: tuple[Kind, ...] = ("embedding", "position")


class ParamGroups(list[dict[str, Any]]):
    """What ``param_groups`` has found: a list of groups, as any optimizer of torch takes it."""

    def table(self) -> str:
        """What was found, as text: a line a group with its role, its tensors, their elements and
        the names of some."""
        rows = [("role", "tensors", "elements", "such as")]
        for group in self:
            parts = f" of {len(group['parts'][1])} parts" if group.get("parts") else ""
            elements = sum(param.numel() for param in group["params"])
            names = listed(list(group["param_names"]))
            rows.append((group["role"] + parts, str(len(group["params"])), f"{elements:,}", names))
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        lines = [
            f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}"
            for row in rows
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


def param_groups(
    model: nn.Module,
    *,
    weight_decay: float | None = None,
    no_decay_on_vectors: bool = False,
    no_decay_on_embeddings: bool = False,
    roles: Overrides | None = None,
    fused: str = "whole",
) -> ParamGroups:
    """A model's trainable parameters in groups by what each is to the model.

    The types of the modules say it, and names only where types do not; ``docs/param_groups.md`` has
    the table. Where neither knows, the role is ``"other"``, and where both are in doubt it is the
    one to which no rule for hidden matrices applies. What was found is logged by logger
    ``"cosmic"``, level INFO; ``print`` shows it, too.

    Each group has ``params``, ``param_names`` (as ``named_parameters`` has them) and ``role``.
    Groups stand in the order in which the model has a first parameter of each, parameters within
    them in the model's order, and a shared parameter once, by the role that asks for most care: a
    head that is tied to an embedding is an embedding.

    Args:
        model: any module: as it is, compiled, wrapped by DataParallel and the like, parametrized,
            with adapters of peft. Frozen parameters are left out.
        weight_decay: of all groups; None leaves it to the optimizer.
        no_decay_on_vectors: groups of norms, biases and other vectors have weight decay 0.
        no_decay_on_embeddings: groups of embeddings and positions have weight decay 0; of untied
            heads not.
        roles: what you know better: patterns of parameter names (as of ``fnmatch``) or types of
            modules, whose own parameters are meant, to roles. The first that matches holds.
        fused: ``"split"`` gives groups of fused projections an entry ``parts``, such as
            ``(0, (768, 768, 768))``: along dimension 0 three matrices of 768. Only for what is
            known to lie one after another. ``"whole"``: no group has it.

    Raises:
        TypeError: for what is no module, and for keys of ``roles`` that are neither.
        ValueError: for a role that there is not, an entry of ``roles`` that matches nothing or
            calls a vector a matrix, parameters of lazy modules that have no shape yet, and flat
            parameters of FSDP, in which tensors of many roles lie.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected an nn.Module")
    if fused not in ("whole", "split"):
        raise ValueError(f"fused is {fused!r}; expected 'whole' or 'split'")
    given = checked_overrides(roles)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    _refuse_without_shape(named)
    found = _used(model, named)
    kinds = {**_kinds(model, found), **overridden(given, named, found)}
    _refuse_flat(name for name, p in named.items() if _is_flat(p) and name not in kinds)
    groups: dict[tuple[Kind, Parts | None], list[str]] = {}
    for name in named:
        kind = kinds.get(name, "other")
        parts = _parts(found[name]) if fused == "split" and kind == "matrix" else None
        groups.setdefault((kind, parts), []).append(name)
    undecayed = (*_VECTORS * no_decay_on_vectors, *_TABLES * no_decay_on_embeddings)
    out = ParamGroups()
    for (kind, parts), names in groups.items():
        group = {"params": [named[n] for n in names], "param_names": names, "role": kind}
        if parts is not None:
            group["parts"] = parts
        if kind in undecayed or weight_decay is not None:
            group["weight_decay"] = 0.0 if kind in undecayed else weight_decay
        out.append(group)
    _LOGGER.info("parameter groups of %s:\n%s", type(model).__name__, out)
    return out


def _used(model: nn.Module, named: Mapping[str, Tensor]) -> dict[str, list[Use]]:
    """Where each parameter is used; one of a model that names other parameters than its modules
    have, nowhere."""
    names = {id(param): name for name, param in named.items()}
    out: dict[str, list[Use]] = {name: [] for name in named}
    for use in uses(model):
        if id(use.param) in names:
            out[names[id(use.param)]].append(use)
    return out


def _kinds(model: nn.Module, found: Mapping[str, list[Use]]) -> dict[str, Kind]:
    heads, tables = heads_of(model), input_embeddings_of(model)
    return {
        name: most_cautious(kind_of(use, heads, tables) for use in used)
        for name, used in found.items()
        if used and not _is_flat(used[0].param)
    }


def _parts(used: list[Use]) -> Parts | None:
    """What all uses agree upon."""
    every = {parts_of(use) for use in used}
    return every.pop() if len(every) == 1 else None


def _refuse_without_shape(named: Mapping[str, Tensor]) -> None:
    lazy = [name for name, param in named.items() if is_lazy(param)]
    if lazy:
        raise ValueError(
            f"the model has parameters of lazy modules that have no shape yet: {listed(lazy)}; run "
            "a batch through it first"
        )


def _is_flat(param: Tensor) -> bool:
    return type(param).__name__ == "FlatParameter"


def _refuse_flat(names: Iterable[str]) -> None:
    flat = list(names)
    if flat:
        raise ValueError(
            f"{listed(flat)} of FSDP holds tensors of many roles; wrap with use_orig_params=True, "
            "or shard by fully_shard(), which leaves each parameter its own"
        )
