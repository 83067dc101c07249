"""What a training process is asked to do, as the file that it gets."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cosmic.finetune.config import RunConfig


@dataclass(frozen=True)
class Job:
    """One training. Paths are text because they travel as JSON.

    Args:
        config: shared by all trainings of the comparison.
        optimizer: as `parse_spec` reads it.
        tokens: folder of tokenized data.
        events: event log to write.
        result: JSON file to write the row to.
    """

    config: RunConfig
    optimizer: str
    tokens: str
    events: str
    result: str

    def save(self, path: Path) -> None:
        """Write the file that `load` reads."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def load(path: Path) -> "Job":
        """Read what `save` has written."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return Job(**content | {"config": RunConfig(**content["config"])})
