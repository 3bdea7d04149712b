"""Fitting a bridge: gradients, closed forms, exact pairs, resumed and reseeded runs, and samples that are refused."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

from thalweg import Checkpoint, Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, Status, recommended
from thalweg.core.seeding import torch_generator
from thalweg.transport import EntropicTransport, LightSB, conditional_bw2_uvp, eot_pair, exact_bridge
from thalweg.transport._parameters import Family
from thalweg.transport.light_bridge import _revive


def normal(n, D, seed):
    return torch.randn(n, D, dtype=torch.float64, generator=torch_generator(seed))


@pytest.fixture
def clouds(rng):
    return rng.standard_normal((400, 2)), 2.0 + 0.5 * rng.standard_normal((300, 2))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("D", [1, 3])
def test_the_gradient_is_that_of_the_loss(full, D):
    family = Family(0.3, D, full)
    x = normal(4, family.columns, 0).requires_grad_()
    x0, x1 = normal(30, D, 1), normal(20, D, 2)
    m0, m1 = torch.rand(30, dtype=torch.float64), torch.rand(20, dtype=torch.float64)
    m0, m1 = m0 / m0.sum(), m1 / m1.sum()
    found = family.gradient(x.detach(), x0, x1, m0, m1)
    log_a, R, root = family.split(x)
    S = root @ root.mT if full else torch.diag_embed(root * root)
    moved = torch.einsum("nd,kde,ne->nk", x0, S, x0) / 2 + x0 @ R.T
    log_c = (log_a + moved / 0.3).logsumexp(1)
    log_v = (log_a + torch.distributions.MultivariateNormal(R, 0.3 * S).log_prob(x1[:, None])).logsumexp(1)
    loss = m0 @ log_c - m1 @ log_v
    loss.backward()
    loss = loss.detach()
    assert found.loss == pytest.approx(float(loss))
    assert family.terms(x.detach(), x0, x1, m0, m1).loss == pytest.approx(float(loss))
    torch.testing.assert_close(found.gradient, x.grad)
    torch.testing.assert_close(found.log_v, log_v.detach())


@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_one_gaussian_to_another_is_fitted_to_its_closed_form(covariance):
    a, b, c, eps = 1.3, 2.0, 0.6, 0.8
    problem = EntropicTransport(a * normal(20_000, 1, 0), b + c * normal(20_000, 1, 1), eps, 1, covariance)
    bridge = problem.bridge(solve(problem).x)
    s = (math.sqrt(4 * a * a * c * c + eps * eps) - eps) / 2
    assert float(bridge.S.ravel()[0]) == pytest.approx(s / a**2, rel=0.04)
    assert float(bridge.barycentric([[0.0]])[0, 0]) == pytest.approx(b, abs=0.03)


def test_gaussians_whose_axes_differ_need_full_matrices():
    """S = A^-1/2 (A^1/2 C A^1/2 + eps^2 I / 4)^1/2 A^-1/2 - eps A^-1 / 2 for one Gaussian to another."""
    A, C, eps = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([[0.5, -0.3], [-0.3, 1.5]]), 0.5

    def root(M):
        values, vectors = np.linalg.eigh(M)
        return (vectors * np.sqrt(values)) @ vectors.T

    half = root(A)
    inverse = np.linalg.inv(half)
    exact = inverse @ root(half @ C @ half + eps**2 / 4 * np.eye(2)) @ inverse - eps / 2 * np.linalg.inv(A)
    x0 = normal(20_000, 2, 0) @ torch.linalg.cholesky(torch.from_numpy(A)).T
    x1 = normal(20_000, 2, 1) @ torch.linalg.cholesky(torch.from_numpy(C)).T
    losses = {}
    for covariance in ("diag", "full"):
        problem = EntropicTransport(x0, x1, eps, 1, covariance)
        result = solve(problem)
        losses[covariance] = result.metrics["loss"]
    np.testing.assert_allclose(problem.bridge(result.x).S[0], exact, atol=0.03)
    assert losses["full"] < losses["diag"] - 0.1


def test_an_exact_plan_is_found_from_samples_that_nothing_pairs():
    exact = eot_pair(2, 1.0)
    y = exact.sample(normal(8000, 2, 1), torch_generator(2))
    problem = EntropicTransport(normal(8000, 2, 0), y, 1.0)
    result = solve(problem)
    assert result.converged
    found = conditional_bw2_uvp(exact, problem.bridge(result.x), normal(300, 2, 3), float(y.var(0).sum()))
    assert found < 0.3


def test_the_loss_is_least_at_the_plan_that_made_the_samples():
    """Mixtures' own parameters against moved ones, on the same samples."""
    exact = exact_bridge(1.0, [[2.0, 0.0], [-2.0, 1.0]], [np.eye(2) * 0.5, np.eye(2)])
    x, y = normal(40_000, 2, 0), exact.sample(normal(40_000, 2, 1), torch_generator(2))
    family, masses = Family(1.0, 2, False), torch.full((40_000,), 1 / 40_000, dtype=torch.float64)
    log_root = exact.root.diagonal(dim1=1, dim2=2).log()
    own = torch.cat([exact.log_a[:, None], exact.R, log_root], 1)
    at = family.gradient(own, x, y, masses, masses)
    assert float(at.gradient.abs().max()) < 0.02
    for seed in range(5):
        moved = own + 0.2 * normal(2, 5, seed)
        assert family.terms(moved, x, y, masses, masses).loss > at.loss


def test_units_and_places_of_the_clouds_change_nothing(clouds):
    """x -> a x + b, y -> c y + d and eps -> a c eps: the same answer, and the bridge moves with the data."""
    x0, x1 = clouds
    plain = EntropicTransport(x0, x1, 0.3, 5)
    moved = EntropicTransport(1e3 * x0 - 1e6, 1e-2 * x1 + 7e3, 3.0, 5)
    ours, theirs = solve(plain, LightSB(steps=60)), solve(moved, LightSB(steps=60))
    torch.testing.assert_close(ours.x, theirs.x, rtol=1e-4, atol=1e-5)
    where = plain.bridge(ours.x).barycentric(x0[:5])
    torch.testing.assert_close(
        moved.bridge(theirs.x).barycentric(1e3 * x0[:5] - 1e6), 1e-2 * where + 7e3, rtol=0.0, atol=1e-5
    )


def test_a_resumed_run_has_the_same_bits(clouds, tmp_path):
    problem, method = EntropicTransport(*clouds, 0.3, 5), LightSB(steps=40)
    whole = solve(problem, method)
    path = tmp_path / "run"
    solve(problem, method, stop=Stop(steps=13), callbacks=[Checkpoint(path, every=13)])
    assert torch.equal(solve(problem, method, resume=path).x, whole.x)


def test_weights_count_as_copies(clouds):
    """Samples of weight two are met twice: the full loss is that of the repeated samples."""
    x0, x1 = clouds
    weights = np.r_[np.full(100, 2.0), np.ones(200)]
    weighted = EntropicTransport(x0, x1, 0.3, 3, weights1=weights)
    repeated = EntropicTransport(x0, np.r_[x1[:100], x1], 0.3, 3)
    x = repeated.family.join(*(torch.zeros(3, *s, dtype=torch.float64) for s in ((), (2,))), 0.1)
    assert weighted.metrics(x) == pytest.approx(repeated.metrics(x))
    one = np.zeros(300)
    one[:3] = 1.0  # and a batch holds nothing of weight zero
    state = LightSB(batch_size=50)
    drawn = state._batch(EntropicTransport(x0, x1, 0.3, 1, weights1=one).parts[1], np.random.default_rng(0))
    assert len(drawn[0].unique(dim=0)) == 3


def test_small_eps_begins_near_and_follows_a_curved_target():
    angle = 1.5 * math.pi * (1 + 2 * torch.rand(4000, dtype=torch.float64, generator=torch_generator(0)))
    y = torch.stack([angle * angle.cos(), angle * angle.sin()], 1) / 7.5
    problem = EntropicTransport(normal(4000, 2, 1), y, 0.01, 100)
    assert LightSB().begins_near(problem)
    bridge = problem.bridge(solve(problem, LightSB(steps=300)).x)
    end = bridge.sample(normal(500, 2, 2), torch_generator(3))
    away = torch.cdist(end, y).amin(1)
    assert float(away.mean()) < 0.1
    assert float(torch.histc(end.norm(dim=1), 4, 0.6, 2.0).min()) > 20  # all of the roll is reached


def test_dead_components_begin_again_where_nothing_explains_the_target(clouds):
    problem = EntropicTransport(*clouds, 0.3, 3)
    x = LightSB().init(problem, 0).x
    lonely = torch.tensor([[9.0, 9.0], [8.0, 8.0]], dtype=torch.float64)
    x[0, 0], before = -500.0, x[1:].clone()
    _revive(problem, False, torch.tensor([True, False, False]), lonely, x)
    assert x[0].tolist() == [0.0, 9.0, 9.0, 0.0, 0.0]
    assert torch.equal(x[1:], before)


def test_held_out_samples_are_not_fitted(clouds):
    problem = EntropicTransport(*clouds, 0.3, 3, held_out=0.25)
    assert [len(points) for points, _ in problem.parts] == [300, 225, 100, 75]
    assert {"loss", "held_out", "imbalance"} <= set(solve(problem, LightSB(steps=30)).metrics)


def test_single_precision_fits_as_well(clouds):
    fits = [
        solve(EntropicTransport(*clouds, 0.3, 3, dtype=kind), LightSB(steps=100))
        for kind in (torch.float32, torch.float64)
    ]
    assert fits[0].x.dtype == torch.float32
    assert fits[0].metrics["loss"] == pytest.approx(fits[1].metrics["loss"], abs=1e-3)


def test_one_point_may_be_where_all_begins(clouds):
    """The plan is then the target, whatever eps."""
    problem = EntropicTransport([[0.0, 0.0]], clouds[1], 0.3, 1)
    end = problem.bridge(solve(problem).x).barycentric([[0.0, 0.0]])
    np.testing.assert_allclose(end[0], clouds[1].mean(0), atol=0.02)


def test_a_run_too_short_does_not_say_that_it_has_converged(clouds):
    x1 = np.r_[clouds[1], clouds[1] + 30.0]
    result = solve(EntropicTransport(clouds[0], x1, 0.02, 30), LightSB(steps=1))
    assert result.status is Status.STALLED
    assert "out of balance" in result.message


def test_a_problem_recommends_a_method_and_can_be_pickled(clouds):
    problem = EntropicTransport(*clouds, 0.3, 3)
    assert recommended(problem) == LightSB()
    x = LightSB().init(problem, 0).x
    assert pickle.loads(pickle.dumps(problem)).metrics(x) == problem.metrics(x)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"eps": 0.0}, InvalidParameter, "eps > 0"),
        ({"eps": 1e12}, InvalidParameter, "eps is 1e\\+12, and the clouds spread by"),
        ({"eps": 1e-12}, InvalidParameter, "eps is 1e-12"),
        ({"x0": np.ones((5, 3))}, InvalidProblem, "x0 has 3 columns and x1 2"),
        ({"x1": np.ones((5, 2))}, InvalidProblem, "all of x1 is one point"),
        ({"x1": np.ones((1, 2))}, InvalidProblem, "all of x1 is one point"),
        ({"x0": np.ones(5)}, InvalidProblem, "x0 has shape \\(5,\\)"),
        ({"x0": np.empty((0, 2))}, InvalidProblem, "one or more of each"),
        ({"x0": np.full((5, 2), np.nan)}, NotFinite, "x0 holds 10 NaN"),
        ({"x0": np.full((5, 2), 1j)}, InvalidProblem, "complex"),
        ({"n_components": 301}, InvalidParameter, "1 <= n_components <= 300"),
        ({"n_components": 0}, InvalidParameter, "1 <= n_components"),
        ({"covariance": "tied"}, InvalidParameter, "diag or full"),
        ({"weights0": np.ones(3)}, InvalidProblem, "weights0 has shape \\(3,\\); expected \\(400,\\)"),
        ({"weights1": -np.ones(300)}, InvalidProblem, "weights >= 0"),
        ({"held_out": 0.9}, InvalidParameter, "held_out <= 0.5"),
        ({"dtype": torch.float16}, InvalidParameter, "float64 or torch.float32"),
        ({"unbalanced": True}, InvalidParameter, "mass is made or lost would depend on the unit of the data"),
    ],
)
def test_samples_that_cannot_be_joined_are_refused(clouds, change, error, words):
    given = {"x0": clouds[0], "x1": clouds[1], "eps": 0.3, **change}
    with pytest.raises(error, match=words):
        EntropicTransport(**given)


def test_an_answer_of_another_shape_is_refused(clouds):
    with pytest.raises(InvalidProblem, match="expected \\(components, 5\\)"):
        EntropicTransport(*clouds, 0.3).metrics(np.zeros((3, 4)))


@pytest.mark.parametrize("change", [{"steps": 0}, {"batch_size": 0}, {"step_size": -1.0}, {"start": "far"}])
def test_options_out_of_range_are_refused(change):
    with pytest.raises(InvalidParameter, match=next(iter(change))):
        LightSB(**change)


def test_half_precision_and_whole_numbers_are_widened():
    problem = EntropicTransport(torch.ones(3, 2).half(), np.array([[1, 2], [3, 4]]), 1.0, 1)
    assert problem.parts[0][0].dtype == torch.float64
