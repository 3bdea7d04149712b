"""What is said of problems without an answer, of units, and of options: verified, named, never left to run on."""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg import Status, Stop, solve
from thalweg.constrained import (
    COLLECTION,
    AugmentedLagrangian,
    EqualityConstrained,
    InexactSQP,
    NewtonSQP,
    RankDeficient,
    SketchedNewton,
    certify,
)
from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.numerics.sketch import BlockKaczmarz

EVERY = [NewtonSQP(), SketchedNewton(), InexactSQP(), AugmentedLagrangian()]
POWERS = st.integers(-150, 150)
every_method = pytest.mark.parametrize("method", EVERY, ids=lambda method: method.name)


def stated(f, c, x0):
    return EqualityConstrained.from_formulas(f, c, x0)


def run(problem, method, **stop):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankDeficient)
        return solve(
            problem, method, stop=Stop(**({"below": {"kkt": 1e-8}, "steps": 200} | stop)), progress=False
        )


class TestConstraintsThatCannotBeMet:
    @every_method
    @pytest.mark.parametrize(
        ("constraints", "nearest", "away"),
        [
            (["x1 - 1", "x1 - 2"], [1.5], math.sqrt(0.5)),
            (
                ["x1 + x2 - 1", "2*x1 + 2*x2 - 4"],
                None,
                2 / math.sqrt(5),
            ),  # 1 and 2 for x1 + x2, weights 1 and 4
            (["x1**2 + x2**2 + 1"], [0.0, 0.0], 1.0),
        ],
        ids=["parallel", "doubled", "nonlinear"],
    )
    def test_they_are_named_with_the_least_distance(self, method, constraints, nearest, away):
        found = run(stated("x1**2 + x2**2", constraints, [0.4, 0.3]), method)
        assert found.status is Status.STALLED
        assert "constraints cannot be met" in found.message
        assert found.metrics["feasibility"] == pytest.approx(away, rel=1e-3)
        if nearest is not None:
            np.testing.assert_allclose(found.x[: len(nearest)], nearest, atol=1e-2)

    def test_sparse_ones_are_named_as_dense_ones(self):
        n = 1200
        G, c = sp.csr_array(([1.0, 1.0], ([0, 1], [0, 0])), shape=(2, n)), np.array([1.0, 2.0])
        problem = quadratic(n, G, c)
        for method in (NewtonSQP(), SketchedNewton(BlockKaczmarz(), conditioning=1.0), InexactSQP()):
            found = run(problem, method, steps=20)
            assert found.status is Status.STALLED
            assert "cannot be met" in found.message

    def test_contradicting_rows_are_not_called_redundant(self):
        with pytest.warns(RankDeficient, match="constraints 1 contradict the others"):
            solve(stated("x1**2 + x2**2", ["x1 - 1", "x1 - 2"], [0.0, 0.0]), NewtonSQP(), progress=False)

    def test_redundant_rows_follow_from_the_others_and_are_solved(self):
        with pytest.warns(RankDeficient, match="follow from the others"):
            found = solve(
                stated("x1**2 + x2**2", ["x1 - 1", "2*x1 - 2"], [0.0, 0.5]), NewtonSQP(), progress=False
            )
        assert found.status is Status.CONVERGED
        np.testing.assert_allclose(found.x, [1.0, 0.0], atol=1e-8)

    @pytest.mark.parametrize("constraint", ["x1**2 - 1", "x1**3 - 1", "cos(x1)"])
    @every_method
    def test_a_flat_start_is_no_verdict(self, method, constraint):
        """The gradient of each constraint is zero at the start, where |c| has a maximum or a saddle."""
        found = run(stated("(x1 - 0.5)**2 + x2**2", [constraint], [0.0, 0.5]), method)
        assert "cannot be met" not in found.message


def quadratic(n, G, c):
    """min |x|^2/2 - sum x with G x = c."""
    return EqualityConstrained(
        value=lambda x: 0.5 * x @ x - x.sum(),
        gradient=lambda x: x - 1.0,
        constraints=lambda x: G @ x - c,
        jacobian=lambda x: G,
        hessian=lambda x, multipliers: sp.eye_array(n, format="csr"),
        x0=np.zeros(n),
    )


class TestFunctionsThatFallForEver:
    @every_method
    @pytest.mark.parametrize(
        ("f", "c"),
        [
            ("x1", "x2 - 1"),
            ("-exp(x1)", "x2 - x1"),
            ("-x1**2", "x2 - 1"),
            ("x1", "x2 - x1**2"),
            ("1e-100*x1", "x2 - 1"),
        ],
    )
    def test_they_are_named(self, method, f, c):
        found = run(stated(f, [c], [0.1, 0.2]), method, below={}, steps=60)
        assert found.status is Status.DIVERGED
        assert "seems to have no minimum" in found.message

    @every_method
    @pytest.mark.parametrize(("f", "x1"), [("1e-3*x1**2 - x1", 500.0), ("1e-4*(x1 - 3)**4 + x2", 3.0)])
    def test_a_minimum_far_away_or_flat_is_no_verdict(self, method, f, x1):
        found = run(stated(f, ["x2 - 1"], [0.0, 0.0]), method, below={"kkt": 1e-7}, steps=400)
        assert "no minimum" not in found.message
        if found.converged:
            assert found.x[0] == pytest.approx(x1, rel=0.05)

    def test_a_penalty_too_small_says_nothing_of_f(self):
        """-x1^4 falls faster than any penalty grows; on x1 = 1 there is a single value."""
        found = run(stated("-x1**4 + x2**2", ["x1 - 1"], [0.5, 0.5]), AugmentedLagrangian(0.1))
        assert "no minimum" not in found.message


class TestUnits:
    @given(st.sampled_from(["HS7", "HS40", "HS42", "HS77", "BT11"]), POWERS, POWERS)
    @settings(max_examples=12, deadline=None)
    def test_powers_of_ten_before_f_and_c_change_no_answer(self, name, of_f, of_c):
        of_f, of_c = (power if abs(power) > 4 else 0 for power in (of_f, of_c))
        given = COLLECTION[name]
        problem = stated(
            f"1e{of_f}*({given.minimize})", [f"1e{of_c}*({c})" for c in given.subject_to], given.x0
        )
        found = run(problem, NewtonSQP(), below={"kkt": 1e-6})
        assert found.status is Status.CONVERGED
        assert found.metrics["value"] == pytest.approx(given.optimum * 10.0**of_f, rel=1e-4)
        certificate = certify(problem, found.x)
        assert certificate.minimum(1e-5)
        mine = problem.best_multipliers(found.x) * 10.0**of_c / 10.0**of_f
        exact = stated(given.minimize, given.subject_to, given.x0).best_multipliers(found.x)
        np.testing.assert_allclose(mine, exact, rtol=1e-6)
        np.testing.assert_allclose(certificate.multipliers, problem.best_multipliers(found.x))

    @every_method
    @pytest.mark.parametrize("unit", ["1e-9", "1e-150", "1e150"])
    def test_small_units_are_not_solved_at_the_start(self, method, unit):
        circle = stated(f"{unit}*(x1 + x2)", [f"{unit}*(x1**2 + x2**2 - 2)"], [-1.5, -0.5])
        assert circle.metrics(circle.x0)["kkt"] > 0.1
        found = run(circle, method, below={"kkt": 1e-6})
        np.testing.assert_allclose(found.x, [-1.0, -1.0], atol=1e-4)

    def test_ordinary_problems_are_taken_as_they_are(self):
        problem = stated("1000*x1 + 0.01*x2", ["x1**2 + x2**2 - 2"], [-1.5, -0.5])
        assert problem.unit == 1.0
        assert (problem.units == 1.0).all()
        assert problem.at(problem.x0).g.tolist() == [1000.0, 0.01]

    def test_a_start_at_the_answer_has_the_same_units(self):
        """f' vanishes there, its curvature does not: the unit is not taken from what is left of f'."""
        far, near = (
            stated("(1 - x1)**2", ["10*(x2 - x1**2)"], x0) for x0 in ([-1.2, 1.0], [1.0 + 1e-9, 1.0])
        )
        assert far.unit == near.unit == 1.0

    def test_multipliers_given_are_in_the_users_units(self):
        solved = stated("1e-30*(x1 + x2)", ["1e20*(x1**2 + x2**2 - 2)"], [-1.0, -1.0])
        again = EqualityConstrained.from_formulas(
            "1e-30*(x1 + x2)",
            ["1e20*(x1**2 + x2**2 - 2)"],
            [-1.0, -1.0],
            multipliers=solved.best_multipliers([-1, -1]),
        )
        np.testing.assert_allclose(solved.best_multipliers([-1.0, -1.0]), [0.5e-50])
        assert np.linalg.norm(again.at(again.x0).lagrangian(again.first_multipliers)) < 1e-12
        assert max(again.derivative_error([-1.2, -0.7]).values()) < 1e-6


class TestOptions:
    @pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "much", True, None])
    @pytest.mark.parametrize(
        ("method", "option"),
        [(m, o) for m in (NewtonSQP, SketchedNewton) for o in ("eta1", "eta2", "xi", "beta", "nu")]
        + [(InexactSQP, o) for o in ("mu", "kappa", "eta", "xi", "nu")]
        + [(AugmentedLagrangian, "mu"), (SketchedNewton, "delta"), (SketchedNewton, "theta")],
    )
    def test_what_is_out_of_range_is_refused_when_the_method_is_made(self, method, option, value):
        with pytest.raises(InvalidParameter, match=option):
            method(**{option: value})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"sketch": "rows"}, "needs a sketch such as Kaczmarz"),
            ({"limit": 1.5}, "limit >= 1"),
            ({"conditioning": 0.5}, "conditioning >= 1"),
            ({"conditioning": "none"}, "conditioning >= 1"),
        ],
    )
    def test_sketched_newton_refuses_what_it_cannot_use(self, options, message):
        with pytest.raises(InvalidParameter, match=message):
            SketchedNewton(**options)

    def test_a_forcing_term_out_of_range_is_refused_on_the_way(self):
        method = SketchedNewton(theta=lambda k: 2.0)
        with pytest.raises(InvalidParameter, match="0 < theta <= 1"):
            run(stated("x1 + x2", ["x1**2 + x2**2 - 2"], [-1.5, -0.5]), method)

    @pytest.mark.parametrize("make", [NewtonSQP, SketchedNewton, InexactSQP])
    def test_weights_that_hardly_change_end_a_step_all_the_same(self, make):
        f, c, x0 = "x1*x2*x3 - x1**2", ["x1**2 + x2**2 + x3**2 - 3"], [1.5, -0.2, 0.9]
        found = run(stated(f, c, x0), make(nu=1.0 + 1e-12), below={"kkt": 1e-8}, steps=2)
        assert found.steps <= 2


def rows(*triples, n=1200):
    """A sparse Jacobian from (row, column, value)."""
    i, j, values = zip(*triples, strict=True)
    return sp.csr_array((values, (i, j)), shape=(max(i) + 1, n))


class TestSparseAsDense:
    """What the dense branches survive, the sparse ones of more than 1000 unknowns do, too."""

    TWICE = rows((0, 0, 1.0), (1, 0, 2.0), (2, 3, 1.0))
    RIGHT = np.array([1.0, 2.0, 0.0])

    @staticmethod
    def stated(G, c, H):
        n = H.shape[0]
        return EqualityConstrained(
            value=lambda x: 0.5 * x @ (H @ x) - x.sum(),
            gradient=lambda x: H @ x - 1.0,
            constraints=lambda x: G @ x - c,
            jacobian=lambda x: G,
            hessian=lambda x, multipliers: H,
            x0=np.zeros(n),
        )

    @every_method
    @pytest.mark.parametrize(
        "form", [sp.csr_array, sp.csr_matrix, sp.coo_array, sp.csc_array, lambda A: A.toarray()]
    )
    def test_redundant_rows_of_any_form_are_solved(self, method, form):
        problem = self.stated(form(self.TWICE), self.RIGHT, sp.csr_array(sp.eye_array(1200)))
        found = run(problem, method, steps=15)
        assert found.status is Status.CONVERGED
        exact = np.ones(1200)
        exact[3] = 0.0
        np.testing.assert_allclose(found.x, exact, atol=1e-6)

    @pytest.mark.parametrize("method", EVERY[:1] + EVERY[2:], ids=lambda method: method.name)
    @pytest.mark.parametrize("curvature", [0.0, -1.0])
    def test_no_curvature_and_redundant_rows_are_told_as_no_minimum(self, method, curvature):
        H = sp.csr_array(sp.diags_array(np.r_[1.0, curvature, curvature * np.ones(1198)]))
        found = run(self.stated(self.TWICE, self.RIGHT, H), method, steps=20)
        assert found.status is Status.DIVERGED
        assert "no minimum" in found.message

    def test_nearly_dependent_rows_do_not_spoil_the_step(self):
        near = rows((0, 0, 1.0), (0, 1, 1.0), (1, 0, 1.0), (1, 1, 1.0 + 1e-15))
        found = run(self.stated(near, np.ones(2), sp.csr_array(sp.eye_array(1200))), NewtonSQP(), steps=30)
        np.testing.assert_allclose(near @ found.x, 1.0, atol=1e-8)
        np.testing.assert_allclose(found.x[2:], 1.0, atol=1e-5)


class TestCurvatureWithRedundantRows:
    @pytest.mark.parametrize(("f", "is_minimum"), [("x1 + x2**2", True), ("x1 - x2**2", False)])
    def test_a_certificate_counts_them_once(self, f, is_minimum):
        """Two rows that say the same leave a direction on two unknowns."""
        found = certify(stated(f, ["x1 - 1", "2*x1 - 2"], [1.0, 0.0]), [1.0, 0.0])
        assert found.minimum() is is_minimum
        assert found.curvature == pytest.approx(2.0 if is_minimum else -2.0)

    @every_method
    def test_a_maximum_on_them_is_left(self, method):
        problem = stated("x2**4 - x2**2 + x1", ["x1 - 1", "2*x1 - 2"], [1.0, 0.1])
        found = run(problem, method)
        assert found.status is Status.CONVERGED
        assert abs(found.x[1]) == pytest.approx(math.sqrt(0.5), abs=1e-5)


class TestThreads:
    def test_eight_threads_read_and_solve_the_same(self):
        def one(k):
            problem = stated(f"{1 + k % 2}*(x1 + x2)", ["x1**2 + x2**2 - 2"], [-1.5, -0.5])
            return run(problem, NewtonSQP()).x

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(one, range(32)))
        np.testing.assert_allclose(answers, -np.ones((32, 2)), atol=1e-8)

    def test_eight_threads_share_a_problem(self):
        problem = stated("x1 + x2", ["x1**2 + x2**2 - 2"], [-1.5, -0.5])
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda k: run(problem, EVERY[k % 4]).x, range(16)))
        for k, x in enumerate(answers):
            np.testing.assert_array_equal(x, answers[k % 4])


@every_method
@pytest.mark.parametrize("f", ["exp(x1**2)*x2", "1e200*x1**4 + x2", "exp(100*x1) + x2**2"])
def test_numbers_out_of_range_raise_no_warning_of_numpys(method, f):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", RankDeficient)
        solve(stated(f, ["x1*x2 - 30"], [6.0, 5.0]), method, stop=Stop(steps=8), progress=False)


@pytest.mark.parametrize(
    "which", ["value", "gradient", "constraints", "jacobian", "hessian", "sparse jacobian"]
)
def test_a_function_that_turns_complex_on_the_way_is_refused(which):
    """Real at the start, complex elsewhere: no part of it is dropped."""
    parts = {
        "value": lambda x: 0.5 * x @ x,
        "gradient": lambda x: x.copy(),
        "constraints": lambda x: np.array([x.sum() - 1.0]),
        "jacobian": lambda x: np.ones((1, 2)),
        "hessian": lambda x, multipliers: np.eye(2),
    }
    name = which.split()[-1]
    plain, sparse = parts[name], which.startswith("sparse")

    def turning(x, *rest):
        found = plain(x, *rest) + (0 if not x.any() else 1e-3j)
        return sp.csr_array(found) if sparse else found

    problem = EqualityConstrained(**(parts | {name: turning}), x0=np.zeros(2))
    with pytest.raises(InvalidProblem, match="complex at a point on the way"):
        if name != "hessian":  # of which one step of Newton's method needs no second
            solve(problem, NewtonSQP(), stop=Stop(below={"kkt": 1e-12}, steps=5), progress=False)
        problem.curvature(np.ones(2), np.zeros(1))
