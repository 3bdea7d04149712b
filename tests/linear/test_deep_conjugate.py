"""DCDM: any network converges, exact and identity directions give what theory says, grids and their pools."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg import Stop, solve
from thalweg.core import Checkpoint, InvalidParameter, InvalidProblem, UnreadableFile
from thalweg.linear import (
    ConjugateGradient,
    CycleDirection,
    CycleWeights,
    DeepConjugateDirection,
    DeflatedCG,
    FlexibleCG,
    LinearSystem,
    PoissonGrid,
    ResidualDirection,
    direction_preconditioner,
    incomplete_cholesky,
    load_direction,
    multigrid,
    pretrained_direction,
    save_direction,
)
from thalweg.linear.direction_training import AdamTraining, OneStepLearning, UnrolledLearning, train_direction
from thalweg.linear.obstacles import box_of_fluid, bunny, cross, random_cells
from thalweg.linear.poisson import SOLID
from thalweg.numerics.lanczos import lanczos, ritz, spectrum_ends

TIGHT = Stop(below={"residual": 1e-10}, steps=5000)


def grid_system(shape=(24, 24), seed=1, air="top"):
    cells = box_of_fluid(shape, air)
    inner = tuple(slice(side // 3, side // 2) for side in shape)
    cells[inner] = SOLID
    grid = PoissonGrid(cells)
    b = np.random.default_rng(seed).standard_normal(grid.cells.size) * grid.fluid.ravel()
    return LinearSystem(grid, grid.project(b))


class TestPoissonGrid:
    @given(st.integers(0, 10_000), st.sampled_from([(9, 7), (5, 6, 4)]))
    def test_the_product_is_that_of_its_matrix_which_is_symmetric_with_zero_row_sums_in_the_bulk(
        self, seed, shape
    ):
        rng = np.random.default_rng(seed)
        grid = PoissonGrid(random_cells(shape, rng))
        A, x = grid.to_csr(), rng.standard_normal(grid.cells.size)
        np.testing.assert_allclose(grid @ x, A @ x, atol=1e-12)
        assert abs(A - A.T).max() == 0.0
        assert np.linalg.eigvalsh(A.toarray())[0] > -1e-12
        for pool in grid.closed:  # constants lie in the null space of a closed pool
            ones = np.zeros(grid.cells.size)
            ones[pool] = 1.0
            assert np.abs(A @ ones).max() == 0.0

    def test_a_box_within_air_is_the_five_point_laplacian(self):
        from thalweg.numerics import FivePointStencil

        grid = PoissonGrid(box_of_fluid((8, 10), "around"))
        inner = grid.fluid.ravel()
        A = grid.to_csr().toarray()[np.ix_(inner, inner)]
        np.testing.assert_array_equal(A, FivePointStencil(6, 8).to_csr().toarray())

    def test_the_torch_product_agrees_in_batches(self):
        from thalweg.linear.poisson_tensors import poisson_product

        grid = PoissonGrid(random_cells((6, 7, 8), np.random.default_rng(2)))
        x = np.random.default_rng(0).standard_normal((3, *grid.cells.shape))
        fluid, counts = torch.from_numpy(grid.fluid).double(), torch.from_numpy(grid.counts)
        found = poisson_product(torch.from_numpy(x), fluid, counts, 3).numpy()
        np.testing.assert_allclose(found.reshape(3, -1), np.stack([grid @ v.ravel() for v in x]), atol=1e-12)

    @pytest.mark.parametrize(
        ("cells", "message"),
        [
            (np.zeros(5, int), "2-D or 3-D"),
            (np.full((3, 3), 7), "other codes"),
            (np.array([[0.0, 1.0], [2.0, np.nan]]), r"other codes \(first: nan in cell \(1, 1\)\)"),
            (np.array([[0.0, 1.5], [2.0, np.inf]]), r"other codes \(first: 1.5 in cell \(0, 1\)\)"),
            (np.full((3, 3), 256), "other codes"),
            (np.zeros((3, 3), complex), "cells are of type complex128; a cell is a number"),
            ([["fluid", "solid"], ["air", "air"]], "cells are of type <U5; a cell is a number"),
            (np.full((3, 3), None), "cells are of type object"),
            (np.ones((3, 3), bool), "truth values, which do not say what True is"),
            (np.ones((3, 3), int), "nothing to solve"),
        ],
    )
    @pytest.mark.filterwarnings("error")
    def test_what_is_no_grid_is_refused(self, cells, message):
        with pytest.raises(InvalidProblem, match=message):
            PoissonGrid(cells)

    def test_a_walled_in_cell_has_pressure_of_its_right_hand_side(self):
        cells = box_of_fluid((7, 7))
        cells[1:4, 1:4] = SOLID
        cells[2, 2] = 0
        grid = PoissonGrid(cells)
        assert not grid.closed
        assert (grid @ np.eye(49)[2 * 7 + 2])[2 * 7 + 2] == 1.0


class TestAnyNetwork:
    @given(st.integers(0, 1000), st.sampled_from([1, 2, None]))
    def test_converges_with_the_energy_error_falling(self, seed, keep):
        system = grid_system((10, 11))
        stream = torch.Generator().manual_seed(seed)
        W = torch.randn(system.n, system.n, generator=stream, dtype=torch.float64)
        kinds = [lambda r: W @ r, lambda r: torch.tanh(3 * W @ r) - r, lambda r: torch.full_like(r, math.nan)]
        exact = np.linalg.solve(system.A.to_csr().toarray(), system.b)
        errors = []

        def energy(run):
            e = run.state.x - exact
            errors.append(float(e @ (system.A @ e)))

        method = DeepConjugateDirection(kinds[seed % 3], keep=keep)
        result = solve(system, method, stop=TIGHT, callbacks=[energy])
        assert result.converged
        assert all(later <= earlier * (1 + 1e-9) + 1e-16 for earlier, later in itertools.pairwise(errors))
        # Steps at least as good as the residual's own bound: 1 - 1/cond(A) each.
        values = np.linalg.eigvalsh(system.A.to_csr().toarray())
        rate = 1 - values[0] / max(1.0, 2.0 * system.A.counts.max())
        start = float(exact @ system.b)
        assert all(e <= start * rate ** (k + 1) + 1e-16 for k, e in enumerate(errors))

    @pytest.mark.parametrize("network", [CycleDirection(2), ResidualDirection(2, 4)])
    def test_untrained_networks_converge_on_grids_of_any_shape(self, network):
        assert solve(grid_system((19, 26)), DeepConjugateDirection(network), stop=TIGHT).converged

    def test_networks_that_return_nothing_finite_are_counted(self):
        result = solve(
            grid_system((8, 8)), DeepConjugateDirection(lambda r: torch.full_like(r, math.nan)), stop=TIGHT
        )
        assert result.history.metrics[-1]["fallbacks"] == result.steps

    def test_the_exact_inverse_needs_one_step(self):
        system = grid_system()
        inverse = torch.from_numpy(np.linalg.inv(system.A.to_csr().toarray()))
        result = solve(system, DeepConjugateDirection(lambda r: inverse @ r), stop=TIGHT)
        assert result.steps == 1

    def test_the_identity_gives_the_iterates_of_conjugate_gradients(self):
        system = grid_system()
        for steps in (1, 5, 30):
            ours = solve(system, DeepConjugateDirection(lambda r: r), stop=Stop(steps=steps)).x
            theirs = solve(system, ConjugateGradient(), stop=Stop(steps=steps)).x
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)

    def test_all_directions_kept_are_orthogonal_in_a(self):
        system = grid_system((12, 12))
        W = torch.randn(system.n, system.n, dtype=torch.float64)
        states = []
        method = DeepConjugateDirection(lambda r: r + 0.05 * W @ r, keep=None)
        solve(system, method, stop=Stop(steps=40), callbacks=[lambda run: states.append(run.state) and None])
        P = torch.stack(states[-1].P)
        gram = P @ torch.stack(states[-1].Q).T
        scale = gram.diagonal().sqrt()
        off = gram / scale[:, None] / scale[None] - torch.eye(len(P))
        assert off.abs().max() < 1e-6


class TestPools:
    def test_a_closed_box_is_solved_up_to_a_constant(self):
        system = grid_system((16, 16), air="none")
        assert len(system.A.closed) == 1
        result = solve(system, DeepConjugateDirection(CycleDirection(2)), stop=TIGHT)
        assert result.converged
        assert abs(result.x[system.A.closed[0]].mean()) < 1e-8

    def test_several_columns_are_projected_each_alone(self, rng):
        grid = PoissonGrid(box_of_fluid((6, 6), "none"))
        b = rng.standard_normal((36, 2)) + np.array([1.0, -3.0])
        np.testing.assert_allclose(grid.project(b.copy()), b - b.mean(axis=0))

    def test_an_inconsistent_right_hand_side_is_refused(self):
        grid = PoissonGrid(box_of_fluid((6, 6), "none"))
        with pytest.raises(InvalidProblem, match=r"closed pool of 36 cells.*grid.project"):
            solve(LinearSystem(grid, np.ones(36)), DeepConjugateDirection(lambda r: r))


class TestPretrained:
    @pytest.mark.parametrize(
        ("shape", "most"), [((64, 64), 7), ((128, 128), 7), ((16, 16, 16), 7), ((32,) * 3, 7)]
    )
    def test_seven_iterations_past_an_unseen_obstacle(self, shape, most):
        cells = box_of_fluid(shape)
        cells[cross(shape, 0.4) if len(shape) == 2 else bunny(shape)] = SOLID
        grid = PoissonGrid(cells)
        system = LinearSystem(grid, np.random.default_rng(0).standard_normal(cells.size) * grid.fluid.ravel())
        network = pretrained_direction(len(shape))
        stop = Stop(below={"residual": 1e-4}, steps=2000)
        result = solve(system, DeepConjugateDirection(network), stop=stop)
        assert result.converged
        assert result.steps <= most
        assert result.history.metrics[-1]["fallbacks"] == 0

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    def test_it_runs_where_the_network_is(self):
        system, stop = grid_system((64, 64)), Stop(below={"residual": 1e-6}, steps=200)
        there = solve(system, DeepConjugateDirection(pretrained_direction(2, device="cuda")), stop=stop)
        here = solve(system, DeepConjugateDirection(pretrained_direction(2)), stop=stop)
        assert there.x.device.type == "cuda"
        assert abs(there.steps - here.steps) <= 1

    def test_it_reaches_1e_10_in_single_precision(self):
        result = solve(grid_system((64, 64)), DeepConjugateDirection(pretrained_direction(2)), stop=TIGHT)
        assert result.converged
        assert result.steps < 20

    def test_a_two_dimensional_network_refuses_a_three_dimensional_grid(self):
        with pytest.raises(InvalidProblem, match=r"pretrained_direction\(3\)"):
            solve(grid_system((6, 6, 6)), DeepConjugateDirection(pretrained_direction(2)))

    def test_a_network_refuses_what_is_no_grid(self):
        with pytest.raises(InvalidProblem, match="PoissonGrid"):
            solve(LinearSystem(np.eye(3), np.ones(3)), DeepConjugateDirection(pretrained_direction(2)))

    def test_a_direction_of_another_length_is_refused(self):
        with pytest.raises(InvalidProblem, match="3 numbers for a residual of 5"):
            solve(LinearSystem(np.eye(5), np.ones(5)), DeepConjugateDirection(lambda r: r[:3]))

    def test_an_indefinite_matrix_is_named(self):
        system = LinearSystem(np.array([[1.0, 3.0], [3.0, 1.0]]), np.array([1.0, -1.0]))
        with pytest.raises(InvalidProblem, match="not positive definite"):
            solve(system, DeepConjugateDirection(lambda r: r))

    def test_files_bring_back_the_same_network_and_damaged_ones_are_refused(self, tmp_path):
        network = ResidualDirection(3, 4, (1, 2, 1), 2)
        save_direction(tmp_path / "n.safetensors", network, {"seed": 0})
        again = load_direction(tmp_path / "n.safetensors")
        assert again.settings() == network.settings()
        for name, value in network.state_dict().items():
            assert torch.equal(again.state_dict()[name], value)
        (tmp_path / "bad.safetensors").write_bytes(b"nothing")
        for name in ("bad.safetensors", "absent.safetensors"):
            with pytest.raises(UnreadableFile, match="direction network"):
                load_direction(tmp_path / name)

    def test_a_changed_shipped_file_is_refused(self, monkeypatch):
        name, _ = multigrid.PRETRAINED[2]
        monkeypatch.setitem(multigrid.PRETRAINED, 2, (name, "0" * 64))
        for load in (pretrained_direction, CycleWeights.pretrained):
            with pytest.raises(UnreadableFile, match="damaged"):
                load(2)


class TestTraining:
    def test_the_unrolled_loss_falls_below_that_of_the_hand_set_cycle(self):
        problem = UnrolledLearning(2, (16,), cells=4096, seed=1)
        before = problem.metrics(CycleDirection(2))["loss"]
        torch.manual_seed(1)
        result = solve(problem, AdamTraining(CycleDirection(2), 40, 1e-2), stop=Stop(steps=40))
        assert result.metrics["loss"] < before - 0.2  # a tenth less is left by each step

    def test_the_unrolled_loss_is_what_conjugate_gradients_leave(self):
        torch.manual_seed(0)
        network, problem = CycleDirection(2), UnrolledLearning(2, (16,), cells=256, steps=4)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(0.0, 0.3)
        samples = problem.batch(3)
        cells = torch.where(samples.fluid > 0, 0, torch.where(samples.air > 0, 2, 1))[0, 0].numpy()
        grid = PoissonGrid(cells)
        system = LinearSystem(grid, grid.project(samples.b.double().numpy().ravel()))
        method = ConjugateGradient(direction_preconditioner(network, system))
        left = solve(system, method, stop=Stop(steps=4)).metrics["residual"]
        assert float(problem.loss(network, samples).detach()) == pytest.approx(
            2.0 * np.log(left) / 4, rel=1e-3
        )

    def test_the_papers_network_starts_as_the_identity_and_learns(self):
        network = ResidualDirection(2, 8, (1, 1, 1), 2)
        problem = OneStepLearning(2, (16,), cells=4096)
        before = problem.metrics(network)["loss"]
        identity = problem.loss(network, problem.batch(0)).detach()
        assert 0.0 < float(identity) < 1.0
        result = solve(problem, AdamTraining(network, 40, 2e-3), stop=Stop(steps=40))
        assert result.metrics["loss"] < 0.8 * before

    @pytest.mark.parametrize("learning", [UnrolledLearning, OneStepLearning])
    def test_resuming_gives_the_same_bits(self, tmp_path, learning):
        problem = learning(2, (8,), cells=1024)

        def trained(steps, **options):
            torch.manual_seed(0)
            return solve(problem, AdamTraining(CycleDirection(2), 6, 2e-3), stop=Stop(steps=steps), **options)

        whole = trained(6)
        first = trained(3, callbacks=[Checkpoint(tmp_path / "c", every=1)])
        assert first.steps == 3
        rest = trained(6, resume=tmp_path / "c")
        for a, b in zip(whole.x.parameters(), rest.x.parameters()):
            assert torch.equal(a, b)

    @pytest.mark.parametrize("learning", [UnrolledLearning, OneStepLearning])
    def test_samples_are_unit_residuals_inside_the_fluid(self, learning):
        samples = learning(3, (8,), cells=2048).batch(3)
        np.testing.assert_allclose(samples.b.flatten(1).norm(dim=1), 1.0, rtol=1e-5)
        assert float((samples.b * (1 - samples.fluid)).abs().max()) == 0.0

    def test_a_network_without_a_recipe_is_refused(self):
        class Other(ResidualDirection):
            pass

        with pytest.raises(InvalidParameter, match="recipes for CycleDirection, ResidualDirection"):
            train_direction(2, network=Other(2, 4))


class TestBaselines:
    def test_incomplete_cholesky_of_a_tridiagonal_matrix_is_its_inverse(self):
        A = np.diag(np.full(9, 2.5)) - np.diag(np.ones(8), 1) - np.diag(np.ones(8), -1)
        system = LinearSystem(A, np.ones(9))
        np.testing.assert_allclose(incomplete_cholesky(system) @ np.eye(9), np.linalg.inv(A), atol=1e-12)

    def test_incomplete_cholesky_has_no_error_on_its_pattern(self):
        system = grid_system((9, 9))
        A = system.csr.toarray()
        L = np.linalg.cholesky(np.linalg.inv(incomplete_cholesky(system) @ np.eye(81)))
        pattern = A != 0
        np.testing.assert_allclose((L @ L.T)[pattern], A[pattern], atol=1e-10)

    def test_incomplete_cholesky_shifts_where_a_pivot_breaks_down(self):
        A = np.array([[3.0, -2, 0, 2], [-2, 3, -2, 0], [0, -2, 3, -2], [2, 0, -2, 3.0]])  # Kershaw (1978)
        system = LinearSystem(A, np.ones(4))
        assert np.linalg.eigvalsh(incomplete_cholesky(system) @ np.eye(4))[0] > 0
        result = solve(system, ConjugateGradient(incomplete_cholesky(system)), stop=TIGHT)
        assert result.converged

    def test_flexible_cg_with_a_fixed_preconditioner_has_the_iterates_of_cg(self):
        system = grid_system()
        M = incomplete_cholesky(system)
        for steps in (1, 4, 12):
            ours = solve(system, FlexibleCG(M), stop=Stop(steps=steps)).x
            theirs = solve(system, ConjugateGradient(M), stop=Stop(steps=steps)).x
            np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-11)

    def test_flexible_cg_takes_a_nonlinear_network(self):
        system = grid_system()
        M = direction_preconditioner(ResidualDirection(2, 4), system)
        assert solve(system, FlexibleCG(M), stop=TIGHT).converged

    def test_deflating_the_low_eigenvectors_gives_the_iterations_of_the_rest(self):
        diagonal = np.concatenate([np.geomspace(1e-5, 1e-2, 10), np.linspace(1, 2, 190)])
        system = LinearSystem(np.diag(diagonal), np.ones(200))
        deflated = solve(system, DeflatedCG(np.eye(200)[:10]), stop=TIGHT)
        rest = LinearSystem(np.diag(diagonal[10:]), np.ones(190))
        alone = solve(rest, ConjugateGradient(), stop=TIGHT)
        assert deflated.converged
        assert abs(deflated.steps - alone.steps) <= 2
        assert deflated.steps < solve(system, ConjugateGradient(), stop=TIGHT).steps / 2

    def test_dependent_deflation_vectors_are_refused(self):
        with pytest.raises(InvalidProblem, match="depend on each other"):
            solve(grid_system((6, 6)), DeflatedCG(np.ones((2, 36))))


class TestLanczos:
    def test_the_basis_is_orthonormal_and_reproduces_a(self, rng):
        A = rng.standard_normal((40, 40))
        A = A + A.T
        Q, diagonal, beside = lanczos(A, 40, rng.standard_normal(40))
        T = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        np.testing.assert_allclose(Q @ Q.T, np.eye(40), atol=1e-12)
        np.testing.assert_allclose(Q.T @ T @ Q, A, atol=1e-10)

    def test_ritz_vectors_of_all_steps_are_eigenvectors(self, rng):
        A = np.diag(np.arange(1.0, 31.0))
        values, vectors = ritz(A, 30)
        np.testing.assert_allclose(values, np.arange(1.0, 31.0), atol=1e-10)
        np.testing.assert_allclose(np.abs(vectors), np.eye(30), atol=1e-8)

    def test_it_ends_where_the_space_is_exhausted(self):
        Q, diagonal, beside = lanczos(np.eye(5), 4)
        assert (Q.shape, diagonal.shape, beside.shape) == ((1, 5), (1,), (0,))

    def test_ends_of_the_spectrum_come_from_inside(self):
        low, high = spectrum_ends(np.diag(np.linspace(1, 100, 500)), 60)
        assert 1.0 <= low < 1.2
        assert 99.8 < high <= 100.0 + 1e-9


class TestPlume:
    def test_projection_leaves_no_divergence_and_smoke_rises(self):
        from thalweg.linear.fluid import SmokePlume, divergence, projected

        plume = SmokePlume((32, 32), 30, lambda t: cross((32, 32), 0.1 * t))
        pressure, heights = None, []
        for t in range(30):
            system = plume.system(t, pressure)
            pressure = solve(system, ConjugateGradient(), stop=TIGHT).x
            after = projected(plume.velocity, pressure, system.A)
            assert np.abs(divergence(after)[system.A.fluid]).max() < 1e-8
            heights.append((plume.density.sum(1) @ np.arange(32)) / plume.density.sum())
        assert heights[-1] > heights[0] + 2
        assert 0.0 <= plume.density.min() <= plume.density.max() <= 1.0

    def test_still_fluid_without_buoyancy_stays_still(self):
        from thalweg.linear.fluid import SmokePlume

        plume = SmokePlume((8, 8, 8), 2, buoyancy=0.0)
        assert not plume.system(0, None).b.any()
        assert not plume.system(1, np.zeros(512)).b.any()

    def test_rounds_out_of_order_are_refused(self):
        from thalweg.linear.fluid import SmokePlume

        with pytest.raises(InvalidProblem, match="in order"):
            SmokePlume((8, 8)).system(3, np.zeros(64))

    def test_it_is_a_sequence_for_learned_solvers(self):
        from thalweg.linear import SSORCG, LearnedSolver, omega_grid
        from thalweg.linear.fluid import SmokePlume
        from thalweg.online import TsallisINF

        plume = SmokePlume((16, 16), 10)
        result = solve(plume, LearnedSolver(TsallisINF(3), omega_grid(SSORCG, 3), tol=1e-6))
        assert result.converged
