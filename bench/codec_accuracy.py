"""How near compressed state stays to AdamW on gradients that are hard to store.

    python bench/codec_accuracy.py [--steps 200] [--seeds 3] [--only ...] [--json out.json]

The first table is the distance to where torch's AdamW is after so many steps, over the length of
AdamW's way. Gradients are normal, each element's times a scale of its own that does not change,
`exp(s randn)`: with s = 2, elements of one block lie orders of magnitude apart. Beside each number,
under `zeros`, the same where every 128th element's gradient is zero, one in each block.

The second is the length of a step, the root mean square of what the parameters change by, over
AdamW's: the largest from the tenth step on. The gradients of a share of all elements, the same ones
at every step, are zero, as of units that are switched off or of embeddings that are not met.

Both are means over seeds. What is stored by rows and columns cannot know single elements; see
docs/codecs.md. The column of bitsandbytes needs the package.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

import peers
from cosmic import Cosmic
from shared.harness import machine, print_table, write_json

SIDE = 256
LR = 1e-3
SPREADS = (0.0, 1.0, 2.0)
EVERY = 128  # elements from one zero to the next
MASKED = (0.5, 0.9, 0.98)
SETTLED = 10  # steps until a step's length counts
PEER = "bitsandbytes AdamW8bit"
DEFAULT = "u4+factored"

DISTANCES = ("q8", PEER, "u4+v4", DEFAULT, "bf16")
LENGTHS = (
    "bf16", "fp32+v4", "bf16+v4", "q8", "q8+v4", "u4+q8", "u4+v4", "u2+v4", "u1+v4",
    "fp32+factored", "fp32+rowmean", "q8+factored", DEFAULT, "u4+rowmean", "u2+factored",
    "u1+factored",
)  # fmt: skip


@dataclass(frozen=True)
class Distance:
    """A line of the first table: the distance to AdamW over the length of its way."""

    state: str
    s0: float
    s0_zeros: float
    s1: float
    s1_zeros: float
    s2: float
    s2_zeros: float


@dataclass(frozen=True)
class Length:
    """A line of the second table: the largest step over AdamW's, by the share that is masked."""

    state: str
    masked_50: float
    masked_90: float
    masked_98: float


@dataclass(frozen=True)
class Way:
    """Where a run of steps ended, and how long its steps were."""

    end: Tensor
    lengths: list[float]


def spread_gradients(seed: int, steps: int, spread: float, zeros: bool) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.exp(spread * torch.randn(SIDE, SIDE, generator=generator))
    if zeros:
        scale.view(-1)[::EVERY] = 0
    for _ in range(steps):
        yield torch.randn(SIDE, SIDE, generator=generator) * scale


def masked_gradients(seed: int, steps: int, masked: float) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(SIDE, SIDE, generator=generator) >= masked
    for _ in range(steps):
        yield torch.randn(SIDE, SIDE, generator=generator) * kept


def optimizer_of(state: str, param: torch.nn.Parameter) -> Any:
    if state == "AdamW":
        return torch.optim.AdamW([param], lr=LR, weight_decay=0.0)
    if state == PEER:
        return peers.PEERS[PEER].make([param], lr=LR, weight_decay=0.0)
    return Cosmic([param], lr=LR, weight_decay=0.0, state_dtype=state)


def way(state: str, gradients: Iterator[Tensor]) -> Way:
    """From zero, with these gradients."""
    param = torch.nn.Parameter(torch.zeros(SIDE, SIDE))
    optimizer = optimizer_of(state, param)
    lengths = []
    for gradient in gradients:
        before = param.detach().clone()
        param.grad = gradient
        optimizer.step()
        lengths.append((param.detach() - before).square().mean().sqrt().item())
    return Way(param.detach(), lengths)


def distance(ours: Way, adamw: Way) -> float:
    return float((ours.end - adamw.end).norm() / adamw.end.norm())


def largest_step(ours: Way, adamw: Way) -> float:
    pairs = list(zip(ours.lengths, adamw.lengths, strict=True))[SETTLED:]
    return max(mine / theirs for mine, theirs in pairs)


def means(
    states: Sequence[str],
    cases: Sequence[Callable[[int], Iterator[Tensor]]],
    measure: Callable[[Way, Way], float],
    seeds: int,
) -> dict[str, list[float]]:
    """Of each state and each case, from a seed to its gradients, the mean over seeds."""
    found: dict[str, list[float]] = {state: [] for state in states}
    for case in cases:
        adamw = [way("AdamW", case(seed)) for seed in range(seeds)]
        for state in states:
            ways = (way(state, case(seed)) for seed in range(seeds))
            found[state].append(
                statistics.fmean(measure(a, b) for a, b in zip(ways, adamw, strict=True))
            )
    return found


def distances(states: Sequence[str], steps: int, seeds: int) -> list[Distance]:
    def case(spread: float, zeros: bool) -> Callable[[int], Iterator[Tensor]]:
        return lambda seed: spread_gradients(seed, steps, spread, zeros)

    cases = [case(spread, zeros) for spread in SPREADS for zeros in (False, True)]
    return [Distance(k, *row) for k, row in means(states, cases, distance, seeds).items()]


def lengths(states: Sequence[str], steps: int, seeds: int) -> list[Length]:
    def case(masked: float) -> Callable[[int], Iterator[Tensor]]:
        return lambda seed: masked_gradients(seed, steps, masked)

    cases = [case(masked) for masked in MASKED]
    return [Length(k, *row) for k, row in means(states, cases, largest_step, seeds).items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="states to measure, in either table")
    parser.add_argument("--json", help="file to write the tables to")
    args = parser.parse_args()
    print({k: v for k, v in machine().items() if k in ("cpu", "threads", "torch", "isa")})
    near, long = (
        [state for state in states if args.only is None or state in args.only]
        for states in (DISTANCES, LENGTHS)
    )
    if PEER in near and PEER not in peers.installed():
        print(f"{PEER} is left out: the package is not installed")
        near.remove(PEER)
    first = distances(near, args.steps, args.seeds)
    second = lengths(long, args.steps, args.seeds)
    print(f"distance to AdamW over the length of its way, {args.steps} steps, by s")
    columns = ("s0", "s0_zeros", "s1", "s1_zeros", "s2", "s2_zeros")
    print_table(first, {"state": "", **dict.fromkeys(columns, ".3f")})
    print("largest step over AdamW's, by the share of elements without a gradient")
    shares = ("masked_50", "masked_90", "masked_98")
    print_table(second, {"state": "", **dict.fromkeys(shares, ".2f")})
    write_json(args.json, first, lengths=[asdict(row) for row in second])


if __name__ == "__main__":
    main()
