"""TurboAdam (package ``turboadam``, releases 0.1.0 and 0.2.0) on COSMIC's core."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..optimizer import Cosmic, Params
from ..state.groups import check_dicts
from ..step.plans import Compiled

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
#: Options that Cosmic's are made of, or that those must fit.
_FOLLOWED = (*_OPTIONS, "betas")


class TurboAdam(Cosmic):
    """AdamW with both moments compressed to 6.5 bits a parameter, as TurboAdam does.

    The update is AdamW's, with both new moments in full; between steps they are kept by codecs
    whose mathematics is in ``docs/codecs.md``:

    * the second moment as ``vlog2`` ... ``vlog8``: levels between two logarithms a block of 128,
      rounded stochastically without bias (release 0.2.0);
    * the first as ``ustate``: 2 bits in units of the update, a mean for 64 elements and a lagged
      scale for the tensor (0.2.0); or as ``costate``: a multiple of the next gradient and the signs
      of the rest (0.1.0).

    Constructor and groups take the arguments of both releases, in 0.2.0's order; a group's may
    change between steps, all but ``rounding_seed``, and ``state_dtype`` and ``min_compress_size``
    follow from them. Everything else
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
        compress_m: whether the first moment is compressed.
        compress_v: whether the second moment is; where neither is, this is AdamW.
        capturable: False; there are no graphs to capture on the CPU.
        min_m_compress_elements: tensors of fewer elements keep the first moment in float32.
        min_v_compress_elements: the same of the second moment.
        m_block_size: 64; the kernels are compiled for it.
        m_step_factor: of ``ustate``: step between codes, in root mean squares.
        rounding_seed: of the random bits; of the whole optimizer.
        m_codec: ``"ustate"`` or ``"costate"``.
        v_codec: ``"v_log"``, or beside ``ustate`` ``"v4"``, COSMIC's own 4 bits: 6.375 bits in all
            and a faster step.
        null_pct: of ``costate``: blocks whose rest is below this percentile of the tensor's are
            kept without it.
        amp_pct: of ``costate``: those from this percentile on have a float16 scale.
        error_feedback: of ``costate``: False. 0.1.0 would keep 32 bits an element for it, more than
            the compression saves; ``compress_m=False`` loses nothing for the same memory.
        maximize: maximize the objective.
        global_sums: as in ``Cosmic``; of the whole optimizer.

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
        block_size: int = 128,
        v_bits: int = 4,
        compress_m: bool = True,
        compress_v: bool = True,
        capturable: bool = False,
        min_m_compress_elements: int = 4096,
        min_v_compress_elements: int = 4096,
        m_block_size: int = 64,
        m_step_factor: float = 1.1,
        rounding_seed: int = 0x12345678,
        *,
        m_codec: str = "ustate",
        v_codec: str = "v_log",
        null_pct: float = 0.10,
        amp_pct: float = 0.90,
        error_feedback: bool = False,
        maximize: bool = False,
        global_sums: bool = False,
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
            params, lr, betas, eps, weight_decay, maximize=maximize, global_sums=global_sums,
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
        derived = _codec_options(whole)
        for name, value in derived.items():
            if param_group.get(name, value) != value:
                raise ValueError(
                    f"{where}: {name} is {param_group[name]!r}; expected none: TurboAdam's options "
                    f"(m_codec, v_bits, compress_m, ...) make it {value!r}"
                )
        param_group.update(derived)  # the user's dict is the group, as torch has it
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned, with its ``rounding_seed``, or what Cosmic's or
        ``torch.optim.AdamW``'s did, whose codecs become those of the groups here. A checkpoint of
        the package is not one: its moments are packed otherwise.

        Raises:
            ValueError, TypeError, NotImplementedError: as ``Cosmic.load_state_dict``, and for an
                option that is out of range. Nothing has changed then.
        """
        groups = _with_own_options(state_dict["param_groups"], self.param_groups)
        super().load_state_dict({**state_dict, "param_groups": groups})
        if self.param_groups:
            self.seed = self.param_groups[0]["rounding_seed"]

    # ---- the plan --------------------------------------------------------------------------

    def _reset(self) -> None:
        super()._reset()
        self._followed: list[Any] = []  # what the codecs were last made of

    def _ready(self, *, expecting: bool = False) -> Compiled:
        check_dicts(self.param_groups)
        self._follow_options()
        return super()._ready(expecting=expecting)

    def _follow_options(self) -> None:
        """Make Cosmic's options of those that have changed since the last step."""
        now = [group.get(name) for group in self.param_groups for name in _FOLLOWED]
        # By identity: what was spoiled may be a tensor, whose == is no bool.
        if len(now) == len(self._followed) and all(map(operator.is_, now, self._followed)):
            return
        for index, group in enumerate(self.param_groups):
            _check(group, f"param_groups[{index}]")
            _check_same_seed(group, self.param_groups[0], f"param_groups[{index}]")
        for group in self.param_groups:
            group.update(_codec_options(group))
        self._followed = now


def _with_own_options(
    saved: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Groups of a state dict, checked, with the options that they lack as ``groups`` have them."""
    out: list[dict[str, Any]] = []
    for index, (own, group) in enumerate(zip(groups, saved, strict=False)):
        filled = {**{key: own[key] for key in _OPTIONS}, **group}
        where = f"the state_dict's param_groups[{index}]"
        _check({**own, **filled}, where)
        _check_same_seed(filled, out[0] if out else filled, where)
        out.append({**filled, **_codec_options(filled)})
    return [*out, *saved[len(out) :]]


def _codec_options(group: Mapping[str, Any]) -> dict[str, Any]:
    """Cosmic's options for a group's."""
    m = group["m_codec"] if group["compress_m"] else "fp32"
    v = "v4" if group["v_codec"] == "v4" else f"vlog{group['v_bits']}"
    v = v if group["compress_v"] else "fp32"
    sizes = (group["min_m_compress_elements"], group["min_v_compress_elements"])
    return {"state_dtype": f"{m}+{v}", "min_compress_size": sizes}


def _check_same_seed(group: Mapping[str, Any], first: Mapping[str, Any], where: str) -> None:
    seed = group["rounding_seed"]
    if type(seed) is not int or not 0 <= seed < 2**32 or seed != first["rounding_seed"]:
        raise ValueError(
            f"{where}: rounding_seed is {seed!r}; expected an int from 0 to 2**32 - 1, the same in "
            "all groups, as it is one of the whole optimizer"
        )


def _check(group: Mapping[str, Any], where: str) -> None:
    for name in _OPTIONS:
        if name not in group:
            raise ValueError(
                f"{where} has no {name!r}; was it removed, or the group appended by hand? "
                "(add_param_group fills in what it lacks)"
            )
    for name, size in (("block_size", _BLOCK), ("m_block_size", _MEAN_BLOCK)):
        if type(group[name]) is not int or group[name] != size:
            raise ValueError(
                f"{where}: {name} is {group[name]!r}; expected {size}, which the codecs are "
                "compiled for"
            )
    for name, allowed in (("v_bits", _V_BITS), ("m_codec", _M_CODECS), ("v_codec", _V_CODECS)):
        if type(group[name]) is not type(allowed[0]) or group[name] not in allowed:
            raise ValueError(f"{where}: {name} is {group[name]!r}; expected one of {allowed}")
    if group["v_codec"] == "v4" and (group["v_bits"] != 4 or group["m_codec"] != "ustate"):
        raise ValueError(
            f"{where}: v_codec is 'v4' with v_bits {group['v_bits']!r} and m_codec "
            f"{group['m_codec']!r}; expected v_bits 4 and m_codec 'ustate' beside it"
        )
    for name in ("min_m_compress_elements", "min_v_compress_elements"):
        if type(group[name]) is not int or group[name] < 0:
            raise ValueError(f"{where}: {name} is {group[name]!r}; expected an int >= 0")
    for name in ("compress_m", "compress_v", "capturable", "error_feedback"):
        if type(group[name]) is not bool:
            raise ValueError(f"{where}: {name} is {group[name]!r}; expected True or False")
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


def _check_betas(group: Mapping[str, Any], where: str) -> None:
    try:
        beta1, beta2 = map(float, group["betas"])
    except (TypeError, ValueError, LookupError, OverflowError, RuntimeError):
        return  # the core says what is wrong
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        return
    if group["compress_m"] and group["m_codec"] == "ustate" and beta1 * beta1 >= beta2:
        raise ValueError(
            f"{where}: betas are {group['betas']!r}; codec ustate needs beta1**2 < beta2. Give "
            "m_codec='costate' or compress_m=False for them"
        )
