"""Forecasts against exact exponentials, with outliers, and on losses of a real run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.training.forecast import LossForecaster

T = np.arange(100.0)
curves = st.tuples(st.floats(0.1, 3.0), st.floats(10.0, 100.0), st.floats(0.1, 2.0))


@given(curves)
def test_exact_exponentials_are_recovered(curve) -> None:
    a, tau, c = curve
    fit = LossForecaster().fit(a * np.exp(-T / tau) + c)
    assert fit(1000.0) == pytest.approx(a * np.exp(-1000.0 / tau) + c, rel=1e-6)
    assert fit.b == pytest.approx(-1.0 / tau, rel=1e-5)


@given(curves, st.lists(st.tuples(st.integers(0, 99), st.floats(1.0, 5.0)), min_size=5, max_size=5))
def test_five_percent_of_outliers_anywhere_do_not_matter(curve, outliers) -> None:
    a, tau, c = curve
    y = a * np.exp(-T / tau) + c
    for index, size in outliers:
        y[index] += size
    assert LossForecaster().fit(y)(1000.0) == pytest.approx(a * np.exp(-1000.0 / tau) + c, rel=1e-2)


def test_noise_averages_out() -> None:
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(30):
        y = np.exp(-T / 25) + 0.5 + 0.02 * rng.standard_normal(100)
        errors.append(abs(float(LossForecaster().fit(y)(1000.0)) / 0.5 - 1))
    assert np.median(errors) < 0.05


def test_other_times_and_few_points() -> None:
    t = 16.0 * np.arange(1, 17)
    fit = LossForecaster(rounds=1).fit(2 * np.exp(-t / 80) + 0.3, t)
    assert fit(2560.0) == pytest.approx(0.3, abs=1e-6)


def test_constant_loss_stays() -> None:
    assert LossForecaster().fit(np.full(50, 0.7))(500.0) == pytest.approx(0.7)


def test_scale_of_loss_and_time_do_not_matter() -> None:
    y = np.exp(-T / 25) + 0.5 + 0.01 * np.random.default_rng(1).standard_normal(100)
    plain = float(LossForecaster().fit(y)(1000.0))
    assert float(LossForecaster().fit(1e6 * y)(1000.0)) == pytest.approx(1e6 * plain, rel=1e-6)
    assert float(LossForecaster().fit(y, 7 * T)(7000.0)) == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (lambda: LossForecaster().fit([1.0, 2.0]), InvalidProblem, "four losses"),
        (lambda: LossForecaster().fit(np.ones(5), [0, 1, 1, 2, 3]), InvalidProblem, "rising times"),
        (lambda: LossForecaster().fit([1.0, np.nan, 1.0, 1.0]), NotFinite, "losses"),
        (lambda: LossForecaster(drop=0.5), InvalidParameter, "drop"),
        (lambda: LossForecaster(rounds=-1), InvalidParameter, "rounds"),
    ],
)
def test_bad_input(bad, error, words: str) -> None:
    with pytest.raises(error, match=words):
        bad()


def test_a_fit_says_whether_the_series_tells_where_it_ends():
    t = np.arange(100.0)
    assert LossForecaster().fit(2.0 * np.exp(-t / 20) + 0.5).is_identified
    assert not LossForecaster().fit(2.0 - 0.001 * t).is_identified  # straight down
    assert not LossForecaster().fit(np.exp(-t / 150) - 0.4).is_identified  # to the floor


@pytest.mark.parametrize("unit", [1e-200, 1e-12, 1e100, 1e200])
def test_the_unit_of_the_losses_does_not_count(unit):
    t = np.arange(200.0)
    losses = 2.0 * np.exp(-t / 40) + 0.3 + 0.05 * np.random.default_rng(0).standard_normal(200)
    losses[3] = 9.0  # a spike, to be left out in any unit
    one, other = LossForecaster().fit(losses), LossForecaster().fit(losses * unit)
    np.testing.assert_allclose([other.a / unit, other.b, other.c / unit], [one.a, one.b, one.c], rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1e6])
def test_the_unit_of_the_times_does_not_count(unit):
    t = np.arange(200.0)
    found = LossForecaster().fit(2.0 * np.exp(-t / 40) + 0.3, t * unit)
    np.testing.assert_allclose([found.a, found.b * unit, found.c], [2.0, -1 / 40, 0.3], rtol=1e-6)
    assert found.is_identified
