"""The core's functions of elements and rows with results that are allocated here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cosmic import _core

ISAS: list[str] = _core.build_info()["isa_available"]
THREADS = (1, 2, 3, 7)
#: columns where lanes of 16 and blocks of 128 begin and end
COLUMNS = (1, 15, 16, 17, 127, 128, 129)
DTYPES = (torch.float32, torch.float64)
MAPS = ("exp", "log", "tanh", "erf", "sigmoid", "gelu", "gelu_tanh", "silu")


def numbers(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Normal numbers that depend on the seed alone, whatever their dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).float().to(dtype)


@dataclass(frozen=True)
class Core:
    """Calls on so many threads of one instruction set; the one in use where it is empty."""

    threads: int = 2
    isa: str = ""

    def map(self, op: str, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        _core.exact_map(op, x, out, self.threads, self.isa)
        return out

    def map_backward(self, op: str, x: Tensor, grad: Tensor) -> Tensor:
        out = torch.empty_like(x)
        _core.exact_map_backward(op, x, grad, out, self.threads, self.isa)
        return out

    def softmax(self, x: Tensor, scale: float = 1.0, causal: bool = False) -> Tensor:
        out = torch.empty_like(x)
        _core.exact_softmax(x, out, scale, causal, self.threads, self.isa)
        return out

    def softmax_backward(self, y: Tensor, grad: Tensor, scale: float = 1.0) -> Tensor:
        out = torch.empty_like(y)
        _core.exact_softmax_backward(y, grad, out, scale, self.threads, self.isa)
        return out

    def layer_norm(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float = 1e-5
    ) -> tuple[Tensor, Tensor, Tensor]:
        out, mean, rstd = torch.empty_like(x), x.new_empty(len(x)), x.new_empty(len(x))
        _core.exact_layer_norm(x, weight, bias, eps, out, mean, rstd, self.threads, self.isa)
        return out, mean, rstd

    def layer_norm_backward(
        self, x: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor, grad: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        dx, dweight, dbias = torch.empty_like(x), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])
        _core.exact_layer_norm_backward(
            x, weight, mean, rstd, grad, dx, dweight, dbias, self.threads, self.isa
        )
        return dx, dweight, dbias

    def rms_norm(
        self, x: Tensor, weight: Tensor | None, eps: float = 1e-5
    ) -> tuple[Tensor, Tensor]:
        out, rstd = torch.empty_like(x), x.new_empty(len(x))
        _core.exact_rms_norm(x, weight, eps, out, rstd, self.threads, self.isa)
        return out, rstd

    def rms_norm_backward(
        self, x: Tensor, weight: Tensor | None, rstd: Tensor, grad: Tensor
    ) -> tuple[Tensor, Tensor]:
        dx, dweight = torch.empty_like(x), x.new_empty(x.shape[1])
        _core.exact_rms_norm_backward(x, weight, rstd, grad, dx, dweight, self.threads, self.isa)
        return dx, dweight

    def column_sums(self, x: Tensor) -> Tensor:
        out = x.new_empty(x.shape[1])
        _core.exact_column_sums(x, out, self.threads, self.isa)
        return out

    def sum(self, x: Tensor) -> Tensor:
        out = x.new_empty(())
        _core.exact_sum(x, out, self.threads, self.isa)
        return out

    def cross_entropy(
        self, logits: Tensor, targets: Tensor, ignore_index: int = -100, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        losses, lse = logits.new_empty(len(logits)), logits.new_empty(len(logits))
        _core.exact_cross_entropy(
            logits, targets, ignore_index, smoothing, losses, lse, self.threads, self.isa
        )
        return losses, lse

    def cross_entropy_backward(
        self,
        logits: Tensor,
        lse: Tensor,
        targets: Tensor,
        row_grad: Tensor,
        ignore_index: int = -100,
        smoothing: float = 0.0,
    ) -> Tensor:
        out = torch.empty_like(logits)
        _core.exact_cross_entropy_backward(
            logits, lse, targets, ignore_index, smoothing, row_grad, out, self.threads, self.isa
        )
        return out

    def embedding_backward(
        self, indices: Tensor, grad: Tensor, vocabulary: int, padding: int = -1
    ) -> Tensor:
        out = grad.new_full((vocabulary, grad.shape[1]), 9.0)
        _core.exact_embedding_backward(indices, grad, padding, out, self.threads, self.isa)
        return out

    def dropout(self, x: Tensor, p: float, key: int) -> Tensor:
        out = torch.empty_like(x)
        _core.exact_dropout(x, out, p, key, self.threads, self.isa)
        return out

    def uniform(self, like: Tensor, low: float, high: float, key: int) -> Tensor:
        out = torch.empty_like(like)
        _core.exact_uniform(out, low, high, key, self.threads, self.isa)
        return out

    def normal(self, like: Tensor, mean: float, std: float, key: int) -> Tensor:
        out = torch.empty_like(like)
        _core.exact_normal(out, mean, std, key, self.threads, self.isa)
        return out

    def inverse_frequencies(self, base: float, count: int) -> Tensor:
        out = torch.empty(count, dtype=torch.float64)
        _core.exact_inverse_frequencies(base, out, self.isa)
        return out

    def rotary(
        self, positions: Tensor, frequencies: Tensor, scaling: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        cos = torch.empty(len(positions), 2 * len(frequencies), dtype=dtype)
        sin = torch.empty_like(cos)
        _core.exact_rotary_tables(positions, frequencies, scaling, cos, sin, self.threads, self.isa)
        return cos, sin


def assert_close(actual: Tensor, expected: list[float], ulps: float = 4.0) -> None:
    """Within so many units of the last place, or 1e-6 (of doubles 1e-15)."""
    assert actual.numel() == len(expected)
    single = actual.dtype == torch.float32
    floor = 1e-6 if single else 1e-15
    relative = ulps * torch.finfo(actual.dtype).eps
    for found, wanted in zip(actual.flatten().tolist(), expected, strict=True):
        assert abs(found - wanted) <= max(floor, relative * abs(wanted)), (found, wanted)
