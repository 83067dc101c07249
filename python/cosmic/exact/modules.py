"""Modules of exact operations, with torch's arguments and parameter names.

Each is a subclass of torch's module, so that checkpoints load and whoever asks for a
``torch.nn.Linear`` finds one. Initial weights come from a counter whose key is drawn from torch's
generator, and so are the same on every machine, too.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from . import activations, randomness
from .attention import attention
from .embeddings import embedding
from .losses import cross_entropy
from .norms import layer_norm, rms_norm
from .products import check_accumulate, conv1d, linear
from .randomness import normal_, uniform_

__all__ = [
    "GELU",
    "Attention",
    "Conv1D",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
    "RMSNorm",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
]


class Linear(nn.Linear):
    """``exact.linear`` as a module.

    Args:
        in_features: inputs.
        out_features: outputs.
        bias: whether there is one.
        accumulate: as in ``exact.linear``.
        device: of the parameters; the CPU, or ``"meta"`` before they are loaded.
        dtype: of the parameters.

    Initial weights are uniform between ``-1 / sqrt(inputs)`` and ``1 / sqrt(inputs)``.

    Raises:
        ValueError: for another word.

    Source: ``torch.nn.Linear``.
    """

    accumulate = "fp64"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        accumulate: str = "fp64",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_accumulate("Linear", accumulate)
        super().__init__(in_features, out_features, bias, device, dtype)
        self.accumulate = accumulate

    def reset_parameters(self) -> None:
        """Draw the initial weights anew."""
        bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
        for parameter in (self.weight, self.bias):
            if parameter is not None and not parameter.is_meta:
                uniform_(parameter, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias, accumulate=self.accumulate)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, accumulate={self.accumulate!r}"


class Conv1D(nn.Module):
    """``exact.conv1d`` as a module: GPT-2's linear layer.

    Args:
        nf: outputs.
        nx: inputs.
        accumulate: as in ``exact.linear``.

    Initial weights are normal with standard deviation 0.02, biases are 0.

    Raises:
        ValueError: for another word.

    Source: ``transformers.pytorch_utils.Conv1D``.
    """

    def __init__(self, nf: int, nx: int, *, accumulate: str = "fp64") -> None:
        check_accumulate("Conv1D", accumulate)
        super().__init__()
        self.nf, self.nx, self.accumulate = nf, nx, accumulate
        self.weight = nn.Parameter(torch.empty(nx, nf))
        if not self.weight.is_meta:
            normal_(self.weight, 0.0, 0.02)
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        return conv1d(x, self.weight, self.bias, accumulate=self.accumulate)

    def extra_repr(self) -> str:
        return f"nf={self.nf}, nx={self.nx}, accumulate={self.accumulate!r}"


class Embedding(nn.Embedding):
    """``exact.embedding`` as a module.

    Its arguments are those of ``torch.nn.Embedding``; ``max_norm``, ``scale_grad_by_freq`` and
    ``sparse`` stay at their defaults. Initial weights are standard normal, those of the padding row
    are 0.

    Raises:
        ValueError: for an option that is not computed.

    Source: ``torch.nn.Embedding``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        refused = embedding_refusal(self)
        if refused:
            raise ValueError(f"exact.Embedding(): {refused}")

    def reset_parameters(self) -> None:
        """Draw the initial weights anew."""
        if not self.weight.is_meta:
            normal_(self.weight)
            self._fill_padding_idx_with_zero()

    def forward(self, input: Tensor) -> Tensor:
        return embedding(input, self.weight, self.padding_idx)


def embedding_refusal(module: nn.Embedding) -> str | None:
    """Which option of an embedding is not computed, or None."""
    for option in ("max_norm", "scale_grad_by_freq", "sparse"):
        value = getattr(module, option)
        if value:
            return f"{option} is {value!r}; expected its default, as nothing else is computed"
    return None


class LayerNorm(nn.LayerNorm):
    """``exact.layer_norm`` as a module.

    Its arguments are those of ``torch.nn.LayerNorm``.

    Source: ``torch.nn.LayerNorm``.
    """

    def forward(self, input: Tensor) -> Tensor:
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """``exact.rms_norm`` as a module.

    Its arguments are those of ``torch.nn.RMSNorm``.

    Source: ``torch.nn.RMSNorm``.
    """

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)


class Dropout(nn.Dropout):
    """``exact.dropout`` as a module, with a key of torch's generator for each call.

    Args:
        p: probability, at least 0 and below 1.
        inplace: refused.

    Raises:
        ValueError: for another ``p``, and in place.

    Source: ``torch.nn.Dropout``.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__(p, inplace)
        refused = dropout_refusal(self)
        if refused:
            raise ValueError(f"exact.Dropout(): {refused}")

    def forward(self, input: Tensor) -> Tensor:
        return randomness.dropout(input, self.p, self.training)


def dropout_refusal(module: nn.Dropout) -> str | None:
    """Which option of a dropout is not computed, or None."""
    if module.inplace:
        return "inplace is True; expected False"
    if not 0 <= module.p < 1:
        return f"p is {module.p}; expected at least 0 and below 1"
    return None


class GELU(nn.GELU):
    """``exact.gelu`` as a module.

    Its arguments are those of ``torch.nn.GELU``.

    Source: ``torch.nn.GELU``.
    """

    def forward(self, input: Tensor) -> Tensor:
        return activations.gelu(input, self.approximate)


class SiLU(nn.SiLU):
    """``exact.silu`` as a module, never in place.

    Source: ``torch.nn.SiLU``.
    """

    def forward(self, input: Tensor) -> Tensor:
        return activations.silu(input)


class Tanh(nn.Tanh):
    """``exact.tanh`` as a module.

    Source: ``torch.nn.Tanh``.
    """

    def forward(self, input: Tensor) -> Tensor:
        return activations.tanh(input)


class Sigmoid(nn.Sigmoid):
    """``exact.sigmoid`` as a module.

    Source: ``torch.nn.Sigmoid``.
    """

    def forward(self, input: Tensor) -> Tensor:
        return activations.sigmoid(input)


class Softmax(nn.Softmax):
    """``exact.softmax`` as a module.

    Args:
        dim: that is summed over.

    Source: ``torch.nn.Softmax``, whose ``dim`` may be None.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)

    def forward(self, input: Tensor) -> Tensor:
        assert self.dim is not None
        return activations.softmax(input, self.dim)


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """``exact.cross_entropy`` as a module.

    Its arguments are those of ``torch.nn.CrossEntropyLoss``; class weights are refused.

    Raises:
        ValueError: for class weights.

    Source: ``torch.nn.CrossEntropyLoss``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.weight is not None:
            raise ValueError("exact.CrossEntropyLoss(): weight is given; expected None")

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class Attention(nn.Module):
    """``exact.attention`` as a module; it has no parameters.

    Args:
        causal: as in ``exact.attention``.
        scale: as in ``exact.attention``.
        dropout: probability, in training alone.
        accumulate: as in ``exact.linear``.

    Raises:
        ValueError: for another word.

    Source: ``torch.nn.functional.scaled_dot_product_attention``.
    """

    def __init__(
        self,
        *,
        causal: bool = False,
        scale: float | None = None,
        dropout: float = 0.0,
        accumulate: str = "fp64",
    ) -> None:
        check_accumulate("Attention", accumulate)
        randomness.check_probability("Attention", dropout)
        super().__init__()
        self.causal, self.scale, self.dropout = causal, scale, dropout
        self.accumulate = accumulate

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        return attention(
            query,
            key,
            value,
            mask,
            causal=self.causal,
            scale=self.scale,
            dropout=self.dropout if self.training else 0.0,
            accumulate=self.accumulate,
        )

    def extra_repr(self) -> str:
        return (
            f"causal={self.causal}, scale={self.scale}, dropout={self.dropout}, "
            f"accumulate={self.accumulate!r}"
        )
