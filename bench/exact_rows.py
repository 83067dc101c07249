"""Functions of elements and of rows with the same bits everywhere, beside torch's.

    python bench/exact_rows.py [--threads 1 2] [--only softmax ...] [--json out.json]

Torch, the variant and torch take turns in one process; pairs whose two torch times differ by more
than 8 % are dropped. The ratio is the variant's time over torch's: below 1 the variant is faster.
Tensors are float32, of the sizes that a small GPT-2 has of 1024 tokens.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cosmic import _core
from shared.harness import machine, paired, print_table, write_json

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    threads: int
    ratio: float
    pairs: int
    ms: float
    torch_ms: float


#: What is measured: of a number of threads, and torch's.
Case = tuple[str, Callable[[int], object], Callable[[], Any]]


def gradients(y: Tensor, inputs: list[Tensor], grad: Tensor) -> Callable[[], Any]:
    return lambda: torch.autograd.grad(y, inputs, grad, retain_graph=True)


def activations() -> Iterator[Case]:
    x, grad, out = torch.randn(1024, 3072), torch.randn(1024, 3072), torch.empty(1024, 3072)
    for op, function in ACTIVATIONS.items():
        variable = x.clone().requires_grad_()
        back = gradients(function(variable), [variable], grad)
        yield op, partial(_core.exact_map, op, x, out), partial(function, x)
        yield f"{op} backward", partial(_core.exact_map_backward, op, x, grad, out), back


def attention() -> Iterator[Case]:
    x, grad, out = torch.randn(48, 256, 256), torch.randn(48, 256, 256), torch.empty(48, 256, 256)
    y = torch.softmax(x, -1)
    hidden = torch.ones(256, 256, dtype=torch.bool).triu(1)
    yield "softmax", lambda t: _core.exact_softmax(x, out, 1.0, False, t), lambda: x.softmax(-1)
    yield (
        "causal softmax",
        lambda t: _core.exact_softmax(x, out, 1.0, True, t),
        lambda: x.masked_fill(hidden, -torch.inf).softmax(-1),
    )
    yield (
        "softmax backward",
        lambda t: _core.exact_softmax_backward(y, grad, out, 1.0, t),
        lambda: torch.ops.aten._softmax_backward_data(grad, y, -1, torch.float32),
    )


def norms() -> Iterator[Case]:
    x, grad, out = torch.randn(2048, 768), torch.randn(2048, 768), torch.empty(2048, 768)
    weight, bias = torch.randn(768).requires_grad_(), torch.randn(768).requires_grad_()
    scale, shift, variable = weight.detach(), bias.detach(), x.clone().requires_grad_()
    mean, rstd, dweight, dbias = (torch.empty(n) for n in (2048, 2048, 768, 768))
    yield (
        "layer_norm",
        lambda t: _core.exact_layer_norm(x, scale, shift, 1e-5, out, mean, rstd, t),
        lambda: F.layer_norm(x, (768,), scale, shift),
    )
    yield (
        "layer_norm backward",
        lambda t: _core.exact_layer_norm_backward(
            x, scale, mean, rstd, grad, out, dweight, dbias, t
        ),
        gradients(F.layer_norm(variable, (768,), weight, bias), [variable, weight, bias], grad),
    )
    yield (
        "rms_norm",
        lambda t: _core.exact_rms_norm(x, scale, 1e-5, out, rstd, t),
        lambda: F.rms_norm(x, (768,), scale),
    )
    yield "column sums", lambda t: _core.exact_column_sums(x, dbias, t), lambda: x.sum(0)


def vocabulary() -> Iterator[Case]:
    classes, targets = 50257, torch.randint(0, 50257, (1024,))
    logits, out = torch.randn(1024, classes), torch.empty(1024, classes)
    losses, lse, row_grad = torch.empty(1024), torch.empty(1024), torch.full((1024,), 1 / 1024)
    variable = logits.clone().requires_grad_()
    yield (
        "cross_entropy",
        lambda t: _core.exact_cross_entropy(logits, targets, -100, 0.0, losses, lse, t),
        lambda: F.cross_entropy(logits, targets),
    )
    yield (
        "cross_entropy backward",
        lambda t: _core.exact_cross_entropy_backward(
            logits, lse, targets, -100, 0.0, row_grad, out, t
        ),
        gradients(F.cross_entropy(variable, targets), [variable], torch.ones(())),
    )
    grad, table = torch.randn(1024, 768), torch.empty(classes, 768)
    yield (
        "embedding backward",
        lambda t: _core.exact_embedding_backward(targets, grad, -1, table, t),
        lambda: torch.ops.aten.embedding_dense_backward(grad, targets, classes, -1, False),
    )


def random_numbers() -> Iterator[Case]:
    x, out = torch.randn(1024, 3072), torch.empty(1024, 3072)
    yield "dropout", lambda t: _core.exact_dropout(x, out, 0.1, 7, t), lambda: F.dropout(x, 0.1)
    yield "normal", lambda t: _core.exact_normal(out, 0, 1, 7, t), lambda: out.normal_()


def measured(case: Case, threads: int, pairs: int) -> Row:
    name, ours, theirs = case
    torch.set_num_threads(threads)
    result = paired(theirs, lambda: ours(threads), pairs=pairs)
    return Row(name, threads, result.ratio, result.pairs, result.variant * 1e3, result.torch * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", default=[""], help="names that contain one of these")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rows = [
        measured(case, threads, arguments.pairs)
        for cases in (activations, attention, norms, vocabulary, random_numbers)
        for case in cases()
        if any(part in case[0] for part in arguments.only)
        for threads in arguments.threads
    ]
    print(machine()["cpu"], "with", machine()["isa"])
    print_table(
        rows,
        {
            "what": "",
            "threads": "d",
            "ratio": ".2f",
            "pairs": "d",
            "ms": ".2f",
            "torch_ms": ".2f",
        },
    )
    write_json(arguments.json, rows)


if __name__ == "__main__":
    main()
