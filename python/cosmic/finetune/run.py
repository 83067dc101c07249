"""One comparison from start to end: data, a process for each optimizer, table and picture."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosmic.command import interrupts_raised
from cosmic.finetune.config import RunConfig
from cosmic.finetune.errors import TrainingFailed, UsageError, require_demo_packages
from cosmic.finetune.job import Job
from cosmic.finetune.optimizers import OptimizerSpec
from cosmic.finetune.sources import dataset_source
from cosmic.models.hub import settle_hub_access
from cosmic.models.sources import Source, is_from_scratch, model_source

if TYPE_CHECKING:
    from cosmic.finetune.corpus import Corpus
    from cosmic.finetune.tokens import TokenFolder


def compare(config: RunConfig, specs: Sequence[OptimizerSpec], out: Path) -> None:
    """Train with every optimizer, print the table, and leave everything else in `out`.

    Raises:
        UsageError: something that the user can mend.
        TrainingFailed: a training process failed.
    """
    require_demo_packages()
    _settle_hub(config)  # before the first import of a Hugging Face library
    silence_libraries()
    _make_folder(out)
    vocabulary = _check_model(config, specs)
    tokens = prepare_tokens(config, vocabulary, out / "cache")
    rows = [_train_in_process(config, spec, tokens.folder, out) for spec in specs]
    _report(config, rows, tokens, out)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _settle_hub(config: RunConfig) -> None:
    wanted = (model_source(config.model, config.from_scratch), dataset_source(config.dataset))
    if Source.HUB in wanted:
        settle_hub_access()


def silence_libraries() -> None:
    import datasets

    from cosmic.models.configs import silence_transformers

    datasets.disable_progress_bars()
    silence_transformers()


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror}") from error


def _check_model(config: RunConfig, specs: Sequence[OptimizerSpec]) -> int:
    """Make the model and every optimizer once, so that mistakes show before the work begins.

    Returns:
        The size of the model's vocabulary.
    """
    from cosmic.finetune.vocabulary import in_blocks
    from cosmic.models.building import build_model

    model = build_model(
        config.model, config.from_scratch, config.seed, config.dtype, without_weights=True
    )
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and config.block_size > positions:
        raise UsageError(
            f"--block-size {config.block_size} is more than the {positions} positions of "
            f"{config.model}"
        )
    by_role = bool(config.chunk_vocabulary)
    with in_blocks(model, config.chunk_vocabulary):
        for spec in specs:
            spec.build(
                model,
                lr=config.lr,
                weight_decay=config.weight_decay,
                stand_ins=True,
                by_role=by_role,
            )
    _say(f"model: {config.model}, {sum(p.numel() for p in model.parameters()):,} parameters")
    return int(model.config.vocab_size)


def prepare_tokens(config: RunConfig, vocabulary: int, cache: Path) -> "TokenFolder":
    """Tokenize, or find what an earlier comparison has tokenized."""
    from cosmic.finetune import corpus, tokens

    trained = is_from_scratch(config.model, config.from_scratch)
    tokenizer_name = vocabulary if trained else config.model
    data_name = [config.dataset, corpus.fingerprint(config.dataset)]
    folder = tokens.cache_folder(cache, data_name, tokenizer_name, config.block_size)
    found = tokens.open_tokens(folder)
    if found is None:
        documents = corpus.load_corpus(config.dataset)
        found = _tokenize(config, documents, vocabulary if trained else None, folder)
    _say(
        f"data: {config.dataset}; to train on {found.train_tokens:,} tokens "
        f"(documents: {found.train_documents:,}), held out {found.validation_tokens:,} "
        f"({found.validation_documents:,})"
    )
    return found


def _tokenize(
    config: RunConfig, documents: "Corpus", vocabulary: int | None, folder: Path
) -> "TokenFolder":
    from cosmic.finetune import tokenizing
    from cosmic.models.configs import load_tokenizer

    if vocabulary is None:
        tokenizer = load_tokenizer(config.model)
    else:
        texts = (text for batch in documents.train.iter(batch_size=256) for text in batch["text"])
        tokenizer = tokenizing.train_tokenizer(texts, vocabulary)
    return tokenizing.write_tokens(folder, documents, tokenizer, config.block_size)


def _train_in_process(
    config: RunConfig, spec: OptimizerSpec, tokens: Path, out: Path
) -> dict[str, Any]:
    """The row of one optimizer.

    Raises:
        TrainingFailed: its process has said why on stderr.
    """
    with interrupts_raised(), tempfile.TemporaryDirectory() as temporary:
        result, file = Path(temporary, "result.json"), Path(temporary, "job.json")
        events = out / f"{spec.slug}.events.jsonl"
        Job(config, spec.text, str(tokens), str(events), str(result)).save(file)
        status = _run([sys.executable, "-m", "cosmic.finetune.worker", str(file)])
        if status:
            raise TrainingFailed(spec.text, status)
        row: dict[str, Any] = json.loads(result.read_text())
        return row


def _run(command: Sequence[str]) -> int:
    """Run a process to its end; on Ctrl-C kill it, without a stack trace of its own."""
    # What the hub has is in the local cache by now.
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a new process inherits this
    try:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    finally:
        signal.signal(signal.SIGINT, before)
    with process, _ending_tidily():
        try:
            return process.wait()
        except BaseException:
            process.kill()
            raise


@contextmanager
def _ending_tidily() -> Iterator[None]:
    """Let what ends this process end it as an exception, so that what it started ends too."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), leave) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def _report(
    config: RunConfig, rows: Sequence[Mapping[str, Any]], tokens: "TokenFolder", out: Path
) -> None:
    from cosmic.finetune.plot import draw
    from cosmic.finetune.report import format_table, write_losses, write_results

    machine = rows[0]["machine"]
    write_results(
        out / "results.json",
        rows,
        machine=machine,
        arguments=config.to_dict() | {"optimizers": [row["optimizer"] for row in rows]},
        data=tokens.to_dict(),
    )
    write_losses(out / "losses.csv", rows)
    subtitle = (
        f"{rows[0]['parameters']:,} parameters, {config.steps} steps of {config.batch_size} x "
        f"{config.block_size} tokens, learning rate {config.lr:g}, {config.dtype}   |   "
        f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"cosmic {machine['cosmic']}"
    )
    draw(out / "comparison.png", rows, f"{config.model} on {config.dataset}", subtitle)
    print(format_table(rows))
    print(f"Picture, numbers and logs: {out}{os.sep}")
