"""Comparisons and performance profiles."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.core import InvalidParameter, InvalidProblem, Stop
from thalweg.linear import SOR, SSORCG, ConjugateGradient, LinearSystem
from thalweg.numerics import FivePointStencil
from thalweg.workbench import compare, performance_profile

STOP = Stop(below={"residual": 1e-8}, steps=300)


@pytest.fixture
def problems():
    rng = np.random.default_rng(0)
    return {
        f"grid {n}": LinearSystem(FivePointStencil(n, n).to_csr(), rng.standard_normal(n * n))
        for n in (5, 10, 15)
    }


class TestCompare:
    def test_there_is_a_row_for_every_problem_method_and_seed(self, problems):
        found = compare(problems, [SOR(omega=1.5), SSORCG()], stop=STOP, seeds=(0, 1))
        assert len(found.rows) == 3 * 2 * 2
        assert set(found.to_frame()["method"]) == {"SOR()", "SSORCG()"}
        assert len(found.summary()) == 6

    def test_every_answer_is_judged_by_the_problem(self, problems):
        found = compare(problems, {"sor": SOR(omega=1.7)}, stop=STOP)
        for row, result in zip(found.rows, found.results, strict=True):
            assert row["residual"] == problems[row["problem"]].metrics(result.x)["residual"]

    def test_a_method_that_refuses_is_a_row_that_says_why(self):
        found = compare(
            LinearSystem(np.array([[2.0, 1.0], [0.0, 2.0]]), np.ones(2)),
            {"cg": ConjugateGradient(), "sor": SOR()},
            stop=STOP,
        )
        assert found.rows[0]["status"].startswith("refused: A is not symmetric")
        assert found.rows[1]["status"] == "converged"
        assert found.costs()["methods"]["cg"] == [np.inf]

    def test_the_page_has_table_curves_and_profile(self, problems, tmp_path):
        page = (
            compare(problems, [SOR(omega=1.5), SSORCG()], stop=STOP).report(tmp_path / "c.html").read_text()
        )
        for words in ("grid 10: residual", "Performance profile", "SSORCG()", "Plotly.react"):
            assert words in page

    def test_curves_over_seconds_have_the_times_of_the_history(self, problems):
        found = compare(problems["grid 5"], {"sor": SOR()}, stop=STOP)
        (figure,) = found.curves(by="seconds")
        assert figure.series[0].x[-1] == found.results[0].history.seconds[-1]

    @pytest.mark.parametrize(
        ("methods", "seeds", "message"),
        [
            ([SOR(), SOR()], (0,), "same name"),
            ([], (0,), "at least one problem and one method"),
            ([SOR()], (), "at least one seed"),
        ],
    )
    def test_bad_input_is_refused(self, problems, methods, seeds, message):
        with pytest.raises(InvalidParameter, match=message):
            compare(problems, methods, seeds=seeds)


class TestPerformanceProfile:
    def test_it_is_dolan_and_mores_by_hand(self):
        # Ratios to the best: a 1, 2, 1; b 2, 1, inf.
        a, b = performance_profile({"a": [1.0, 4.0, 3.0], "b": [2.0, 2.0, np.inf]})
        assert a.x == [1.0, 2.0]
        np.testing.assert_allclose(a.y, [2 / 3, 1.0])
        np.testing.assert_allclose(b.y, [1 / 3, 2 / 3])

    def test_a_problem_that_nobody_solved_counts_for_nobody(self):
        (a,) = performance_profile({"a": [1.0, np.inf]})
        assert a.y == [0.5]

    def test_costs_that_are_none_are_refused(self):
        with pytest.raises(InvalidProblem, match="positive costs"):
            performance_profile({"a": [0.0]})
        with pytest.raises(InvalidProblem, match="positive costs"):
            performance_profile({})
