"""`cosmic plan`: what each tensor of a model would get of a budget, before anything is trained."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from cosmic.cli.plan_text import format_plan, to_json
from cosmic.errors import UsageError
from cosmic.estimate import MemoryEstimate, estimate_memory
from cosmic.finetune.config import DTYPES as DTYPE_NAMES
from cosmic.finetune.optimizers import byte_budget
from cosmic.grouping.groups import param_groups
from cosmic.models.building import DTYPES
from cosmic.models.configs import load_config, silence_transformers


def run(arguments: argparse.Namespace) -> None:
    """Print the plan, and draw it if asked to.

    Raises:
        UsageError: for a model, a dtype or a budget that cannot be had.
    """
    if arguments.dtype not in DTYPE_NAMES:
        raise UsageError(f"--dtype must be one of {', '.join(DTYPE_NAMES)}, not {arguments.dtype}")
    if arguments.picture:
        _check_picture(arguments.picture)
    estimate = _estimate(arguments)
    try:
        advice = estimate.recommendation
    except (OSError, ValueError) as error:  # the machine does not tell its memory
        raise UsageError(str(error)) from error
    if arguments.json:
        print(json.dumps(to_json(arguments, estimate, advice), indent=2))
    else:
        sys.stdout.write(format_plan(estimate, advice))
    if arguments.picture:
        from cosmic.cli.plan_picture import draw

        draw(arguments.picture, estimate, _title(arguments))
        if not arguments.json:
            print(f"\nPicture: {arguments.picture}")


def _estimate(arguments: argparse.Namespace) -> MemoryEstimate:
    silence_transformers()
    load_config(arguments.model, from_scratch=True)  # its errors are about --model
    budget = None if arguments.budget is None else byte_budget(arguments.budget)
    try:
        return estimate_memory(
            arguments.model,
            budget,
            dtype=DTYPES[arguments.dtype],
            release_gradients=arguments.release_gradients,
            groups=param_groups if arguments.roles == "modules" else None,
            batch=_batch(arguments),
            activations=arguments.activations,
            chunk_vocabulary=arguments.chunk_vocabulary,
            ram=arguments.ram,
            policy=arguments.policy,
            gate=arguments.gate,
            matrix_rule=arguments.matrix_rule,
        )
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def _batch(arguments: argparse.Namespace) -> tuple[int, int] | None:
    if arguments.batch_size is None and arguments.block_size is None:
        if arguments.activations is not None:
            raise UsageError("--activations needs --batch-size or --block-size: of what batch?")
        return None
    sequences, tokens = arguments.batch_size, arguments.block_size
    return 1 if sequences is None else sequences, 64 if tokens is None else tokens


def _check_picture(picture: Path) -> None:
    if not picture.resolve().parent.is_dir():
        raise UsageError(f"--picture {picture}: its folder does not exist")
    if picture.is_dir() or picture.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UsageError(f"--picture {picture}: expected a file ending in .png, .pdf or .svg")


def _title(arguments: argparse.Namespace) -> str:
    budget = arguments.budget or "nothing is lost"
    return f"{arguments.model}, budget: {budget}, policy: {arguments.policy}"
