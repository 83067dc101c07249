"""Whether a matrix was trained before, by its weights."""

from __future__ import annotations

from torch import Tensor

from .. import _core

__all__ = ["is_trained"]

#: The squared variation of rows' or columns' squares, in those of independent normal numbers, above
#: which weights are no fresh ones. Fresh ones of every usual kind have 0 to 1.4; the least of a
#: pre-trained sentence encoder's matrices 6, most of them 20 to 1,000. Fresh ones that are sparse,
#: of blocks on different scales or padded with zeros have more, too: they lose the rule, no more.
_LEAST = 4.0
_OF_NORMAL_NUMBERS = 2.0


def is_trained(param: Tensor, label: str) -> bool:
    """Whether the rows or the columns of a matrix differ more in length than those of fresh
    weights, which are drawn independently, do; False for a tensor without memory and for what is no
    matrix of 16 columns or more."""
    if param.device.type == "meta":
        return False
    return max(_core.variation(param.detach(), label)) > _LEAST * _OF_NORMAL_NUMBERS
