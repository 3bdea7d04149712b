"""The bound of a design's error: held against random federations, and what it is made of against draws."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.distributed.federated import (
    AsyncFedAvg,
    ClientTimes,
    Design,
    FedAvg,
    FedBuff,
    Federated,
    Federation,
    FedFix,
    Sampled,
    design,
    error_bound,
)

P = np.array([0.1, 0.3, 0.4, 0.2])
TIMES = ClientTimes.heterogeneous(4, 0.7)


class Quadratics:
    """``L_i = (theta - c_i)' H_i (theta - c_i) / 2``, curvatures from zero to one."""

    def __init__(self, seed, clients=4, dim=3):
        random = np.random.default_rng(seed)
        bases = np.linalg.qr(random.standard_normal((clients, dim, dim)))[0]
        self.H = bases * random.random((clients, 1, dim)) @ bases.swapaxes(1, 2)
        self.c = 2.0 * random.standard_normal((clients, dim))

    def gradients(self, theta):
        """Of each client at its own point, shape (..., clients, dim)."""
        return np.einsum("cij,...cj->...ci", self.H, theta - self.c)

    def optimum(self, weights):
        H = np.einsum("c,cij->ij", weights, self.H)
        return np.linalg.solve(H, np.einsum("c,cij,cj->i", weights, self.H, self.c))

    def loss(self, theta, weights):
        away = theta[..., None, :] - self.c
        return 0.5 * np.einsum("c,...ci,cij,...cj->...", weights, away, self.H, away)

    def facts(self, weights):
        best = self.optimum(weights)
        return {
            "smoothness": 1.0,
            "distance": np.linalg.norm(best),
            "gradients": np.linalg.norm(self.gradients(np.tile(best, (4, 1))), axis=1),
        }

    def gradient(self, theta, weights):
        return np.einsum("c,...ci->...i", weights, self.gradients(np.repeat(theta[..., None, :], 4, -2)))


def coin(participation, biased):
    """A design whose clients take part independently, each by its own coin."""
    weight = P if biased else P / participation
    variance = weight**2 * participation * (1.0 - participation)
    return Design(FedAvg(), P, weight * participation, variance, variance, participation, 1, 0, 1.0)


def train(task, made, N, K, lr, server_lr, noise, delay, seed, replicas=80):
    """Models before each aggregation, shape (N, replicas, dim), in the setting of the theorem."""
    random = np.random.default_rng(seed)
    theta = np.zeros((N + 1, replicas, 3))
    weight = made.expected / made.participation
    for n in range(N):
        age = np.minimum(random.integers(0, delay + 1, (replicas, 4)), n)
        start = theta[n - age, np.arange(replicas)[:, None]]
        local = start
        for _ in range(K):
            stray = noise / np.sqrt(3.0) * random.standard_normal(local.shape)
            local = local - lr * (task.gradients(local) + stray)
        d = weight * (random.random((replicas, 4)) < made.participation)
        theta[n + 1] = theta[n] + server_lr * np.einsum("rc,rci->ri", d, local - start)
    return theta[:-1]


class TestBound:
    @settings(max_examples=40, deadline=None)
    @given(
        seed=st.integers(0, 10**6),
        part=st.lists(st.floats(0.15, 1.0), min_size=4, max_size=4),
        biased=st.booleans(),
        N=st.integers(1, 60),
        K=st.integers(1, 6),
        noise=st.sampled_from([0.0, 0.5, 3.0]),
        delay=st.integers(0, 6),
        share=st.floats(0.02, 1.0),
    )
    def test_it_holds_in_its_setting(self, seed, part, biased, N, K, noise, delay, share):
        """Loss and gradient of random federations, up to the largest rates that are allowed."""
        task, made = Quadratics(seed), coin(np.array(part), biased)
        lr = 0.05 if K > 1 else share
        facts = {**task.facts(made.q), "noise": noise, "delay": delay, "lr": lr, "local_steps": K}
        most = largest_rate(made, **facts)
        bound = error_bound(made, N, server_lr=share * most, **facts)
        theta = train(task, made, N, K, lr, share * most, noise, delay, seed)
        gap = task.loss(theta, made.q) - task.loss(task.optimum(made.q), made.q)
        assert gap.mean() <= bound.loss
        squares = (task.gradient(theta, P) ** 2).sum(-1)
        assert np.sqrt(squares.mean()) <= bound.gradient

    @pytest.mark.parametrize(
        "scheme",
        [
            FedAvg(),
            Sampled(2),
            Sampled(2, "md"),
            FedFix(0.4),
            FedFix(0.4, False),
            FedBuff(2),
            FedBuff(2, False),
            AsyncFedAvg(),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("kind", ["fixed", "lognormal"])
    def test_it_holds_in_the_simulator(self, scheme, kind):
        """Where times decide who takes part the proof leaves them out; the bound has room enough."""
        times = ClientTimes.heterogeneous(4, 0.7, kind, 0.3)
        task, made = Quadratics(3), design(scheme, times, P)
        facts = {**task.facts(made.q), "lr": 0.05, "local_steps": 3}
        rate = min(1.0, largest_rate(made, **facts))
        bound = error_bound(made, 150, server_lr=rate, **facts)
        H, c = (torch.tensor(v) for v in (task.H, task.c))
        clients = [(torch.cat([c[i], H[i].ravel()])[None], torch.zeros(1)) for i in range(4)]

        def loss(theta, X, y):
            away = theta - X[0, :3]
            return 0.5 * away @ (X[0, 3:].reshape(3, 3) @ away)

        problem = Federated(loss, torch.zeros(3, dtype=torch.float64), clients, P)
        method = Federation(scheme, times, lr=0.05, local_steps=3, server_lr=rate, judge=10**9)
        state, seen = method.init(problem, 0), []
        for _ in range(150):
            seen.append(state.x.numpy())
            state = method.step(problem, state)
        gap = task.loss(np.array(seen), made.q) - task.loss(task.optimum(made.q), made.q)
        assert gap.mean() <= bound.loss
        assert np.sqrt((task.gradient(np.array(seen), P) ** 2).sum(-1).mean()) <= bound.gradient

    def test_at_the_wrong_optimum_the_disparity_is_what_is_left(self):
        """Disparity bounds the wanted gradient there, and equals it where ``grad L_i`` goes with ``p_i/q_i - 1``."""
        made = design(FedFix(0.25, corrected=False), TIMES, P)
        for seed in range(20):
            task = Quadratics(seed)
            bound = error_bound(made, 10, lr=0.1, **task.facts(made.q))
            left = np.linalg.norm(task.gradient(task.optimum(made.q), P))
            assert 0.0 < left <= bound.disparity
        along = made.p / made.q - 1.0
        bound = error_bound(made, 10, lr=0.1, smoothness=1.0, distance=1.0, gradients=np.abs(along))
        assert made.p @ along == pytest.approx(bound.disparity)

    def test_gradient_descent_has_its_own_bound(self):
        """One step, everybody waited for: the textbook's ``R^2 / (2 eta N)``, for eta up to 1/L."""
        bound = error_bound(
            design(FedAvg(), TIMES), 50, smoothness=4.0, distance=3.0, gradients=[1.0] * 4, lr=0.25
        )
        assert bound.loss == bound.initial == pytest.approx(9.0 / (2 * 0.25 * 50))
        assert bound.delay == bound.drift == bound.participation == bound.noise == bound.disparity == 0.0

    def test_each_imperfection_has_its_term(self):
        common = {"smoothness": 1.0, "distance": 1.0, "gradients": [1.0] * 4, "server_lr": 0.1}
        shares = {
            "drift": error_bound(design(FedAvg(), TIMES), 10, lr=0.1, local_steps=3, **common),
            "noise": error_bound(design(FedAvg(), TIMES), 10, lr=0.1, noise=1.0, **common),
            "participation": error_bound(design(Sampled(2), TIMES), 10, lr=0.1, **common),
            "delay": error_bound(design(FedFix(0.25), TIMES), 10, lr=0.1, **common),
            "disparity": error_bound(design(FedFix(0.25, False), TIMES), 10, lr=0.1, **common),
        }
        for name, bound in shares.items():
            assert getattr(bound, name) > 0.0
        assert shares["drift"].participation == shares["noise"].delay == shares["delay"].disparity == 0.0
        assert shares["participation"].delay == 0.0  # who is called is waited for
        assert shares["participation"].participation == pytest.approx(
            0.01 / 3
        )  # two of four, without replacement
        assert shares["noise"].noise == pytest.approx(0.5 * 0.01 / 4)  # four clients average it
        assert "participation  0.00333  (0%)" in str(shares["participation"])


def largest_rate(made, **facts):
    """The server rate up to which there is a bound, read from the refusal of one beyond it."""
    with pytest.raises(InvalidParameter, match="server_lr <=") as refused:
        error_bound(made, 1, server_lr=1e9, **facts)
    return 0.999 * float(re.search(r"server_lr <= ([0-9.e+-]*[0-9])", str(refused.value))[1])


class TestSpread:
    @pytest.mark.parametrize("scheme", [Sampled(2), Sampled(3, "md"), FedBuff(3), FedBuff(3, False)], ids=str)
    def test_variances_and_covariances_are_those_of_draws(self, scheme):
        random, made = np.random.default_rng(0), design(scheme, TIMES, P)
        d = np.zeros((40_000, 4))
        shares = (1.0 / TIMES.means) / (1.0 / TIMES.means).sum()
        for n, row in enumerate(d):
            if isinstance(scheme, Sampled):
                who = scheme.chosen(4, P, n, 0)
            else:
                who = random.choice(4, scheme.count, p=shares)
            for i in who:
                row[i] += scheme.weight(int(i), 0.0, P, shares)
        np.testing.assert_allclose(d.mean(0), made.expected, rtol=0.03)
        np.testing.assert_allclose(d.var(0), made.variance, rtol=0.05)
        room = np.linalg.eigvalsh(np.diag(made.covariance_bound) - np.cov(d.T))
        assert room.min() > -0.02 * made.covariance_bound.max()

    @pytest.mark.parametrize("kind", ["fixed", "exponential"])
    @pytest.mark.parametrize("corrected", [True, False])
    def test_variances_of_fixed_intervals_are_those_of_tasks_in_a_row(self, kind, corrected):
        times, scheme = ClientTimes.heterogeneous(4, 0.7, kind), FedFix(0.3, corrected)
        made = design(scheme, times, P)
        for i in range(4):
            d = []
            for seconds in times.sample(i, 4000, 1).tolist() * (1000 if kind == "fixed" else 1):
                rounds = int(np.ceil(seconds / 0.3 * (1 - 1e-12)))
                d += [0.0] * (rounds - 1) + [scheme.weight(i, seconds, P, P)]
            assert np.var(d) == pytest.approx(made.variance[i], rel=0.1, abs=1e-12)


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"smoothness": 0.0}, "smoothness, lr, server_lr > 0"),
            ({"lr": -0.1}, "smoothness, lr, server_lr > 0"),
            ({"distance": -1.0}, "distance, noise, delay >= 0"),
            ({"local_steps": 0}, "aggregations, local_steps >= 1"),
            ({"server_lr": 11.0}, "server_lr <= 10"),
            ({"lr": 0.5, "local_steps": 4}, r"lr < 0\.2041"),
        ],
    )
    def test_what_the_proof_does_not_cover_is_refused(self, change, message):
        given = {"smoothness": 1.0, "distance": 1.0, "gradients": [1.0] * 4, "lr": 0.1, **change}
        with pytest.raises(InvalidParameter, match=message):
            error_bound(design(FedAvg(), TIMES), 10, **given)

    def test_gradients_need_one_for_each_client(self):
        with pytest.raises(InvalidProblem, match="gradients"):
            error_bound(design(FedAvg(), TIMES), 10, smoothness=1.0, distance=1.0, gradients=[1.0], lr=0.1)
