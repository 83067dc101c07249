"""What is tested in a process of its own, in one: its imports take longer than all of it.

Run with a folder; prints one line of JSON.
"""

from __future__ import annotations

import io
import json
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

DEMO_PACKAGES = ("datasets", "matplotlib", "psutil", "rich", "tqdm", "transformers")
sys.modules.update(dict.fromkeys(DEMO_PACKAGES))  # type: ignore[arg-type]  # None: not installed
sys.path.append(str(Path(__file__).parents[2] / "bench"))

import torch  # noqa: E402

from cosmic.train import Trainer  # noqa: E402
from cosmic.train.memory import PeakRss, rss_bytes  # noqa: E402


class Model(torch.nn.Linear):
    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> Any:  # type: ignore[override]
        return {"loss": super().forward(input_ids.float()).square().mean()}


def train_without_packages(folder: Path) -> str:
    """What is said where one of them is needed after all."""
    data = [torch.ones(2, 4, dtype=torch.long)]
    options: dict[str, Any] = {"eval_interval": 1, "log_interval": 1}
    Trainer(
        Model(4, 4), data, data, save_results=False, checkpoint_dir=folder / "runs", **options
    ).fit(2)
    try:
        Trainer(Model(4, 4), data, checkpoint_interval=0)
    except ImportError as error:
        return str(error)
    return ""


def bytes_of_saving(folder: Path) -> dict[str, int]:
    """Resident memory that a checkpoint took while it was written, and the size of its file."""
    options: dict[str, Any] = {"progress": False, "save_results": False, "checkpoint_interval": 0}
    trainer = Trainer(torch.nn.Embedding(40, 1_000_000), [0], budget="0.1%", **options)
    path = folder / "large.pt"
    trainer.save_checkpoint(path=path)  # what is imported and allocated once
    before = rss_bytes()
    with PeakRss() as saving:
        trainer.save_checkpoint(path=path)
    return {"growth": saving.bytes - before, "file": path.stat().st_size}


def kills(count: int) -> Any:
    """What the benchmark of kills reports."""
    import kill_checkpoints

    sys.argv[1:] = ["--kills", str(count)]
    with redirect_stdout(io.StringIO()) as out:
        kill_checkpoints.main()
    return json.loads(out.getvalue().splitlines()[-1])


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    folder = Path(sys.argv[1])
    found: dict[str, Any] = {
        "packages": train_without_packages(folder),
        "saving": bytes_of_saving(folder),
        "kills": kills(12),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
