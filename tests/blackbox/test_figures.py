"""What a study looks like."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.blackbox import Categorical, Environment, Real, Study
from thalweg.blackbox.figures import calibration, contours, convergence, importance, slices
from thalweg.workbench import render_figures


@pytest.fixture(scope="module")
def study():
    made = Study({"x": Real(0.0, 1.0), "y": Real(0.0, 1.0), "z": Real(1e-3, 1.0, log=True)}, noise="none")
    for _ in range(40):
        trial = made.ask()
        made.tell(trial, 10 * (trial["x"] - 0.4) ** 2 + trial["y"])  # z does not matter
    return made


def test_the_best_so_far_never_rises(study):
    figure = convergence(study)
    assert np.all(np.diff(figure.series[1].y) <= 0)
    assert figure.series[1].y[-1] == study.best.value


def test_slices_go_through_the_recommended_point(study):
    found = slices(study)
    assert [f.title for f in found] == ["Slice: x", "Slice: y", "Slice: z"]
    model, at = found[0].series
    assert np.interp(at.x[0], model.x, model.y) == pytest.approx(at.y[0], abs=0.02)
    assert found[2].log_x


def test_contours_are_over_the_two_that_matter_and_have_the_functions_values(study):
    figure = contours(study)
    assert {figure.x_label, figure.y_label} == {"x", "y"}
    surface = figure.surface
    truth = {"x": lambda v: 10 * (v - 0.4) ** 2, "y": lambda v: v}
    expected = (
        truth[figure.x_label](np.array(surface.x)) + truth[figure.y_label](np.array(surface.y))[:, None]
    )
    # near the minimum, where it has looked
    near = expected < 0.3
    np.testing.assert_allclose(np.array(surface.z)[near], expected[near], atol=0.1)


def test_importance_is_the_share_of_variation(study):
    """10 (x - 0.4)^2 has variance 100 * 0.007; y has 1/12."""
    shares = importance(study).series[0].y
    x = 10 * (np.linspace(0, 1, 10_001) - 0.4) ** 2
    assert shares[0] == pytest.approx(x.var() / (x.var() + 1 / 12), abs=0.05)
    assert shares[2] < 0.02


def test_calibration_rises_from_zero_to_one(study):
    shares = calibration(study).series[0].y
    assert np.all(np.diff(shares) >= 0)
    assert shares[-1] == 1.0


@pytest.mark.parametrize(
    "options",
    [{}, {"environment": Environment([{"w": 0.0}, {"w": 1.0}])}, {"bayesian": True}],
    ids=["plain", "environment", "bayesian"],
)
def test_every_kind_of_study_becomes_a_page(options, tmp_path):
    made = Study(
        {"x": Real(0.0, 1.0), "w": Real(0.0, 1.0), "k": Categorical(["a", "b"])}, initial=4, **options
    )
    for _ in range(6):
        trial = made.ask()
        made.tell(trial, trial["x"] + trial["w"] + (trial["k"] == "a"))
    page = render_figures(made.plot(), tmp_path / "page.html", "a study").read_text()
    assert "Slice: x" in page
    assert "Importance" in page
    assert "contour" in page


def test_one_parameter_is_shown_with_its_acquisition(tmp_path):
    made = Study({"x": Real(0.0, 1.0)})
    for _ in range(5):
        trial = made.ask()
        made.tell(trial, trial["x"] ** 2)
    titles = [f.title for f in made.plot()]
    assert "Where to look next" in titles
    assert "Importance" not in titles
