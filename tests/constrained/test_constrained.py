"""Equality-constrained problems: known optima, other solvers, theory's marks, bad input."""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.optimize import minimize

from thalweg import Status, Stop, solve
from thalweg.constrained import (
    COLLECTION,
    METHODS,
    AugmentedLagrangian,
    EqualityConstrained,
    InexactSQP,
    NewtonSQP,
    PoissonControl,
    RankDeficient,
    SketchedNewton,
    certify,
    constrained_logistic,
    named_problem,
)
from thalweg.constrained._merit import Weights
from thalweg.constrained._newton import NewtonSystem
from thalweg.constrained.curvature import reduced_curvature, smallest_square, spectral_norm
from thalweg.constrained.sketched_newton import _Inner
from thalweg.core import Checkpoint, InvalidParameter, InvalidProblem, NotFinite, Unbounded
from thalweg.numerics.sketch import BlockKaczmarz, CountSketch, Gaussian, Kaczmarz

#: Their Newton systems become singular at the solution: single rows are too slow there for the last digits.
DEGENERATE = {"HS26", "HS46", "HS47", "HS49"}
#: Dependent constraints at the start, on the way or at the solution.
DEPENDENT = {"HS61", "BT8", "BYRDSPHR", "PRICE4NE"}


def quiet(problem, method, **stop):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankDeficient)
        return solve(problem, method, stop=Stop(**stop))


def quiet_with(problem, method, stop, callback):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankDeficient)
        return solve(problem, method, stop=stop, callbacks=[lambda run: callback(run)])


def circle(**options):
    return EqualityConstrained.from_formulas("x1 + x2", ["x1**2 + x2**2 - 2"], [-1.5, -0.5], **options)


def square(side):
    g = np.abs(np.arange(1, side + 1) / (side + 1) - 0.5) < 0.25
    return (g[:, None] & g).astype(float)


class TestCollection:
    @pytest.mark.parametrize("name", COLLECTION)
    def test_single_rows_reach_1e_4_at_a_known_optimum(self, name):
        stated = COLLECTION[name]
        found = quiet(named_problem(name), SketchedNewton(), below={"kkt": 1e-4}, steps=200)
        assert found.status is Status.CONVERGED
        value = found.metrics["value"]
        assert any(abs(value - v) <= 2e-3 * (1 + abs(v)) for v in (stated.optimum, *stated.local))

    @pytest.mark.parametrize("name", COLLECTION)
    @pytest.mark.parametrize(
        "method", [SketchedNewton(BlockKaczmarz()), NewtonSQP()], ids=["blocks", "direct"]
    )
    def test_blocks_and_direct_steps_reach_1e_8(self, name, method):
        found = quiet(named_problem(name), method, below={"kkt": 1e-8}, steps=200)
        assert found.status is Status.CONVERGED

    @pytest.mark.parametrize("name", sorted(set(COLLECTION) - DEGENERATE - DEPENDENT))
    def test_single_rows_reach_1e_8_where_the_system_stays_regular(self, name):
        found = quiet(named_problem(name), SketchedNewton(), below={"kkt": 1e-8}, steps=200)
        assert found.status is Status.CONVERGED

    @pytest.mark.parametrize("name", COLLECTION)
    def test_derivatives_of_the_formulas_agree_with_differences(self, name):
        problem = named_problem(name)
        x = problem.x0 + 0.01 * np.cos(np.arange(problem.n))
        assert max(problem.derivative_error(x).values()) < 1e-5

    @pytest.mark.parametrize("name", ["HS7", "HS40", "HS77", "HS78", "BT5", "BT11", "BT12"])
    def test_values_are_those_of_slsqp(self, name):
        p = named_problem(name)
        peer = minimize(
            p.value,
            p.x0,
            jac=p.gradient,
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
            constraints={"type": "eq", "fun": p.constraints, "jac": p.jacobian},
        )
        assert quiet(p, SketchedNewton(), below={"kkt": 1e-8}).metrics["value"] == pytest.approx(
            peer.fun, abs=1e-5
        )

    @pytest.mark.parametrize(
        "method", [InexactSQP(), InexactSQP("minres"), InexactSQP(adaptive=False), AugmentedLagrangian()]
    )
    @pytest.mark.parametrize("name", ["HS6", "HS28", "HS40", "HS42", "HS78", "HS79", "BT5"])
    def test_baselines_find_the_same(self, method, name):
        found = quiet(named_problem(name), method, below={"kkt": 1e-6}, steps=300)
        assert found.status is Status.CONVERGED
        assert found.metrics["value"] == pytest.approx(COLLECTION[name].optimum, abs=1e-4)


class TestTheory:
    def test_the_merits_gradient_agrees_with_differences(self):
        p, weights = named_problem("HS78"), Weights(3.0, 0.2)
        rng = np.random.default_rng(0)
        x, lam = p.x0 + 0.1 * rng.standard_normal(5), rng.standard_normal(3)
        mine = weights.gradient(p.at(x), lam, p.hessian(x, lam))
        for k, d in enumerate(1e-6 * np.eye(8)):
            ahead, behind = (weights.merit(p.at(x + s * d[:5]), lam + s * d[5:]) for s in (1, -1))
            assert mine[k] == pytest.approx((ahead - behind) / 2e-6, rel=1e-6, abs=1e-6)

    def test_solved_to_the_end_a_step_is_newtons(self):
        p = named_problem("HS79")
        sketched = SketchedNewton(Kaczmarz())
        one, exact = (solve(p, m, stop=Stop(steps=1)) for m in (sketched, NewtonSQP()))
        np.testing.assert_allclose(one.x, exact.x, atol=1e-8)

    @pytest.mark.parametrize(
        "sketch", [Kaczmarz(), Gaussian(), Gaussian(3), CountSketch(3), BlockKaczmarz(4)]
    )
    def test_every_step_descends_as_the_rule_says(self, sketch):
        p, method = named_problem("HS77"), SketchedNewton(sketch)
        seen = []

        def look(run):
            s = run.state
            seen.append((s.multipliers, s.x, Weights(s.eta1, s.eta2)))

        solve(p, method, stop=Stop(below={"kkt": 1e-6}), callbacks=[look])
        x, lam = p.x0, np.zeros(p.m)
        for multipliers, after, weights in seen:
            assert weights.merit(p.at(after), multipliers) <= weights.merit(p.at(x), lam) + 1e-12
            x, lam = after, multipliers

    def test_steps_are_whole_near_the_solution(self):
        lengths = [
            quiet(named_problem(n), SketchedNewton(), below={"kkt": 1e-8}).history["length"]
            for n in ("HS7", "HS40", "HS77", "HS78", "HS79", "BT11")
        ]
        assert all((v[-2:] == 1.0).all() for v in lengths)

    def test_convergence_is_superlinear_when_theta_goes_to_zero_and_linear_otherwise(self):
        p = PoissonControl(square(16)).problem
        rates = {}
        for name, theta in {"constant": 1.0, "falling": lambda k: 0.5**k}.items():
            method = SketchedNewton(Kaczmarz(), theta=theta, conditioning=1.0)
            kkt = solve(p, method, stop=Stop(below={"kkt": 1e-9}, steps=40)).history["kkt"]
            rates[name] = kkt[1:] / kkt[:-1]
        assert rates["falling"][-1] < 0.2 * rates["falling"][0]
        assert rates["constant"][-1] > 0.2 * rates["constant"][0]
        assert len(rates["falling"]) < len(rates["constant"])

    def test_accuracy_asked_for_is_met(self):
        """``|A| psi |r| <= theta delta |b|`` for the default constants, by the step's own parts."""
        p = named_problem("HS42")
        method = SketchedNewton()
        state = method.init(p, 0)
        system = NewtonSystem.at(p, state.now, state.multipliers, method.xi)
        inner = _Inner(method, system, state)
        found = inner.direction(state.now)
        hessian = np.linalg.norm(system.H, 2)
        psi = 20 * max((hessian + system.shift) ** 2, 1) / (min(system.smallest, 1) * 0.1)
        residual = np.linalg.norm(system.A @ found.z - system.b)
        assert np.linalg.norm(system.A, 2) * psi * residual <= inner.delta * np.linalg.norm(system.b)


class TestCurvature:
    def test_large_and_sparse_estimates_are_near_the_exact_ones(self):
        rng = np.random.default_rng(0)
        G = sp.hstack(
            [sp.diags_array(np.linspace(1, 3, 600)), sp.random_array((600, 600), density=0.01, rng=rng)]
        )
        G = sp.csr_array(G)
        H = sp.diags_array(np.r_[np.linspace(-1.0, 2.0, 600), np.full(600, 0.5)]).tocsr()
        Q = np.linalg.qr(G.toarray().T, mode="complete")[0][:, 600:]
        exact = np.linalg.eigvalsh(Q.T @ (H @ Q))[0]
        assert reduced_curvature(H, G) == pytest.approx(exact, abs=0.02)
        assert spectral_norm(G) == pytest.approx(np.linalg.norm(G.toarray(), 2), rel=0.01)
        smallest = np.linalg.svd(G.toarray(), compute_uv=False)[-1] ** 2
        assert smallest <= smallest_square(G) * (1 + 1e-9)
        assert smallest_square(G) <= 1.5 * smallest

    def test_square_systems_leave_no_direction(self):
        assert reduced_curvature(np.eye(2), np.eye(2)) == math.inf


class TestProblems:
    def test_torch_and_formulas_give_the_same_derivatives(self):
        stated = circle()
        p = EqualityConstrained.from_torch(lambda x: x.sum(), lambda x: (x @ x - 2)[None], [-1.5, -0.5])
        x, lam = np.array([0.3, -2.0]), np.array([0.7])
        for name in ("value", "gradient", "constraints", "jacobian"):
            np.testing.assert_allclose(getattr(p, name)(x), getattr(stated, name)(x))
        np.testing.assert_allclose(p.hessian(x, lam), stated.hessian(x, lam))

    @pytest.mark.parametrize("way", ["formulas", "torch"])
    def test_inequalities_become_squared_slacks(self, way):
        """Rosen and Suzuki's problem (HS43): the optimum is -44 at (0, 1, 2, -1)."""
        f = "x1**2 + x2**2 + 2*x3**2 + x4**2 - 5*x1 - 5*x2 - 21*x3 + 7*x4"
        g = [
            "x1**2 + x2**2 + x3**2 + x4**2 + x1 - x2 + x3 - x4 - 8",
            "x1**2 + 2*x2**2 + x3**2 + 2*x4**2 - x1 - x4 - 10",
            "2*x1**2 + x2**2 + x3**2 + 2*x1 - x2 - x4 - 5",
        ]
        if way == "formulas":
            p = EqualityConstrained.from_formulas(f, [], np.zeros(4), at_most_zero=g)
        else:

            def read(text):
                return lambda x: eval(text, {f"x{i + 1}": x[i] for i in range(4)})

            p = EqualityConstrained.from_torch(
                read(f), None, np.zeros(4), at_most_zero=lambda x: torch.stack([read(t)(x) for t in g])
            )
        assert max(p.derivative_error().values()) < 1e-6
        found = solve(p, NewtonSQP(), stop=Stop(below={"kkt": 1e-8}))
        assert found.metrics["value"] == pytest.approx(-44.0, abs=1e-6)
        np.testing.assert_allclose(found.x[:4], [0, 1, 2, -1], atol=1e-5)

    def test_control_has_the_state_of_its_equation_and_right_derivatives(self):
        control = PoissonControl(square(10), weight=1e-4, reaction=3.0)
        x = np.random.default_rng(0).standard_normal(200)
        assert max(control.problem.derivative_error(x).values()) < 1e-6
        found = solve(control.problem, NewtonSQP(), stop=Stop(below={"kkt": 1e-10}))
        y, u = control.state(found.x), control.control(found.x)
        padded = np.pad(y, 1)
        laplace = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2] - 4 * y
        np.testing.assert_allclose(-laplace * 11**2 + 3.0 * y**3, u, atol=1e-6)

    def test_control_of_ten_thousand_unknowns_is_solved_by_projections_alone(self):
        control = PoissonControl(square(72))
        assert control.problem.n > 10_000
        found = solve(control.problem, stop=Stop(below={"kkt": 1e-6}, steps=12))
        assert found.status is Status.CONVERGED
        assert certify(control.problem, found.x).minimum()

    def test_logistic_weights_hold_their_constraints(self):
        rng = np.random.default_rng(0)
        X, w = rng.standard_normal((200, 6)), rng.standard_normal(6)
        y = np.sign(X @ w + rng.standard_normal(200))
        A = rng.standard_normal((2, 6))
        b = A @ (w / np.linalg.norm(w))
        p = constrained_logistic(X, y, A, b)
        assert max(p.derivative_error().values()) < 1e-7
        found = solve(p, stop=Stop(below={"kkt": 1e-8}))
        peer = minimize(
            p.value,
            p.x0,
            jac=p.gradient,
            method="trust-constr",
            options={"gtol": 1e-9},
            constraints={"type": "eq", "fun": p.constraints, "jac": p.jacobian},
        )
        assert found.metrics["value"] <= peer.fun + 1e-6
        np.testing.assert_allclose(A @ found.x, b, atol=1e-7)

    def test_multipliers_tell_how_the_optimum_moves(self):
        lam = certify(circle(), [-1.0, -1.0]).multipliers[0]
        moved = EqualityConstrained.from_formulas("x1 + x2", ["x1**2 + x2**2 - 2 - 0.001"], [-1.5, -0.5])
        change = solve(moved, NewtonSQP(), stop=Stop(below={"kkt": 1e-12})).metrics["value"] + 2.0
        assert change / 0.001 == pytest.approx(-lam, rel=1e-3)

    def test_a_start_at_the_answer_takes_no_steps(self):
        p = named_problem("HS79")
        found = solve(p, NewtonSQP(), stop=Stop(below={"kkt": 1e-9}))
        warm = dataclasses.replace(p, x0=found.x, multipliers=p.best_multipliers(found.x))
        assert solve(warm, SketchedNewton(), stop=Stop(below={"kkt": 1e-8})).steps == 0

    def test_certificates_read_well(self):
        said = str(certify(circle(), [-1.0, -1.0]))
        assert "multipliers              [0.5]" in said
        twice = EqualityConstrained.from_formulas(
            "x1**2 + x2**2 + x3**2", ["x1 - 1", "2*x1 - 2"], [0.5, 0.0, 1.0]
        )
        assert "not unique" in str(certify(twice, [1.0, 0.0, 0.0]))


class TestRuns:
    @pytest.mark.parametrize(
        "method",
        [
            SketchedNewton(Gaussian()),
            NewtonSQP(),
            InexactSQP(),
            InexactSQP("minres", False),
            AugmentedLagrangian(),
        ],
        ids=lambda method: method.name,
    )
    def test_a_resumed_run_has_the_same_bits(self, method, tmp_path):
        p, file = named_problem("HS77"), tmp_path / "run.npz"
        stop = Stop(below={"kkt": 1e-7})
        whole = solve(p, method, stop=stop, seed=3)
        solve(p, method, stop=Stop(steps=3), seed=3, callbacks=[Checkpoint(file, every=1)])
        again = solve(p, method, stop=stop, seed=3, resume=file)
        assert again.steps == whole.steps > 3
        np.testing.assert_array_equal(again.x, whole.x)
        for name in whole.history.names:
            np.testing.assert_array_equal(again.history[name], whole.history[name])

    def test_a_run_stops_by_the_residual_that_its_result_reports(self):
        """No multiplier exists at the solution (0, 0): the iterates' own grow for ever, the fitted ones do not."""
        p = EqualityConstrained.from_formulas("x1 + x2**2", ["x1**2"], [1.0, 1.0])
        reached = []
        found = quiet_with(
            p,
            NewtonSQP(),
            Stop(below={"kkt": 1e-6}, steps=500),
            lambda run: reached.append(run.judged()["kkt"]),
        )
        assert found.status is Status.CONVERGED
        assert found.metrics["kkt"] <= 1e-6
        assert found.metrics["kkt"] == found.history["kkt"][-1]
        assert all(kkt > 1e-6 for kkt in reached[:-1])

    @pytest.mark.parametrize("name", ["BT8", "HS61", "BYRDSPHR", "HS40"])
    def test_small_problems_report_the_judges_residual_in_every_step(self, name):
        told, judged = [], []

        def look(run):
            told.append(run.state.metrics["kkt"])
            judged.append(run.judged()["kkt"])

        quiet_with(named_problem(name), NewtonSQP(), Stop(below={"kkt": 1e-8}, steps=200), look)
        assert told == judged

    def test_large_problems_report_no_less_than_the_judge(self):
        p = PoissonControl(square(16)).problem
        told, judged = [], []

        def look(run):
            told.append(run.state.metrics["kkt"])
            judged.append(run.judged()["kkt"])

        quiet_with(p, NewtonSQP(), Stop(steps=4), look)
        assert all(a >= b * (1.0 - 1e-6) - 1e-12 for a, b in zip(told, judged, strict=True))

    @pytest.mark.parametrize("name", ["HS6", "HS40", "BT8", "HS26"])
    def test_without_method_or_stop_a_small_problem_ends_converged(self, name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RankDeficient)
            found = solve(named_problem(name))
        assert found.status is Status.CONVERGED
        assert found.metrics["kkt"] <= 1e-8
        assert found.steps < 200

    def test_without_method_or_stop_a_large_problem_ends_converged(self):
        p = PoissonControl(square(24)).problem
        found = solve(p)
        assert p.n + p.m > 1000
        assert found.status is Status.CONVERGED
        assert certify(p, found.x).minimum(tol=1e-7)

    def test_many_unknowns_by_the_method_of_multipliers_have_the_answer_of_direct_steps(self):
        p = PoissonControl(square(24), weight=1e-2).problem
        one, other = (
            solve(p, m, stop=Stop(below={"kkt": 1e-7}, steps=100))
            for m in (NewtonSQP(), AugmentedLagrangian())
        )
        assert p.n > 1000
        assert other.status is Status.CONVERGED
        np.testing.assert_allclose(other.x, one.x, atol=1e-4)

    def test_every_name_makes_a_method(self):
        for name, kind in METHODS.items():
            found = solve(named_problem("HS79"), kind(), stop=Stop(below={"kkt": 1e-4}, steps=300))
            assert found.status is Status.CONVERGED, name

    def test_evaluations_are_counted(self):
        seen = []
        p = circle()
        counted = dataclasses.replace(p, value=lambda x: (seen.append(1), p.value(x))[1])
        seen.clear()
        found = solve(counted, NewtonSQP(), stop=Stop(steps=5))
        assert found.calls == len(seen) - 1  # the judge looks once more


class TestBadInput:
    def test_dependent_constraints_are_named_and_the_multipliers_of_least_norm_taken(self):
        p = EqualityConstrained.from_formulas(
            "x1**2 + x2**2 + x3**2", ["x1 + x2 - 1", "2*x1 + 2*x2 - 2"], [3.0, 0.0, 1.0]
        )
        with pytest.warns(RankDeficient, match=r"constraints 0 follow from the others"):
            found = solve(p, SketchedNewton(), stop=Stop(below={"kkt": 1e-8}))
        assert found.status is Status.CONVERGED
        np.testing.assert_allclose(found.x, [0.5, 0.5, 0.0], atol=1e-7)
        np.testing.assert_allclose(p.best_multipliers(found.x), [-0.2, -0.4], atol=1e-6)

    @pytest.mark.parametrize("method", [SketchedNewton(), SketchedNewton(BlockKaczmarz()), NewtonSQP()])
    def test_constraints_that_cannot_be_met_end_the_run_with_their_name(self, method):
        p = EqualityConstrained.from_formulas("(x1 - 2)**2 + x2**2", ["x1**2 + x2**2 + 1"], [1.0, 1.0])
        found = quiet(p, method, below={"kkt": 1e-6}, steps=300)
        assert found.status is Status.STALLED
        assert "cannot be met" in found.message

    @pytest.mark.parametrize("method", [SketchedNewton(), NewtonSQP()])
    def test_an_objective_without_a_minimum_ends_the_run(self, method):
        p = EqualityConstrained.from_formulas("-x1**2 + x2", ["x2 - 1"], [1.0, 1.0])
        found = quiet(p, method, below={"kkt": 1e-6}, steps=10_000)
        assert found.status is Status.DIVERGED
        assert "no minimum on the constraints" in found.message
        assert np.isfinite(found.x).all()

    def test_falling_without_bound_is_an_error_of_its_own(self):
        """What `solve` turns into a status is an exception for those who step by themselves."""
        p, method = EqualityConstrained.from_formulas("-x1**2 + x2", ["x2 - 1"], [1.0, 1.0]), NewtonSQP()
        state = method.init(p, 0)
        with pytest.raises(Unbounded, match="seems to have no minimum"):
            for _ in range(10_000):
                state = method.step(p, state)

    def test_sparse_dependent_constraints_are_told_and_solved_as_dense_ones(self):
        n = 1200
        G = sp.csr_array(np.vstack([np.eye(1, n), np.eye(1, n)]))
        p = EqualityConstrained(
            value=lambda x: 0.5 * float(x @ x) - float(x.sum()),
            gradient=lambda x: x - 1.0,
            constraints=lambda x: G @ x - 1.0,
            jacobian=lambda x: G,
            hessian=lambda x, lam: sp.eye_array(n, format="csr"),
            x0=np.zeros(n),
        )
        with pytest.warns(RankDeficient):
            found = solve(p, NewtonSQP(), stop=Stop(below={"kkt": 1e-8}, steps=50))
        assert found.status is Status.CONVERGED
        np.testing.assert_allclose(found.x, 1.0, atol=1e-8)

    def test_a_value_that_is_no_number_is_told(self):
        with pytest.raises(InvalidProblem, match=r"value gives shape \(2,\); expected \(\)"):
            EqualityConstrained.from_torch(lambda x: x, lambda x: (x @ x - 2)[None], [-1.5, -0.5])

    def test_what_is_not_finite_at_the_start_is_named(self):
        with pytest.raises(NotFinite, match="value is not finite at the start"):
            EqualityConstrained.from_formulas("log(x1)", ["x1 - x2"], [-1.0, 1.0])
        with pytest.raises(NotFinite, match="x0 holds 1 NaN"):
            EqualityConstrained.from_formulas("x1", ["x1 - x2"], [math.nan, 1.0])

    def test_what_is_not_finite_on_the_way_only_shortens_the_step(self):
        p = EqualityConstrained.from_formulas("-log(x1) + x1**2", ["x1 - x2"], [20.0, 1.0])
        found = solve(p, SketchedNewton(), stop=Stop(below={"kkt": 1e-8}))
        assert found.x[0] == pytest.approx(math.sqrt(0.5), abs=1e-6)

    def test_counts_and_shapes_are_told(self):
        with pytest.raises(InvalidProblem, match="3 constraints on 2 unknowns"):
            EqualityConstrained.from_formulas("x1", ["x1", "x2", "x1 - x2"], [0.0, 0.0])
        with pytest.raises(InvalidProblem, match=r"gradient gives shape \(3,\); expected \(2,\)"):
            dataclasses.replace(circle(), gradient=lambda x: np.zeros(3))
        with pytest.raises(InvalidProblem, match=r"names y; the unknowns are x1 to x2"):
            EqualityConstrained.from_formulas("x1 + y", ["x2"], [0.0, 0.0])
        with pytest.raises(InvalidProblem, match="cannot be read"):
            EqualityConstrained.from_formulas("x1 +* 2", ["x2"], [0.0, 0.0])
        with pytest.raises(InvalidProblem, match="square grid"):
            PoissonControl(np.ones((2, 3)))
        with pytest.raises(InvalidProblem, match="-1 and 1"):
            constrained_logistic(np.eye(2), [0, 1], np.zeros((0, 2)), [])

    @pytest.mark.parametrize(
        "options",
        [{"eta1": 0.0}, {"beta": 0.5}, {"nu": 1.0}, {"theta": 0.0}, {"conditioning": 0.5}, {"limit": 0}],
    )
    def test_parameters_out_of_range_are_told(self, options):
        with pytest.raises(InvalidParameter, match=next(iter(options))):
            SketchedNewton(**options)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: NewtonSQP(eta1=-1.0), "NewtonSQP needs eta1 > 0"),
            (lambda: NewtonSQP(beta=2.0), "0 < beta < 1/2"),
            (lambda: NewtonSQP(nu=1.0), "nu > 1"),
            (lambda: InexactSQP("cg"), "gmres or minres"),
            (lambda: InexactSQP(nu=1.0), "InexactSQP needs nu > 1"),
            (lambda: InexactSQP(kappa=1.0), "0 < kappa < 1"),
            (lambda: InexactSQP(eta=0.0), "0 < eta < 1"),
            (lambda: InexactSQP(mu=0.0), "mu > 0"),
            (lambda: AugmentedLagrangian(mu=-5.0), "AugmentedLagrangian needs 0 < mu"),
            (lambda: SketchedNewton(delta=0.0), "delta > 0"),
        ],
    )
    def test_parameters_with_which_a_step_would_not_end_or_descend_are_refused(self, make, message):
        with pytest.raises(InvalidParameter, match=message):
            make()

    def test_wrong_derivatives_show_in_the_check(self):
        wrong = dataclasses.replace(circle(), gradient=lambda x: np.array([1.0, 2.0]))
        assert wrong.derivative_error()["gradient"] > 0.01
