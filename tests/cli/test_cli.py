"""The command line: what it says, and what it says when something is wrong."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import cosmic
from cosmic import errors
from cosmic.cli import main as cli
from cosmic.models import configs, hub


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence that the command line answers to a mistake."""
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cosmic: error: ")
    assert captured.err.count("\n") == 1, "one sentence, one line"
    return captured.err


def run_cosmic(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`cosmic` in a process of its own."""
    command = [sys.executable, "-m", "cosmic.cli.main", *arguments]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def closed_port() -> str:
    """Address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


# ---- info ---------------------------------------------------------------------------------


def test_info_as_json_names_build_and_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["cosmic"] == cosmic.__version__
    assert info["isa"] in info["isa_available"]
    assert info["threads"] >= 1
    assert "cosmic::quantize" in info["torch_ops"]
    if sys.platform == "linux":
        assert len(info["openmp_runtimes"]) == 1, "torch's runtime, and no other beside it"


def test_info_for_people_has_every_fact_of_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["info", "--json"])
    facts = json.loads(capsys.readouterr().out)
    cli.main(["info"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(facts)
    assert any("ISA" in line and facts["isa"] in line for line in lines)


def test_info_where_the_system_keeps_no_memory_map(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosmic.train.machine.MEMORY_MAP", Path("/no/such/file"))
    assert cli.main(["info"]) == 0
    assert "OpenMP runtimes   unknown" in capsys.readouterr().out


def test_importing_the_package_imports_nothing_of_the_demo() -> None:
    script = (
        "import sys, cosmic, cosmic.cli.main as m; m.main(['info']);"
        "print(sorted({'transformers', 'datasets', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


# ---- mistakes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--optimizer", "sgd"], "unknown optimizer 'sgd'; known are adamw, cosmic"),
        (["--optimizer", "cosmic:speed=9"], "unknown option 'speed' in 'cosmic:speed=9'; cosmic"),
        (["--optimizer", "cosmic:tier=low"], "takes an integer, not 'low'"),
        (["--optimizer", "cosmic:tier"], "write tier=..."),
        (["--optimizer", "adamw,"], "empty entry"),
        (["--optimizer", "adamw,adamw"], "given twice"),
        (
            ["--release-gradients", "--optimizer", "adamw,cosmic"],
            "optimizer 'adamw' cannot release gradients",
        ),
        (["--seed", "99999999999999999999"], "--seed must be below 2**63"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--block-size", "1"], "--block-size must be at least 2"),
        (["--lr", "nan"], "--lr must be a positive number"),
        (["--weight-decay", "-1"], "--weight-decay must be at least 0"),
        (["--dtype", "fp8"], "--dtype must be one of fp32, bf16"),
        (["--threads", "0"], "--threads must be at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_argument_is_one_sentence(
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in complaint(["finetune", *arguments], capsys)
    assert not any(tmp_path.iterdir()), "a refused run leaves nothing behind"


def test_a_folder_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "under", Path("/proc")):
        said = complaint(["finetune", "--out", str(out)], capsys)
        assert f"--out {out} cannot be written" in said


def test_an_unknown_isa_is_one_sentence() -> None:
    for command in ("info", "finetune"):
        done = run_cosmic(command, COSMIC_ISA="foo")
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "COSMIC_ISA" in done.stderr and "'foo'" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_ends_the_command_ends_its_training_too(number: signal.Signals) -> None:
    training = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    script = f"from cosmic.finetune.run import _run; _run([{sys.executable!r}, '-c', {training!r}])"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        child = psutil.Process(int(run.stdout.readline()))
        run.send_signal(number)
        assert run.wait() == 128 + number
        assert not child.is_running()


def test_missing_demo_packages_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "datasets" else name)
    said = complaint(["finetune"], capsys)
    assert "needs datasets: pip install 'cosmic-optim[demo]'" in said


def test_interrupt_is_no_stack_trace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_finetune", interrupted)
    assert cli.main(["finetune"]) == 130
    assert capsys.readouterr().err == "cosmic: interrupted\n"


def test_optimizer_refusing_a_value_stops_before_any_training(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wanted = ["--optimizer", "adamw,cosmic:state_dtype=fp12", "--out", str(tmp_path / "out")]
    assert "fp12" in complaint(["finetune", *wanted], capsys)
    assert not any((tmp_path / "out").iterdir())


def test_more_tokens_than_the_model_has_positions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wanted = ["--block-size", "512", "--out", str(tmp_path / "out")]
    said = complaint(["finetune", *wanted], capsys)
    assert "--block-size 512 is more than the 256 positions of tiny-gpt2" in said


# ---- no hub -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--model", "distilgpt2"], "with --from-scratch"),
        (["--dataset", "wikitext:wikitext-2-raw-v1:train[:1%]"], "--dataset python-stdlib"),
    ],
    ids=["model", "dataset"],
)
def test_no_hub_is_one_sentence_with_advice(
    arguments: list[str], advice: str, tmp_path: Path
) -> None:
    done = run_cosmic(
        "finetune",
        *arguments,
        "--out",
        str(tmp_path / "out"),
        HF_ENDPOINT=closed_port(),
        HF_HOME=str(tmp_path / "cache"),
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("model: ")]
    assert len(complaints) == 1, done.stderr
    assert "Hugging Face Hub does not answer" in complaints[0]
    assert advice in complaints[0]


class _Refusing(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """A server that answers every request, with a refusal."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_hub_that_refuses_is_still_there(
    refusing_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", refusing_server)
    assert hub.hub_answers()


@pytest.mark.parametrize("endpoint", [None, "not a url"])
def test_hub_that_is_not_there(endpoint: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint or closed_port())
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    hub.settle_hub_access()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_setting_of_the_user_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    hub.settle_hub_access()
    assert os.environ["HF_HUB_OFFLINE"] == "0"


# ---- plan --------------------------------------------------------------------------------------


def test_plan_prints_each_tensor_and_the_totals(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--budget", "2%"]) == 0
    lines = capsys.readouterr().out.splitlines()
    estimate = cosmic.estimate_memory(configs.load_config("tiny-gpt2", from_scratch=True), "2%")
    for tensor in estimate.tensors:
        (line,) = [line for line in lines if line.strip().startswith(tensor.name + " ")]
        assert f" {tensor.rung} " in line and f" {tensor.state_bytes:,} " in line
    (state,) = [line for line in lines if line.startswith("state ")]
    assert f"{estimate.state_bytes / 1e6:.3f} MB" in state
    assert f"{estimate.state_bytes / estimate.adamw_bytes:.2%} of AdamW's" in state


def test_plan_for_programs_and_as_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "plan.png"
    asked = ["plan", "--budget", "100000", "--dtype", "bf16", "--json", "--picture", str(picture)]
    assert cli.main(asked) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["state_bytes"] == sum(t["state_bytes"] for t in plan["tensors"]) <= 100_000
    step = plan["state_bytes"] + plan["scratch_bytes"]
    assert plan["total_bytes"] == 2 * plan["weight_bytes"] + step
    assert plan["policy"] == "calibrated", "as the optimizer's default"
    assert {t["role"] for t in plan["tensors"]} == {"table", "matrix", "vector"}
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_plan_buys_matrices_without_momentum_first(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", "--json", "--roles", "modules", "--matrix-rule", "muon", "--budget", "6000"]
    assert cli.main(asked) == 0
    plan = json.loads(capsys.readouterr().out)
    hidden = [tensor for tensor in plan["tensors"] if tensor["role"] == "matrix"]
    lean = [tensor for tensor in hidden if tensor["rung"] == "tier1:muon"]
    assert lean and all(tensor["state_bytes"] == 8 for tensor in lean)
    assert plan["scratch_bytes"] > 0


@pytest.mark.parametrize(
    ("gate", "nbytes"),
    [("snr", 32), ("agar", 8), ("trust", 16), ("trust+agc", 16), ("snr+agc", 48)],
)
def test_plan_knows_what_gates_take(
    gate: str, nbytes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = []
    for arguments in ([], ["--gate", gate]):
        assert cli.main(["plan", "--json", *arguments]) == 0
        plans.append(json.loads(capsys.readouterr().out)["tensors"])
    for plain, gated in zip(*plans, strict=True):
        assert gated["state_bytes"] == plain["state_bytes"] + nbytes
        assert gated["rung"].endswith("+centered") == (gate == "agar")


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--budget", "lots"], "budget is 'lots'"),
        (["--policy", "rolle"], "policy is 'rolle'"),
        (["--gate", "garden"], "gate'] is 'garden'; expected"),
        (["--dtype", "int8"], "--dtype must be one of fp32, bf16"),
        (["--model", "/nowhere"], "/nowhere"),
        (["--picture", "/nowhere/plan.png"], "folder does not exist"),
        (["--picture", "/tmp"], "ending in .png"),
        (["--picture", "plan.xyz"], "ending in .png"),
    ],
)
def test_plan_says_what_is_wrong(
    arguments: list[str], fragment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment in complaint(["plan", *arguments], capsys)
