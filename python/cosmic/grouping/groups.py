"""A model's parameters in groups, one for each role that they have."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from ..state.roles import Kind
from .finding import find
from .fused import Parts, parts_of
from .overrides import Overrides
from .summary import found_table, summary
from .tag_options import TagOptions, TagOverrides, checked_tag_overrides
from .tag_words import Tag
from .uses import Use

__all__ = ["ParamGroups", "param_groups"]

_LOGGER = logging.getLogger("cosmic")
_VECTORS: tuple[Kind, ...] = ("norm", "bias", "vector")
_TABLES: tuple[Kind, ...] = ("embedding", "position")


class ParamGroups(list[dict[str, Any]]):
    """What ``param_groups`` has found: a list of groups, as any optimizer of torch takes it."""

    def table(self) -> str:
        """What was found, as text: a line a group with its role, its tensors, their elements and
        the names of some; with tags, these and the options that they brought along, too."""
        return found_table(self)

    def summary(self, precision: int = 4, sort_by: str = "tag") -> str:
        """The groups' numbers, as text: a line a group with its tag (its role where it has none),
        tensors, elements, their share of all, ``lr``, ``weight_decay``, ``lr_scale`` and the rate
        ``lr * lr_scale`` that results, and a line for all. Where several groups have one tag, a
        second table has a line a tag with the sums and the ranges.

        A dash is an option that the group does not have: the optimizer's holds. Of an optimizer
        that is made, ``ParamGroups(optimizer.param_groups).summary()`` has them all. Optimizers
        other than Cosmic do not know ``lr_scale``: where groups are not, or not yet, Cosmic's, a
        last line says so.

        Args:
            precision: digits of a number.
            sort_by: ``"tag"`` (in the order of the table of tags in ``docs/param_groups.md``; then
                groups without a tag, in the order of the table of roles), ``"index"`` (of the
                groups) or ``"n_params"`` (most elements first).

        Raises:
            ValueError: for anything else.
        """
        return summary(self, precision, sort_by)

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
    tags: bool | Overrides = False,
    tag_rates: bool = False,
    tag_overrides: TagOverrides | None = None,
    strict: bool = False,
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

    With ``tags`` the groups are finer and have a ``tag``, too: what the parameters do in the model,
    such as ``"attn_q"`` or ``"ffn_down"``. Beside it a group has the options alone that its tag
    brings along (no weight decay for norms, for instance); all others are the optimizer's.

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
            ``(0, {"q": 768, "k": 256, "v": 256})``: matrices along dimension 0, each of which is
            stepped as a tensor of its own. Only for what is known to lie one after another.
            ``"whole"``: no group has it.
        tags: True groups by tag. A dict says what you know better, as ``roles`` does: patterns or
            types to tags. Such a tag is the role as well, unless ``roles`` gives another.
        tag_rates: groups have the factors ``lr_scale`` of the table of tags; fused projections that
            are split have one for each part, such as ``{"q": 0.9, "k": 0.8, "v": 1.1}``.
        tag_overrides: options of groups by tag, laid over all others, such as
            ``{"lora_b": {"lr_scale": 2.0}}``. A model may lack a tag.
        strict: refuse parameters of which no rule says what they do (tag ``"other"``), unless
            ``tags`` says so.

    Raises:
        TypeError: for what is no module, and for keys of ``roles`` and ``tags`` that are neither.
        ValueError: for a role or tag that there is not, an entry of ``roles`` or ``tags`` that
            matches nothing or calls a vector a matrix, an option in ``tag_overrides`` that no group
            of ``Cosmic`` has, options of tags without ``tags``, what ``strict`` refuses, parameters
            of lazy modules that have no shape yet, and flat parameters of FSDP, in which tensors of
            many roles lie.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected an nn.Module")
    if fused not in ("whole", "split"):
        raise ValueError(f"fused is {fused!r}; expected 'whole' or 'split'")
    if tags is False:
        _refuse_options_of_tags(tag_rates=tag_rates, tag_overrides=tag_overrides, strict=strict)
    options = TagOptions(tag_rates, checked_tag_overrides(tag_overrides))
    found = find(model, roles, tags, strict)
    groups: dict[tuple[Tag | None, Kind, Parts | None], list[str]] = {}
    for name, role in found.roles.items():
        parts = _parts(found.uses[name]) if fused == "split" and role == "matrix" else None
        groups.setdefault((found.tags.get(name), role, parts), []).append(name)
    undecayed = (*_VECTORS * no_decay_on_vectors, *_TABLES * no_decay_on_embeddings)
    out = ParamGroups()
    for (tag, role, parts), names in groups.items():
        group: dict[str, Any] = {
            "params": [found.named[n] for n in names], "param_names": names, "role": role
        }  # fmt: skip
        if parts is not None:
            group["parts"] = (parts[0], dict(parts[1]))
        if role in undecayed or weight_decay is not None:
            group["weight_decay"] = 0.0 if role in undecayed else weight_decay
        if tag is not None:
            group.update(tag=tag, **options.of(tag, role, parts))
        out.append(group)
    _LOGGER.info("parameter groups of %s:\n%s", type(model).__name__, out)
    return out


def _parts(used: list[Use]) -> Parts | None:
    """What all uses agree upon."""
    every = {parts_of(use) for use in used}
    return every.pop() if len(every) == 1 else None


def _refuse_options_of_tags(**options: object) -> None:
    """Without tags they would do nothing."""
    for option, value in options.items():
        if value:
            raise ValueError(f"{option} is {value!r}, but tags is False; expected tags=True")
