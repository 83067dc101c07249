"""TurboAdam (package ``turboadam``, releases 0.1.0 and 0.2.0) on COSMIC's core."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..optimizer import Cosmic, Params

__all__ = ["TurboAdam"]

#: Elements that the compiled codecs encode together, and that share a mean.
_BLOCK, _MEAN_BLOCK = 128, 64
_V_BITS = (2, 3, 4, 6, 8)
_M_CODECS = ("ustate", "costate")
_V_CODECS = ("v_log", "v4")
#: Options of a group beside Cosmic's own.
_OPTIONS = (
    "block_size", "v_bits", "compress_m", "compress_v", "capturable", "min_m_compress_elements",
    "min_v_compress_elements", "m_block_size", "m_step_factor", "rounding_seed", "m_codec",
    "v_codec", "null_pct", "amp_pct", "error_feedback",
)  # fmt: skip


class TurboAdam(Cosmic):
    r"""AdamW with both moments compressed to 6.5 bits a parameter, as TurboAdam does.

    The update is AdamW's, with both new moments in full; between steps they are kept by codecs
    whose mathematics is in ``docs/codecs.md``:

    * the second moment as ``vlog2`` ... ``vlog8``: levels between two logarithms a block of 128,
      rounded stochastically without bias (release 0.2.0);
    * the first as ``ustate``: 2 bits in units of the update, a mean for 64 elements and a lagged
      scale for the tensor (0.2.0); or as ``costate``: a multiple of the next gradient and the signs
      of the rest (0.1.0).

    Constructor and groups take the arguments of both releases, in 0.2.0's order. Everything else
    is ``Cosmic``'s: checkpoints, ``tiers()``, ``state_bytes()``, bit-identical results for every
    ISA and thread count. What differs from the packages: random bits are COSMIC's (trajectories
    agree in distribution, not bit for bit), 0.1.0's ``costate`` goes with 0.2.0's second moment,
    and a gradient that is not finite spoils its own element, not its block.

    Args:
        params: parameters, named parameters or parameter groups.
        lr: learning rate.
        betas: decay of the averages of the gradient and of its square. ``ustate`` demands
            ``beta1**2 < beta2``, which bounds the update.
        eps: added to the denominator.
        weight_decay: decoupled weight decay.
        block_size: 128; the kernels are compiled for it.
        v_bits: 2, 3, 4, 6 or 8 bits for an element of the second moment.
        compress_m, compress_v: whether the moments are compressed; where neither is, this is AdamW.
        capturable: False; there are no graphs to capture on the CPU.
        min_m_compress_elements, min_v_compress_elements: tensors of fewer elements keep the moment
            in float32.
        m_block_size: 64; the kernels are compiled for it.
        m_step_factor: of ``ustate``: step between codes, in root mean squares.
        rounding_seed: of the random bits; of the whole optimizer.
        m_codec: ``"ustate"`` or ``"costate"``.
        v_codec: ``"v_log"``, or beside ``ustate`` ``"v4"``, COSMIC's own 4 bits: 6.375 bits in all
            and a faster step.
        null_pct, amp_pct: of ``costate``: blocks whose rest is below the first percentile of the
            tensor's are kept without it, those above the second with a float16 scale.
        error_feedback: of ``costate``: False. 0.1.0 would keep 32 bits an element for it, more than
            the compression saves; ``compress_m=False`` loses nothing for the same memory.
        maximize: maximize the objective.

    Raises:
        ValueError, TypeError: for an argument that is out of range, or that the compiled codecs do
            not have.
        NotImplementedError: for ``capturable`` and ``error_feedback``.

    Source: the package ``turboadam``, releases 0.1.0 and 0.2.0, for the arithmetic.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        block_size: int = _BLOCK,
        v_bits: int = 4,
        compress_m: bool = True,
        compress_v: bool = True,
        capturable: bool = False,
        min_m_compress_elements: int = 4096,
        min_v_compress_elements: int = 4096,
        m_block_size: int = _MEAN_BLOCK,
        m_step_factor: float = 1.1,
        rounding_seed: int = 0x12345678,
        *,
        m_codec: str = "ustate",
        v_codec: str = "v_log",
        null_pct: float = 0.10,
        amp_pct: float = 0.90,
        error_feedback: bool = False,
        maximize: bool = False,
    ) -> None:
        if not isinstance(rounding_seed, int):
            raise TypeError(f"rounding_seed is {rounding_seed!r}; expected an int")
        self._preset = {
            "block_size": block_size, "v_bits": v_bits, "compress_m": compress_m,
            "compress_v": compress_v, "capturable": capturable,
            "min_m_compress_elements": min_m_compress_elements,
            "min_v_compress_elements": min_v_compress_elements, "m_block_size": m_block_size,
            "m_step_factor": m_step_factor, "rounding_seed": rounding_seed & 0xFFFFFFFF,
            "m_codec": m_codec, "v_codec": v_codec, "null_pct": null_pct, "amp_pct": amp_pct,
            "error_feedback": error_feedback,
        }  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, maximize=maximize,
            seed=rounding_seed & 0xFFFFFFFF,
        )  # fmt: skip

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; options that it lacks are the optimizer's.

        Raises:
            ValueError, TypeError, NotImplementedError: for an option that is out of range. The
                group is not added then.
        """
        if not isinstance(param_group, dict):
            super().add_param_group(param_group)  # which says so
        whole = {**self.defaults, **param_group}
        where = f"param_groups[{len(self.param_groups)}]"
        _check(whole, where)
        if whole["rounding_seed"] != self.seed:
            raise ValueError(
                f"{where}: rounding_seed is {whole['rounding_seed']!r}; expected {self.seed}, as "
                "it is one of the whole optimizer: TurboAdam(params, rounding_seed=...)"
            )
        param_group.update(_codec_options(whole))  # the user's dict is the group, as torch has it
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned, with its ``rounding_seed``, or what
        ``torch.optim.AdamW``'s did.

        Raises:
            ValueError: as ``Cosmic.load_state_dict``. Nothing has changed then.
        """
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for key in _OPTIONS:
                group.setdefault(key, self.defaults[key])
            group.update(_codec_options(group))
        if self.param_groups:
            self.seed = self.param_groups[0]["rounding_seed"]


def _codec_options(group: dict[str, Any]) -> dict[str, Any]:
    """Cosmic's options for a group's."""
    m = group["m_codec"] if group["compress_m"] else "fp32"
    v = "v4" if group["v_codec"] == "v4" else f"vlog{group['v_bits']}"
    v = v if group["compress_v"] else "fp32"
    sizes = (group["min_m_compress_elements"], group["min_v_compress_elements"])
    return {"state_dtype": f"{m}+{v}", "min_compress_size": sizes}


def _check(group: dict[str, Any], where: str) -> None:
    for name, size in (("block_size", _BLOCK), ("m_block_size", _MEAN_BLOCK)):
        if group[name] != size:
            raise ValueError(
                f"{where}: {name} is {group[name]!r}; expected {size}, which the codecs are "
                "compiled for"
            )
    for name, allowed in (("v_bits", _V_BITS), ("m_codec", _M_CODECS), ("v_codec", _V_CODECS)):
        if group[name] not in allowed:
            raise ValueError(f"{where}: {name} is {group[name]!r}; expected one of {allowed}")
    if group["v_codec"] == "v4" and (group["v_bits"] != 4 or group["m_codec"] != "ustate"):
        raise ValueError(
            f"{where}: v_codec is 'v4' with v_bits {group['v_bits']!r} and m_codec "
            f"{group['m_codec']!r}; expected v_bits 4 and m_codec 'ustate' beside it"
        )
    for name in ("min_m_compress_elements", "min_v_compress_elements"):
        if type(group[name]) is not int or group[name] < 0:
            raise ValueError(f"{where}: {name} is {group[name]!r}; expected an int >= 0")
    if group["capturable"]:
        raise NotImplementedError(
            f"{where}: capturable is {group['capturable']!r}; expected False: there are no graphs "
            "to capture on the CPU"
        )
    if group["error_feedback"]:
        raise NotImplementedError(
            f"{where}: error_feedback is {group['error_feedback']!r}; expected False: it would "
            "keep 32 bits an element. compress_m=False loses nothing for as much"
        )
    _check_betas(group, where)


def _check_betas(group: dict[str, Any], where: str) -> None:
    try:
        beta1, beta2 = map(float, group["betas"])
    except (TypeError, ValueError):
        return  # the core says what is wrong
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        return
    if group["compress_m"] and group["m_codec"] == "ustate" and beta1 * beta1 >= beta2:
        raise ValueError(
            f"{where}: betas are {group['betas']!r}; codec ustate needs beta1**2 < beta2. Give "
            "m_codec='costate' or compress_m=False for them"
        )
