"""BO-REP, penalty methods and their peers against a bilevel problem solved by hand; what they must refuse."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hand_solved import (
    CURVATURE,
    DOUBLE,
    RESPONSE,
    SOLUTION,
    ZERO,
    B,
    C,
    H,
    distance,
    lower,
    noisy,
    normal,
    objective,
    quadratic,
    upper,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from thalweg import Status, Stop, solve
from thalweg.bilevel import (
    AID,
    BOME,
    BOREP,
    ITD,
    MASOBA,
    MRBO,
    SABA,
    TTSA,
    Bilevel,
    CGInverse,
    Decay,
    DirectInverse,
    EpochSGD,
    FixedPointInverse,
    LowerErrorMonitor,
    Minibatches,
    MomentumPenalty,
    NegativeCurvature,
    NeumannInverse,
    Pair,
    Penalty,
    SmoothnessMonitor,
    StocBiO,
    explicit_hypergradient,
    hypergradient,
    penalty_value,
)
from thalweg.bilevel.borep import ball_sgd
from thalweg.core import Checkpoint, InvalidParameter, InvalidProblem, NotFinite
from thalweg.numerics.projections import box

STEP = 0.5 / CURVATURE
#: Method, the error that it must come below, and within how many steps.
METHODS = {
    "penalty": (Penalty(0.1, STEP, penalty=1e-3, inner_steps=20), 2e-3, 100),
    "momentum penalty": (MomentumPenalty(0.02, STEP, penalty=1e-2, momentum=0.5), 1e-2, 300),
    "aid-cg": (AID(0.1, STEP, inner_steps=20), 1e-6, 150),
    "aid-fp": (AID(0.1, STEP, inner_steps=20, inverse=FixedPointInverse(100, STEP)), 1e-3, 50),
    "stocbio": (StocBiO(0.1, STEP, inverse=NeumannInverse(60, STEP)), 1e-3, 50),
    "ttsa": (TTSA(Decay(0.1, 0.6, 100.0), STEP, inverse=NeumannInverse(60, STEP)), 1e-2, 100),
    "itd": (ITD(0.1, STEP, inner_steps=150), 1e-2, 50),
    "soba": (MASOBA(0.05, STEP, momentum=0.0), 1e-6, 500),
    "ma-soba": (MASOBA(0.05, STEP, momentum=0.5), 1e-6, 800),
    "saba": (SABA(0.05, STEP), 1e-6, 500),
    "mrbo": (MRBO(0.05, STEP, inverse=NeumannInverse(60, STEP)), 1e-3, 150),
    "bo-rep": (BOREP(1e-3, inner_step_size=STEP, inverse=DirectInverse(), inner_steps=10), 5e-2, 800),
}


class TestQuadratic:
    @pytest.mark.parametrize("name", METHODS)
    def test_every_method_finds_the_closed_form_solution(self, name):
        method, error, steps = METHODS[name]
        found = solve(quadratic(), method, stop=Stop(steps=steps))
        assert distance(found) < error

    def test_bome_goes_downhill(self):
        problem = quadratic()
        found = solve(problem, BOME(0.02, STEP), stop=Stop(steps=500))
        gap = float(objective(found.x.x) - objective(SOLUTION))
        assert gap < 0.2 * float(objective(torch.zeros(3, dtype=DOUBLE)) - objective(SOLUTION))

    @pytest.mark.parametrize(
        "inverse",
        [DirectInverse(), CGInverse(10), NeumannInverse(3000, STEP), FixedPointInverse(3000, STEP)],
        ids=lambda i: type(i).__name__,
    )
    def test_every_inverse_gives_the_closed_form_gradient(self, inverse):
        x = normal(3)
        found = hypergradient(quadratic(), x, RESPONSE @ x, inverse)
        torch.testing.assert_close(found.gradient, torch.func.grad(objective)(x), rtol=1e-6, atol=1e-8)

    def test_the_randomised_series_has_the_sums_expectation(self):
        x = normal(3)
        problem, generator = quadratic(), torch.Generator().manual_seed(1)
        short = NeumannInverse(4, STEP)
        told = hypergradient(problem, x, RESPONSE @ x, short).gradient
        random = NeumannInverse(4, STEP, randomised=True)
        some = torch.stack(
            [hypergradient(problem, x, RESPONSE @ x, random, generator).gradient for _ in range(800)]
        )
        spread = some.std(0) / math.sqrt(len(some))
        assert bool(((some.mean(0) - told).abs() < 4 * spread + 1e-12).all())

    def test_the_explicit_hypergradient_is_exact(self):
        x = normal(3)
        found = explicit_hypergradient(quadratic(), x, RESPONSE @ x)
        torch.testing.assert_close(found, torch.func.grad(objective)(x))

    def test_one_step_of_aid_is_the_textbooks(self):
        x, y = normal(3), normal(5)
        problem = Bilevel(upper, lower, x, y)
        found = solve(problem, AID(0.1, STEP, inner_steps=1, inverse=DirectInverse()), stop=Stop(steps=1))
        new_y = y - STEP * (H @ y - B @ x)
        slope = x + RESPONSE.T @ (new_y - C)
        torch.testing.assert_close(found.x.y, new_y)
        torch.testing.assert_close(found.x.x, x - 0.1 * slope)

    def test_itd_differentiates_its_own_steps(self):
        x, y = normal(3), normal(5)
        found = solve(Bilevel(upper, lower, x, y), ITD(0.1, STEP, inner_steps=3), stop=Stop(steps=1))

        def unrolled(x):
            z = y
            for _ in range(3):
                z = z - STEP * (H @ z - B @ x)
            return upper(x, z)

        torch.testing.assert_close(found.x.x, x - 0.1 * torch.func.grad(unrolled)(x))


class TestNoise:
    def test_recursive_momentum_is_closer_than_the_plain_single_loop(self):
        plain = MomentumPenalty(0.02, STEP, penalty=0.1, momentum=1.0)
        recursive = MomentumPenalty(0.02, STEP, penalty=0.1, momentum=0.05)
        errors = {"plain": [], "recursive": []}
        for name, method in (("plain", plain), ("recursive", recursive)):
            for seed in range(3):
                found = solve(noisy(1.0), method, stop=Stop(steps=250), seed=seed)
                errors[name].append(distance(found))
        assert np.median(errors["recursive"]) < 0.7 * np.median(errors["plain"])

    def test_the_default_schedules_come_closer_with_more_steps(self):
        method = MomentumPenalty(inner_step_size=Decay(STEP, 0.4, 10.0))
        errors = [
            np.median([distance(solve(noisy(0.1), method, stop=Stop(steps=n), seed=i)) for i in range(3)])
            for n in (60, 240)
        ]
        assert errors[1] / errors[0] < 1.25 * method.penalty(240) / method.penalty(60)

    def test_sabas_memory_takes_the_noise_of_a_finite_sum_out(self):
        """At fixed steps MA-SOBA hovers; SABA converges."""
        data = normal(40, 3)

        def g(x, y, batch):
            return 0.5 * (y - x - batch[0]).square().sum(1).mean()

        def f(x, y, batch):
            return 0.5 * (y + batch[0]).square().sum(1).mean() + 0.05 * x.square().sum()

        batches = Minibatches((data,), 4)
        zero = torch.zeros(3, dtype=DOUBLE)
        problem = Bilevel(f, g, zero, zero, upper_batches=batches, lower_batches=batches)
        solution = -2.0 * data.mean(0) / 1.1
        errors = {}
        for method in (SABA(0.1, 0.3), MASOBA(0.1, 0.3)):
            found = solve(problem, method, stop=Stop(steps=1500))
            errors[type(method)] = float(torch.linalg.vector_norm(found.x.x - solution))
        assert errors[SABA] < 1e-6 < 1e-3 < errors[MASOBA]


class TestBOREP:
    @settings(max_examples=20, deadline=None)
    @given(st.floats(1e-4, 1.0), st.floats(0.0, 0.99), st.integers(1, 5))
    def test_x_moves_by_exactly_eta_and_y_rests_between_periods(self, eta, beta, period):
        method = BOREP(eta, beta, inner_step_size=STEP, period=period)
        places = []
        solve(noisy(0.5), method, stop=Stop(steps=7), callbacks=[lambda run: places.append(run.state.x)])
        for k, (before, after) in enumerate(itertools.pairwise(places), start=1):
            assert float(torch.linalg.vector_norm(after.x - before.x)) == pytest.approx(eta, rel=1e-9)
            assert torch.equal(after.y, before.y) == (k % period != 0)

    def test_with_period_one_and_no_refinement_it_is_the_textbook_update(self):
        x, y = normal(3), normal(5)
        method = BOREP(
            0.1, 0.5, DirectInverse(), period=1, inner_steps=1, inner_step_size=STEP, refinement=None
        )
        places = []
        solve(
            Bilevel(upper, lower, x, y),
            method,
            stop=Stop(steps=2),
            callbacks=[lambda r: places.append(r.state.x)],
        )
        m = x + RESPONSE.T @ (y - C)
        first = x - 0.1 * m / torch.linalg.vector_norm(m)
        new_y = y - STEP * (H @ y - B @ first)
        m = 0.5 * m + 0.5 * (first + RESPONSE.T @ (new_y - C))
        torch.testing.assert_close(places[0].x, first)
        torch.testing.assert_close(places[1].x, first - 0.1 * m / torch.linalg.vector_norm(m))

    def test_renewals_stay_in_the_ball(self):
        problem, x, y = noisy(1.0), normal(3), normal(5)
        found = ball_sgd(problem, x, y, 20, 10.0 * STEP, 0.1, torch.Generator())
        assert float(torch.linalg.vector_norm(found - y)) <= 0.1 + 1e-12

    def test_refinement_is_closer_than_as_many_steps_of_sgd(self):
        x = normal(3)
        zero = torch.zeros(5, dtype=DOUBLE)
        refined, plain = [], []
        for seed in range(3):
            random = torch.Generator().manual_seed(seed)
            y, calls = EpochSGD(6, 20, STEP)(noisy(1.0), x, zero, random)
            refined.append(float(torch.linalg.vector_norm(y - RESPONSE @ x)))
            last = zero
            for _ in range(calls):
                last = ball_sgd(noisy(1.0), x, last, 1, STEP, math.inf, random)
            plain.append(float(torch.linalg.vector_norm(last - RESPONSE @ x)))
        assert np.median(refined) < 0.5 * np.median(plain)

    def test_where_curvature_grows_with_the_gradient_a_fixed_step_fails(self):
        """f = y^4, y = x, from x = 10: the curvature falls from 1200 to nothing."""
        problem = Bilevel(
            lambda x, y: y.pow(4).sum(), lambda x, y: (y - x).square().sum(), ZERO + 10, ZERO + 10
        )
        stop = Stop(steps=400)
        ours = solve(problem, BOREP(0.05, inner_step_size=0.3), stop=stop)
        assert abs(float(ours.x.x)) < 0.3
        for step in (1e-1, 1e-2):
            assert solve(problem, StocBiO(step, 0.3), stop=stop).status is Status.DIVERGED
        assert abs(float(solve(problem, StocBiO(1e-4, 0.3), stop=stop).x.x)) > 1.0

    def test_the_monitors_see_smoothness_grow_and_the_lower_error(self):
        problem = Bilevel(
            lambda x, y: torch.cosh(3 * x).sum() + y.sum(),
            lambda x, y: (y - x).square().sum(),
            ZERO + 2,
            ZERO,
        )
        smooth, error = SmoothnessMonitor(), LowerErrorMonitor(every=4)
        solve(
            problem,
            BOREP(0.02, inner_step_size=0.3, period=4),
            stop=Stop(steps=40),
            callbacks=[smooth, error],
        )
        _, slope = smooth.fit  # f'' = 9 cosh, f' = 3 sinh
        assert slope == pytest.approx(3.0, rel=0.2)
        assert sorted(error.errors) == [*range(4, 41, 4)]
        assert 0.0 < max(error.errors.values()) < 0.2


class TestPytreesAndModules:
    def test_a_modules_parameters_are_the_lower_variable(self):
        net = torch.nn.Linear(4, 1)
        X = torch.randn(30, 4)
        y = X.sum(1, keepdim=True)  # a signal that the weight's penalty hides

        def g(x, y_, batch):
            inputs, targets = batch
            out = torch.func.functional_call(net, y_, inputs)
            return (out - targets).square().mean() + x["log"].exp() * y_["weight"].square().sum()

        def f(x, y_, batch):
            return g({"log": torch.tensor(-50.0)}, y_, batch)

        problem = Bilevel(
            f,
            g,
            {"log": torch.tensor(0.0)},
            net,
            upper_batches=Minibatches((X, y), 8),
            lower_batches=Minibatches((X, y), 8),
            judge=lambda x, y_: {"weight": float(y_["weight"].abs().max())},
        )
        before = net.weight.detach().clone()
        found = solve(problem, Penalty(0.1, 0.1, penalty=0.5), stop=Stop(steps=20))
        assert torch.equal(net.weight, before)
        assert set(found.x.y) == {"weight", "bias"}
        assert found.x.x["log"] < 0.0  # it is better without the penalty
        assert "weight" in found.metrics

    @pytest.mark.parametrize(
        "method",
        [
            Penalty(0.02, STEP),
            MomentumPenalty(0.02, STEP, penalty=0.1, momentum=0.5),
            AID(0.05, STEP),
            StocBiO(0.05, STEP, inverse=NeumannInverse(10, STEP)),
            TTSA(inner_step_size=STEP, inverse=NeumannInverse(10, STEP, randomised=True)),
            ITD(0.05, STEP),
            BOME(0.02, STEP),
            MASOBA(0.05, STEP),
            MRBO(0.05, STEP, inverse=NeumannInverse(10, STEP)),
            BOREP(1e-2, inner_step_size=STEP),
            SABA(0.05, STEP),
        ],
        ids=lambda method: type(method).__name__,
    )
    def test_resuming_gives_the_same_bits(self, tmp_path, method):
        problem = quadratic() if isinstance(method, SABA) else noisy(0.1)
        whole = solve(problem, method, stop=Stop(steps=20))
        solve(problem, method, stop=Stop(steps=11), callbacks=[Checkpoint(tmp_path / "run")])
        resumed = solve(problem, method, stop=Stop(steps=20), resume=tmp_path / "run")
        assert torch.equal(resumed.x.x, whole.x.x)
        assert torch.equal(resumed.x.y, whole.x.y)
        assert resumed.calls == whole.calls
        for name in whole.history.names:
            np.testing.assert_array_equal(resumed.history[name], whole.history[name])

    def test_every_method_reports_what_the_problems_own_rule_asks_for(self):
        """``solve(problem, method)`` without a stop is not refused, whichever the method."""
        asked = set(quadratic().recommended_stop().below)
        for name, (method, *_) in METHODS.items():
            found = solve(quadratic(), method, stop=Stop(steps=1))
            assert asked <= set(found.history.names), name


class TestWithoutMethodOrStop:
    """``solve(problem)`` alone ends CONVERGED, at the known answer."""

    def test_the_quadratic(self):
        found = solve(quadratic())
        assert found.status is Status.CONVERGED
        assert distance(found) < 2e-4  # a gradient of 1e-4, and a curvature of one at least

    def test_a_ridge_penalty_chosen_by_held_out_data(self):
        """Against a search of the penalty in one dimension, the lower level solved by its normal equations."""
        random = torch.Generator().manual_seed(0)
        X = torch.randn(60, 5, generator=random, dtype=DOUBLE)
        y = X @ torch.tensor([1.0, -1.0, 0.5, 0.0, 0.0], dtype=DOUBLE)
        y = y + 2.0 * torch.randn(60, generator=random, dtype=DOUBLE)
        gram, right = X[:15].T @ X[:15] / 15, X[:15].T @ y[:15] / 15

        def g(x, w):
            return 0.5 * w @ gram @ w - right @ w + 0.5 * x.exp() * w.square().sum()

        def f(x, w):
            return 0.5 * (X[15:] @ w - y[15:]).square().mean()

        found = solve(Bilevel(f, g, torch.tensor(0.0, dtype=DOUBLE), torch.zeros(5, dtype=DOUBLE)))
        eye = torch.eye(5, dtype=DOUBLE)

        def held_out(log):
            return float(f(None, torch.linalg.solve(gram + math.exp(log) * eye, right)))

        best = minimize_scalar(held_out, bounds=(-5.0, 5.0), method="bounded", options={"xatol": 1e-9})
        assert found.status is Status.CONVERGED
        assert abs(best.x) < 4.9  # inside
        assert found.metrics["upper"] == pytest.approx(best.fun, abs=1e-5)
        assert float(found.x.x) == pytest.approx(best.x, abs=1e-3)

    def test_a_lower_level_in_a_box(self):
        """``y = clip(x)``, so that the best x is 2/2.2; the penalty method is within its penalty, a hundredth."""
        zero = torch.zeros(3, dtype=DOUBLE)
        problem = Bilevel(
            lambda x, y: (y - 1.0).square().sum() + 0.1 * x.square().sum(),
            lambda x, y: (y - x).square().sum(),
            zero,
            zero,
            y_set=lambda y: box(y, -2.0, 2.0),
        )
        found = solve(problem)
        assert found.status is Status.CONVERGED
        torch.testing.assert_close(found.x.x, zero + 1.0 / 1.1, atol=2e-2, rtol=0)

    def test_stochastic_gradients_have_a_length(self):
        lengths = []
        solve(noisy(0.1), callbacks=[lambda run: not lengths.append(run.stop.steps)])
        assert lengths == [1000]


class TestBadInput:
    def test_an_unbounded_lower_level_is_named(self):
        problem = Bilevel(lambda x, y: y.sum(), lambda x, y: -(y - x).square().sum(), ZERO, ZERO + 1)
        found = solve(problem, Penalty(0.01, 0.5), stop=Stop(steps=200))
        assert found.status is Status.DIVERGED
        assert "unbounded below" in found.message
        method = Penalty(0.01, 0.5)
        state = method.init(problem, 0)
        with pytest.raises(
            NotFinite, match=r"Penalty: the lower level's variable grew to .* after \d+ steps"
        ):
            for _ in range(200):
                state = method.step(problem, state)

    def test_constraints_on_the_lower_level_are_refused_by_implicit_methods(self):
        problem = quadratic(y_set=lambda y: box(y, 0.0, 1.0))
        for method in (AID(), StocBiO(), ITD(), MASOBA(), SABA(), MRBO(), BOREP()):
            with pytest.raises(InvalidProblem, match=r"unconstrained lower level.*Penalty"):
                solve(problem, method)

    def test_an_empty_set_is_refused(self):
        with pytest.raises(InvalidProblem, match="low <= high"):
            quadratic(x_set=lambda x: box(x, 1.0, 0.0))
        with pytest.raises(InvalidProblem, match=r"x_set moves its own result.*empty"):
            quadratic(x_set=lambda x: x + 1.0)
        with pytest.raises(InvalidProblem, match=r"y_set gives NaN"):
            quadratic(y_set=lambda y: y * math.nan)

    @pytest.mark.parametrize("method", [Penalty, MomentumPenalty])
    def test_a_penalty_that_is_not_positive_is_refused(self, method):
        with pytest.raises(InvalidParameter, match="needs penalty > 0; got 0"):
            method(penalty=0.0)
        with pytest.raises(InvalidParameter, match="needs penalty > 0"):
            penalty_value(quadratic(), torch.zeros(3, dtype=DOUBLE), -1.0)

    def test_mismatched_pytrees_are_refused(self):
        with pytest.raises(InvalidProblem, match=r"(?s)x_set gives .* expected"):
            quadratic(x_set=lambda x: (x, x))
        with pytest.raises(InvalidProblem, match="floating-point"):
            Bilevel(upper, lower, torch.zeros(3, dtype=torch.int64), ZERO)
        with pytest.raises(InvalidProblem, match="one type"):
            Bilevel(upper, lower, (ZERO, torch.zeros(1)), ZERO)
        with pytest.raises(InvalidProblem, match="scalar"):
            solve(
                Bilevel(lambda x, y: y, lower, torch.zeros(3, dtype=DOUBLE), torch.zeros(5, dtype=DOUBLE)),
                AID(),
            )

    def test_an_oracle_that_is_not_finite_is_named(self):
        problem = Bilevel(lambda x, y: (y * math.nan).sum(), lambda x, y: (y - x).square().sum(), ZERO, ZERO)
        for method in (Penalty(), AID(), BOREP(), MASOBA(), BOME()):
            found = solve(problem, method)
            assert found.status is Status.DIVERGED
            assert "upper level's gradient in y is not finite" in found.message
        with pytest.raises(NotFinite, match="upper level's gradient in y is not finite"):
            solve(problem, SABA())  # its tables are made at the start

    def test_negative_curvature_is_told(self):
        problem = Bilevel(lambda x, y: y.sum(), lambda x, y: -(y - x).square().sum(), ZERO, ZERO)
        for inverse in (NeumannInverse(3, 0.1), FixedPointInverse(3, 0.1)):
            with pytest.warns(NegativeCurvature, match="curves downwards along a vector"):
                hypergradient(problem, ZERO, ZERO, inverse)

    def test_a_neumann_step_that_is_too_long_is_named(self):
        with pytest.raises(InvalidParameter, match="Neumann series diverged"):
            hypergradient(quadratic(), SOLUTION, RESPONSE @ SOLUTION, NeumannInverse(3000, 3.0))

    def test_parameters_out_of_range_are_refused(self):
        for make, message in (
            (lambda: BOREP(0.0), "BOREP needs step_size > 0"),
            (lambda: BOREP(momentum=1.0), "0 <= momentum < 1"),
            (lambda: BOREP(period=0), "period >= 1"),
            (lambda: EpochSGD(epochs=0), "epochs >= 1"),
            (lambda: AID(inner_steps=0), "AID needs inner_steps >= 1"),
            (lambda: StocBiO(step_size=-1.0), "StocBiO needs step_size > 0"),
            (lambda: MomentumPenalty(momentum=2.0), "momentum <= 1"),
            (lambda: Decay(0.0), "Decay needs first > 0"),
            (lambda: NeumannInverse(0), "terms >= 1"),
            (lambda: CGInverse(tol=0.0), "CGInverse needs tol > 0"),
            (lambda: CGInverse(max_steps=0), "CGInverse needs max_steps >= 1"),
            (lambda: FixedPointInverse(step_size=0.0), "FixedPointInverse needs step_size > 0"),
            (lambda: SmoothnessMonitor().fit, "three places"),
        ):
            with pytest.raises(InvalidParameter, match=message):
                make()
        with pytest.raises(InvalidProblem, match="one length > 0"):
            Minibatches((torch.zeros(3), torch.zeros(4)), 2)
        with pytest.raises(InvalidProblem, match="Minibatches, or absent"):
            solve(noisy(0.1), SABA())

    def test_at_rest_nothing_moves(self):
        problem = Bilevel(lambda x, y: (y * 0).sum(), lambda x, y: (y - x).square().sum(), ZERO, ZERO)
        found = solve(problem, BOREP(0.1), stop=Stop(steps=3))
        assert torch.equal(found.x.x, ZERO)
        assert problem.metrics(Pair(ZERO, ZERO)) == {"upper": 0.0, "lower": 0.0}
