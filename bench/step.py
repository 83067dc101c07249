"""Time of one step on one large matrix, beside torch.optim.AdamW(fused=True).

    python bench/step.py [--numel 50000000] [--pairs 15] [--only ...] [--peers] [--gates]
                         [--json out.json]

Times are paired: torch, variant, torch, in one process; pairs whose two torch times differ by more
than 8 % are dropped, and the median ratio is printed with the number of pairs it rests on. The
floor is what memory traffic alone allows: bytes read and written for a parameter, over torch's
with parameters of the same dtype. The row `p.add_(g)` is torch's simplest kernel over the bytes
that tiers 0 and 1 move: how near this machine comes to that floor. Peers are optimizers of other
packages, where they are installed; they are timed on a smaller matrix, since some take seconds.

With --gates each row that has a gate is timed beside the same step without one in the place of
torch's: what the gate takes.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import peers
from cosmic import Cosmic, _core
from cosmic.presets import CASMO
from shared.harness import Paired, machine, paired, print_table, write_json

YARDSTICK = "p.add_(g)"
COLUMNS = 4096
PEER_NUMEL, PEER_PAIRS = 4_000_000, 3

NORMS: dict[str, Any] = {"gate": "trust+agc"}
#: Options that are of gates.
OF_GATES = ("gate", "exact")

#: Row name: (options of Cosmic, or of the preset that they name; dtype of parameter and gradient).
VARIANTS: dict[str, tuple[dict[str, Any], torch.dtype]] = {
    "tier0": ({"tier": 0}, torch.float32),
    "tier1": ({"tier": 1}, torch.float32),
    **{
        f"tier2:{state}": ({"state_dtype": state}, torch.float32)
        for state in (
            "fp32+fp32", "bf16+bf16", "q8+q8", "u4+v4", "u4+factored", "u4+rowmean", "u2+v4",
            "u2+factored", "u1+v4", "u1+factored",
        )
    },
    "tier2:fp32+fp32 gate": ({"state_dtype": "fp32", "gate": "snr"}, torch.float32),
    "tier2:fp32+fp32 trust+agc": ({"state_dtype": "fp32", **NORMS}, torch.float32),
    "tier2:fp32+fp32 trust+agc exact": (
        {"state_dtype": "fp32", **NORMS, "exact": True}, torch.float32
    ),
    "tier2:u4+factored trust+agc": ({"state_dtype": "u4+factored", **NORMS}, torch.float32),
    **{
        f"tier2:{state} agar": ({"state_dtype": state, "gate": "agar"}, torch.float32)
        for state in ("fp32+fp32", "q8+q8", "u4+v4", "u4+factored")
    },
    **{
        f"TurboAdam {m}+v_log{bits}": ({"state_dtype": f"{m}+vlog{bits}"}, torch.float32)
        for m, bits in (("ustate", 4), ("ustate", 2), ("ustate", 8), ("costate", 4))
    },
    "TurboAdam ustate+v4": ({"state_dtype": "ustate+v4"}, torch.float32),
    "CASMO": ({"preset": CASMO}, torch.float32),
    "CASMO no clamp": ({"preset": CASMO, "agar_clamp_factor": None}, torch.float32),
    "CASMO lagged": ({"preset": CASMO, "exact": False}, torch.float32),
    "tier2:fp32+fp32+slow": ({"state_dtype": "fp32", "beta_slow": 0.9999}, torch.float32),
    "tier0 bf16": ({"tier": 0}, torch.bfloat16),
    **{
        f"tier2:{state} bf16": ({"state_dtype": state}, torch.bfloat16)
        for state in ("fp32+fp32", "bf16+bf16", "q8+q8", "u4+v4", "u4+factored", "u1+factored")
    },
    YARDSTICK: ({}, torch.float32),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table; ``torch`` has parameters and gradients of the same dtype."""

    name: str
    isa: str
    threads: int
    param_dtype: str
    ratio: float
    pairs: int
    ns_per_param: float
    torch_ns_per_param: float
    bytes_per_param: float
    floor_ratio: float
    over_floor: float
    state_bits_per_param: float


@dataclass(frozen=True)
class GateRow:
    """A step beside the same one without gates."""

    name: str
    isa: str
    threads: int
    ratio: float
    pairs: int
    ns_per_param: float
    plain_ns_per_param: float


def made(numel: int, dtype: torch.dtype) -> torch.nn.Parameter:
    rows = max(numel // COLUMNS, 1)
    param = torch.nn.Parameter(torch.randn(rows, COLUMNS, dtype=dtype))
    param.grad = torch.randn(rows, COLUMNS, dtype=dtype) * 1e-2
    return param


#: Gradients that take turns: a second moment of one gradient alone is like no training's.
GRADIENTS = 4


def taking_turns(step: Callable[[], Any], param: torch.nn.Parameter) -> Callable[[], Any]:
    """The step, of another gradient each time."""
    assert param.grad is not None
    turns = itertools.cycle(
        [param.grad, *(torch.randn_like(param.grad).mul_(1e-2) for _ in range(GRADIENTS - 1))]
    )

    def turn() -> Any:
        param.grad = next(turns)
        return step()

    return turn


def adamw(param: torch.nn.Parameter) -> torch.optim.AdamW:
    return torch.optim.AdamW([param], lr=1e-3, weight_decay=1e-2, fused=True)


def adder(param: torch.nn.Parameter) -> Callable[[], Any]:
    values, gradient = param.detach(), param.grad
    assert gradient is not None
    return lambda: values.add_(gradient, alpha=-1e-9)


def row(
    name: str, timed: Paired, param: torch.nn.Parameter, state_bytes: int, torch_bytes: int
) -> Row:
    numel, item = param.numel(), param.dtype.itemsize
    # parameter read and written, gradient read, state read and written
    moved, torch_moved = (3 * item + 2 * state / numel for state in (state_bytes, torch_bytes))
    return Row(
        name=name,
        isa=str(_core.build_info()["isa"]),
        threads=torch.get_num_threads(),
        param_dtype=str(param.dtype).removeprefix("torch."),
        ratio=timed.ratio,
        pairs=timed.pairs,
        ns_per_param=timed.variant / numel * 1e9,
        torch_ns_per_param=timed.torch / numel * 1e9,
        bytes_per_param=moved,
        floor_ratio=moved / torch_moved,
        over_floor=timed.ratio * torch_moved / moved,
        state_bits_per_param=state_bytes * 8 / numel,
    )


def measure(name: str, numel: int, pairs: int) -> Row:
    options, dtype = VARIANTS[name]
    options = dict(options)
    make = options.pop("preset", Cosmic)
    torch.manual_seed(0)
    ours, theirs = made(numel, dtype), made(numel, dtype)
    optimizer = make([ours], lr=1e-3, weight_decay=1e-2, **options)
    reference = adamw(theirs)
    step = adder(ours) if name == YARDSTICK else taking_turns(optimizer.step, ours)
    timed = paired(taking_turns(reference.step, theirs), step, pairs=pairs)
    return row(name, timed, ours, optimizer.state_bytes(), peers.state_bytes(reference))


def is_gated(name: str) -> bool:
    return "gate" in VARIANTS[name][0]


def measure_gates(name: str, numel: int, pairs: int) -> GateRow:
    options, dtype = VARIANTS[name]
    plain = {key: value for key, value in options.items() if key not in OF_GATES}
    torch.manual_seed(0)
    params = [made(numel, dtype) for _ in range(2)]
    steps = [
        taking_turns(Cosmic([param], lr=1e-3, weight_decay=1e-2, **asked).step, param)
        for param, asked in zip(params, (plain, options), strict=True)
    ]
    timed = paired(*steps, pairs=pairs)
    return GateRow(
        name=name,
        isa=str(_core.build_info()["isa"]),
        threads=torch.get_num_threads(),
        ratio=timed.ratio,
        pairs=timed.pairs,
        ns_per_param=timed.variant / numel * 1e9,
        plain_ns_per_param=timed.torch / numel * 1e9,
    )


def measure_peer(name: str) -> Row | None:
    """A peer's row; None, and a line that says why, if its step fails here."""
    if reason := peers.trouble(name):
        print(f"{name}: fails here: {reason}")
        return None
    torch.manual_seed(0)
    ours, theirs = made(PEER_NUMEL, torch.float32), made(PEER_NUMEL, torch.float32)
    optimizer = peers.PEERS[name].make([ours], lr=1e-3, weight_decay=1e-2)
    reference = adamw(theirs)
    timed = paired(reference.step, optimizer.step, pairs=PEER_PAIRS)
    return row(name, timed, ours, peers.state_bytes(optimizer), peers.state_bytes(reference))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numel", type=int, default=50_000_000, help="elements of the matrix")
    parser.add_argument("--pairs", type=int, default=15, help="pairs that must agree, a row")
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="rows to measure")
    parser.add_argument("--peers", action="store_true", help="other packages' optimizers too")
    parser.add_argument("--gates", action="store_true", help="gated steps beside ungated ones")
    parser.add_argument("--json", help="file to write the table to")
    args = parser.parse_args()
    print({k: v for k, v in machine().items() if k in ("cpu", "threads", "torch", "isa")})
    names = list(VARIANTS) if args.only is None else args.only
    if args.gates:
        gated = [measure_gates(name, args.numel, args.pairs) for name in names if is_gated(name)]
        columns = {"name": "", "ratio": ".3f", "pairs": "d", "ns_per_param": ".3f"}
        print_table(gated, {**columns, "plain_ns_per_param": ".3f"})
        write_json(args.json, gated)
        return
    rows = [measure(name, args.numel, args.pairs) for name in names]
    if args.peers:
        print("peers not installed:", ", ".join(peers.absent()) or "none")
        rows += [found for name in peers.installed() if (found := measure_peer(name))]
    print_table(
        rows,
        {
            "name": "", "param_dtype": "", "ratio": ".3f", "floor_ratio": ".3f",
            "over_floor": ".2f", "pairs": "d", "ns_per_param": ".3f", "torch_ns_per_param": ".3f",
            "bytes_per_param": ".2f", "state_bits_per_param": ".2f",
        },
    )  # fmt: skip
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
