"""Newton-Schulz by the Gram matrix: near the iteration in float64, the same bits everywhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from cosmic import _core
from reference.newton_schulz import orthogonalized
from reference.polar_express import polar_express

ISAS: list[str] = _core.build_info()["isa_available"]
THREADS = (1, 2, 3, 7)
STEPS = {
    "muon": _core.muon_quintic(5),
    "polar express 3": _core.polar_express(3),
    "polar express 4": _core.polar_express(4),
    "polar express 5": _core.polar_express(5),
}


def run(
    matrix: Tensor,
    steps: _core.NewtonSchulz = STEPS["muon"],
    *,
    norm: float | None = None,
    eps: float = 1e-7,
    scale: float = 1,
    threads: int = 1,
    isa: str = "",
    by_gram: bool = False,
) -> Tensor:
    out = matrix.clone()
    size = float(matrix.norm()) if norm is None else norm
    _core.orthogonalize(out, steps, size, eps, scale, threads, isa, by_gram)
    return out


def of_spectrum(values: Tensor, columns: int) -> Tensor:
    rows = len(values)
    left = torch.linalg.qr(torch.randn(rows, rows, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(columns, rows, dtype=torch.float64))[0]
    matrix: Tensor = (left * values) @ right.T
    return matrix.float()


def test_the_table_is_what_the_method_gives() -> None:
    for iterations in (1, 2, 3, 4, 5):
        table = torch.tensor(_core.polar_express(iterations), dtype=torch.float64)
        method = torch.tensor(polar_express(iterations), dtype=torch.float64)
        torch.testing.assert_close(table, method, rtol=1e-11, atol=0)
    assert list(_core.polar_express(7)) == [*_core.polar_express(5), *[(1.875, -1.25, 0.375)] * 2]
    with pytest.raises(ValueError, match="iterations must be from 1 to 99, not 100"):
        _core.polar_express(100)


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 50), (50, 1), (7, 7), (7, 300), (300, 7), (96, 128), (128, 96), (129, 127)],
)
@pytest.mark.parametrize("name", STEPS)
def test_it_is_the_iteration(shape: tuple[int, int], name: str) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(*shape)
    torch.testing.assert_close(
        run(matrix, STEPS[name]).double(),
        orthogonalized(matrix, STEPS[name]),
        rtol=0,
        atol=1e-4,
    )


@pytest.mark.parametrize("shape", [(1, 50), (7, 300), (300, 7), (96, 128), (90, 90)])
@pytest.mark.parametrize("name", STEPS)
def test_it_is_the_iteration_from_nearer_to_one(shape: tuple[int, int], name: str) -> None:
    torch.manual_seed(8)
    matrix = torch.randn(*shape)
    expected = orthogonalized(matrix, STEPS[name], by_gram=True)
    found = run(matrix, STEPS[name], by_gram=True)
    # five iterations bring rounding up to a thousandfold where singular values are small
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-3)
    assert float(torch.linalg.svdvals(expected)[0]) < 1.4
    assert torch.equal(run(torch.zeros(*shape), norm=1, by_gram=True), torch.zeros(*shape))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(61, 200), (200, 61), (90, 90)])
def test_bits_depend_neither_on_isa_nor_on_threads(isa: str, shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    matrix = torch.randn(*shape)
    expected = run(matrix, isa="scalar", threads=1)
    for threads in THREADS:
        assert torch.equal(run(matrix, isa=isa, threads=threads), expected)


@cache
def spectra(rows: int, columns: int) -> dict[str, Tensor]:
    torch.manual_seed(2)
    first = torch.arange(1, rows + 1, dtype=torch.float64)
    wide = torch.randn(rows, columns)
    return {
        "rank 1": torch.randn(rows, 1) @ torch.randn(1, columns),
        "rank 10": torch.randn(rows, 10) @ torch.randn(10, columns),
        "harmonic": of_spectrum(1 / first, columns),
        "geometric": of_spectrum(0.8**first, columns),
        "Hilbert": (1 / (first[:, None] + torch.arange(columns))).float(),
        "equal rows": wide[torch.arange(rows) // 2],
        "equal": of_spectrum(torch.ones_like(first), columns),
    }


@pytest.mark.parametrize("kind", spectra(2, 4))
@pytest.mark.parametrize("name", STEPS)
def test_what_lacks_ranks_stays_near_the_iteration(kind: str, name: str) -> None:
    matrix = spectra(96, 200)[kind]
    found, expected = run(matrix, STEPS[name]), orthogonalized(matrix, STEPS[name])
    largest = float(torch.linalg.svdvals(found.double())[0])
    assert largest < 1.01 * float(torch.linalg.svdvals(expected)[0])
    apart = float((found - expected).norm() / expected.norm())
    assert apart < 0.01


@pytest.mark.parametrize("kind", ["rank 1", "rank 10", "geometric", "equal rows"])
def test_many_iterations_do_not_run_away(kind: str) -> None:
    """What is zero but for rounding would grow by a^2 with each."""
    matrix, steps = spectra(96, 200)[kind], _core.muon_quintic(10)
    found, expected = run(matrix, steps), orthogonalized(matrix, steps)
    assert float(torch.linalg.svdvals(found.double())[0]) < 1.3
    if kind == "equal rows":
        assert float((found - expected).norm() / expected.norm()) < 0.01


def test_a_tall_matrix_is_a_wide_one_to_rounding() -> None:
    torch.manual_seed(3)
    matrix = torch.randn(40, 90)
    torch.testing.assert_close(run(matrix.T.contiguous()).T, run(matrix), rtol=0, atol=2e-6)


@pytest.mark.parametrize("eps", [0, 1e-7])
def test_zero_stays_zero(eps: float) -> None:
    for shape in [(5, 9), (9, 5), (1, 3)]:
        assert torch.equal(run(torch.zeros(*shape), norm=1, eps=eps), torch.zeros(*shape))


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_makes_everything_a_nan(value: float) -> None:
    matrix = torch.ones(7, 20)
    matrix[3, 11] = value
    for norm in (1.0, float(matrix.norm()), 0.0):
        assert bool(run(matrix, norm=norm).isnan().all())


@pytest.mark.parametrize("exponent", [-140, -100, -30, 30, 100, 120])
def test_size_does_not_matter(exponent: int) -> None:
    """A power of two changes no bit, where `norm` says how large the matrix is."""
    torch.manual_seed(4)
    matrix = torch.randint(-8, 8, (12, 30)).float()
    moved = torch.ldexp(matrix, torch.tensor(exponent))
    norm = float(matrix.norm())
    expected = run(matrix, norm=norm, eps=0)
    found = run(moved, norm=norm * 2.0**exponent, eps=0)
    torch.testing.assert_close(found, expected, rtol=0, atol=0 if exponent > -100 else 1e-6)


def test_a_part_is_divided_by_its_own_norm() -> None:
    torch.manual_seed(5)
    part = torch.randn(12, 30)
    torch.testing.assert_close(run(part, norm=1e6), run(part), rtol=0, atol=1e-5)


def test_the_norm_is_held_above_eps() -> None:
    torch.manual_seed(6)
    matrix = torch.randn(12, 30) * 1e-9
    steps = STEPS["polar express 5"]
    expected = orthogonalized(matrix, steps, eps=1e-7)
    torch.testing.assert_close(
        run(matrix, steps, eps=1e-7).double(), expected, rtol=1e-4, atol=1e-6
    )


def test_a_part_of_a_tensor_is_changed_and_scaled() -> None:
    torch.manual_seed(7)
    room = torch.randn(30, 40)
    before = room.clone()
    part: Callable[[Tensor], Tensor] = lambda whole: whole[3:15, 5:35]  # noqa: E731
    _core.orthogonalize(part(room), STEPS["muon"], 10.0, 1e-7, 0.25, 3)
    torch.testing.assert_close(part(room), run(part(before).contiguous()) * 0.25, rtol=0, atol=1e-6)
    part(room)[:] = part(before)
    assert torch.equal(room, before)
