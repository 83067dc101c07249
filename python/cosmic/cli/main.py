"""Entry of the command line: `cosmic finetune`, `plan`, `report`, `digest` and `info`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import cosmic
from cosmic.capital.named import DEFAULT_POLICY
from cosmic.command import INTERRUPTED
from cosmic.vocabulary.blocks import DEFAULT_ROWS

OK, FAILED, USAGE, UNREAD = 0, 1, 2, 141

OPTIMIZERS = (
    "adamw,cosmic,cosmic:matrix_rule=muon,cosmic:state_dtype=fp32,cosmic:state_dtype=u4+v4,"
    "cosmic:budget=2%"
)
FINETUNE = """\
Train one language model with several optimizers, each in a process of its own, from the same
weights on the same batches. Prints a table and writes comparison.png, results.json, losses.csv
and event logs. Without arguments: a small model on the sources of Python's standard library."""
PLAN = """\
Print what each tensor of a language model would get of a budget, and the totals beside AdamW's.
Nothing is trained and no weights are loaded."""
REPORT = """\
Make a page of an event log, such as EventLog("run.jsonl").attach(optimizer) or cosmic finetune
writes: losses, learning rate, gates, bytes of state and what each tensor holds. It is one file that
needs nothing else."""
DIGEST = """\
Train a small reference model by cosmic.exact and print the digest of its weights, which must be the
same on every machine. Ends with 1 where it is not this release's."""
EXAMPLES = """\
examples:
  cosmic finetune
  cosmic finetune --optimizer adamw,cosmic:budget=25%,cosmic:tier=0:lr=1e-3 --steps 100
  cosmic finetune --model distilgpt2 --dataset 'wikitext:wikitext-2-raw-v1:train[:1%]' \\
      --steps 600 --batch-size 4 --block-size 128 --lr 5e-4 --weight-decay 0.01
  cosmic finetune --model distilgpt2 --from-scratch --dataset my.txt
  cosmic finetune --model tinyllama-1.1b --from-scratch --dtype bf16 --optimizer cosmic \\
      --budget 5% --release-gradients --steps 10 --batch-size 1 --block-size 64
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="cosmic", description="COSMIC, an optimizer for PyTorch on the CPU."
    )
    parser.add_argument("--version", action="version", version=f"cosmic {cosmic.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    info = commands.add_parser("info", help="show version, build, instruction set and threads")
    info.add_argument("--json", action="store_true", help="for programs")
    finetune = commands.add_parser(
        "finetune",
        help="compare optimizers on a language model",
        description=FINETUNE,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_what(finetune)
    _add_how(finetune)
    _add_plan(
        commands.add_parser("plan", help="show what a budget gives each tensor", description=PLAN)
    )
    _add_report(
        commands.add_parser("report", help="show a training's event log", description=REPORT)
    )
    _add_digest(
        commands.add_parser("digest", help="check the bits of a training", description=DIGEST)
    )
    return parser


def _add_digest(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--accumulate",
        choices=("fp64", "fp32", "exact"),
        default="fp64",
        help="how products are summed (default: %(default)s)",
    )
    add("--steps", type=int, default=50, metavar="N", help="default: %(default)s")
    add("--threads", type=int, metavar="N", help="default: torch's choice")
    add("--json", action="store_true", help="for programs")


def _add_report(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("log", type=Path, metavar="LOG", help="event log, such as run.jsonl")
    add(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="page to write (default: the log's name, ending in .html)",
    )
    add("--run", type=int, metavar="K", help="which run of the log, from 1 (default: the last)")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        default="tiny-gpt2",
        metavar="NAME",
        help="hub id, local folder, or tiny-gpt2 (default); only its configuration is read",
    )
    add("--budget", metavar="BYTES", help="such as 64MB or 10%% (default: what loses nothing)")
    add(
        "--policy",
        default=DEFAULT_POLICY,
        metavar="NAME",
        help="calibrated (default), role, uniform or signal",
    )
    add(
        "--roles",
        choices=("shapes", "modules"),
        default="shapes",
        help="by what a tensor's role is told: its shape (default) or its module's type",
    )
    add(
        "--gate",
        metavar="NAME",
        help="snr, agar, trust or agc, or several joined by a plus (default: none)",
    )
    add(
        "--matrix-rule",
        metavar="NAME",
        help="of hidden matrices: muon or off (default: the policy's)",
    )
    add("--dtype", default="fp32", metavar="TYPE", help="of the weights: fp32 (default) or bf16")
    add("--release-gradients", action="store_true", help="count one gradient, not all")
    add("--batch-size", type=int, metavar="N", help="sequences a step: counts activations, too")
    add("--block-size", type=int, metavar="N", help="tokens a sequence (default: 64)")
    add(
        "--activations",
        metavar="CODEC",
        help="as compress_activations packs them, such as q8 or u4; or checkpointing",
    )
    add(
        "--chunk-vocabulary",
        type=int,
        nargs="?",
        const=DEFAULT_ROWS,
        default=0,
        metavar="ROWS",
        help="embedding and head in blocks of that many rows (default: %(const)s)",
    )
    add("--ram", metavar="BYTES", help="to recommend for, such as 16GB (default: this machine's)")
    add("--json", action="store_true", help="for programs")
    add("--picture", type=Path, metavar="FILE", help="write a PNG, too")


def _add_what(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what to train").add_argument
    add(
        "--model",
        default="tiny-gpt2",
        metavar="NAME",
        help="hub id, local folder, tiny-gpt2 (default), or tinyllama-1.1b",
    )
    add(
        "--dataset",
        default="python-stdlib",
        metavar="NAME",
        help="hub id[:config][:split], local text or .jsonl file, or python-stdlib (default)",
    )
    add(
        "--from-scratch",
        action="store_true",
        help="random weights, and a tokenizer trained on the dataset",
    )
    add(
        "--optimizer",
        metavar="LIST",
        help="name[:option=value[:...]], comma separated (default: "
        f"{OPTIMIZERS.replace('%', '%%')}; with --release-gradients: cosmic)",
    )
    add(
        "--budget",
        metavar="BYTES",
        help="state budget of every cosmic entry without one, such as 10%% or 64MB",
    )
    add("--out", type=Path, metavar="FOLDER", help="default: runs/<model>-<dataset>")


def _add_how(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how to train").add_argument
    add("--steps", type=int, default=400, metavar="N", help="default: %(default)s")
    add(
        "--batch-size",
        type=int,
        default=8,
        metavar="N",
        help="sequences a step (default: %(default)s)",
    )
    add(
        "--block-size",
        type=int,
        default=64,
        metavar="N",
        help="tokens a sequence (default: %(default)s)",
    )
    add(
        "--lr",
        type=float,
        metavar="RATE",
        help="highest learning rate (default: 1.5e-3 for tiny-gpt2 and small-gpt2, else 5e-4)",
    )
    add("--weight-decay", type=float, default=0.01, metavar="W", help="default: %(default)s")
    add(
        "--warmup",
        type=int,
        metavar="N",
        help="steps of linear warm-up before the cosine (default: a tenth, at most 100)",
    )
    add(
        "--eval-batches",
        type=int,
        default=32,
        metavar="N",
        help="held-out batches (default: %(default)s)",
    )
    add("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    add("--dtype", default="fp32", metavar="TYPE", help="of the weights: fp32 (default) or bf16")
    add(
        "--release-gradients",
        action="store_true",
        help="step each parameter within backward and free its gradient; clips by the norm of the "
        "step before",
    )
    add(
        "--activations",
        metavar="CODEC",
        help="compress what backward needs of forward: q8, u4 and others (default: not)",
    )
    add(
        "--chunk-vocabulary",
        type=int,
        nargs="?",
        const=True,
        default=False,
        metavar="ROWS",
        help="take embedding, head and loss in blocks of so many rows of the vocabulary",
    )
    add("--threads", type=int, metavar="N", help="default: torch's choice")


def run_finetune(arguments: argparse.Namespace) -> int:
    """Do `cosmic finetune`."""
    from cosmic.finetune.config import RunConfig, default_lr, default_out
    from cosmic.finetune.errors import require_demo_packages
    from cosmic.finetune.optimizers import parse_specs
    from cosmic.finetune.run import compare

    require_demo_packages()
    release = arguments.release_gradients
    wanted = arguments.optimizer
    if wanted is None:
        wanted = "cosmic" if release else OPTIMIZERS
    specs = parse_specs(wanted, arguments.budget, release_gradients=release)
    warmup = arguments.warmup
    config = RunConfig(
        model=arguments.model,
        dataset=arguments.dataset,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        block_size=arguments.block_size,
        lr=arguments.lr if arguments.lr is not None else default_lr(arguments.model),
        weight_decay=arguments.weight_decay,
        warmup=warmup if warmup is not None else min(100, arguments.steps // 10),
        eval_batches=arguments.eval_batches,
        seed=arguments.seed,
        dtype=arguments.dtype,
        from_scratch=arguments.from_scratch,
        threads=arguments.threads,
        release_gradients=release,
        activations=arguments.activations,
        chunk_vocabulary=arguments.chunk_vocabulary,
    )
    compare(config, specs, arguments.out or default_out(config.model, config.dataset))
    return OK


def _check_isa() -> None:
    from cosmic.finetune.errors import UsageError

    try:
        cosmic._core.build_info()
    except RuntimeError as error:  # COSMIC_ISA asks for what is not here
        raise UsageError(str(error)) from error


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "info":
        from cosmic.cli.info import print_info

        print_info(arguments.json)
        return OK
    if arguments.command == "report":
        from cosmic.cli.report import run as run_report

        run_report(arguments)
        return OK
    if arguments.command == "digest":
        from cosmic.cli.digest import run as run_digest

        return OK if run_digest(arguments) else FAILED
    if arguments.command == "plan":
        from cosmic.finetune.errors import require_demo_packages

        require_demo_packages("plan", ("matplotlib", "rich", "transformers"))
        from cosmic.cli.plan import run

        run(arguments)
        return OK
    return run_finetune(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 2 for a mistake in what was asked."""
    from cosmic.finetune.errors import TrainingFailed, UsageError

    arguments = make_parser().parse_args(argv)
    try:
        _check_isa()
        status = _run(arguments)
        sys.stdout.flush()  # which an interrupt from here on would leave out
        return status
    except UsageError as error:
        print(f"cosmic: error: {error}", file=sys.stderr)
        return USAGE
    except TrainingFailed as error:
        if error.status == USAGE:
            return USAGE  # the training process has told the mistake
        print(f"cosmic: error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("cosmic: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # who read the output has gone, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD


if __name__ == "__main__":
    sys.exit(main())
