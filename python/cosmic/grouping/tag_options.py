"""Options that tags bring along, and those that a caller lays over them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import torch

from ..optimizer import Cosmic
from ..state.roles import Kind
from ..step.options import WHOLE_OPTIONS
from .fused import Parts
from .tag_words import TAGS, Tag

__all__ = ["TAG_RATES", "UNDECAYED", "TagOptions", "TagOverrides", "checked_tag_overrides"]

#: Options of groups by tag.
TagOverrides: TypeAlias = Mapping[str, Mapping[str, Any]]

#: Tags without weight decay: of tables a decay shrinks rows that no gradient reaches, of scales and
#: shifts what sets a layer's size, of adapters what keeps the model from where it started.
UNDECAYED: tuple[Tag, ...] = (
    "lora_a", "lora_b", "rope", "scaling", "embed", "position", "norm", "bias",
)  # fmt: skip

#: Factors on the learning rate, for who asks for them; of other tags 1.
TAG_RATES: Mapping[Tag, float] = MappingProxyType(
    {
        "lora_a": 0.8, "lora_b": 0.8, "attn_q": 0.9, "attn_k": 0.8, "attn_v": 1.1,
        "attn_gate": 0.9, "ffn_gate": 0.9, "ffn_up": 1.1, "ffn_down": 0.9, "rope": 0.5,
        "scaling": 0.5, "embed": 0.5, "position": 0.5, "norm": 0.5, "bias": 0.5,
    }
)  # fmt: skip

#: The matrices that lie in one fused weight, by how many there are: their names and tags.
_FUSED: Mapping[tuple[Tag, int], Mapping[str, Tag]] = {
    ("attn_qkv", 3): {"q": "attn_q", "k": "attn_k", "v": "attn_v"},
    ("attn_qkv", 2): {"k": "attn_k", "v": "attn_v"},
    ("ffn_up", 2): {"gate": "ffn_gate", "up": "ffn_up"},
}


class TagOptions(NamedTuple):
    """What groups have by their tag.

    Attributes:
        rates: whether ``TAG_RATES`` holds.
        overrides: options of tags, laid over all else.
    """

    rates: bool
    overrides: TagOverrides

    def of(self, tag: Tag, role: Kind, parts: Parts | None) -> dict[str, Any]:
        """The options of a group: those alone that its tag has or the caller gave."""
        rate = self._rate(tag) if parts is None else self._rates_of_parts(tag, len(parts[1]))
        given = self.overrides.get(tag, {})
        undecayed = tag in UNDECAYED or (tag == "other" and role == "vector")
        return {
            **({"weight_decay": 0.0} if undecayed else {}),
            **({} if rate is None else {"lr_scale": rate}),
            **{o: dict(v) if isinstance(v, Mapping) else v for o, v in given.items()},
        }

    def _rate(self, tag: Tag) -> Any:
        own = TAG_RATES.get(tag) if self.rates else None
        return self.overrides.get(tag, {}).get("lr_scale", own)

    def _rates_of_parts(self, tag: Tag, count: int) -> dict[str, Any] | None:
        """Of a fused weight those of its parts, which have the tags that each would have alone."""
        named = {part: self._rate(own) for part, own in _FUSED.get((tag, count), {}).items()}
        return {part: rate for part, rate in named.items() if rate is not None} or None


def checked_tag_overrides(overrides: object) -> TagOverrides:
    """The option ``tag_overrides``, if it is one.

    Raises:
        TypeError, ValueError: naming the tag and the option, and what was expected.
    """
    if overrides is None:
        return {}
    if not isinstance(overrides, Mapping):
        raise TypeError(f"tag_overrides is {overrides!r}; expected a dict of tags to options")
    known = set(Cosmic([torch.zeros(1)]).defaults)
    for tag, options in overrides.items():
        if tag not in TAGS:
            raise ValueError(
                f"tag_overrides has the tag {tag!r}; expected one of {', '.join(map(repr, TAGS))}"
            )
        if not isinstance(options, Mapping):
            raise TypeError(
                f"tag_overrides[{tag!r}] is {options!r}; expected a dict of options of a "
                "parameter group"
            )
        for option in options:
            if option not in known:
                raise ValueError(
                    f"tag_overrides[{tag!r}] has {option!r}, " + _why_not(option, known)
                )
    return overrides


def _why_not(option: object, known: set[str]) -> str:
    if option in WHOLE_OPTIONS:
        return f"which is an option of the whole optimizer: Cosmic(params, {option}=...)"
    close = difflib.get_close_matches(str(option), known, 1)
    return "which is no option of a parameter group of Cosmic" + (
        f"; did you mean {close[0]!r}?"
        if close
        else f"; expected one of {', '.join(sorted(known))}"
    )
