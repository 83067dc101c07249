"""The way back from a checkpoint's entries to those of the shard that is here."""

from __future__ import annotations

import torch
from torch import Tensor

from ..rungs import MATRIX, PLAIN
from .building import build_state, decoded_moments, encode
from .entries import State
from .places import place_of
from .saved_forms import ANY, PLACE, Form
from .saved_tables import numbers_of, raw_of
from .shard_tensors import check_dense

__all__ = ["LoadedForm"]


class LoadedForm(Form):
    def state(self, seed: int) -> State:
        self._check()
        known = {*PLACE, *self.numbers, *self.rung.planes(ANY)}
        out: State = {key: self._other(key) for key in self.held if key not in known}
        if self.rung.packed:
            out.update(place_of(self.row.tensor))
        out.update({key: self._numbers(key) for key in self.numbers if key in self.held})
        lost = self._take_planes(out)
        if lost and self.row.tensor.numel():
            self._encode(out, lost, seed)
        return out

    def _check(self) -> None:
        if missing := [key for key in self.rung.planes(ANY) if key not in self.held]:
            raise ValueError(
                f"its state has no {missing[0]!r}, which {self.rung.name} needs; "
                "optimizer.reset(param) starts it anew"
            )
        found = self.held.get("packed_shape")
        if not isinstance(found, Tensor):
            return
        check_dense(found, "packed_shape")
        expected = place_of(self.row.whole)["packed_shape"].tolist()
        if found.tolist() != expected:
            raise ValueError(
                f"its state is of packed_shape {tuple(found.flatten().tolist())} and does not fit "
                f"the parameter's {tuple(expected)}"
            )

    def _other(self, key: str) -> object:
        value = self.held[key]
        if not isinstance(value, Tensor):
            return value
        is_plane = value.dim() > 0 and tuple(value.shape) == self.layout.whole_shape
        return self.layout.elements_of(value, key) if is_plane else value.detach().clone()

    def _numbers(self, key: str) -> Tensor:
        numbers = self.numbers[key]
        table = self.layout.table_of(self.held[key], len(numbers.names), key)
        fresh = torch.tensor(numbers.initial, dtype=table.dtype, device="cpu")
        return numbers_of(table, fresh.reshape(numbers.shape))

    def _take_planes(self, out: State) -> State:
        """Put every slot's tensors in; moments of the slots that must be encoded anew."""
        lost: State = {}
        for slot, codec in self.rung.slots.items():
            if not self.is_decoded(slot):
                out.update(self._planes(slot))
                continue
            first, *rest = keys = self.planes(slot)
            fresh = self._fresh()
            out.update({key: fresh[key] for key in keys})
            width = self.raw_width(slot)
            raw = [_bytes(self.layout.table_of(self.held[key], width, key), key) for key in rest]
            found = self.layout.elements_of(self.held[first], first)
            planes = [fresh[key] for key in keys]
            if not rest and codec in MATRIX and "packed_order" not in out:
                planes[0].copy_(_means(found, len(planes[0]), of_rows=first.endswith("_row")))
            elif not raw or not raw_of(raw[0], self.layout.box, planes):
                lost[self.moment(slot)] = found.to(torch.float32)
        return lost

    def _planes(self, slot: str) -> State:
        layout, codec, held = self.layout, self.rung.slots[slot], self.held
        if codec in PLAIN:
            return {key: layout.elements_of(held[key], key) for key in self.planes(slot)}
        if codec not in MATRIX:
            dtypes = {slot + plane[0]: plane[1] for plane in self.rung.layout(slot, ANY)}
            return {
                key: _bytes(layout.by_row_of(held[key], width, key), key).view(
                    getattr(torch, dtypes[key])
                )
                for key, width in self.widths(slot).items()
            }
        out: State = {}
        for key in self.planes(slot):
            if key.endswith("_row"):
                out[key] = layout.by_row_of(held[key], layout.matrix[0], key)
                continue
            segments = self.segments()
            table = layout.table_of(held[key], segments.width, key)
            if not table.is_floating_point():
                raise ValueError(f"its state has {key} of {table.dtype}; expected torch.float32")
            row_means = next((v for k, v in out.items() if k.endswith("_row")), None)
            out[key] = segments.means(table, layout.first, row_means, self.matrix_rows())
        return out

    def _fresh(self) -> State:
        """Empty tensors of the shard's own state."""
        row = self.row
        return build_state(
            row.tensor, self.rung, {}, gates=(), signal=False, group=self.group, shard=row.shard
        )

    def _encode(self, out: State, lost: State, seed: int) -> None:
        """Encode what is lost of the moments; other slots keep their tensors."""
        row, rung = self.row, self.rung
        kept = {
            key: out[key].clone()
            for slot in rung.slots
            if self.moment(slot) not in lost
            for key in self.planes(slot)
        }
        moments = {**decoded_moments(row.tensor, out, self.group, row.shard), **lost}
        encode(row.tensor, rung, out, moments, self.group, row.index, seed, row.shard)
        for key, value in kept.items():
            out[key].copy_(value)


def _bytes(value: Tensor, key: str) -> Tensor:
    if value.dtype != torch.uint8:
        raise ValueError(f"its state has {key} of {value.dtype}; expected bytes, torch.uint8")
    return value


def _means(values: Tensor, count: int, *, of_rows: bool) -> Tensor:
    """Means of rows or columns; of equal numbers that number, to the bit."""
    if not values.numel():
        return values.new_zeros(count)
    lines = values.reshape(count, -1) if of_rows else values.reshape(-1, count).t()
    same = (lines == lines[:, :1]).all(dim=1)
    return torch.where(same, lines[:, 0], lines.double().mean(dim=1).to(values.dtype))
