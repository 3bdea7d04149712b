"""Sequences of systems, the learned solver, and the workloads."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from thalweg.core import Checkpoint, CheckpointMismatch, InvalidParameter, InvalidProblem, Status, Stop, solve
from thalweg.linear import (
    SOR,
    SSORCG,
    ConjugateGradient,
    Direct,
    HeatEquation,
    InstanceOptimal,
    LearnedSolver,
    LinearSystem,
    SequenceSolver,
    ShiftedLaplacians,
    golden_section,
    omega_grid,
)
from thalweg.linear import _kernels as kernels
from thalweg.online import Binned, ChebCB, Fixed, TsallisINF

OMEGAS = np.linspace(1.0, 1.95, 20)


def fixed(method):
    return LearnedSolver(Fixed(1), [method])


class TestWorkloads:
    def test_the_shifted_laplacians_are_what_the_paper_says(self):
        workload = ShiftedLaplacians(rounds=200)
        offsets = np.array([workload.context(t) for t in range(200)])
        assert offsets.min() >= -0.15
        assert offsets.max() <= 0.45
        assert offsets.mean() == pytest.approx(-0.15 + 0.6 * 0.25, abs=0.03)
        system = workload.system(7, None)
        assert system.csr.shape == (100, 100)
        np.testing.assert_allclose(system.csr.diagonal(), 4 + offsets[7])
        assert system.csr.sum() - system.csr.diagonal().sum() == pytest.approx(-2 * 2 * 90, rel=1e-12)
        assert np.linalg.norm(system.b) <= 10
        assert np.linalg.eigvalsh(system.csr.toarray()).min() > 0

    def test_a_round_is_the_same_whenever_it_is_asked_for(self):
        workload = ShiftedLaplacians(rounds=5)
        late = workload.system(3, None)
        for t in range(5):
            workload.system(t, None)
        np.testing.assert_array_equal(late.b, workload.system(3, None).b)

    def test_the_heat_equation_without_forcing_keeps_to_its_eigenvalues(self):
        # On the discrete sine mode a Crank-Nicolson step multiplies by (1 - z)/(1 + z), z = dt kappa mu / 2.
        workload = HeatEquation(nx=20, rounds=3)
        x, y = workload.grid
        mode = np.sin(np.pi * x) * np.sin(np.pi * y)
        t = 600
        mu = 8 * np.sin(np.pi / 40) ** 2 * 20**2
        z = 0.5 * workload.dt * workload.coefficient((t + 0.5) * workload.dt) * mu
        system = workload.system(t, mode)
        forced = workload.system(t, np.zeros(workload.base.n)).b
        got = np.linalg.solve(system.csr.toarray(), system.b - forced)
        np.testing.assert_allclose(got, mode * (1 - z) / (1 + z), atol=1e-12)

    def test_the_heat_equation_converges_in_space_and_time(self):
        def center(nx, rounds):
            workload = HeatEquation(nx=nx, rounds=rounds, dt=0.05 / rounds)
            u = None
            for t in range(rounds):
                u = solve(workload.system(t, u), Direct()).x
            return u[len(u) // 2]

        # Second order: halving both steps divides the change by about four.
        values = [center(nx, rounds) for nx, rounds in ((16, 50), (32, 100), (64, 200))]
        assert abs(values[2] - values[1]) < 0.45 * abs(values[1] - values[0])


class TestLearnedSolver:
    def test_its_costs_are_those_of_the_arms_it_played(self):
        workload = ShiftedLaplacians(rounds=60)
        result = solve(workload, LearnedSolver(TsallisINF(20), omega_grid(SOR)), seed=1)
        base = workload.base
        offsets = np.array([workload.context(t) for t in range(60)])
        b = np.array([workload.right_hand_side(t) for t in range(60)])
        table = kernels.sor_cost_table(*base.rows, offsets, b, OMEGAS, 1e-8, 10_000)
        arms = result.history["arm"].astype(int)
        np.testing.assert_array_equal(result.x, table[np.arange(60), arms])
        assert result.metrics["cost"] == table[np.arange(60), arms].sum()
        assert result.status is Status.CONVERGED

    def test_the_table_of_the_heat_equation_counts_what_the_solver_counts(self):
        workload = HeatEquation(nx=16, rounds=1)
        u = None
        for t in range(495, 500):
            system = workload.system(t, u)
            counts = kernels.ssor_cg_costs(*system.rows, system.b, system.start(), OMEGAS, 1e-8, 1000)
            runs = [solve(system, SSORCG(w), stop=Stop(below={"residual": 1e-8})).steps for w in OMEGAS]
            np.testing.assert_array_equal(counts, runs)
            u = solve(system, Direct()).x

    @pytest.mark.parametrize("policy", [TsallisINF(20), ChebCB(20, -0.15, 0.45)], ids=["tsallis", "cheb"])
    def test_learning_beats_the_average_omega(self, policy):
        workload = ShiftedLaplacians(rounds=250)
        learned = solve(workload, LearnedSolver(policy, omega_grid(SOR))).metrics["cost"]
        grid = [solve(workload, fixed(SOR(w))).metrics["cost"] for w in OMEGAS[::4]]
        assert learned < 0.8 * np.mean(grid)

    def test_a_resumed_run_has_the_same_bits(self, tmp_path):
        workload = HeatEquation(nx=12, rounds=40)
        method = LearnedSolver(Binned(TsallisINF(20), 4, *HeatEquation.context_range), omega_grid(SSORCG))
        whole = solve(workload, method, seed=5)
        path = tmp_path / "run"
        solve(workload, method, seed=5, stop=Stop(steps=17), callbacks=[Checkpoint(path)])
        resumed = solve(workload, method, seed=5, resume=path)
        np.testing.assert_array_equal(whole.x, resumed.x)
        np.testing.assert_array_equal(whole.history["residual"], resumed.history["residual"])

    def test_a_checkpoint_of_another_workload_is_refused(self, tmp_path):
        path, method = tmp_path / "run", LearnedSolver(TsallisINF(20), omega_grid(SSORCG))
        solve(ShiftedLaplacians(rounds=5), method, callbacks=[Checkpoint(path)])
        with pytest.raises(CheckpointMismatch, match="another problem"):
            solve(ShiftedLaplacians(rounds=5, beta=2.0), method, resume=path)

    def test_instance_optimal_is_no_worse_than_any_omega_it_tried(self):
        workload = ShiftedLaplacians(rounds=10)
        best = solve(workload, InstanceOptimal(SOR)).x
        for omega in np.linspace(1.0, 1.95, 5):
            assert (best <= solve(workload, fixed(SOR(omega))).x).all()

    def test_the_recommended_method_solves_every_system(self):
        result = solve(HeatEquation(nx=10, rounds=20))
        assert result.converged
        assert result.history["residual"].max() <= 1e-8

    def test_golden_section_finds_the_minimum_of_a_unimodal_function(self):
        assert golden_section(lambda x: (x - 1.7) ** 2, 1.0, 1.95, 40) == pytest.approx(1.7, abs=1e-6)


class TestSequenceSolver:
    def test_it_drops_into_a_loop_over_scipy_matrices(self, rng):
        solver = SequenceSolver(TsallisINF(20), omega_grid(SSORCG), warm_start=True)
        A = sp.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(50, 50))
        for _ in range(5):
            b = rng.standard_normal(50)
            x = solver(A, b)
            assert np.linalg.norm(b - A @ x) <= 1e-8 * np.linalg.norm(b)

    def test_a_warm_start_from_the_answer_costs_nothing(self, rng):
        solver = SequenceSolver(Fixed(1), [SSORCG(1.3)], warm_start=True)
        system = LinearSystem(np.diag([2.0, 3.0, 4.0]) - 0.5, rng.standard_normal(3))
        assert solver.solve(system).steps > 0
        assert solver.solve(system).steps == 0

    def test_what_one_job_learned_another_goes_on_with(self, tmp_path):
        workload = ShiftedLaplacians(rounds=60)
        first = SequenceSolver(TsallisINF(20), omega_grid(SOR), seed=3)
        for t in range(30):
            first.solve(workload.system(t, None))
        first.save(tmp_path / "policy")
        second = SequenceSolver(TsallisINF(20), omega_grid(SOR), seed=77)
        second.load(tmp_path / "policy")
        for t in range(30, 60):
            a, b = (solver.solve(workload.system(t, None)) for solver in (first, second))
            assert a.steps == b.steps
            assert first.arm == second.arm

    def test_it_chooses_among_different_methods_by_their_time(self):
        # At n = 1600 an SOR sweep loop is far slower than a factorisation: any clock tells them apart.
        system = LinearSystem(sp.csr_array(HeatEquation(nx=41).base.csr), np.ones(1600))
        arms = [SOR(1.0), Direct()]
        solver = SequenceSolver(TsallisINF(2), arms, cost="seconds")
        played = []
        for _ in range(60):
            solver.solve(system)
            played.append(solver.arm)
        assert np.mean(played[30:]) > 0.7

    def test_reaching_the_cap_is_a_status_and_the_loss(self):
        workload = ShiftedLaplacians(rounds=10)
        solver = SequenceSolver(TsallisINF(20), omega_grid(SOR), max_steps=3)
        for t in range(10):
            result = solver.solve(workload.system(t, None))
            assert result.status is Status.EXHAUSTED
            assert result.steps == 3
        assert solver.rounds == 10

    def test_a_changed_size_is_refused(self):
        solver = SequenceSolver(Fixed(1), [ConjugateGradient()])
        solver(np.eye(3), np.ones(3))
        with pytest.raises(InvalidProblem, match="System 1 has 4 unknowns; those before it had 3"):
            solver(np.eye(4), np.ones(4))

    def test_a_policy_with_another_number_of_arms_is_refused(self):
        with pytest.raises(InvalidParameter, match="20 arms but 1"):
            SequenceSolver(TsallisINF(20), [SOR()])

    def test_an_asymmetric_matrix_for_ssor_cg_is_refused(self):
        solver = SequenceSolver(Fixed(1), [SSORCG()])
        with pytest.raises(InvalidProblem, match="not symmetric"):
            solver(np.array([[2.0, 1.0], [0.0, 2.0]]), np.ones(2))
