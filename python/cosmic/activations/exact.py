"""Operations whose backward divides by what it saved, compares it or takes its exponential.

Noise on a small divisor, on the maximum that is looked for, or in an exponent is no small noise on
the gradient: it makes it infinite, NaN or many times as large. What these save is kept.
"""

from __future__ import annotations

from torch import Tensor

from .owned import storage_of
from .recorder import Call

__all__ = ["has_small_statistics", "is_same", "needs_exact"]

#: By their names without underscores before and after, and without "special".
_EXACT = frozenset((
    # divide by what they saved, or have a pole
    "acos", "acosh", "arccos", "arccosh", "arcsin", "arctan2", "arctanh", "asin", "atan2", "atanh",
    "binary_cross_entropy", "corrcoef", "cumprod", "digamma", "entr", "erfinv", "float_power",
    "fmod", "gammaln", "gaussian_nll_loss", "hypot", "lgamma", "local_response_norm", "log",
    "log10", "log1p", "log2", "log_ndtri", "logit", "multigammaln", "mvlgamma", "ndtri",
    "poisson_nll_loss", "polygamma", "prod", "psi", "remainder", "sinc", "sqrt", "xlog1py", "xlogy",
    # look for the elements that are equal to their result
    "amax", "amin", "aminmax", "index_reduce", "max", "median", "min", "nanmedian",
    "scatter_reduce",
    # take exponentials of what they saved
    "cosh", "ctc_loss", "logcumsumexp", "logsumexp", "sinh",
    # solve equations
    "cholesky", "cholesky_inverse", "cholesky_solve", "det", "inverse", "logdet", "lu_solve",
    "pinverse", "qr", "slogdet", "svd", "triangular_solve",
))  # fmt: skip

#: Linear algebra is exact but for these.
_PLAIN_LINALG = frozenset(("linalg_cross", "linalg_matmul", "linalg_multi_dot", "linalg_vecdot"))

_DIVISION = frozenset(("div", "divide", "itruediv", "true_divide", "truediv"))
_POWER = frozenset(("ipow", "pow"))
_NORM = frozenset(("linalg_vector_norm", "norm"))

#: What is smaller than their input are divisors, one a row or a channel, however short rows are.
_BY_ROWS = frozenset((
    "batch_norm", "cosine_similarity", "group_norm", "instance_norm", "layer_norm",
    "linalg_vector_norm", "norm", "normalize", "pairwise_distance", "rms_norm", "std", "std_mean",
))  # fmt: skip


def needs_exact(tensor: Tensor, call: Call) -> bool:
    """Whether noise on what an operation of torch saves would not be small noise on gradients."""
    name = _plain(call.name)
    if name in _EXACT:
        return True
    if name in _DIVISION:  # in its numerator, backward is linear
        other = call.argument(1, "other")
        return is_same(tensor, other) or not is_same(tensor, call.argument(0, "input"))
    if name in _POWER:
        exponent = call.argument(1, "exponent")
        return not (isinstance(exponent, int | float) and (exponent == 1 or exponent >= 2))
    if name in _NORM:
        order = call.argument(1, "ord" if name.startswith("linalg") else "p")
        return order not in (None, 2, "fro")
    if name == "kl_div":
        target = call.argument(1, "target")
        return isinstance(target, Tensor) and target.requires_grad
    if name in ("grid_sample", "grid_sampler"):  # places are as good as integers
        return is_same(tensor, call.argument(1, "grid"))
    return name.startswith("linalg_") and name not in _PLAIN_LINALG


def has_small_statistics(call: Call) -> bool:
    """Whether all that an operation saves beside tensors of its input's size is a statistic."""
    return _plain(call.name) in _BY_ROWS


def is_same(tensor: Tensor, other: object) -> bool:
    """Whether it is a tensor of the same memory and shape."""
    return (
        isinstance(other, Tensor)
        and storage_of(tensor) == storage_of(other)
        and tensor.storage_offset() == other.storage_offset()
        and tensor.shape == other.shape
    )


def _plain(name: str) -> str:
    """``log`` of ``log_``, ``special_log`` and ``log.default``, ``pow`` of ``__pow__``."""
    return name.partition(".")[0].strip("_").removeprefix("special_")
