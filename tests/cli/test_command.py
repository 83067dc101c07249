"""The command line, where it cannot start and where it is interrupted: one line, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

INTERRUPTED = "cosmic: interrupted\n"

#: As pip writes it for the entry point.
SCRIPT = """\
import re
import sys
{before}
from cosmic.cli.main import main
{after}
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit(main())
"""

#: Ctrl-C while the module is imported, where exceptions are swallowed.
SWALLOWING = """\
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass
except BaseException:
    pass
raise SystemExit("the interrupt was swallowed")
"""


def script(folder: Path, *, before: str = "", after: str = "") -> Path:
    """The command's script; ``before`` and ``after`` its import run there."""
    path = folder / "command-line"
    path.write_text(SCRIPT.format(before=before, after=after))
    return path


def modules(folder: Path, **sources: str) -> dict[str, str]:
    """The environment in which these modules are found before those that are installed."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    return {"PYTHONPATH": str(folder)}


def run(*arguments: str | Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def ways(folder: Path) -> list[list[str | Path]]:
    """How the command is started."""
    return [[script(folder)], ["-m", "cosmic.cli.main"], ["-X", "utf8", "-mcosmic.cli.main"]]


# ---- a package that cannot be used -------------------------------------------------------------

NO_TORCH = "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')"

#: Modules that are in the way, and the line that tells it.
UNUSABLE = {
    "no-torch": (NO_TORCH, "cosmic needs torch >= 2.10, and there is none here: pip install torch"),
    "old-torch": (
        "__version__ = '2.3.1+cpu'",
        "cosmic needs torch >= 2.10, and this is 2.3.1+cpu: pip install --upgrade torch",
    ),
    "other-torch": ("", "cosmic needs torch >= 2.10, and this is another module: "),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_package_that_cannot_be_used_is_one_line(case: str, tmp_path: Path) -> None:
    source, message = UNUSABLE[case]
    environment = modules(tmp_path, torch=source)
    for way in ways(tmp_path):
        for command in ("info", "plan", "finetune", "--version"):
            done = run(*way, command, environment=environment)
            assert done.returncode == 1 and done.stdout == ""
            assert done.stderr.startswith(f"cosmic: error: {message}")
            assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_program_that_uses_the_package_has_an_import_error(case: str, tmp_path: Path) -> None:
    """Under whatever name its script goes."""
    source, message = UNUSABLE[case]
    program = tmp_path / "cosmic"
    program.write_text("try:\n    import cosmic\nexcept ImportError as error:\n    print(error)\n")
    done = run(program, environment=modules(tmp_path, torch=source))
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(message)


def test_a_torch_that_is_broken_shows_where(tmp_path: Path) -> None:
    """What it lacks is not told by a line of ours."""
    environment = modules(tmp_path, torch="import no_such_module")
    done = run(script(tmp_path), "info", environment=environment)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "no_such_module" in done.stderr


# ---- interrupts --------------------------------------------------------------------------------

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="no os.kill with SIGINT")
INTERRUPT = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"


@needs_signals
def test_an_interrupt_while_torch_is_imported(tmp_path: Path) -> None:
    environment = modules(tmp_path, torch=SWALLOWING)
    for way in ways(tmp_path):
        done = run(*way, "info", environment=environment)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", INTERRUPTED)


@needs_signals
def test_an_interrupt_while_a_library_is_imported(tmp_path: Path) -> None:
    environment = modules(tmp_path, transformers=SWALLOWING)
    for way in ways(tmp_path)[:2]:
        done = run(*way, "plan", environment=environment)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", INTERRUPTED)


@needs_signals
@pytest.mark.parametrize(
    "after",
    [
        INTERRUPT,
        f"import cosmic.cli.info as info\ndef collect():\n    {INTERRUPT}\ninfo.collect = collect",
        "class Dying:\n    def __del__(self):\n"
        f"        {INTERRUPT}\nimport cosmic.cli.info as info\n"
        "info.collect = lambda: Dying() and {}",
    ],
    ids=["between", "within", "in-a-destructor"],
)
def test_an_interrupt_of_the_command_itself(after: str, tmp_path: Path) -> None:
    done = run(script(tmp_path, after=after), "info", environment={})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", INTERRUPTED)


@needs_signals
def test_an_interrupt_after_the_work_leaves_the_output_whole(tmp_path: Path) -> None:
    after = f"import atexit\ndef leave():\n    {INTERRUPT}\natexit.register(leave)"
    done = run(script(tmp_path, after=after), "info", "--json", environment={})
    assert (done.returncode, done.stderr) == (130, INTERRUPTED)
    assert done.stdout.endswith("}\n")


@needs_signals
def test_an_interrupt_that_is_to_be_ignored_is(tmp_path: Path) -> None:
    """As by nohup, or in the background of a shell without job control."""
    before = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    path = script(tmp_path, before=before, after=INTERRUPT)
    assert run(path, "info", environment={}).returncode == 0


TRAINING = """
import pathlib, types
import cosmic.cli.main as cli
import cosmic.finetune.run as run
from cosmic.finetune.config import RunConfig
from cosmic.finetune.optimizers import parse_specs

def train(_):
    sys.executable = {stub!r}
    (spec,) = parse_specs("cosmic", None, release_gradients=False)
    tokens = pathlib.Path("tokens")
    run._train_in_process(RunConfig(**{config!r}), spec, tokens, pathlib.Path("out"))

cli.run_finetune = train
"""
CONFIG = {
    "model": "tiny-gpt2", "dataset": "python-stdlib", "steps": 1, "batch_size": 1, "block_size": 8,
    "lr": 0.1, "weight_decay": 0.0, "warmup": 0, "eval_batches": 1, "seed": 0, "dtype": "fp32",
    "from_scratch": False, "threads": None, "release_gradients": False,
}  # fmt: skip


@needs_signals
def test_an_interrupt_of_a_training_ends_its_process_and_leaves_no_files(tmp_path: Path) -> None:
    stub, temporary = tmp_path / "stub", tmp_path / "temporary"
    stub.write_text("#!/bin/sh\necho $$\nexec sleep 600\n")
    stub.chmod(0o755)
    temporary.mkdir()
    path = script(tmp_path, after=TRAINING.format(stub=str(stub), config=CONFIG))
    command = [sys.executable, str(path), "finetune"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        child = psutil.Process(int(process.stdout.readline()))
        assert len(list(temporary.iterdir())) == 1
        while True:  # an interrupt is ignored where the process is being started
            process.send_signal(signal.SIGINT)
            try:
                status = process.wait(5)
                break
            except subprocess.TimeoutExpired:
                continue
        assert (status, process.stderr.read()) == (130, INTERRUPTED)
    assert not child.is_running()
    assert not list(temporary.iterdir())


# ---- a reader that has gone --------------------------------------------------------------------


@pytest.mark.parametrize("command", ["info", "plan"])
def test_output_that_nobody_reads(command: str, tmp_path: Path) -> None:
    """As in a pipe to head, which ends first."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, str(script(tmp_path)), command],
            stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
