"""What spending a budget costs: the step with a policy over the step with the same rungs fixed.

    python bench/cleverness.py [--budgets 1% 3% 10%] [--pairs 15] [--json out.json]

Both optimizers hold the same state on the same tensors; one of them looks at the gradients every
so many steps and spends its budget anew, the other was told its rungs. A timing is of one whole
cadence, so that it has a look and what follows it in it. Timed in turn, as bench/step.py does.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from cosmic import Cosmic, _core
from shared.harness import machine, paired, print_table, write_json

#: The shapes of a small GPT-2: 3.5 million parameters, 76 tensors.
SMALL: dict[str, Any] = {
    "vocab_size": 4096,
    "n_positions": 256,
    "n_embd": 192,
    "n_layer": 6,
    "n_head": 6,
}
#: Of a larger one: 45 million parameters, 52 tensors.
LARGE: dict[str, Any] = {
    "vocab_size": 32768,
    "n_positions": 512,
    "n_embd": 640,
    "n_layer": 4,
    "n_head": 10,
}


@dataclass(frozen=True)
class Row:
    """One line of the table; ratio is clever over fixed."""

    name: str
    policy: str
    budget: str
    ratio: float
    pairs: int
    us_per_step: float
    fixed_us_per_step: float
    state_bytes: int
    isa: str
    threads: int


def made(shape: dict[str, Any]) -> list[torch.nn.Parameter]:
    """The model's parameters, with gradients as uneven as real ones: few rows of a table matter."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=0)
    model = transformers.GPT2LMHeadModel(config)
    params = list(model.parameters())
    for param in params:
        param.grad = torch.randn_like(param) * 1e-2
        if param.shape[0] == shape["vocab_size"]:
            param.grad *= torch.logspace(0, -12, param.shape[0])[:, None]
    return params


def fixed(shape: dict[str, Any], clever: Cosmic) -> Cosmic:
    """An optimizer that is told the rungs that another one has chosen."""
    rungs = [info.rung for info in clever.tiers()]
    groups = [
        {"params": [param], "rung": rung} for param, rung in zip(made(shape), rungs, strict=True)
    ]
    # small tensors too are to have what the budget gave them
    return Cosmic(groups, lr=1e-4, min_compress_size=0)


def measure(name: str, shape: dict[str, Any], policy: str, budget: str, pairs: int) -> Row:
    clever = Cosmic(made(shape), lr=1e-4, budget=budget, policy=policy)
    for _ in range(2 * clever.reallocate_every + 2):
        clever.step()
    told = fixed(shape, clever)
    told.step()
    timed = paired(told.step, clever.step, pairs=pairs, repeat=clever.reallocate_every)
    return Row(
        name=name,
        policy=policy,
        budget=budget,
        ratio=timed.ratio,
        pairs=timed.pairs,
        us_per_step=timed.variant * 1e6,
        fixed_us_per_step=timed.torch * 1e6,
        state_bytes=clever.state_bytes(),
        isa=str(_core.build_info()["isa"]),
        threads=torch.get_num_threads(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budgets", nargs="+", default=["1%", "3%", "10%"])
    parser.add_argument("--policies", nargs="+", default=["calibrated", "role", "signal"])
    parser.add_argument("--pairs", type=int, default=9, help="pairs that must agree, a row")
    parser.add_argument("--json", help="file to write the table to")
    args = parser.parse_args()
    print({k: v for k, v in machine().items() if k in ("cpu", "threads", "torch", "isa")})
    rows = [
        measure(name, shape, policy, budget, args.pairs)
        for name, shape in (("3.5 M", SMALL), ("45 M", LARGE))
        for policy in args.policies
        for budget in args.budgets
    ]
    print_table(
        rows,
        {
            "name": "", "policy": "", "budget": "", "ratio": ".3f", "pairs": "d",
            "us_per_step": ".0f", "fixed_us_per_step": ".0f", "state_bytes": ",d",
        },
    )  # fmt: skip
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
