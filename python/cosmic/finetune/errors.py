"""What can go wrong in a comparison that the user can mend, or has been told already."""

from cosmic.errors import UsageError, first_line, require_packages

__all__ = ["DEMO_PACKAGES", "TrainingFailed", "UsageError", "first_line", "require_demo_packages"]

DEMO_PACKAGES = ("datasets", "matplotlib", "psutil", "rich", "tokenizers", "tqdm", "transformers")


class TrainingFailed(Exception):
    """A training process ended with an error that it has printed itself.

    `status` is its exit status.
    """

    def __init__(self, optimizer: str, status: int) -> None:
        super().__init__(f"training with {optimizer} ended with status {status}")
        self.status = status


def require_demo_packages(
    command: str = "finetune", packages: tuple[str, ...] = DEMO_PACKAGES
) -> None:
    """Raise `UsageError` naming each package of the demo extra that is not installed."""
    require_packages(f"cosmic {command}", packages, "demo")
