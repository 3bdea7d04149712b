"""Sketch and project: limits, least norm, expected contraction, blocks, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.numerics.operators import FivePointStencil, as_csr, equilibration
from thalweg.numerics.sketch import (
    SRHT,
    BlockKaczmarz,
    CountSketch,
    Gaussian,
    Kaczmarz,
    sketch_and_project,
)

SKETCHES = {
    "rows": Kaczmarz(),
    "rows by norm": Kaczmarz(by_norm=True),
    "gaussian": Gaussian(),
    "gaussian block": Gaussian(3),
    "count sketch": CountSketch(4),
    "hadamard": SRHT(4),
    "blocks": BlockKaczmarz(4),
}


def random(seed=0):
    return np.random.default_rng(seed)


def one_at_a_time(A, b, sketch, z, count, stream):
    projector, r = sketch.prepare(A), A @ z - b
    projector.advance(z, r, b, count, stream)
    np.testing.assert_allclose(r, A @ z - b, atol=1e-10)  # kept as promised
    return z


@pytest.mark.parametrize("name", SKETCHES)
def test_every_sketch_ends_at_the_solution(name):
    A, x = random(1).standard_normal((9, 9)) + 4 * np.eye(9), random(2).standard_normal(9)
    found = sketch_and_project(A, A @ x, SKETCHES[name], below=1e-11, random=random())
    assert found.converged
    assert found.residual <= 1e-11
    np.testing.assert_allclose(found.z, x, atol=1e-10)
    assert found.flops > 0 < found.projections


@pytest.mark.parametrize("name", SKETCHES)
def test_the_limit_from_zero_is_the_solution_of_least_norm(name):
    """Singular but consistent: NumPy's pseudo-inverse is the oracle."""
    A = random(3).standard_normal((8, 3)) @ random(4).standard_normal((3, 8))
    b = A @ random(5).standard_normal(8)
    found = sketch_and_project(A, b, SKETCHES[name], below=1e-10, random=random())
    np.testing.assert_allclose(found.z, np.linalg.pinv(A) @ b, atol=1e-8)


@pytest.mark.parametrize("by_norm", [False, True])
def test_kaczmarz_contracts_as_the_theorem_says(by_norm):
    """``E |z_k - z*|^2 <= (1 - lambda_min(E[Z]))^k |z_0 - z*|^2``, and not below the square of the mean's own."""
    A = as_csr(random(6).standard_normal((6, 5)))
    x, dense = random(7).standard_normal(5), A.toarray()
    squares = (dense**2).sum(1)
    chance = squares / squares.sum() if by_norm else np.full(6, 1 / 6)
    Z = (dense.T * (chance / squares)) @ dense
    rate, k, runs = 1.0 - np.linalg.eigvalsh(Z)[0], 20, 4000
    stream, total = random(8), 0.0
    for _ in range(runs):
        z = one_at_a_time(A, A @ x, Kaczmarz(by_norm), np.zeros(5), k, stream)
        total += float(np.sum((z - x) ** 2))
    mean_bound = np.sum((np.linalg.matrix_power(np.eye(5) - Z, k) @ x) ** 2)
    assert mean_bound <= total / runs <= 1.1 * rate**k * np.sum(x**2)


def test_gaussian_vectors_contract_as_their_expected_projector_says():
    """E[Z] by Monte Carlo, the theorem's bound by its smallest eigenvalue."""
    A = as_csr(random(9).standard_normal((5, 5)))
    x, k, runs = random(10).standard_normal(5), 10, 3000
    V = random(11).standard_normal((40_000, 5)) @ A.toarray()
    Z = (V / (V**2).sum(1, keepdims=True)).T @ V / len(V)
    stream = random(12)
    errors = [
        np.sum((one_at_a_time(A, A @ x, Gaussian(), np.zeros(5), k, stream) - x) ** 2) for _ in range(runs)
    ]
    assert np.mean(errors) <= 1.1 * (1.0 - np.linalg.eigvalsh(Z)[0]) ** k * np.sum(x**2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(SKETCHES)))
def test_no_projection_moves_away_from_the_solution(seed, name):
    A, x = as_csr(random(seed).standard_normal((7, 7))), random(seed + 1).standard_normal(7)
    z, stream = np.zeros(7), random(seed + 2)
    before = np.linalg.norm(z - x)
    for _ in range(5):
        z = one_at_a_time(A, A @ x, SKETCHES[name], z, 1, stream)
        after = np.linalg.norm(z - x)
        assert after <= before * (1 + 1e-9)
        before = after


def test_blocks_solve_a_grid_in_a_few_sweeps_and_keep_memory_in_proportion():
    kept = []
    for side in (24, 48):
        A = FivePointStencil(side, side, center=5.0).to_csr()
        b = random(side).standard_normal(side * side)
        sketch = BlockKaczmarz(size=200)
        prepared = sketch.prepare(A)
        found = sketch_and_project(A, b, sketch, below=1e-9, random=random(), prepared=prepared)
        assert found.converged
        assert found.projections <= 40 * prepared.every
        kept.append(prepared.stored / A.nnz)
    assert kept[1] <= 1.3 * kept[0]


def test_one_block_of_everything_is_a_direct_solve():
    A, x = random(13).standard_normal((300, 300)) + 20 * np.eye(300), random(14).standard_normal(300)
    found = sketch_and_project(A, A @ x, BlockKaczmarz(300), below=1e-7, random=random())
    assert found.projections <= 2


def test_equations_that_contradict_each_other_are_given_up():
    A, b = np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([0.0, 1.0])
    for sketch in (Kaczmarz(), BlockKaczmarz(2)):
        found = sketch_and_project(A, b, sketch, below=1e-8, random=random(), limit=100_000)
        assert not found.converged
        assert found.residual >= 0.7


def test_the_same_stream_gives_the_same_bits():
    A, b = random(15).standard_normal((10, 10)), random(16).standard_normal(10)
    first, again = (sketch_and_project(A, b, Gaussian(2), below=1e-6, random=random(17)).z for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_equilibrated_rows_have_a_largest_entry_of_one():
    scales = 10.0 ** random(18).uniform(-4, 4, 30)
    A = sp.random_array((30, 30), density=0.2, rng=random(19))
    A = as_csr(sp.diags_array(scales) @ (A + A.T + sp.eye_array(30)) @ sp.diags_array(scales))
    d = equilibration(A, rounds=30)
    largest = abs(sp.diags_array(d) @ A @ sp.diags_array(d)).max(axis=1).toarray()
    np.testing.assert_allclose(largest, 1.0, rtol=1e-3)


def test_bad_input_is_told():
    with pytest.raises(InvalidProblem, match="equations are in no block"):
        BlockKaczmarz(blocks=[np.array([0, 1])]).prepare(as_csr(np.eye(3)))
    with pytest.raises(InvalidParameter, match="size >= 1"):
        Gaussian(0)
    with pytest.raises(InvalidProblem, match=r"b has shape \(3,\)"):
        sketch_and_project(np.eye(2), np.ones(3), Kaczmarz(), below=0.1, random=random())
