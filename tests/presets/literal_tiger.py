"""Rule ``tiger`` under its gate, with options as Tiger's formulas name them: what a preset for runs
that are to be reproduced is to do, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cosmic import Cosmic, _core
from cosmic.step.options import check_group
from cosmic.step.plans import Compiled
from reference.tiger_literal import LiteralOptions

GATE = "tiger_literal"


def memory_options(options: LiteralOptions) -> dict[str, Any]:
    """What the gate's memory of a group reads."""
    names = ("trust_clip", "trust_ema_beta", "agc_clip", "agc_eps", "rms_clip_threshold")
    known = options.trust_space in ("update", "precond")
    return {
        "use_trust_ratio": options.use_trust_ratio and known,
        "by_momentum": options.trust_space == "precond",
        **{name: getattr(options, name) for name in names},
    }


class Literal(Cosmic):
    """One parameter group."""

    def __init__(
        self, params: Sequence[nn.Parameter], options: LiteralOptions, codecs: str, **more: Any
    ) -> None:
        self.memory = _core.GateMemory(GATE, True, memory_options(options))
        of_rule = {"sign_mode": options.sign_mode, "precond_alpha": options.precond_alpha}
        super().__init__(
            [{"params": list(params), **of_rule}], options.lr, options.betas, options.eps,
            options.weight_decay, gate=GATE, rung=f"tier2:{codecs}+tiger", min_compress_size=0,
            blend=options.sign_blend, kappa=options.sign_tau, blend_to=options.blend_to,
            blend_steps=options.blend_steps, blend_schedule=options.blend_schedule,
            **{"exact": True, **more},
        )  # fmt: skip

    def _check_group(self, group: dict[str, Any], index: int) -> None:
        check_group(group, index, self._whole_options(), gates=(GATE,))

    def _run(
        self, compiled: Compiled, copies: list[Tensor | None] | None = None
    ) -> list[Tensor] | None:
        compiled.plan.set_memory(0, self.memory)
        return super()._run(compiled, copies)
