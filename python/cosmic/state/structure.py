"""What all of an optimizer's tensors say together that one tensor's shape does not.

The rows of an embedding are words, those of a head words or labels: no layer takes them in, so that
their number is no tensor's number of columns, and no stack of layers repeats it. Sides of hidden
matrices do recur: what one layer gives the next one takes, and there are many layers. Names, where
parameters have some, are asked first; gradients never are, as what they show is one of batch size.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from torch import Tensor
from torch.nn.parameter import is_lazy

__all__ = ["Structure", "Word", "sides_of"]

#: What a name says: an embedding or a head; positions; a layer in a stack of layers alike; a layer
#: that goes on from an embedding, or ahead of a head's last one, of which structure says the rest.
Word = Literal["table", "position", "stacked", "beside"]

_EMBEDDING = re.compile(r"(?:^|_)(?:[a-z]*emb(?:ed(?:ding)?)?s?|wte)(?:_|$)")
_POSITION = re.compile(r"(?:^|_)(?:wpe|pos|position\w*|relative)(?:_|$)")
_HEAD = re.compile(r"(?:^|_)(?:[a-z]*heads?|classifier|score|logits)$")
#: Ends of names as ``embeddings_project``, ``time_emb_proj`` and ``patch_embeddings``.
_BEHIND = re.compile(r"(?:^|_)(?:proj\w*|patch\w*)(?:_|$)")
#: What says nothing beside the module that holds it: parameters', and what wrappers add.
_OF_ANY = ("weight", "bias", "base_layer", "modules_to_save", "default", "parametrizations",
           "original")  # fmt: skip

#: A block of a weight, by ``cosmic.chunk_vocabulary``: says what the whole weight says.
_BLOCK = re.compile(r"weight_\d+")

_NUMBER = re.compile(r"(?<![^.])\d+(?=\.(?!(?:weight|bias)$))")

_SHARED = 2  # tensors whose rows are the same words: an embedding and a head
_LONG, _ASPECT = 512, 8  # a table's longer side, and how many times its shorter one


class Structure:
    """Counts of the sides of all parameters in the groups, whether they have gradients or not.

    Args:
        named: all of them by names, which may be numbers as text; a lazy module's that have no
            shape yet count for nothing.
    """

    def __init__(self, named: Iterable[tuple[str, Tensor]]) -> None:
        self._rows: Counter[int] = Counter()
        self._columns: Counter[int] = Counter()
        self._vectors: Counter[int] = Counter()
        self._alike: Counter[tuple[str, tuple[int, ...]]] = Counter()
        for name, param in named:
            if not is_lazy(param):
                self._count(name, param)

    def _count(self, name: str, param: Tensor) -> None:
        self._alike[_layer(name), tuple(param.shape)] += 1
        sides = sides_of(param)
        if len(sides) == 1:
            self._vectors[sides[0]] += 1
        elif sides:
            self._rows[sides[0]] += 1
            self._columns[sides[1]] += 1

    def word(self, name: str, param: Tensor) -> Word | None:
        """What a parameter's name says of it; None where that is nothing."""
        every = name.lower().split(".")
        parts = [p for p in every if p not in _OF_ANY and not _BLOCK.fullmatch(p)]
        layer = _layer(name)
        stacked = layer != name and self._alike[layer, tuple(param.shape)] > 1
        own = parts[-1] if parts else ""
        if not _BEHIND.search(own):
            if _POSITION.search(own):
                return "position"
            if _EMBEDDING.search(own) or (_HEAD.search(own) and not stacked):
                return "table"
        if stacked:
            return "stacked"
        words = (_EMBEDDING, _POSITION, _HEAD)
        return "beside" if any(word.search(part) for part in parts for word in words) else None

    def is_bias(self, length: int) -> bool:
        """Whether a tensor of one side is as long as others have rows."""
        return self._rows[length] > 0

    def is_handed_on(self, length: int) -> bool:
        """Whether one layer gives what another one takes."""
        return self._rows[length] > 0 and self._columns[length] > 0

    def is_table(self, rows: int, columns: int) -> bool:
        """Whether a tensor with these two sides is an embedding or a head."""
        if self._is_outer(rows) and self._matrices(columns) > 1:
            return True
        long, short = max(rows, columns), min(rows, columns)
        if long < _LONG or long < _ASPECT * short:
            return False
        # words are a side of two tensors at most where a head is transposed, and the model's width
        # of more; a pair of low rank has each of its sides twice
        times = self._matrices(long)
        return times == 1 or (times == _SHARED and self._matrices(short) > _SHARED)

    def _is_outer(self, length: int) -> bool:
        """Whether a number of rows is taken in by no tensor and repeated by no stack of layers. One
        vector is a head's bias; two are those of two layers alike."""
        few = self._rows[length] <= _SHARED and self._vectors[length] < _SHARED
        return few and not self._columns[length]

    def _matrices(self, length: int) -> int:
        return self._rows[length] + self._columns[length]


def sides_of(param: Tensor) -> list[int]:
    """A tensor's dimensions of more than one element; a kernel has more than two."""
    return [size for size in param.shape if size > 1]


def _layer(name: str) -> str:
    """A name without the numbers of the modules that hold the parameter's own."""
    return _NUMBER.sub("#", name)
