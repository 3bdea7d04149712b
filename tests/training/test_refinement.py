"""Refined schedules and the guarantees against closed forms, inequalities and finite differences."""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter
from scipy.optimize import minimize

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.training import (
    LinearDecay,
    RefinedSchedule,
    WarmupPolynomial,
    bound,
    conversion_bound,
    fit_warmup_poly,
    refine,
)
from thalweg.training.guarantees import NormsLeftOut, bound_and_gradient, from_weights, weights_of
from thalweg.training.refinement import NormsRise
from thalweg.training.schedules import LongerThanRecorded

pytestmark = pytest.mark.filterwarnings("ignore::thalweg.training.refinement.NormsRise")

norms = st.lists(st.floats(0.05, 20.0), min_size=3, max_size=40).map(np.array)


def linear(steps: int) -> np.ndarray:
    return np.linspace(1.0, 0.0, steps)


@pytest.mark.parametrize("geometry", ["l1", "l2"])
@pytest.mark.parametrize("steps", [2, 3, 10, 1001])
def test_constant_norms_give_linear_decay(geometry: str, steps: int) -> None:
    np.testing.assert_allclose(refine(np.full(steps, 3.7), geometry).values, linear(steps), atol=1e-12)


def test_numerical_method_tends_to_linear_decay_for_constant_norms() -> None:
    # its bound is another one, whose minimiser is linear but for an end of a few steps
    found = refine(np.ones(400), method="numerical").values
    np.testing.assert_allclose(found, linear(400), atol=0.01)
    assert bound(found, np.ones(400)) <= bound(linear(400), np.ones(400))
    assert bound(linear(400), np.ones(400)) < 1.002 * bound(found, np.ones(400))


def test_closed_form_by_hand() -> None:
    G = np.array([1.0, 2.0, 4.0])
    squares = np.array([1.0, 0.25, 0.0625])  # weights, G^-2
    by_hand = squares * np.array([0.3125, 0.0625, 0.0])
    np.testing.assert_allclose(refine(G, smoothing=0).values, by_hand / by_hand.max())
    weights = np.array([1.0, 0.5, 0.25])
    by_hand = weights * np.array([0.75, 0.25, 0.0])
    np.testing.assert_allclose(refine(G, "l1", smoothing=0).values, by_hand / by_hand.max())


@given(norms)
def test_closed_form_has_the_least_guarantee_that_weights_can_have(G: np.ndarray) -> None:
    found = refine(G, smoothing=0).values
    least = 1.0 / np.sqrt((G**-2.0).sum())
    assert conversion_bound(found, G) == pytest.approx(least, rel=1e-3)
    for other in (linear(len(G)), np.append(np.ones(len(G) - 1), 0.0), np.append(G[1:], 0.0)):
        assert conversion_bound(other, G) >= least * (1 - 1e-9)


@settings(max_examples=20, deadline=None)
@given(norms)
def test_numerical_method_is_no_worse_than_the_closed_form_in_its_own_bound(G: np.ndarray) -> None:
    closed, numerical = (refine(G, smoothing=0, method=m).values for m in ("closed-form", "numerical"))
    assert bound(numerical, G) <= bound(closed, G) * (1 + 1e-6)


@given(norms, st.floats(1e-6, 1e6), st.sampled_from(["l1", "l2"]))
def test_unit_of_the_norms_does_not_matter(G: np.ndarray, unit: float, geometry: str) -> None:
    np.testing.assert_allclose(refine(unit * G, geometry).values, refine(G, geometry).values, rtol=1e-9)


@given(st.lists(st.floats(0.1, 5.0), min_size=2, max_size=30).map(np.array))
def test_weights_and_schedules_are_inverse_to_each_other(w: np.ndarray) -> None:
    rates = from_weights(w)
    scale = np.sqrt(rates[0] / (w[0] * w[1:].sum()))
    np.testing.assert_allclose(weights_of(rates, scale * w[-1]), scale * w, rtol=1e-9)


@given(norms, st.randoms(use_true_random=False))
def test_gradient_of_the_bound_by_finite_differences(G: np.ndarray, random) -> None:
    rates = np.array([0.1 + random.random() for _ in G])
    _, gradient = bound_and_gradient(rates, G**2)
    for i in range(len(G)):
        h = np.zeros(len(G))
        h[i] = 1e-6
        slope = (bound_and_gradient(rates + h, G**2)[0] - bound_and_gradient(rates - h, G**2)[0]) / 2e-6
        assert gradient[i] == pytest.approx(slope, rel=1e-4, abs=1e-5 * np.abs(gradient).max())


@pytest.mark.parametrize("geometry", ["l1", "l2"])
@pytest.mark.parametrize("G", [[1e-300, 1e300, 1.0], [1e-200, 3e-200, 1.0, 1e200], [5e-324, 1e308, 1e308]])
def test_norms_of_any_spread_have_the_closed_forms_schedule(G: list[float], geometry: str) -> None:
    """In whole numbers of any size: w_t sum_{s > t} w_s over its largest."""
    power = 2 if geometry == "l2" else 1
    weights = [Fraction(1) / Fraction(g) ** power for g in G]
    rates = [w * sum(weights[t + 1 :]) for t, w in enumerate(weights)]
    expected = [float(rate / max(rates)) for rate in rates]
    np.testing.assert_allclose(refine(G, geometry, smoothing=0).values, expected, rtol=1e-11)


@given(norms, st.integers(-150, 150), st.integers(-100, 100))
def test_schedules_and_guarantees_follow_the_units_of_norms_and_rates(G: np.ndarray, k: int, j: int) -> None:
    unit, rate = 10.0**k, 10.0**j
    np.testing.assert_allclose(refine(unit * G).values, refine(G).values, rtol=1e-9)
    schedule = linear(len(G))
    for guarantee in (bound, conversion_bound):
        assert guarantee(rate * schedule, unit * G) == pytest.approx(unit * guarantee(schedule, G), rel=1e-5)
    unit, rate = unit**0.5, rate**0.5
    whole = bound(rate * schedule, unit * G, distance=unit * rate, tuned=False)
    assert whole / unit / unit / rate == pytest.approx(bound(schedule, G, tuned=False), rel=1e-5)


def test_norms_that_rise_are_told_of_and_others_are_not() -> None:
    rising = np.append(np.linspace(10, 50, 40), np.full(80, 50.0))
    with pytest.warns(NormsRise, match=r"from 1\d(\.\d)? in the first tenth of the run to 50 in the last"):
        refine(rising)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for steady in (np.ones(100), np.linspace(5, 1, 100), np.linspace(1, 1.5, 100), [1.0, 3.0]):
            refine(steady)


def test_bound_is_the_papers_double_sum() -> None:
    rng = np.random.default_rng(0)
    rates, G, D = rng.uniform(0.1, 1, 12), rng.uniform(0.5, 2, 12), 1.7

    def as_printed(last: float) -> float:
        eta = np.append(rates[:-1], last)
        S = eta.sum()
        whole = D**2 / (2 * S) + (eta**2 * G**2).sum() / (2 * S)
        for k in range(len(eta) - 1):
            inner = (eta[k:] ** 2 * G[k:] ** 2).sum()
            whole += 0.5 * eta[k] / (eta[k + 1 :].sum() * eta[k:].sum()) * inner
        return whole

    least = minimize(lambda x: as_printed(np.exp(x[0])), [0.0], method="Nelder-Mead", tol=1e-12).fun
    assert bound(rates, G, D, tuned=False) == pytest.approx(least, rel=1e-6)
    multiples = [bound(c * rates, G, D, tuned=False) for c in np.geomspace(0.01, 100, 2001)]
    assert bound(rates, G, D) == pytest.approx(min(multiples), rel=1e-4)


@given(norms, st.sampled_from([0.1, 1.0, 10.0]), st.booleans())
def test_guarantee_holds_on_a_run_of_sgd(shape: np.ndarray, size: float, refined: bool) -> None:
    # on the norm of x, whose subgradients all have norm one, from a distance of one
    steps = len(shape)
    rates = size * (from_weights(shape) if refined else shape / shape.max()) / np.sqrt(steps)
    x = np.array([0.6, -0.8])
    for eta in rates[:-1]:
        x = x - eta * x / max(np.linalg.norm(x), 1e-12)
    assert np.linalg.norm(x) <= bound(rates, np.ones(steps), 1.0, tuned=False) * (1 + 1e-9)


def test_smoothing_is_a_median_filter_of_a_tenth() -> None:
    G = np.random.default_rng(0).lognormal(size=300)
    smooth = median_filter(G, size=31, mode="nearest")
    np.testing.assert_allclose(refine(G).values, refine(smooth, smoothing=0).values)


@settings(deadline=None, max_examples=15)
@given(st.floats(0.02, 0.7), st.floats(0.4, 3.0))
def test_fit_finds_the_parameters_it_was_made_with(warmup: float, power: float) -> None:
    fit = fit_warmup_poly(WarmupPolynomial(warmup, power)(np.linspace(0, 1, 1000)))
    assert fit.warmup == pytest.approx(warmup, abs=0.002)
    assert fit.power == pytest.approx(power, rel=0.01)


def test_norms_that_fall_ask_for_a_warm_up() -> None:
    # large gradients at first: the refined schedule starts low, and ends at zero
    refined = refine(1.0 + 10.0 * np.exp(-np.arange(1000) / 100.0))
    assert refined.values[0] < 0.2
    assert refined.values[-1] == 0.0
    assert fit_warmup_poly(refined).warmup > 0.1


def sgd(lr: float = 0.5) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def test_schedule_follows_the_profile_at_any_length_and_resumes() -> None:
    refined = refine(np.linspace(5, 1, 100))
    schedule = RefinedSchedule(sgd(), 50, refined)
    rates = schedule.rates(range(51))[:, 0]
    np.testing.assert_allclose(rates, 0.5 * refined(np.arange(51) / 50))
    schedule.optimizer.step()
    schedule.step()
    again = RefinedSchedule(sgd(), 50, refined)
    again.load_state_dict(schedule.state_dict())
    assert again.last_epoch == 1
    np.testing.assert_allclose(LinearDecay(sgd(), 10).rates(range(11))[:, 0], 0.5 * (1 - np.arange(11) / 10))


def test_longer_than_recorded_is_told() -> None:
    with pytest.warns(LongerThanRecorded, match="100 steps and is stretched over 200"):
        RefinedSchedule(sgd(), 200, refine(np.ones(100)))


def test_gaps_are_filled_in_counted_and_told() -> None:
    G = np.full(50, 2.0)
    G[[3, 7, 9]] = [np.inf, np.nan, 0.0]
    with pytest.warns(NormsLeftOut, match=r"3 of 50 gradient norms .* number 3, counted from 0"):
        refined = refine(G, smoothing=0)
    np.testing.assert_allclose(refined.values, linear(50), atol=1e-12)


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (lambda: refine([1.0]), InvalidProblem, "at least 2 steps"),
        (lambda: refine(["a", "b"]), InvalidProblem, "no array of numbers|expected numbers"),
        (lambda: refine([1.0, 2j]), InvalidProblem, "complex"),
        (lambda: refine([1e-200, 1e200], method="numerical", smoothing=0), InvalidProblem, "too far apart"),
        (lambda: bound([1.0, 0.0], [1.0, 1.0], distance=-1.0), InvalidParameter, "distance > 0"),
        (lambda: refine(np.ones((2, 2))), InvalidProblem, "expected \\(steps,\\)"),
        (lambda: refine([np.nan, np.inf, 0.0]), NotFinite, "positive and finite"),
        (lambda: refine(np.ones(9), smoothing=-0.1), InvalidParameter, "smoothing in"),
        (lambda: refine(np.ones(9), "l3"), InvalidParameter, "'l1' or 'l2'"),
        (lambda: refine(np.ones(9), "l1", method="numerical"), InvalidParameter, "'l2'"),
        (lambda: bound(np.ones(3), np.ones(4)), InvalidProblem, "expected as many"),
        (lambda: bound(np.array([1.0, -1.0, 0.0]), np.ones(3)), InvalidProblem, "not negative"),
        (lambda: bound(np.zeros(3), np.ones(3)), InvalidProblem, "not all zero"),
        (lambda: fit_warmup_poly([0.0, 0.0]), InvalidProblem, "two finite rates"),
        (lambda: WarmupPolynomial(1.0, 1.0), InvalidParameter, "warmup in"),
    ],
)
def test_bad_input(bad, error, words: str) -> None:
    with pytest.raises(error, match=words):
        bad()
