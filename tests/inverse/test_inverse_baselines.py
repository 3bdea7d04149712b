"""The baselines against closed forms and scikit-image; PSNR and SSIM on a fixed range."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thalweg import Checkpoint, Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem, Status
from thalweg.inverse import (
    DDNM,
    DDRM,
    DPS,
    MCG,
    METHODS,
    TVADMM,
    Blur,
    CGSense,
    DiffPIR,
    FanBeam,
    FilteredBackProjection,
    GaussianPrior,
    Inpainting,
    InverseProblem,
    MaskedFFT,
    PseudoInverse,
    Radon,
    Sense,
    SuperResolution,
    gaussian_kernel,
    peak_signal_noise_ratio,
    ssim,
)
from thalweg.inverse.masks import uniform2d
from thalweg.inverse.phantoms import birdcage, ellipses, shepp_logan
from thalweg.inverse.total_variation import gradient, gradient_adjoint, laplacian

SIDE = 8


def smooth(length=2.0, channels=1):
    at = np.stack(np.indices((SIDE, SIDE)).reshape(2, -1), 1) / length
    C = np.exp(-((at[:, None] - at) ** 2).sum(2) / 2) + 1e-3 * np.eye(SIDE**2)
    return np.kron(np.eye(channels), C)


PRIOR = GaussianPrior(np.zeros((SIDE, SIDE)), smooth())
IMAGE = torch.from_numpy(
    np.random.default_rng(5).multivariate_normal(np.zeros(64), smooth()).reshape(SIDE, SIDE)
)
OPERATORS = {
    "radon": Radon(SIDE, 4),
    "inpainting": Inpainting(uniform2d((SIDE, SIDE), 2.0)),
    "blur": Blur((SIDE, SIDE), gaussian_kernel(0.7)),
    "super": SuperResolution((SIDE, SIDE), 2),
    "fft": MaskedFFT(uniform2d((SIDE, SIDE), 2.0), real=True),
}
SAMPLERS = {
    "ddnm": DDNM(PRIOR, steps=40),
    "ddrm": DDRM(PRIOR, steps=40),
    "diffpir": DiffPIR(PRIOR, steps=40, weight=1.0),
    "dps": DPS(PRIOR, steps=300, step_size=0.5),
    "mcg": MCG(PRIOR, steps=300, step_size=0.5),
}


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "mcg"])  # it takes noise for truth
def test_every_sampler_is_nearer_the_posterior_mean_than_the_pseudo_inverse_is(sampler, operator):
    A, sigma = OPERATORS[operator], 0.1
    y = A.measured(IMAGE, sigma, 3)
    exact = PRIOR.posterior(A, y, sigma)[0]
    copies = y[None].expand(8, *y.shape).contiguous()
    found = solve(InverseProblem(A, copies, sigma), SAMPLERS[sampler]).x.mean(0)
    gap, linear = (float((image - exact).square().mean().sqrt()) for image in (found, A.pinv(y)))
    # what the pseudo-inverse leaves is little where blur is weak; a band about the exact mean stands beside it
    assert gap < max(0.7 * linear, 0.15)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("method", [DDNM(PRIOR, steps=9), DDRM(PRIOR, steps=9), MCG(PRIOR, steps=9)])
def test_projections_meet_data_without_noise(method, operator):
    A = OPERATORS[operator]
    result = solve(InverseProblem(A, A.A(IMAGE)), method)
    assert result.metrics["residual"] < 2e-2
    assert result.status is Status.CONVERGED


def test_ddnm_keeps_the_null_space_of_the_denoised_image():
    A = OPERATORS["radon"]
    method, problem = DDNM(PRIOR, steps=5), InverseProblem(A, A.A(IMAGE))
    state = method.init(problem, 0)
    x0 = torch.randn(1, SIDE, SIDE, dtype=torch.float64)
    found = method.consistent(problem, state, x0, method.now(0))[0]
    null = x0 - A.pinv(A.A(x0), 1e-3)
    torch.testing.assert_close(found, null + A.pinv(problem.data, 1e-3), atol=1e-8, rtol=0)


def test_diffpirs_data_step_is_the_proximal_map():
    A = OPERATORS["radon"]
    y = A.measured(IMAGE, 0.3)
    method, problem = DiffPIR(PRIOR, steps=5, weight=3.0, cg=200), InverseProblem(A, y, 0.3)
    x0, now = torch.randn(1, SIDE, SIDE, dtype=torch.float64), method.now(2)
    found = method.consistent(problem, method.init(problem, 0), x0, now)[0].reshape(-1)
    M = torch.from_numpy(A.matmat(np.eye(64)))
    pull = 3.0 / (now.noise / now.signal) ** 2
    wanted = torch.linalg.solve(
        M.T @ M / 0.09 + pull * torch.eye(64), M.T @ y.reshape(-1) / 0.09 + pull * x0.reshape(-1)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-2)


def test_the_gradient_of_dps_is_that_of_finite_differences():
    A = OPERATORS["radon"]
    problem = InverseProblem(A, A.A(IMAGE))
    near, far = (DPS(PRIOR, steps=10, eta=0.0, step_size=s) for s in (1e-9, 1.0))
    state = near.init(problem, 0)
    slope = (far.step(problem, state).noisy - near.step(problem, state).noisy) * A.norm()
    now = near.now(0)

    def loss(noisy):
        t = torch.tensor([now.t])
        x0 = (noisy - now.noise * PRIOR(noisy[:, None], t)[:, 0]) / now.signal
        return float(torch.linalg.vector_norm(problem.data - A.A(x0)))

    way = torch.randn(1, SIDE, SIDE, dtype=torch.float64)
    wanted = (loss(state.noisy + 1e-5 * way) - loss(state.noisy - 1e-5 * way)) / 2e-5
    assert -float((slope * way).sum()) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", [*SAMPLERS, "tv", "cg"])
def test_resumed_runs_have_the_same_bits(name, tmp_path):
    A = OPERATORS["radon"]
    problem = InverseProblem(A, A.measured(IMAGE, 0.1), 0.1)
    method = SAMPLERS.get(name) or {"tv": TVADMM(), "cg": CGSense(cg=2, tol=1e-12)}[name]
    stop = Stop(steps=12)
    whole = solve(problem, method, stop=stop)
    solve(problem, method, stop=Stop(steps=5), callbacks=[Checkpoint(tmp_path / "run", every=5)])
    assert torch.equal(solve(problem, method, stop=stop, resume=tmp_path / "run").x, whole.x)


def test_samplers_take_complex_images():
    A = MaskedFFT(uniform2d((SIDE, SIDE), 2.0))
    prior = GaussianPrior(np.zeros((2, SIDE, SIDE)), smooth(channels=2))
    x = torch.complex(IMAGE, IMAGE.T.contiguous())
    y = A.measured(x, 0.05)
    for name in SAMPLERS:
        method = METHODS[name](prior, steps=60)
        result = solve(InverseProblem(A, y, 0.05, truth=x), method)
        assert result.x.is_complex(), name
        assert np.isfinite(result.metrics["psnr"]), name


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sampler", [*SAMPLERS, "dds", "tv", "pinv", "cg"])
def test_single_precision_and_scaled_data_are_kept(sampler, operator):
    A = OPERATORS[operator]
    method = SAMPLERS.get(sampler)
    made = METHODS[sampler]() if method is None and sampler != "dds" else METHODS[sampler](PRIOR, steps=6)
    y = A.measured(IMAGE, 0.1)
    short = y.to(torch.complex64 if y.is_complex() else torch.float32)
    found = solve(InverseProblem(A, short, 0.1), made, stop=Stop(steps=6)).x
    assert found.dtype == torch.float32
    for scale in (1e-8, 1e6):
        assert bool(
            torch.isfinite(solve(InverseProblem(A, scale * y, 0.1), made, stop=Stop(steps=6)).x).all()
        )
    nothing = solve(InverseProblem(A, 0 * y, 0.1), made, stop=Stop(steps=6))
    assert np.isfinite(nothing.metrics["residual"])


def test_filtered_back_projection_is_near_that_of_scikit_image():
    skimage = pytest.importorskip("skimage.transform")
    image = shepp_logan(64).numpy() + 1
    A = Radon(64, 120)
    y = A.A(image)
    found = solve(InverseProblem(A, y), FilteredBackProjection()).x.numpy()
    other = skimage.iradon(y.T, A.angles, filter_name="ramp")
    assert np.sqrt(((found - other) ** 2).mean()) < 0.07
    assert peak_signal_noise_ratio(found, image) > peak_signal_noise_ratio(other, image) - 2


def test_views_all_round_count_each_ray_once():
    image = shepp_logan(32).numpy() + 1
    half, whole = (Radon(32, views, span=span) for views, span in ((60, 180.0), (120, 360.0)))
    a, b = (solve(InverseProblem(A, A.A(image)), FilteredBackProjection()).x for A in (half, whole))
    assert float((a - b).abs().mean()) < 0.02


def test_total_variation_reaches_the_minimum_of_another_solver():
    cvxpy = pytest.importorskip("cvxpy")
    A = Radon(SIDE, 3)
    y = A.measured(ellipses(1, SIDE)[0], 0.2, 1)
    weight = 5e-3
    result = solve(InverseProblem(A, y, 0.2), TVADMM(tv=weight, tol=1e-5, cg=15))
    M = A.matmat(np.eye(64))
    x = cvxpy.Variable((SIDE, SIDE))
    down = cvxpy.vstack([x[1:] - x[:-1], np.zeros((1, SIDE))])
    right = cvxpy.hstack([x[:, 1:] - x[:, :-1], np.zeros((SIDE, 1))])
    lengths = cvxpy.norm(cvxpy.vstack([cvxpy.vec(down, order="C"), cvxpy.vec(right, order="C")]), axis=0)
    gap = cvxpy.sum_squares(M @ cvxpy.vec(x, order="C") - y.reshape(-1).numpy())
    least = cvxpy.Problem(cvxpy.Minimize(gap / (2 * A.norm() ** 2) + weight * cvxpy.sum(lengths))).solve()

    def cost(image):
        size = gradient(image[None])[:, 0].square().sum(0).sqrt().sum()
        return float((A.A(image) - y).square().sum()) / (2 * A.norm() ** 2) + weight * float(size)

    assert result.converged
    assert cost(result.x) == pytest.approx(least, rel=1e-3)


def test_the_gradient_of_images_has_its_adjoint(rng):
    x, w = (
        torch.from_numpy(rng.standard_normal((2, 5, 6))),
        torch.from_numpy(rng.standard_normal((2, 2, 5, 6))),
    )
    assert float((gradient(x) * w).sum()) == pytest.approx(float((x * gradient_adjoint(w)).sum()))
    np.testing.assert_allclose(laplacian(x).numpy(), gradient_adjoint(gradient(x)).numpy(), atol=1e-14)


def test_cg_sense_solves_the_normal_equations():
    A = Sense(birdcage(4, SIDE), uniform2d((SIDE, SIDE), 2.0))
    x = torch.complex(IMAGE, -IMAGE)
    result = solve(InverseProblem(A, A.A(x)), CGSense(tol=1e-9))
    assert result.converged
    assert float((A.AH(A.A(result.x - x))).abs().max()) < 1e-7
    ridged = solve(InverseProblem(A, A.A(x)), CGSense(ridge=0.1, tol=1e-10)).x
    M = torch.from_numpy(A.matmat(np.eye(64)))
    wanted = torch.linalg.solve(
        M.mH @ M / A.norm() ** 2 + 0.1 * torch.eye(64), M.mH @ A.A(x).reshape(-1) / A.norm() ** 2
    )
    torch.testing.assert_close(ridged.reshape(-1), wanted, rtol=1e-6, atol=1e-8)


def test_default_methods_answer_in_the_form_that_the_data_have():
    A = Radon(SIDE, 4)
    for y, shape in ((A.A(IMAGE), (SIDE, SIDE)), (A.A(IMAGE[None]), (1, SIDE, SIDE))):
        for method in (None, PseudoInverse(), FilteredBackProjection(), CGSense(), DDNM(PRIOR, steps=3)):
            assert solve(InverseProblem(A, y), method, stop=Stop(steps=5)).x.shape == shape


def test_psnr_and_ssim_are_those_of_scikit_image_on_a_fixed_range(rng):
    metrics = pytest.importorskip("skimage.metrics")
    a, b = shepp_logan(32).numpy(), shepp_logan(32).numpy() + 0.2 * rng.standard_normal((32, 32))
    assert peak_signal_noise_ratio(b, a) == pytest.approx(
        metrics.peak_signal_noise_ratio(a, b, data_range=2.0)
    )
    assert ssim(b, a) == pytest.approx(metrics.structural_similarity(a, b, data_range=2.0))
    assert peak_signal_noise_ratio(2 * a, a) < 20  # another contrast is an error: nothing is rescaled
    assert peak_signal_noise_ratio(a, a) == np.inf
    assert ssim(a, a) == pytest.approx(1.0)
    assert ssim(np.stack([a, b]), np.stack([a, a])) == pytest.approx((1 + ssim(b, a)) / 2)


def test_bad_baselines_are_refused():
    A = Radon(SIDE, 4)
    large = InverseProblem(Radon(80, 70), np.zeros((70, 80)), 0.1)
    wide = GaussianPrior(np.zeros((2, 2)), np.eye(4))
    cases = [
        (
            lambda: solve(large, DDRM(wide, steps=2)),
            InvalidProblem,
            "no fast singular value decomposition.*Use DDS",
        ),
        (
            lambda: solve(InverseProblem(FanBeam(8, 3), np.zeros((3, 16))), FilteredBackProjection()),
            InvalidProblem,
            "parallel",
        ),
        (lambda: DPS(PRIOR, step_size=0.0), InvalidParameter, "step_size > 0"),
        (lambda: DiffPIR(PRIOR, weight=-1.0), InvalidParameter, "weight > 0"),
        (lambda: DDRM(PRIOR, data_share=2.0), InvalidParameter, "data_share"),
        (lambda: TVADMM(tv=0.0), InvalidParameter, "tv > 0"),
        (lambda: CGSense(ridge=-1.0), InvalidParameter, "ridge >= 0"),
        (lambda: PseudoInverse(1.0), InvalidParameter, "cutoff"),
        (lambda: DDNM(PRIOR, A).posterior(A.A(IMAGE), samples=1), InvalidParameter, "samples >= 2"),
        (lambda: peak_signal_noise_ratio([1.0], [1.0, 2.0]), InvalidProblem, "expected one shape"),
        (lambda: ssim(np.eye(4), np.eye(4)), InvalidProblem, "7 pixels or more"),
        (lambda: peak_signal_noise_ratio([np.nan], [1.0]), InvalidProblem, "NaN"),
    ]
    for make, kind, words in cases:
        with pytest.raises(kind, match=words):
            make()
