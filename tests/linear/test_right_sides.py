"""Several right-hand sides of one matrix at once: each is solved as if it stood alone."""

from __future__ import annotations

import numpy as np
import pytest
from test_trust import methods
from typer.testing import CliRunner

from thalweg import Checkpoint
from thalweg.cli import app
from thalweg.core import InvalidProblem, NotFinite, Status, Stop, solve
from thalweg.linear import (
    GMRES,
    SOR,
    SSORCG,
    ConjugateGradient,
    DeepConjugateDirection,
    Direct,
    LinearSystem,
    PoissonGrid,
    SequenceSolver,
    direct,
    pretrained_direction,
)
from thalweg.linear.obstacles import box_of_fluid
from thalweg.numerics import FivePointStencil
from thalweg.online import Fixed

ACCURATE = Stop(below={"residual": 1e-10}, steps=5000)
A = FivePointStencil(3, 4).to_csr()


@pytest.fixture
def b(rng):
    return rng.standard_normal((12, 3)) * [1.0, 1e-200, 1e200]


@pytest.mark.parametrize("method", methods(), ids=lambda m: m.name[:24])
def test_each_column_is_the_answer_of_its_own_system(method, b):
    result = solve(LinearSystem(A, b), method, stop=ACCURATE)
    assert result.converged
    assert result.x.shape == b.shape
    np.testing.assert_allclose(
        result.x / np.abs(b).max(0), np.linalg.solve(A.toarray(), b / np.abs(b).max(0)), atol=1e-8
    )
    alone = max(solve(LinearSystem(A, column), method, stop=ACCURATE).steps for column in b.T)
    assert result.steps == alone


@pytest.mark.parametrize("method", [SOR(1.2), SSORCG(1.2), GMRES(restart=2)], ids=lambda m: m.name)
def test_the_steps_of_a_column_are_bit_for_bit_those_of_its_own_system(method, b):
    seven = Stop(steps=7)
    together = solve(LinearSystem(A, b), method, stop=seven)
    for j, column in enumerate(b.T):
        assert np.array_equal(together.x[:, j], solve(LinearSystem(A, column), method, stop=seven).x)


def test_the_residual_is_the_largest_of_the_columns(b):
    system = LinearSystem(A, b)
    x = np.linalg.solve(A.toarray(), b)
    x[:, 1] *= 1.5
    x[:, 2] *= 1.25
    assert system.metrics(x)["residual"] == pytest.approx(0.5)


def test_factors_are_made_once_and_serve_all_columns(monkeypatch, b):
    made, solved = [], []

    class Counted:
        def __init__(self, matrix, real=direct.splu):
            made.append(matrix)
            self.factors = real(matrix)
            self.U = self.factors.U

        def solve(self, B):
            solved.append(B.shape)
            return self.factors.solve(B)

    monkeypatch.setattr(direct, "splu", Counted)
    assert solve(LinearSystem(A, b), Direct(), stop=ACCURATE).converged
    assert len(made) == 1
    assert solved[0] == (12, 3)
    assert len(solved) <= 1 + direct.REFINEMENTS


def test_a_run_goes_on_where_its_checkpoint_ends(tmp_path, b):
    system, method = LinearSystem(A, b), SSORCG(1.2)
    whole = solve(system, method, stop=ACCURATE)
    path = tmp_path / "run.ck"
    solve(system, method, stop=Stop(steps=3), callbacks=[Checkpoint(path, every=1)])
    again = solve(system, method, stop=ACCURATE, resume=path)
    assert np.array_equal(again.x, whole.x)
    assert again.steps == whole.steps


def test_a_run_goes_on_after_a_column_has_ended(tmp_path):
    """The first column is solved at the start and has a status of its own."""
    b = np.stack([np.zeros(12), np.arange(12.0)], axis=1)
    path = tmp_path / "run.ck"
    solve(LinearSystem(A, b), SSORCG(1.2), stop=Stop(steps=3), callbacks=[Checkpoint(path, every=1)])
    again = solve(LinearSystem(A, b), SSORCG(1.2), stop=ACCURATE, resume=path)
    np.testing.assert_allclose(A @ again.x, b, atol=1e-8)


def test_a_start_has_the_shape_of_b(b):
    start = np.linalg.solve(A.toarray(), b)
    assert solve(LinearSystem(A, b, x0=start), ConjugateGradient(), stop=ACCURATE).steps == 0
    with pytest.raises(InvalidProblem, match=r"x0 has shape \(12,\); expected \(12, 3\)"):
        LinearSystem(A, b, x0=np.zeros(12))


def test_the_column_that_has_no_solution_is_named():
    singular = np.array([[1.0, -1.0], [-1.0, 1.0]])
    b = np.array([[1.0, 1.0], [-1.0, 1.0]])
    result = solve(LinearSystem(singular, b), GMRES(), stop=Stop(below={"residual": 1e-10}))
    assert result.status is Status.STALLED
    assert result.message.startswith("Right-hand side 1: ")


@pytest.mark.parametrize("shape", [(11, 3), (12, 0), (12, 3, 1), ()])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InvalidProblem, match=r"b has shape .*; expected \(12,\), or \(12, k\)"):
        LinearSystem(A, np.ones(shape))
    with pytest.raises(NotFinite, match="b"):
        LinearSystem(A, np.full((12, 2), np.nan))


def test_pressure_grids_and_learned_sequences_take_them(rng):
    grid = PoissonGrid(box_of_fluid((16, 8)))
    b = rng.standard_normal((128, 2)) * grid.fluid.ravel()[:, None]
    found = solve(LinearSystem(grid, b), DeepConjugateDirection(pretrained_direction(2)), stop=ACCURATE)
    np.testing.assert_allclose(np.stack([grid @ x for x in found.x.T], axis=1), b, atol=1e-8)
    solver = SequenceSolver(Fixed(1), [Direct()], warm_start=True)
    for _ in range(2):
        np.testing.assert_allclose(A @ solver(A, np.eye(12)), np.eye(12), atol=1e-12)


def test_a_file_of_several_columns_is_several_right_hand_sides(tmp_path):
    (tmp_path / "A.csv").write_text("4,1\n1,3\n")
    (tmp_path / "b.csv").write_text("1,2,3\n4,5,6\n")
    arguments = ["solve", "linear", "A.csv", "--rhs", "b.csv", "--out", "x.csv"]
    arguments = [str(tmp_path / a) if a.endswith("csv") else a for a in arguments]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    x = np.loadtxt(tmp_path / "x.csv", delimiter=",")
    np.testing.assert_allclose(x, np.linalg.solve([[4, 1], [1, 3]], [[1, 2, 3], [4, 5, 6]]), atol=1e-8)
