from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from torch import Tensor

__version__: str
BLOCK: int

# suffix of the slot's key, torch dtype, elements, of the parameter's shape, bytes
Plane: TypeAlias = tuple[str, str, int, bool, int]

#: An optimizer's parameter groups, and its state.
Groups: TypeAlias = list[dict[str, Any]]
States: TypeAlias = dict[Tensor, dict[str, Any]]

class UnsupportedTensorError(TypeError, RuntimeError):
    """A tensor cannot be used: its layout is sparse, its device is not the CPU, its dtype is not
    one of those that are stepped, or it has no memory of its own. Both a TypeError and, as torch's
    own optimizers raise for sparse gradients, a RuntimeError."""

class Plan:
    def __init__(self, seed: int) -> None: ...
    def add_idle(self, param: Tensor) -> None: ...
    def add_row(
        self,
        param: Tensor,
        name: str,
        group: int,
        index: int,
        rule: str,
        m: str,
        m_slow: str,
        v: str,
        gate: str,
        exact: bool,
        state: dict[str, Any],
        lr_scale: float = 1.0,
        part: tuple[int, int, int] | None = None,
        prefix: str = "",
        place: tuple[int, int, int, int, int, int] | None = None,
        matrix: tuple[tuple[int, int], tuple[int, int], str] | None = None,
    ) -> None:
        """``part``: dimension, start and size; its keys in ``state`` begin with ``prefix``.

        ``place``: of a shard, where its blocks lie in the whole tensor, as ``state.shards.Place``.
        ``matrix``: of a shard whose second moment is by rows and columns: rows and columns of the
        shard, those of the whole matrix, and how that is cut, ``"rows"``, ``"columns"`` or
        ``"both"``.
        """

    def set_exchange(
        self, exchange: Callable[[memoryview, list[tuple[int, int]]], None] | None
    ) -> None:
        """``exchange(sums, rows)`` adds to ``sums``, doubles, in place those of the other shards;
        ``rows`` says whose they are: (position among the plan's rows, how many)."""

    def set_memory(self, group: int, memory: GateMemory) -> None: ...
    def step(
        self,
        groups: Groups,
        states: States,
        threads: int,
        steps: int,
        copies: list[Tensor | None] | None = None,
    ) -> list[Tensor] | None:
        """``copies``: a tensor in 16 bits, or None, for each parameter; those written follow the
        stepped parameters in what is returned."""

    def inspect(
        self, groups: Groups, states: States, threads: int
    ) -> list[tuple[int, float, int]] | None: ...
    def begin(self, groups: Groups, states: States) -> bool: ...
    def step_one(
        self,
        groups: Groups,
        states: States,
        threads: int,
        steps: int,
        position: int,
        param: Tensor,
        copy: Tensor | None = None,
    ) -> bool: ...
    def inspect_one(
        self, groups: Groups, states: States, threads: int, position: int, param: Tensor
    ) -> int | None: ...
    def inherit(self, before: Plan) -> None: ...
    def read_moments(self, group: dict[str, Any], to: dict[str, Any]) -> None: ...
    def write_moments(self, group: dict[str, Any], source: dict[str, Any]) -> None: ...
    def started_numbers(self, rule: str, group: dict[str, Any]) -> list[float]: ...
    def watch(self, states: States) -> None: ...
    def statistics(self) -> list[tuple[int, int, float, float, float, float]]: ...
    @property
    def refused(self) -> list[tuple[int, int]]: ...
    @property
    def nonfinite(self) -> int: ...

def check_copies(
    copies: list[tuple[str, Tensor, Tensor]], params: list[tuple[str, Tensor]]
) -> None:
    """Name, copy and parameter of each copy, and all parameters: raises unless each copy fits and
    shares no memory with any other tensor here."""

def join_master(param: Tensor, low: Tensor, to: Tensor) -> None:
    """The 24-bit values of a bfloat16 parameter and its int8 plane, laid out alike, as float32."""

class GateMemory:
    """What a gate keeps of a parameter group. ``by_tensor``: it takes a sample of each tensor, not
    one of the whole group."""

    def __init__(self, gate: str, by_tensor: bool, options: dict[str, Any]) -> None: ...
    def set_options(self, by_tensor: bool, options: dict[str, Any]) -> None: ...
    def take(self, sample: float) -> float: ...
    @property
    def settled(self) -> bool: ...
    def state(self) -> dict[str, Any]: ...
    def load(self, saved: dict[str, Any]) -> None: ...
    def seen(self) -> dict[str, Any]: ...

def parts() -> dict[str, dict[str, dict[str, Any]]]:
    """What every rule, gate and codec says of itself, by kind and name."""

def build_info() -> dict[str, Any]:
    """What the compiled core is and what it chose on this machine; ``cosmic info`` prints it.

    Returns:
        ``version``; ``compiler`` and ``flags`` that it was built with; ``openmp``, the date of the
        OpenMP standard as a number, 0 without; ``isa``, the instruction set in use; and
        ``isa_available``, those that this machine has, any of which ``COSMIC_ISA`` may force.

    Raises:
        RuntimeError: if ``COSMIC_ISA`` names what this machine does not have.
    """

def available_isas() -> list[str]:
    """Instruction sets of ``build_info()["isa_available"]``, without choosing one."""

def self_test() -> dict[str, Any]:
    """Step every combination of rule and codecs on every instruction set that this machine has,
    with one and with two threads, and compare the bits. Needs no torch; takes seconds, on a busy
    machine a minute.

    Returns:
        ``combinations``, how many; ``isas``, on which; ``fingerprint``, 16 hexadecimal digits of
        parameters and state, the same on every machine.

    Raises:
        RuntimeError: if bits differ; it names the combination, the instruction set and the threads.
    """

def reference_training(accumulate: str, threads: int, isa: str = "", steps: int = 50) -> str:
    """Train a small language model by the kernels alone, without torch.

    Returns:
        SHA-256 of the parameters' bytes, 64 hexadecimal digits: the same on every machine.
    """

def looks_together(gates: str, group: dict[str, Any], index: int) -> bool: ...
def check_group(group: dict[str, Any], index: int) -> None: ...
def combinations() -> list[str]: ...
def scratch_of_matrices(
    rule: str,
    matrices: Sequence[tuple[int, int]],
    groups: Sequence[dict[str, Any]],
    threads: int,
) -> int: ...
def slot_layout(
    codec: str, second_moment: bool, numel: int, matrix: tuple[int, int] | None
) -> list[Plane]: ...
def matrix_shape(
    sizes: Sequence[int], strides: Sequence[int], name: str, least_columns: int
) -> tuple[int, int] | None: ...
def walk_order(
    sizes: Sequence[int], strides: Sequence[int], name: str
) -> tuple[int, ...] | None: ...
def keeps_columns(param: Tensor, gradient: Tensor, name: str) -> bool: ...
def variation(param: Tensor, name: str) -> tuple[float, float]:
    """Squared coefficients of variation of the sums of squares of rows, times the columns, and of
    columns, times the rows: 2 for independent normal numbers; 0 for what is no matrix."""

def check_memory(tensor: Tensor, what: str) -> None:
    """Raise TypeError unless a tensor's elements lie within its storage, on the CPU."""

def density(param: Tensor, gradient: Tensor, name: str) -> float: ...
def solve_knapsack(
    prices: list[list[int]], worths: list[list[float]], budget: int
) -> list[int]: ...
def sign_scale(beta1: float) -> float: ...
def quantize(
    tensor: Tensor, bits: int, block_size: int, codes: Tensor, scales: Tensor, threads: int
) -> int: ...
def dequantize(
    codes: Tensor, scales: Tensor, bits: int, block_size: int, out: Tensor, threads: int
) -> None: ...
def pack(
    tensor: Tensor, codec: str, seed: int, codes: Tensor, scales: Tensor, threads: int
) -> int: ...
def unpack(codes: Tensor, scales: Tensor, codec: str, out: Tensor, threads: int) -> None: ...
def plain_codec(codec: str) -> tuple[int, str, bool]: ...
def quantized_code_bytes(numel: int, bits: int, block_size: int) -> int: ...

# gradients as bytes of a wire, and their mean over ranks; an ISA that is empty is the one in use
def wire_bytes(numel: int, codec: str) -> int: ...
def wire_encode(
    gradient: Tensor,
    residual: Tensor | None,
    decay: float,
    message: Tensor,
    offset: int,
    codec: str,
    stochastic: bool,
    seed: int,
    step: int,
    index: int,
    rank: int,
    threads: int,
    isa: str = "",
) -> None: ...
def wire_decode(
    messages: Tensor,
    ranks: int,
    offset: int,
    codec: str,
    out: Tensor,
    threads: int,
    isa: str = "",
) -> None: ...

# tests and benchmarks of matmul/; an ISA that is empty is the one in use
NewtonSchulz: TypeAlias = Sequence[tuple[float, float, float]]

def matmul(a: Tensor, b: Tensor, out: Tensor, threads: int, isa: str = "") -> None: ...
def exact_product(
    a: Tensor,
    b: Tensor,
    out: Tensor,
    add: Tensor | None,
    accumulate: str,
    threads: int,
    isa: str = "",
) -> None:
    """``out = a @ b + add`` of batches [batch, m, k] and [batch, k, n], with the same bits on every
    ISA, for any number of threads and in any batch."""

def symmetric_product(a: Tensor, b: Tensor, out: Tensor, threads: int, isa: str = "") -> None:
    """Where ``a @ b`` is symmetric: what lies on and below its diagonal, mirrored."""

def orthogonalize(
    matrix: Tensor,
    steps: NewtonSchulz,
    norm: float,
    eps: float,
    scale: float,
    threads: int,
    isa: str = "",
    by_gram: bool = False,
) -> None: ...
def polar_express(iterations: int) -> NewtonSchulz: ...
def muon_quintic(iterations: int) -> NewtonSchulz: ...

# What `cosmic.exact` computes by: the same bits on every ISA and for every number of threads. All
# float tensors of a call have one dtype, float32 or float64, and are contiguous; `out` and what
# else is written has its memory already. An ISA that is empty is the one in use.
def exact_map(op: str, x: Tensor, out: Tensor, threads: int, isa: str = "") -> None:
    """``op``: exp, log, tanh, erf, sigmoid, gelu, gelu_tanh or silu, of every element."""

def exact_map_backward(
    op: str, x: Tensor, grad: Tensor, out: Tensor, threads: int, isa: str = ""
) -> None:
    """``grad`` times the derivative of ``op`` at ``x``."""

def exact_softmax(
    x: Tensor, out: Tensor, scale: float, causal: bool, threads: int, isa: str = ""
) -> None:
    """softmax(scale * x) over columns; x [matrices, rows, columns], scale > 0. Causal: row r sees
    columns <= r + columns - rows, the others get 0. A row that sees nothing above -inf gets 0; one
    with a NaN or +inf gets NaN."""

def exact_softmax_backward(
    y: Tensor, grad: Tensor, out: Tensor, scale: float, threads: int, isa: str = ""
) -> None:
    """scale * y * (grad - sum(y * grad)) over columns; all [matrices, rows, columns]."""

def exact_layer_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    out: Tensor,
    mean: Tensor,
    rstd: Tensor,
    threads: int,
    isa: str = "",
) -> None:
    """(x - mean) * rstd * weight + bias; x [rows, columns], mean and rstd [rows]."""

def exact_layer_norm_backward(
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    grad: Tensor,
    dx: Tensor | None,
    dweight: Tensor | None,
    dbias: Tensor | None,
    threads: int,
    isa: str = "",
) -> None: ...
def exact_rms_norm(
    x: Tensor,
    weight: Tensor | None,
    eps: float,
    out: Tensor,
    rstd: Tensor,
    threads: int,
    isa: str = "",
) -> None:
    """x * rstd * weight; x [rows, columns], rstd [rows] = 1 / sqrt(mean(x^2) + eps)."""

def exact_rms_norm_backward(
    x: Tensor,
    weight: Tensor | None,
    rstd: Tensor,
    grad: Tensor,
    dx: Tensor | None,
    dweight: Tensor | None,
    threads: int,
    isa: str = "",
) -> None: ...
def exact_column_sums(x: Tensor, out: Tensor, threads: int, isa: str = "") -> None:
    """x [rows, columns], out [columns]."""

def exact_sum(x: Tensor, out: Tensor, threads: int, isa: str = "") -> None:
    """Of all elements; out has one."""

def exact_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    ignore_index: int,
    label_smoothing: float,
    losses: Tensor,
    lse: Tensor,
    threads: int,
    isa: str = "",
) -> None:
    """(1 - s) (lse - x[target]) + s (lse - mean(x)), s the smoothing, lse = log(sum(exp(x))) of
    each row; logits [rows, classes], targets int64 [rows], losses and lse [rows]. The loss of a row
    whose target is ``ignore_index`` is 0.

    Raises:
        IndexError: for another target that is no class.
    """

def exact_cross_entropy_backward(
    logits: Tensor,
    lse: Tensor,
    targets: Tensor,
    ignore_index: int,
    label_smoothing: float,
    row_grad: Tensor,
    out: Tensor,
    threads: int,
    isa: str = "",
) -> None:
    """row_grad * (exp(x - lse) - (1 - s) [class is target] - s / classes); row_grad [rows]."""

def exact_embedding_backward(
    indices: Tensor, grad: Tensor, padding_index: int, out: Tensor, threads: int, isa: str = ""
) -> None:
    """out[v] = the sum of grad[i] over all i with indices[i] == v; indices int64 [n], grad [n, d],
    out [vocabulary, d]. ``padding_index`` gets 0; -1: there is none."""

def exact_dropout(x: Tensor, out: Tensor, p: float, key: int, threads: int, isa: str = "") -> None:
    """x / (1 - p) where a random number of (key, element's index) keeps it, else 0; 0 <= p < 1."""

def exact_inverse_frequencies(base: float, out: Tensor, isa: str = "") -> None:
    """base^(-2 i / dim) for i < dim / 2; out float64 [dim / 2]."""

def exact_rotary_tables(
    positions: Tensor,
    inverse_frequencies: Tensor,
    scaling: float,
    cos: Tensor,
    sin: Tensor,
    threads: int,
    isa: str = "",
) -> None:
    """scaling * cos and sin of position * frequency; positions int64 [n], inverse_frequencies
    float64 [h], cos and sin [n, 2 h], whose halves are the same."""

def exact_uniform(
    out: Tensor, low: float, high: float, key: int, threads: int, isa: str = ""
) -> None: ...
def exact_normal(
    out: Tensor, mean: float, std: float, key: int, threads: int, isa: str = ""
) -> None: ...
