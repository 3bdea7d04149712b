"""Medians, their intervals, paired ratios and slopes, against counting and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.studies.intervals import (
    log_slope,
    median,
    median_interval,
    paired_difference,
    paired_ratio,
    worst_of,
)

INF = math.inf
SCORES = st.lists(st.one_of(st.floats(1e-3, 1e3), st.just(INF)), min_size=5, max_size=9)


class TestMedian:
    @given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12))
    def test_it_is_numpys_on_finite_numbers(self, values):
        assert median(values) == pytest.approx(np.median(values), rel=1e-12, abs=1e-12)

    def test_infinities_are_numbers_and_nan_is_not(self):
        assert median([1.0, INF, 2.0]) == 2.0
        assert median([1.0, INF]) == INF
        assert median([-INF, INF]) == INF
        assert median([INF, INF]) == INF
        assert math.isnan(median([1.0, math.nan, 2.0]))

    def test_no_scores_have_no_median(self):
        with pytest.raises(InvalidProblem, match=r"at least one score; got shape \(0,\)"):
            median([])


class TestMedianInterval:
    @pytest.mark.parametrize(("n", "left_out"), [(5, 0), (7, 0), (8, 1), (10, 1), (11, 2), (13, 3), (20, 5)])
    def test_it_lies_between_the_order_statistics_of_the_tables(self, n, left_out):
        # As in tables of the sign test at 10 %, two-sided: 5 -> 0, 8 -> 1, 11 -> 2, 13 -> 3, 20 -> 5.
        values = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
        assert median_interval(values) == (1.0 + left_out, n - left_out)

    @pytest.mark.parametrize("n", [1, 2, 3, 4])
    def test_fewer_than_five_seeds_leave_it_without_ends(self, n):
        assert median_interval(np.arange(float(n))) == (-INF, INF)

    def test_three_seeds_reach_seventy_five_percent_and_no_more(self):
        assert median_interval([1.0, 2.0, 3.0], 0.75) == (1.0, 3.0)
        assert median_interval([1.0, 2.0, 3.0], 0.76) == (-INF, INF)

    @settings(max_examples=25, deadline=None)
    @given(
        st.integers(0, 10_000),
        st.integers(5, 25),
        st.sampled_from(
            [stats.norm(3, 2), stats.expon(), stats.cauchy(1), stats.lognorm(2), stats.uniform()]
        ),
    )
    def test_it_holds_the_known_median_at_least_nine_times_in_ten(self, seed, n, distribution):
        samples = distribution.rvs((1000, n), random_state=seed)
        held = [low <= distribution.median() <= high for low, high in map(median_interval, samples)]
        # 1000 draws: three standard deviations of a share of 0.9 are 0.0285; at most one example in 740 would fail, and
        # the levels reached, 0.907 to 0.984, leave more.
        assert np.mean(held) >= 0.9 - 0.0285

    def test_its_coverage_on_five_seeds_is_counted_exactly(self):
        # Which of five scores lie below the median is one of 32 equally likely patterns; all or none of them miss.
        patterns = list(itertools.product([-1.0, 1.0], repeat=5))
        held = [low <= 0.0 <= high for low, high in map(median_interval, patterns)]
        assert sum(held) == 30

    @given(SCORES)
    def test_it_holds_the_sample_median(self, values):
        low, high = median_interval(values)
        assert low <= median(values) <= high

    def test_a_failed_seed_lies_at_its_end(self):
        assert median_interval([1.0, 2.0, INF, 3.0, 4.0]) == (1.0, INF)

    def test_ties_are_counted_as_they_come(self):
        assert median_interval([2.0] * 5) == (2.0, 2.0)

    def test_nan_leaves_nothing(self):
        assert all(math.isnan(end) for end in median_interval([1.0, math.nan, 2.0, 3.0, 4.0]))

    @pytest.mark.parametrize("level", [0.0, 1.0, 1.5])
    def test_a_level_that_is_none_is_refused(self, level):
        with pytest.raises(InvalidParameter, match="0 < level < 1"):
            median_interval([1.0], level)


class TestPairs:
    def test_ratios_by_hand(self):
        ours, rival = [2.0, 0.0, 3.0, INF, INF, 1.0], [4.0, 0.0, 0.0, 1.0, INF, INF]
        assert paired_ratio(ours, rival).tolist() == [0.5, 1.0, INF, INF, INF, 0.0]
        assert paired_ratio(ours, rival, both_failed=0.0)[4] == 0.0

    def test_differences_by_hand(self):
        assert paired_difference([1.0, INF, INF, 1.0], [3.0, 1.0, INF, INF]).tolist() == [
            -2.0,
            INF,
            INF,
            -INF,
        ]

    def test_a_ratio_of_negative_scores_is_refused(self):
        with pytest.raises(InvalidProblem, match="compare by difference"):
            paired_ratio([1.0], [-1.0])

    def test_unlike_lengths_are_refused(self):
        with pytest.raises(InvalidProblem, match=r"shapes \(2,\) and \(1,\)"):
            paired_difference([1.0, 2.0], [1.0])


class TestWorstOf:
    def test_each_number_is_the_largest_of_the_samples_own(self):
        # Medians 3 and 2, intervals (1, 5) and (2, 9).
        measured, interval = worst_of([[1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 2.0, 2.0, 9.0, 9.0]])
        assert (measured, interval) == (3.0, (2.0, 9.0))

    def test_the_upper_end_is_rarely_below_the_largest_true_median(self):
        rng = np.random.default_rng(0)
        medians = np.array([1.0, 0.9, 0.8, 1.0])
        ends = [worst_of(list(medians[:, None] + rng.standard_cauchy((4, 7))))[1][1] for _ in range(2000)]
        # A miss has probability at most 0.05; three standard deviations of 2000 draws are 0.015.
        assert np.mean(np.array(ends) < 1.0) <= 0.05 + 0.015


class TestLogSlope:
    @given(st.floats(-4, 4), st.floats(1e-3, 1e3))
    def test_a_power_law_gives_its_power(self, power, factor):
        x = np.array([3.0, 7.0, 20.0, 100.0])
        assert log_slope(x, factor * x**power) == pytest.approx(power, abs=1e-9)

    def test_it_is_the_least_squares_line_of_numpy(self):
        rng = np.random.default_rng(0)
        x, y = rng.uniform(1, 9, 20), rng.uniform(1, 9, 20)
        assert log_slope(x, y) == pytest.approx(np.polyfit(np.log(x), np.log(y), 1)[0], rel=1e-10)

    @pytest.mark.parametrize("y", [[1.0, INF], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan]])
    def test_a_run_that_failed_leaves_no_slope(self, y):
        assert math.isnan(log_slope([1.0, 2.0], y))

    @pytest.mark.parametrize("x", [[1.0, 1.0], [0.0, 1.0], [1.0, INF]])
    def test_sizes_that_are_none_are_refused(self, x):
        with pytest.raises(InvalidProblem, match="different positive x"):
            log_slope(x, [1.0, 2.0])
