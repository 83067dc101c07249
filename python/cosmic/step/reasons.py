"""Why a tensor has its rung, in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass

from ..capital.policies import Candidate, Policy
from ..rungs import Rung

__all__ = ["Reason"]


@dataclass(frozen=True)
class Reason:
    """What led to a rung; the text is made when somebody asks.

    Attributes:
        policy: that chose; None without a budget.
        candidate: what it chose for.
        masked: rows and columns describe no second moment of it.
        trained: its weights had been trained before.
        lr_scale: the factor on its learning rate.
    """

    rung: Rung
    policy: Policy | None
    candidate: Candidate
    masked: bool
    trained: bool
    lr_scale: float

    @property
    def text(self) -> str:
        words = [self._chosen()]
        if self.masked:
            words.append("its gradients are masked: no rows and columns")
        if self.trained:
            words.append("its weights were trained before: stepped by elements")
        if self.lr_scale != 1:
            words.append(f"learning rate times {self.lr_scale:g}")
        return "; ".join(words)

    def _chosen(self) -> str:
        if self.policy is None:
            return "no budget"
        if len(self.candidate.ladder) == 1:
            return "all that its group's options leave"
        explain = getattr(self.policy, "why", None)
        text = explain(self.candidate, self.rung) if explain else f"policy {self.policy.name!r}"
        if not isinstance(text, str):
            raise TypeError(f"policy {self.policy.name!r}: why gave {text!r}; expected text")
        return text
