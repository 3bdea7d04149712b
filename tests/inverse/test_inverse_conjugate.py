"""Batched conjugate gradients against direct solves, with complex numbers, and against an unconjugated product."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.inverse import Radon, Sense, batched_cg
from thalweg.inverse.masks import uniform1d
from thalweg.inverse.phantoms import birdcage, shepp_logan


def hermitian(n, is_complex, rng):
    root = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if is_complex else 0)
    return torch.from_numpy(root @ root.conj().T + 0.5 * np.eye(n))


@given(n=st.integers(1, 40), is_complex=st.booleans(), batch=st.integers(1, 4), seed=st.integers(0, 99))
def test_it_is_the_direct_solution(n, is_complex, batch, seed):
    rng = np.random.default_rng(seed)
    A = hermitian(n, is_complex, rng)
    b = torch.from_numpy(rng.standard_normal((batch, n))).to(A.dtype)
    if is_complex:
        b = b + 1j * torch.from_numpy(rng.standard_normal((batch, n)))
    found = batched_cg(lambda x: x @ A.T, b, torch.zeros_like(b), steps=20 * n + 50, tol=1e-12)
    np.testing.assert_allclose(found.x.numpy(), torch.linalg.solve(A, b.T).T.numpy(), rtol=1e-6, atol=1e-7)


def test_each_system_has_its_own_steps_and_its_own_end(rng):
    A = hermitian(30, True, rng)
    b = torch.from_numpy(rng.standard_normal((3, 30))).to(A.dtype)
    b[1] = A @ torch.ones(30, dtype=A.dtype)  # solved by its start
    start = torch.zeros_like(b)
    start[1] = 1
    together = batched_cg(lambda x: x @ A.T, b, start, steps=7)
    for i in (0, 2):
        alone = batched_cg(lambda x: x @ A.T, b[i : i + 1], start[i : i + 1], steps=7)
        torch.testing.assert_close(together.x[i], alone.x[0], rtol=1e-10, atol=1e-10)
    assert together.steps.tolist() == [7, 0, 7]
    torch.testing.assert_close(together.x[1], start[1], rtol=0, atol=0)


def test_a_system_that_is_done_keeps_its_bits_while_others_go_on(rng):
    A = hermitian(20, False, rng)
    b = torch.from_numpy(rng.standard_normal((2, 20)))
    b[0] *= 1e-3
    loose = batched_cg(lambda x: x @ A.T, b, torch.zeros_like(b), steps=100, tol=1e-2)
    assert bool((loose.residuals <= 1e-2).all())
    assert loose.steps.max() < 100
    zero = batched_cg(lambda x: x @ A.T, 0 * b, torch.zeros_like(b), steps=5)
    assert float(zero.x.abs().max()) == 0
    assert zero.steps.tolist() == [0, 0]


def _unconjugated(product, b, steps):
    """CG with r^T r, as the reference has it."""
    x, r = torch.zeros_like(b), b.clone()
    p, rr = r, (r * r).sum()
    for _ in range(steps):
        Ap = product(p)
        alpha = rr / (p * Ap).sum()
        x, r = x + alpha * p, r - alpha * Ap
        new = (r * r).sum()
        p, rr = r + new / rr * p, new
    return x


@pytest.mark.parametrize(("gamma", "bound"), [(1.0, 1e-5), (5.0, 1e-3)])
def test_the_hermitian_product_converges_where_the_unconjugated_one_does_not(gamma, bound):
    A = Sense(birdcage(4, 64), uniform1d((64, 64)))
    x = (shepp_logan(64) * torch.exp(1j * torch.linspace(0, 6, 64))[None]).to(torch.complex128)[None]
    right = x + gamma * A.AH(A.A(x))

    def product(p):
        return p + gamma * A.gram(p)

    def gap(found):
        return float(torch.linalg.vector_norm(right - product(found)) / torch.linalg.vector_norm(right))

    ours = {k: gap(batched_cg(product, right, torch.zeros_like(right), steps=k).x) for k in (5, 10, 20)}
    assert ours[10] < bound
    assert ours[20] < 1e-3 * ours[5]
    assert ours[20] < 0.01 * gap(_unconjugated(product, right, 20))


def test_trouble_is_named(rng):
    b = torch.ones(2, 3, dtype=torch.float64)
    with pytest.raises(
        InvalidProblem, match=r"broke down: p\^H A p is -.* in system 0.*not positive semidefinite"
    ):
        batched_cg(lambda x: -x, b, torch.zeros_like(b), steps=3)
    with pytest.raises(InvalidProblem, match="met NaN or infinity in system 0"):
        batched_cg(lambda x: torch.where(x == 0, 0.0, float("nan")), b, torch.zeros_like(b), steps=3)
    with pytest.raises(InvalidProblem, match="expected one shape"):
        batched_cg(lambda x: x, b, b[:1], steps=3)
    with pytest.raises(InvalidParameter, match="steps >= 0"):
        batched_cg(lambda x: x, b, b, steps=-1)


def test_a_singular_system_with_a_right_side_in_its_range_is_solved():
    A = Radon(16, 6)
    right = A.AH(A.A(shepp_logan(16)[None]))
    x = batched_cg(A.gram, right, torch.zeros_like(right), steps=300, tol=1e-10).x
    torch.testing.assert_close(A.gram(x), right, rtol=1e-7, atol=1e-7)
