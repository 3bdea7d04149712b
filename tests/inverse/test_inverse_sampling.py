"""The sampler against closed forms: exact denoisers, limits of its options, resumed runs, faults of the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from thalweg import Checkpoint, Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, Status
from thalweg.inverse import (
    DDS,
    GaussianPrior,
    Inpainting,
    InverseProblem,
    MaskedFFT,
    MixturePrior,
    Radon,
    Schedule,
    ScoreDenoiser,
    Sense,
    SliceStack,
    UNet,
    batched_cg,
)
from thalweg.inverse.dds import difference, difference_adjoint, shrunk
from thalweg.inverse.denoisers import noise_in
from thalweg.inverse.masks import uniform2d
from thalweg.inverse.phantoms import birdcage, ellipses, ellipsoids

SIDE = 8
SCHEDULES = {
    "linear": Schedule.linear(),
    "quad": Schedule.quad(),
    "cosine": Schedule.cosine(),
    "sigmoid": Schedule.sigmoid(),
    "exploding": Schedule.exploding(1000, 0.01, 30.0),
}


def smooth(side=SIDE, length=2.0, channels=1):
    """A covariance of smooth images."""
    at = np.stack(np.indices((side, side)).reshape(2, -1), 1) / length
    C = np.exp(-((at[:, None] - at) ** 2).sum(2) / 2) + 1e-3 * np.eye(side**2)
    return np.kron(np.eye(channels), C)


def no_noise(x, t):
    return torch.zeros_like(x)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_gaussian_priors_x0_is_its_posterior_mean(name, rng):
    schedule = SCHEDULES[name]
    mean, C = rng.standard_normal((SIDE, SIDE)), smooth()
    prior = GaussianPrior(mean, C, schedule)
    for t in (0, 300, 999):
        signal, noise = schedule.levels(t)
        x = torch.from_numpy(rng.standard_normal((2, 1, SIDE, SIDE)))
        found = (x - noise * prior(x, torch.tensor([t, t]))) / signal
        gain = signal * C @ np.linalg.inv(signal**2 * C + noise**2 * np.eye(SIDE**2))
        wanted = mean.ravel() + (x.reshape(2, -1).numpy() - signal * mean.ravel()) @ gain.T
        np.testing.assert_allclose(found.reshape(2, -1).numpy(), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_mixtures_denoiser_is_minus_noise_times_the_score(name, rng):
    schedule = SCHEDULES[name]
    centres, s, weights = rng.standard_normal((3, 2, 2)), 0.3, np.array([0.2, 0.5, 0.3])
    prior = MixturePrior(centres, s, weights, schedule)
    for t in (0, 500, 999):
        signal, noise = schedule.levels(t)
        x = torch.from_numpy(rng.standard_normal((1, 1, 2, 2))).requires_grad_(True)
        away = (x.reshape(1, 4) - signal * torch.from_numpy(centres.reshape(3, 4))).square().sum(1)
        variance = (signal * s) ** 2 + noise**2
        density = torch.logsumexp(torch.from_numpy(np.log(weights)) - away / (2 * variance), 0)
        (score,) = torch.autograd.grad(density, x)
        torch.testing.assert_close(
            prior(x.detach(), torch.tensor([t])), -noise * score, rtol=1e-8, atol=1e-10
        )


@pytest.mark.parametrize("prior", ["gaussian", "mixture"])
def test_posteriors_are_those_of_bayes_rule_by_importance(prior, rng):
    A, sigma = Radon(4, 3), 2.0
    if prior == "gaussian":
        known = GaussianPrior(np.zeros((4, 4)), smooth(4, 1.0))
        draws = rng.multivariate_normal(np.zeros(16), smooth(4, 1.0), 400_000)
    else:
        centres = rng.standard_normal((5, 4, 4))
        known = MixturePrior(centres, 0.5)
        draws = centres.reshape(5, 16)[rng.integers(5, size=400_000)] + 0.5 * rng.standard_normal(
            (400_000, 16)
        )
    y = A.A(draws[0].reshape(4, 4)) + sigma * rng.standard_normal(A.data_shape)
    matrix = A.matmat(np.eye(16))
    logs = -((draws @ matrix.T - y.ravel()) ** 2).sum(1) / (2 * sigma**2)
    weights = np.exp(logs - logs.max())
    wanted = weights @ draws / weights.sum()
    found = known.posterior(A, y, sigma)[0].reshape(-1).numpy()
    assert np.abs(found - wanted).max() < 0.05


def test_without_a_denoiser_one_step_is_so_many_conjugate_gradient_steps():
    A = Radon(SIDE, 4)
    problem = InverseProblem(A, A.A(ellipses(2, SIDE)))
    method = DDS(no_noise, steps=10, cg=4)
    state = method.init(problem, 0)
    signal = Schedule.linear().levels(900)[0]
    scale = A.norm() ** -2
    wanted = batched_cg(
        lambda p: scale * A.gram(p), scale * A.AH(problem.data), state.noisy / signal, steps=4
    )
    torch.testing.assert_close(method.step(problem, state).x, wanted.x)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_identity_without_noise_gives_the_data_back(name):
    y = ellipses(2, SIDE)
    prior = GaussianPrior(np.zeros((SIDE, SIDE)), smooth(), SCHEDULES[name])
    result = DDS(prior, Inpainting(np.ones((SIDE, SIDE))), steps=12).solve(y)
    assert result.status is Status.CONVERGED
    torch.testing.assert_close(result.x, y, rtol=1e-8, atol=1e-8)


def test_gamma_goes_from_unconditional_sampling_to_the_noise_free_limit():
    A, prior = Radon(SIDE, 4), GaussianPrior(np.zeros((SIDE, SIDE)), smooth())
    y = A.measured(ellipses(3, SIDE), 0.05)
    free = DDS(prior, A, steps=10, gamma=1e-12).solve(y, 0.05).x
    other = DDS(prior, A, steps=10, gamma=1e-12).solve(-5 * y, 0.05).x
    torch.testing.assert_close(free, other, atol=1e-6, rtol=0)  # whatever the data are
    tight = DDS(prior, A, steps=10, gamma=1e9, cg=200).solve(y, 0.05).x
    limit = DDS(prior, A, steps=10, cg=200).solve(y).x
    torch.testing.assert_close(A.A(tight), A.A(limit), atol=1e-4, rtol=0)


def test_the_right_side_is_x0_and_gamma_times_the_adjoint_for_complex_images(rng):
    """The reference adds the data to both channels: they enter multiplied by 1 + i."""
    A = Sense(birdcage(3, SIDE), uniform2d((SIDE, SIDE), 2.0))
    image = torch.complex(ellipses(1, SIDE), 0.5 * ellipses(1, SIDE, 1))
    y = A.A(image)
    method = DDS(no_noise, A, steps=1, cg=300, gamma=7.0)
    problem = InverseProblem(A, y, 0.1)
    state = method.init(problem, 0)
    x0 = state.noisy / Schedule.linear().levels(0)[0]
    matrix = torch.from_numpy(A.matmat(np.eye(SIDE**2)))
    weight = 7.0 / A.norm() ** 2
    left = torch.eye(SIDE**2) + weight * matrix.mH @ matrix
    right = x0.reshape(-1) + weight * matrix.mH @ y.reshape(-1)
    torch.testing.assert_close(method.step(problem, state).x.reshape(-1), torch.linalg.solve(left, right))


def test_single_coil_complex_images_without_noise_meet_their_data():
    """The reference gives an empty array here, and its projection class lacks the adjoint."""
    A = MaskedFFT(uniform2d((SIDE, SIDE), 2.0))
    x = torch.complex(ellipses(2, SIDE), ellipses(2, SIDE, 3))
    prior = GaussianPrior(np.zeros((2, SIDE, SIDE)), smooth(channels=2))
    result = DDS(prior, A, steps=15).solve(A.A(x))
    assert result.x.shape == x.shape
    assert result.x.is_complex()
    assert result.metrics["residual"] < 1e-6


def test_an_image_is_the_same_alone_and_in_a_batch_with_its_seed():
    """The reference has one scalar step for a whole batch."""
    A, prior = Radon(SIDE, 4), MixturePrior(ellipses(20, SIDE), 0.1)
    images = torch.stack([ellipses(1, SIDE)[0], 20 * ellipses(1, SIDE, 1)[0], 0.01 * ellipses(1, SIDE, 2)[0]])
    y = A.A(images)
    together = DDS(prior, A, steps=8, seeds=(3, 14, 15)).solve(y).x
    for i, seed in enumerate((3, 14, 15)):
        alone = DDS(prior, A, steps=8, seeds=(seed,)).solve(y[i]).x
        torch.testing.assert_close(together[i], alone, rtol=1e-7, atol=1e-9)


def test_seeds_are_what_makes_samples_differ():
    A, prior = Radon(SIDE, 2), GaussianPrior(np.zeros((SIDE, SIDE)), smooth())
    y = A.A(ellipses(1, SIDE)[0])
    first, again, other = (DDS(prior, A, steps=5).solve(y, seed=s).x for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)


@pytest.mark.parametrize("tv", [0.0, 1e-3])
def test_a_resumed_run_has_the_same_bits(tv, tmp_path):
    A, prior = SliceStack(Radon(SIDE, 3), 4), GaussianPrior(np.zeros((SIDE, SIDE)), smooth())
    problem = InverseProblem(A, A.A(ellipsoids(4, SIDE)))
    method = DDS(prior, steps=9, tv=tv)
    whole = solve(problem, method)
    solve(problem, method, stop=Stop(steps=4), callbacks=[Checkpoint(tmp_path / "run", every=4)])
    assert torch.equal(solve(problem, method, resume=tmp_path / "run").x, whole.x)


def test_admm_with_lambda_zero_and_no_penalty_is_conjugate_gradients(rng):
    A, prior = SliceStack(Radon(SIDE, 3), 4), GaussianPrior(np.zeros((SIDE, SIDE)), smooth())
    y = A.A(ellipsoids(4, SIDE))
    plain = DDS(prior, A, steps=6).solve(y).x
    # w takes all of D x: what is left couples slices through rho alone
    barely = DDS(prior, A, steps=6, tv=1e-300, rho=1e-12).solve(y).x
    torch.testing.assert_close(plain, barely, rtol=1e-4, atol=1e-4)


def test_strong_total_variation_flattens_the_slices():
    A, prior = SliceStack(Radon(SIDE, 2), 6), GaussianPrior(np.zeros((SIDE, SIDE)), smooth())
    y = A.A(ellipses(1, SIDE).expand(6, -1, -1))
    free, flat = (DDS(prior, A, steps=15, tv=tv).solve(y).x for tv in (0.0, 0.05))
    assert float(difference(flat[None]).abs().mean()) < 0.3 * float(difference(free[None]).abs().mean())


def test_differences_along_z_have_their_adjoint_and_shrinkage_is_the_proximal_map(rng):
    x, w = (torch.from_numpy(rng.standard_normal((2, 5, 3, 3))) for _ in range(2))
    assert float((difference(x) * w).sum()) == pytest.approx(float((x * difference_adjoint(w)).sum()))
    v = torch.linspace(-2, 2, 41, dtype=torch.float64)
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    best = grid[(0.7 * grid.abs() + 0.5 * (grid - v[:, None]) ** 2).argmin(1)]
    torch.testing.assert_close(shrunk(v, 0.7), best, atol=1e-3, rtol=0)


def test_on_digits_the_mean_of_samples_is_near_the_exact_posterior_mean():
    digits = torch.from_numpy(load_digits().images / 8.0 - 1)
    prior, A, sigma = MixturePrior(digits[:500], 0.2), Radon(8, 4), 0.3
    x = digits[600:604]
    y = A.measured(x, sigma, 1)
    exact = torch.stack([prior.posterior(A, one, sigma)[0] for one in y])
    found = DDS(prior, A, steps=50, gamma=50.0).posterior(y, sigma, samples=24)
    assert found.samples.shape == (24, 4, 8, 8)
    assert found.deviation.shape == (4, 8, 8)
    gap = float((found.mean - exact).square().mean().sqrt())
    linear = float((A.pinv(y, 0.05) - exact).square().mean().sqrt())
    assert gap < 0.2
    assert gap < 0.6 * linear


def test_the_spread_is_large_where_nothing_is_known():
    mask = np.ones((SIDE, SIDE))
    mask[:, 4:] = 0
    prior = GaussianPrior(np.zeros((SIDE, SIDE)), smooth(length=1.0))
    A = Inpainting(mask)
    found = DDS(prior, A, steps=20).posterior(A.A(ellipses(1, SIDE)[0]), samples=16)
    assert float(found.deviation[:, :4].max()) < 1e-6 < 0.1 < float(found.deviation[:, 6:].mean())


def test_a_score_of_exploding_variance_samples_its_gaussian():
    schedule = Schedule.exploding(1000, 0.01, 30.0)
    unit = ScoreDenoiser(lambda x, noise: -(x - 0.5) / (0.09 + noise**2)[:, None, None, None], schedule)
    A = Inpainting(np.eye(SIDE))
    found = DDS(unit, A, steps=200, eta=0.5).solve(torch.zeros(100, SIDE, SIDE, dtype=torch.float64)).x
    free = found[:, np.eye(SIDE) == 0]
    assert float(free.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(found[:, np.eye(SIDE) == 1].abs().max()) < 1e-8


def test_times_are_the_papers_where_steps_divide_and_as_many_as_asked_for_always():
    schedule = Schedule.linear()
    assert schedule.times(50) == tuple(range(980, -1, -20))
    for steps in (1, 7, 30, 600, 1000):
        times = schedule.times(steps)
        assert len(times) == len(set(times)) == steps
        assert times[-1] == 0
        assert times[0] >= 1000 - math.ceil(1000 / steps)


def test_learned_variances_are_dropped():
    A = Inpainting(np.ones((4, 4)))
    x = torch.ones(2, 4, 4)
    found = noise_in(lambda x, t: torch.cat([2 * x, -9 * x], 1), x, 0, A)
    torch.testing.assert_close(found, 2 * x)


def test_schedules_are_those_of_their_formulas():
    linear = np.sqrt(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    np.testing.assert_allclose(Schedule.linear().signal, linear)
    for schedule in SCHEDULES.values():
        assert (np.diff(schedule.noise) >= 0).all()
        assert schedule.length == 1000
        if not schedule.explodes:
            np.testing.assert_allclose(schedule.signal**2 + schedule.noise**2, 1)
    ratio = SCHEDULES["exploding"].noise[1:] / SCHEDULES["exploding"].noise[:-1]
    np.testing.assert_allclose(ratio, ratio[0])


def test_bad_input_is_refused_before_any_work():
    A = Radon(SIDE, 4)
    y = A.A(ellipses(1, SIDE)[0])
    prior = GaussianPrior(np.zeros((SIDE, SIDE)), smooth())
    bad = y.clone()
    bad[0, 0] = math.nan
    fft = MaskedFFT(uniform2d((SIDE, SIDE), 2.0))
    stack = SliceStack(A, 2)
    short = MixturePrior(np.ones((2, SIDE, SIDE)), 0.1, schedule=Schedule.linear(100))
    cases = [
        (lambda: InverseProblem(A, y[:2]), InvalidProblem, "y has shape"),
        (lambda: InverseProblem(A, bad), NotFinite, "y holds 1 NaN"),
        (lambda: InverseProblem(A, y, -1.0), InvalidParameter, "sigma >= 0"),
        (lambda: InverseProblem(A, y.to(torch.complex128)), InvalidProblem, "complex and is real here"),
        (lambda: InverseProblem(np.eye(3), y), InvalidProblem, "expected an Operator"),
        (
            lambda: InverseProblem(fft, np.ones((SIDE, SIDE))),
            InvalidProblem,
            "where the mask measures nothing",
        ),
        (lambda: InverseProblem(A, y, truth=np.ones((3, 3))), InvalidProblem, "truth has shape"),
        (lambda: DDS(prior, steps=1001), InvalidParameter, "1001 steps.*1000 times"),
        (lambda: DDS(prior, steps=0), InvalidParameter, "steps >= 1"),
        (lambda: DDS(prior, eta=1.5), InvalidParameter, "eta"),
        (lambda: DDS(prior, gamma=0.0), InvalidParameter, "gamma > 0"),
        (lambda: DDS(prior, gamma=math.nan), InvalidParameter, "gamma > 0"),
        (lambda: DDS(prior, cg=0), InvalidParameter, "cg >= 1"),
        (lambda: DDS(prior, tv=-1.0), InvalidParameter, "tv >= 0"),
        (lambda: DDS("unet"), InvalidParameter, "needs a denoiser"),
        (lambda: DDS(prior).solve(y), InvalidParameter, "needs an operator"),
        (lambda: DDS(prior, A, tv=0.1).solve(y), InvalidProblem, "tv flattens along the depth"),
        (lambda: DDS(prior, A, seeds=(1, 2)).solve(y), InvalidParameter, "a seed >= 0 for each of 1 images"),
        (lambda: solve(InverseProblem(A, y), DDS(prior, Radon(SIDE, 4))), InvalidProblem, "another operator"),
        (lambda: DDS(short, schedule=Schedule.linear(1000)), InvalidProblem, "trained for 100"),
        (
            lambda: DDS(UNet(widths=(4, 4)), fft, steps=2).solve(fft.A(ellipses(1, SIDE)[0])),
            InvalidProblem,
            "1 channel and the images are complex.*denoiser of two channels",
        ),
        (
            lambda: DDS(lambda x, t: x[..., :2], stack, steps=2).solve(stack.A(ellipsoids(2, SIDE))),
            InvalidProblem,
            "answers shape",
        ),
        (lambda: Schedule([1.0, 0.5], [0.5, 0.1]), InvalidProblem, "does not fall"),
        (lambda: Schedule.linear(10, 0.5, 0.1), InvalidParameter, "first <= last"),
        (lambda: MixturePrior(np.ones((2, 2, 2)), 0.0), InvalidParameter, "deviation > 0"),
        (lambda: GaussianPrior(np.ones((2, 2)), -np.eye(4)), InvalidProblem, "positive semidefinite"),
        (lambda: prior.posterior(A, y, 0.0), InvalidParameter, "sigma > 0"),
    ]
    for make, kind, words in cases:
        with pytest.raises(kind, match=words):
            make()


def test_a_denoiser_that_breaks_ends_the_run_as_diverged():
    A = Radon(SIDE, 4)
    result = DDS(lambda x, t: x * math.nan, A, steps=3).solve(A.A(ellipses(1, SIDE)[0]))
    assert result.status is Status.DIVERGED
    assert "NaN" in result.message


def test_data_that_are_not_met_are_told():
    A, prior = Radon(SIDE, 4), GaussianPrior(np.zeros((SIDE, SIDE)), smooth())
    result = DDS(prior, A, steps=3, gamma=1e-9).solve(A.A(ellipses(1, SIDE)[0]), 1e-3)
    assert result.status is Status.STALLED
    assert "the data are not met" in result.message


def test_tables_name_a_method_by_its_options_and_not_by_its_network():
    prior = GaussianPrior(np.zeros((SIDE, SIDE)), smooth())
    assert DDS(prior, Radon(SIDE, 4), steps=20, gamma=5.0).name == "DDS(steps=20, gamma=5)"


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_data_whose_squares_are_no_numbers_are_refused(kind):
    far = torch.full((2, 2), torch.finfo(kind).max / 10, dtype=kind)
    with pytest.raises(InvalidProblem, match="whose squares are numbers"):
        InverseProblem(Inpainting(torch.ones(2, 2)), far)


def test_data_with_a_gradient_are_taken_as_they_are():
    y = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    found = DDS(GaussianPrior(torch.zeros(2, 2), torch.eye(4)), Inpainting(torch.ones(2, 2)), steps=2)
    assert not found.solve(y, progress=False).x.requires_grad
