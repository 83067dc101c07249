"""accelerate and transformers.Trainer under FSDP2, started as users start them: by torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clients.setting import BATCH, Tokens, batches, plain_loop, tiny_gpt2
from launched_training import CLIENTS, OPTIONS, RESUMED, STEPS

RANKS = 2
HERE = Path(__file__).parent
#: Seconds until all processes are killed, where one hangs.
PATIENCE = 240

Results = dict[tuple[str, str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """By client and optimizer, what each rank has found."""
    folder = tmp_path_factory.mktemp("launched")
    paths = [str(path) for path in (HERE.parent, HERE.parent / "support", HERE)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    if sys.platform == "linux":
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
    ended = subprocess.run(
        [sys.executable, *launch, str(HERE / "launched_training.py"), str(folder)],
        env=environment, timeout=PATIENCE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-4000:]
    return {
        (client, name): [
            json.loads((folder / f"{client} {name} {rank}.json").read_text())
            for rank in range(RANKS)
        ]
        for client in CLIENTS
        for name in (*OPTIONS, *(f"{name} resumed" for name in RESUMED))
    }


each_client = pytest.mark.parametrize("client", CLIENTS)


@each_client
@pytest.mark.parametrize("name", OPTIONS)
def test_every_parameter_is_sharded_and_stepped(results: Results, client: str, name: str) -> None:
    for of in results[client, name]:
        assert of["sharded"] == 1.0
        assert of["states"] == len(of["norms"]) == len(list(tiny_gpt2().parameters()))
        assert of["norms"] == results[client, name][0]["norms"], "ranks agree on parameters"


@each_client
def test_uncompressed_state_trains_as_adamw(results: Results, client: str) -> None:
    for ours, theirs in zip(results[client, "fp32"], results[client, "adamw"], strict=True):
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-5)
        assert ours["norms"] == pytest.approx(theirs["norms"], rel=1e-5)


@each_client
def test_losses_are_those_of_one_process(results: Results, client: str) -> None:
    """With AdamW's arithmetic, of which noise in sums makes nothing else."""
    model = tiny_gpt2()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    size, accumulate = (BATCH // 2, 2) if client == "accelerate" else (BATCH, 1)
    data = batches(Tokens(), STEPS * accumulate, size)
    wanted = plain_loop(model, optimizer, data, accumulate=accumulate)
    for of in results[client, "fp32"]:
        assert of["losses"] == pytest.approx(wanted, rel=1e-4)


@each_client
@pytest.mark.parametrize("name", ["cosmic", "budget"])
def test_compressed_state_trains_as_well(results: Results, client: str, name: str) -> None:
    losses = results[client, name][0]["losses"]
    assert losses[-1] < results[client, "adamw"][0]["losses"][-1] + 0.05


@each_client
def test_names_and_roles_are_those_of_the_whole_model(results: Results, client: str) -> None:
    """The embedding's state has another second moment than hidden matrices', on each rank."""
    names = sorted(name for name, _ in tiny_gpt2().named_parameters())
    for of in results[client, "cosmic"]:
        if client == "accelerate":
            assert of["names"] == names
            assert of["rungs"]["transformer.wte.weight"] == "tier2:u4+v4"
            assert of["rungs"]["transformer.h.0.mlp.c_fc.weight"] == "tier2:u4+factored"
        rungs = sorted(of["rungs"].values())
        assert rungs == sorted(results[client, "cosmic"][0]["rungs"].values())


@each_client
def test_a_budget_is_of_all_ranks_together(results: Results, client: str) -> None:
    budgets = {of["budget"] for of in results[client, "budget"]}
    elements = sum(p.numel() for p in tiny_gpt2().parameters())
    assert budgets == {int(0.05 * 8 * elements)}
    assert 0 < sum(of["bytes"] for of in results[client, "budget"]) <= 0.05 * 8 * elements


@each_client
@pytest.mark.parametrize("name", RESUMED)
def test_a_run_goes_on_from_the_clients_checkpoint(
    results: Results, client: str, name: str
) -> None:
    """The second one begins with other weights: all comes from what was saved."""
    for whole, rest in zip(results[client, name], results[client, f"{name} resumed"], strict=True):
        assert rest["digest"] == whole["digest"]
        assert rest["losses"][-1] == whole["losses"][-1]
