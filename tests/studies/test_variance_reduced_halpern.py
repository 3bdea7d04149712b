"""The claims about variance-reduced Halpern iterations can fail, and its problems are what they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thalweg.equilibrium import Extragradient, Halpern, matrix_game, policeman_and_burglar
from thalweg.studies import variance_reduced_halpern as study
from thalweg.studies.monotone_sums import Passes, as_given, least_squares, spectrum
from thalweg.studies.standings import Standings

SIZES = (100, 200, 400)


def standings(ours, **rivals):
    """Scores of three games over five seeds, each contestant's from a function of n."""
    makers = {study.OURS: ours, **rivals}
    names = [study._name(0.5, n) for n in SIZES]
    scores = {
        name: {c: f(n) * np.linspace(1.0, 1.1, 5) for c, f in makers.items()}
        for name, n in zip(names, SIZES, strict=True)
    }
    return Standings(study.WHAT, study.OURS, scores)


@pytest.mark.parametrize(("power", "outcome"), [(0.5, "holds"), (0.3, "fails")])
def test_the_power_is_that_of_the_best_rival(power, outcome):
    found = standings(lambda n: 100.0, slow=lambda n: n**2.0, quick=lambda n: 2.0 * n**power)
    verdict = study._power(found, SIZES, found.rivals, 0.4, "low stable rank")
    assert verdict.measured == pytest.approx(power)
    assert verdict.outcome == outcome


def test_a_rival_that_never_gets_there_proves_no_power():
    found = standings(lambda n: 100.0, slow=lambda n: np.inf)
    assert study._power(found, SIZES, found.rivals, 0.4, "low stable rank").outcome == "fails"


@pytest.mark.parametrize(
    ("off", "outcome"), [(1.2, "holds"), (1.0 / 1.2, "holds"), (2.0, "fails"), (0.5, "fails")]
)
def test_gains_are_compared_with_those_predicted_on_both_sides(off, outcome):
    found = standings(lambda n: 100.0, **{study.RESTARTED: lambda n: 100.0})
    told = {(name, seed): off for name in found.scores for seed in range(1, 6)}
    verdict = study._predicted(found, told)
    assert verdict.measured == pytest.approx(1.2 if outcome == "holds" else 2.0)
    assert verdict.outcome == outcome


def test_a_run_that_failed_is_no_prediction_that_came_true():
    found = standings(lambda n: np.inf, **{study.RESTARTED: lambda n: np.inf})
    told = {(name, seed): 1.0 for name in found.scores for seed in range(1, 6)}
    assert study._predicted(found, told).outcome == "fails"


def test_games_have_the_spectrum_and_the_solution_that_they_are_made_with():
    problem = spectrum(0.5, 30, 1)
    s = torch.linalg.svdvals(problem.components.A)
    torch.testing.assert_close(s, torch.arange(1, 31, dtype=torch.float64) ** -0.5)
    zero = torch.linalg.solve(
        torch.stack([problem.components.moved(e) for e in torch.eye(60, dtype=torch.float64)], 1),
        -problem.components.linear,
    )
    assert problem.natural_residual(zero) < 1e-9


def test_a_game_as_given_has_the_residual_of_the_centred_one():
    A = policeman_and_burglar(12, 3)
    game, raw = matrix_game(A), as_given(A)
    for seed in range(3):
        v = torch.randn(24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        u = game.resolvent(v, 1.0)
        assert raw.natural_residual(u) == pytest.approx(game.natural_residual(u), rel=1e-9)


@pytest.mark.parametrize("skew", [0.0, 0.02])
def test_the_components_of_least_squares_add_up(skew):
    components = least_squares(0.5, skew, 40, 1).components
    u = torch.linspace(-1.0, 1.0, 20, dtype=torch.float64)
    even = torch.full((40,), 1.0 / 40, dtype=torch.float64)
    torch.testing.assert_close(components.weighted(u, torch.arange(40), even), components.full(u))


def test_a_run_at_its_cap_has_failed():
    problem = spectrum(0.5, 20, 1)
    assert Passes(Extragradient(), 1.0, 0.5, 100)(problem, 1) < 100
    assert Passes(Halpern(), 1.0, 1e-6, 5)(problem, 1) == np.inf
