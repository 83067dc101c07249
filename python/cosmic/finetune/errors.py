"""The exceptions that the command line shows as a sentence instead of a stack trace."""

from importlib.util import find_spec

DEMO_PACKAGES = ("datasets", "matplotlib", "psutil", "rich", "tokenizers", "tqdm", "transformers")


class UsageError(Exception):
    """Something that the user can mend. The message is one sentence and says how."""


class TrainingFailed(Exception):
    """A training process ended with an error that it has printed itself.

    `status` is its exit status.
    """

    def __init__(self, optimizer: str, status: int) -> None:
        super().__init__(f"training with {optimizer} ended with status {status}")
        self.status = status


def first_line(error: Exception) -> str:
    """What another library's error says, short enough to be part of a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(". ")


def require_demo_packages(
    command: str = "finetune", packages: tuple[str, ...] = DEMO_PACKAGES
) -> None:
    """Raise `UsageError` naming each package of the demo extra that is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UsageError(
            f"cosmic {command} needs {', '.join(missing)}: pip install 'cosmic-optim[demo]'"
        )
