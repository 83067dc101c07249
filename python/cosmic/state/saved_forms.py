"""The form of each entry of a shard's state in a checkpoint, and the way there."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _core
from ..parts import CODECS, GATES, Numbers
from ..rungs import MATRIX, PLAIN, Geometry, Rung
from .building import decoded_moments
from .entries import SIGNAL, State, rung_of
from .groups import Group
from .members import Member
from .places import place_of, real_view
from .saved_layout import Layout
from .saved_tables import Segments, numbers_table, raw_table, raw_width

__all__ = ["ANY", "PLACE", "Form", "SavedForm", "numbers_by_key"]

#: Entries that say where codes belong: of the whole tensor in a checkpoint.
PLACE = ("packed_shape", "packed_order")
_SIGNAL = Numbers(SIGNAL, ("mean of |g|",), (0.0,), torch.float64)
#: A tensor's geometry that every rung can be laid out for.
ANY = Geometry(1, (2, 16))


def numbers_by_key(rung: Rung) -> dict[str, Numbers]:
    of_gates = (gate.numbers for gate in GATES.values())
    return {n.key: n for n in (*rung.numbers, *of_gates, _SIGNAL) if n is not None}


class Form:
    """Which form each slot of a state has in a checkpoint: by the whole tensor's shape and by the
    dimensions that are cut alone, so that all processes agree; or another layout's."""

    def __init__(
        self, row: Member, group: Group, held: State, summed: bool, layout: Layout | None = None
    ) -> None:
        self.row, self.group, self.held, self.summed = row, group, held, summed
        self.rung = rung_of(held)
        self.layout = Layout.of(row) if layout is None else layout
        self.numbers = numbers_by_key(self.rung)

    def planes(self, slot: str) -> list[str]:
        """Keys of a slot's tensors."""
        return [slot + plane[0] for plane in self.rung.layout(slot, ANY)]

    def moment(self, slot: str) -> str:
        """The slot's name among decoded moments."""
        return "exp_avg_sq" if slot == self.rung.second else slot

    def is_decoded(self, slot: str) -> bool:
        codec = self.rung.slots[slot]
        if codec in PLAIN:
            return False
        return not (self.layout.by_rows if codec in MATRIX else self.layout.whole_blocks)

    def widths(self, slot: str) -> dict[str, int]:
        """Bytes a row of each tensor of codes and scales of whole blocks."""
        of_row = Geometry(self.layout.row_numel, None)
        return {slot + plane[0]: plane[4] for plane in self.rung.layout(slot, of_row)}

    def segments(self) -> Segments:
        return Segments.of(self.layout.carrying, self.layout.matrix[1])

    def matrix_rows(self) -> int:
        """Rows that the shard's means of columns are of."""
        rows = self.layout.carrying if self.summed else self.layout.rows_here
        return rows * self.layout.matrix[0]

    def raw_width(self, slot: str) -> int:
        layout = self.layout
        if self.rung.slots[slot] in MATRIX:
            return 4 * layout.matrix[0] + raw_width(0, 1, 1) + 4 * self.segments().length
        block = sum(plane[4] for plane in self.rung.layout(slot, Geometry(_core.BLOCK, None)))
        return raw_width(block, layout.carrying, layout.row_numel)


class SavedForm(Form):
    def state(self) -> State:
        held, layout = self.held, self.layout
        out: State = {}
        decoded = self._decoded() if any(map(self.is_decoded, self.rung.slots)) else {}
        for slot in self.rung.slots:
            first, *rest = keys = self.planes(slot)
            if not self.is_decoded(slot):
                out.update(self._planes(slot))
                continue
            of_lines = not rest and "packed_order" not in held
            found = self._spread(held[first], first) if of_lines else decoded[self.moment(slot)]
            out[first] = layout.elements(found)
            width = self.raw_width(slot)
            raw = raw_table([held[key] for key in keys], layout.box, layout.rows, width)
            out.update({key: layout.table(raw) for key in rest})
        for key, value in held.items():
            if key in self.numbers:
                out[key] = layout.table(numbers_table(value, layout.rows))
            elif key not in out and key not in PLACE:
                out[key] = layout.elements(value) if self._is_plane(value) else value
        if self.rung.packed:
            out.update(place_of(self.row.whole))
        return out

    def _is_plane(self, value: object) -> bool:
        """Whether it is one number an element, which is no moment."""
        like = real_view(self.row.tensor)
        return isinstance(value, Tensor) and value.dim() > 0 and value.shape == like.shape

    def _planes(self, slot: str) -> State:
        held, layout, codec = self.held, self.layout, self.rung.slots[slot]
        if codec in PLAIN:
            return {key: layout.elements(held[key]) for key in self.planes(slot)}
        if codec not in MATRIX:
            widths = self.widths(slot).items()
            return {key: layout.by_row(held[key].view(torch.uint8), width) for key, width in widths}
        out: State = {}
        for key in self.planes(slot):
            if key.endswith("_row"):
                out[key] = layout.by_row(held[key], layout.matrix[0])
                continue
            segments, of_rows = self.segments(), self.matrix_rows()
            out[key] = layout.table(segments.table(held[key], layout.first, layout.rows, of_rows))
        return out

    def _spread(self, means: Tensor, key: str) -> Tensor:
        """Means of rows or columns in the place of each element: decoded, but to the bit."""
        like = real_view(self.row.tensor)
        others = like.numel() // max(len(means), 1)
        by_rows = key.endswith("_row")
        lines = means[:, None] if by_rows else means[None]
        size = (len(means), others) if by_rows else (others, len(means))
        return lines.expand(size).reshape(like.shape)

    def _decoded(self) -> State:
        if self.rung.m != "none" and CODECS[self.rung.m].of_next_gradient:
            raise ValueError(
                f"it is on {self.rung.name}, whose first moment cannot be decoded, and its rows "
                "are no whole blocks of 128 elements: no checkpoint of shards can hold it; give it "
                "another rung"
            )
        return decoded_moments(self.row.tensor, self.held, self.group, self.row.shard)
