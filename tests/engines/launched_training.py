"""What ``torchrun`` starts: a tiny GPT-2 trained under FSDP2 through accelerate or Trainer.

    python -m torch.distributed.run --standalone --nproc-per-node 2 launched_training.py results

Each rank writes what it has found into the folder, as JSON."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from clients.setting import BATCH, Tokens, tiny_gpt2
from cosmic import Cosmic
from cosmic.state.shards import local_of
from engine_models import digest_of

STEPS = 6  # an epoch
MIDDLE = 3
OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {"weight_decay": 0.0},
    "cosmic": {"weight_decay": 0.0},
    "fp32": {"weight_decay": 0.0, "state_dtype": "fp32"},
    "budget": {"weight_decay": 0.0, "budget": "5%"},
}

#: Runs that go on from a checkpoint of the client's.
RESUMED = ("cosmic", "budget")


def take_the_cpu_for_an_accelerator(patch: pytest.MonkeyPatch) -> None:
    """accelerate gives FSDP to accelerators alone: with the CPU's ranks it leaves the plugin out,
    without a word."""
    made = PartialState.__init__

    def make(self: PartialState, cpu: bool = False, **kwargs: Any) -> None:
        made(self, True, **kwargs)
        if PartialState._shared_state["distributed_type"] == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
            self.__dict__.update(PartialState._shared_state)

    patch.setattr(PartialState, "__init__", make)


def maker(optimizer: str) -> Any:
    kind: Any = torch.optim.AdamW if optimizer == "adamw" else Cosmic
    return partial(kind, lr=5e-3, **OPTIONS[optimizer])


def with_accelerate(
    optimizer: str, folder: Path, resume: bool = False
) -> tuple[list[float], Any, Any]:
    """The loop of accelerate's documentation, saved in the middle, or from there on."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["GPT2Block"], reshard_after_forward=True,
        cpu_ram_efficient_loading=False,
    )  # fmt: skip
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin, gradient_accumulation_steps=2)
    model = tiny_gpt2(seed=5 if resume else 0)
    inner = maker(optimizer)(model.named_parameters())
    loader = DataLoader(Tokens(), BATCH // 2 // dist.get_world_size())
    model, wrapped, loader = accelerator.prepare(model, inner, loader)
    losses, step, rows = [], 0, loader
    if resume:
        accelerator.load_state(str(folder / "state"))
        step, rows = MIDDLE, accelerator.skip_first_batches(loader, 2 * MIDDLE)
    for batch in rows:  # an epoch
        with accelerator.accumulate(model):
            loss = model(**batch).loss
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            wrapped.step()
            wrapped.zero_grad()
        losses.append(float(accelerator.reduce(loss.detach(), "mean")))
        step += accelerator.sync_gradients
        if accelerator.sync_gradients and step == MIDDLE and not resume:
            accelerator.save_state(str(folder / "state"))
    return losses, model, inner


def with_trainer(
    optimizer: str, folder: Path, resume: bool = False
) -> tuple[list[float], Any, Any]:
    """Trainer, which saves in the middle, or goes on from there."""
    whole: Any = True  # of a text once, which is deprecated
    arguments = TrainingArguments(
        str(folder / "out"), use_cpu=True, dataloader_pin_memory=False, max_steps=STEPS,
        per_device_train_batch_size=BATCH // int(os.environ["WORLD_SIZE"]), logging_steps=1,
        report_to="none", disable_tqdm=True, save_strategy="steps",
        save_steps=MIDDLE, max_grad_norm=1.0,
        lr_scheduler_type="constant", train_sampling_strategy="sequential", fsdp=whole,
        fsdp_config={"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
                     "transformer_layer_cls_to_wrap": ["GPT2Block"]},
    )  # fmt: skip
    make = maker(optimizer)
    trainer: Any = Trainer(
        tiny_gpt2(seed=5 if resume else 0), arguments, train_dataset=Tokens(),
        optimizer_cls_and_kwargs=(make.func, make.keywords),
    )  # fmt: skip
    checkpoint = str(folder / "out" / f"checkpoint-{MIDDLE}")
    trainer.train(resume_from_checkpoint=checkpoint if resume else None)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, trainer.model_wrapped, trainer.optimizer.optimizer


CLIENTS = {"accelerate": with_accelerate, "trainer": with_trainer}


def found(losses: list[float], model: Any, optimizer: Any) -> dict[str, Any]:
    params = list(model.parameters())
    states = (optimizer.state[p] for group in optimizer.param_groups for p in group["params"])
    held = [v for s in states for _, v in sorted(s.items()) if isinstance(v, torch.Tensor)]
    result: dict[str, Any] = {
        "losses": losses,
        "sharded": sum(isinstance(p, DTensor) for p in params) / len(params),
        "states": len(optimizer.state),
        "digest": [digest_of(map(local_of, params)), digest_of(map(local_of, held))],
        "norms": [float(p.detach().full_tensor().norm()) for p in params],
    }
    if isinstance(optimizer, Cosmic):
        result["bytes"] = optimizer.state_bytes()
        result["budget"] = optimizer.budget_bytes()
        result["names"] = sorted(info.name for info in optimizer.tiers())
        result["rungs"] = {info.name: info.rung for info in optimizer.tiers()}
    return result


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    take_the_cpu_for_an_accelerator(pytest.MonkeyPatch())
    for client, train in CLIENTS.items():
        for name in OPTIONS:
            kept = folder / f"{client} {name}"
            for resume in (False, True) if name in RESUMED else (False,):
                AcceleratorState._reset_state(reset_partial_state=True)
                GradientState._reset_state()
                result = found(*train(name, kept, resume))
                file = f"{client} {name}{' resumed' * resume} {dist.get_rank()}.json"
                (folder / file).write_text(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
