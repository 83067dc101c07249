"""The step of a model whose weights and state are in host memory, against other engines' steps.

    python bench/offload.py                              # 34 million parameters
    python bench/offload.py --millions 512 --pairs 15 --json offload.json

Each optimizer gets the same gradients in bfloat16, as a device sends them, and leaves a copy of the
weights in bfloat16, as the device wants them back, by its own fastest way: who needs gradients in
float32 has them cast into a buffer that is there, and who leaves no copy has it made by ``copy_``.
Times are ratios to DeepSpeed's CPUAdam (torch's fused AdamW where that is not installed), from
pairs in one process; a pair counts where the two times of the reference around it agree. The host's
bytes a parameter are those of weights, gradients, state and copy.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import peers
from cosmic import Cosmic
from shared.harness import machine, paired, print_table, seconds, write_json

OPTIONS: dict[str, Any] = {"lr": 1e-4, "weight_decay": 0.01}
REFERENCES = ("deepspeed CPUAdam", "torch fused AdamW")

#: How many times slower than the reference a step may be that gets all of its pairs.
PATIENCE = 4.0


@dataclass(frozen=True)
class Row:
    """One optimizer's figures; ``ratio`` is its time over the reference's, from so many pairs."""

    optimizer: str
    weights: str
    ratio: float
    pairs: int
    ms: float
    steps_a_second: float
    bytes_a_parameter: float


@dataclass(frozen=True)
class Offloaded:
    """An optimizer with its tensors on the host: one step from gradients to the copy.

    Attributes:
        weights: how they are kept.
        step: takes one.
        host_bytes: of weights, gradients, state and copies, once a step has been taken.
    """

    weights: str
    step: Callable[[], Any]
    host_bytes: Callable[[], int]


def shapes(millions: float) -> list[tuple[int, int]]:
    """Matrices of a transformer, as many layers of them as it takes."""
    layer = [(2048, 2048)] * 4 + [(5632, 2048)] * 2 + [(2048, 5632)]
    found: list[tuple[int, int]] = []
    left = millions * 1e6
    while left > 0 or not found:
        found.append(layer[len(found) % len(layer)])
        left -= found[-1][0] * found[-1][1]
    return found


def nbytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.nbytes for t in tensors)


def host_gradients(sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    return [(torch.randn(size) * 1e-3).bfloat16() for size in sizes]


def cosmic_fp32(gradients: Sequence[Tensor], **options: Any) -> Offloaded:
    """Weights in float32 and a copy in bfloat16 that the step leaves."""
    params = [nn.Parameter(torch.randn(g.shape) * 0.02) for g in gradients]
    for param, gradient in zip(params, gradients, strict=True):
        param.grad_dtype = torch.bfloat16
        param.grad = gradient
    copies = [torch.empty_like(g) for g in gradients]
    optimizer = Cosmic(params, **OPTIONS, **options)
    held = nbytes([*params, *gradients, *copies])
    return Offloaded(
        "fp32 and copy",
        lambda: optimizer.step(copy_to=copies),
        lambda: held + optimizer.state_bytes(),
    )


def cosmic_24(gradients: Sequence[Tensor], **options: Any) -> Offloaded:
    """Weights in bfloat16, which the device gets as they are, and eight bits more."""
    params = [nn.Parameter((torch.randn(g.shape) * 0.02).bfloat16()) for g in gradients]
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = gradient
    optimizer = Cosmic(params, **OPTIONS, master_bits=24, **options)
    held = nbytes([*params, *gradients])
    return Offloaded(
        "bf16 and 8 bits",
        optimizer.step,
        lambda: held + optimizer.state_bytes() + optimizer.master_bytes(),
    )


def other(
    gradients: Sequence[Tensor], make: Callable[[list[nn.Parameter]], Any], *, cast: bool = True
) -> Offloaded:
    """An optimizer of float32 tensors: gradients are cast into theirs, and the copy is made.
    Without ``cast`` gradients have come in float32, twice the bytes."""
    params = [nn.Parameter(torch.randn(g.shape) * 0.02) for g in gradients]
    wide = [torch.empty_like(p) for p in params]
    for param, gradient in zip(params, wide, strict=True):
        param.grad = gradient
    copies = [torch.empty_like(g) for g in gradients]
    optimizer = make(params)
    held = nbytes([*params, *copies, *wide, *(gradients if cast else ())])

    @torch.no_grad()
    def step() -> None:
        if cast:
            torch._foreach_copy_(wide, list(gradients))
        optimizer.step()
        torch._foreach_copy_(copies, list[Tensor](params))

    return Offloaded("fp32 and copy", step, lambda: held + peers.state_bytes(optimizer))


def fused(params: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, **OPTIONS, fused=True)


def variants(gradients: Sequence[Tensor]) -> dict[str, Callable[[], Offloaded]]:
    """What makes each optimizer, the reference first."""
    found: dict[str, Callable[[], Offloaded]] = {
        "deepspeed CPUAdam": lambda: other(gradients, _peer("deepspeed CPUAdam")),
        "deepspeed CPUAdam, fp32 gradients": lambda: other(
            gradients, _peer("deepspeed CPUAdam"), cast=False
        ),
        "torch fused AdamW": lambda: other(gradients, fused),
        "Cosmic u4+factored": lambda: cosmic_fp32(gradients, state_dtype="u4+factored"),
        "Cosmic u4+factored, 24 bits": lambda: cosmic_24(gradients, state_dtype="u4+factored"),
        "Cosmic q8+v4": lambda: cosmic_fp32(gradients, state_dtype="q8+v4"),
        "Cosmic fp32": lambda: cosmic_fp32(gradients, state_dtype="fp32"),
        "bitsandbytes AdamW8bit": lambda: other(gradients, _peer("bitsandbytes AdamW8bit")),
        "torchao AdamW8bit": lambda: other(gradients, _peer("torchao AdamW8bit")),
        "torchao AdamW4bit": lambda: other(gradients, _peer("torchao AdamW4bit")),
    }
    missing = peers.absent()
    return {name: make for name, make in found.items() if name.partition(",")[0] not in missing}


def _peer(name: str) -> Callable[[list[nn.Parameter]], Any]:
    def make(params: list[nn.Parameter]) -> Any:
        return peers.PEERS[name].make(params, **OPTIONS)

    return make


def measured(name: str, made: Offloaded, reference: Offloaded, pairs: int, numel: int) -> Row:
    made.step()  # which makes its state
    slow = seconds(made.step, 1) > PATIENCE * seconds(reference.step, 1)
    found = paired(reference.step, made.step, pairs=1 if slow else pairs, tries=2 if slow else 6)
    return Row(
        name, made.weights, found.ratio, found.pairs, found.variant * 1e3, 1 / found.variant,
        made.host_bytes() / numel,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, default=32.0, help="of parameters")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--only", action="append", help="an optimizer's name; may be repeated")
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()
    if args.millions <= 0 or args.pairs < 1:
        parser.error("--millions must be above 0 and --pairs 1 or more")
    torch.manual_seed(0)
    gradients = host_gradients(shapes(args.millions))
    numel = sum(g.numel() for g in gradients)
    makers = variants(gradients)
    if unknown := set(args.only or ()) - set(makers):
        parser.error(f"--only {sorted(unknown)[0]!r}: expected one of {', '.join(makers)}")
    against = next(name for name in REFERENCES if name in makers)
    print(f"{numel / 1e6:.0f} million parameters; times over {against}'s; {machine()}")
    reference = makers[against]()
    reference.step()
    rows: list[Row] = []
    for name, make in makers.items():
        if args.only and name not in args.only:
            continue
        try:
            made = reference if name == against else make()
            rows.append(measured(name, made, reference, args.pairs, numel))
        except Exception as error:  # another package's: anything at all
            if name.startswith("Cosmic"):
                raise
            print(f"{name}: fails here: {type(error).__name__}: {error}")
        made = reference
        gc.collect()
    print_table(
        rows,
        {"optimizer": "", "weights": "", "ratio": ".3f", "pairs": "d", "ms": ".1f",
         "steps_a_second": ".1f", "bytes_a_parameter": ".2f"},
    )  # fmt: skip
    write_json(args.json, rows, against=against, parameters=numel)


if __name__ == "__main__":
    main()
