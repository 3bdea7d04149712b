"""Federated zeroth-order optimization: surrogates against autograd, rounds against plain loops, messages, faults."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from thalweg import Stop, solve
from thalweg.core import Checkpoint, InvalidParameter, InvalidProblem, Status
from thalweg.distributed.federated import Faults
from thalweg.distributed.zeroth_order import (
    Ask,
    Client,
    Features,
    FederatedBlackBox,
    FedProxZO,
    FedZO,
    FZooS,
    ScaffoldZO,
    Surrogates,
    ackley,
    digits_attack,
    metric_of_network,
    quadratic,
    rosenbrock,
    row,
    stacked,
)
from thalweg.distributed.zeroth_order.tasks import macro
from thalweg.numerics.gaussian_process import RBF, GaussianProcess, Matern

DOUBLE = torch.float64
METHODS = {
    "fzoos": FZooS(features=300),
    "fedzo": FedZO(directions=5),
    "prox": FedProxZO(directions=5),
    "scaffold 1": ScaffoldZO(directions=5, option=1),
    "scaffold 2": ScaffoldZO(directions=5, option=2),
}


def data(clients=3, n=12, d=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    X = torch.rand(clients, n, d, generator=random, dtype=DOUBLE)
    y = torch.randn(clients, n, generator=random, dtype=DOUBLE)
    return X, y, torch.ones(clients, n, dtype=torch.bool)


class TestSurrogates:
    @pytest.mark.parametrize("kernel", [Matern(), RBF()])
    def test_the_gradient_is_autograds_of_the_posterior_mean(self, kernel):
        X, y, known = data()
        fitted = Surrogates.fit(kernel, 0.7, 1e-3, X, y, known)
        x = torch.rand(3, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
        theta = torch.full((4,), math.log(0.7), dtype=DOUBLE)
        for i in range(3):
            extent = y[i].max() - y[i].min()
            scaled = (y[i] - y[i].mean()) / extent
            K = kernel(theta, X[i], X[i]) + 1e-3 * torch.eye(12, dtype=DOUBLE)
            alpha = torch.linalg.solve(K, scaled)
            at = x[i].clone().requires_grad_()
            (kernel(theta, at[None], X[i])[0] @ alpha * extent).backward()
            torch.testing.assert_close(fitted.gradient(x)[i], at.grad, rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize("kernel", [Matern(), RBF()])
    def test_the_uncertainty_is_the_trace_of_the_gradients_covariance(self, kernel):
        X, y, known = data(1)
        fitted = Surrogates.fit(kernel, 0.9, 1e-2, X, y, known)
        Z = torch.rand(1, 5, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
        theta = torch.full((4,), math.log(0.9), dtype=DOUBLE)
        K = kernel(theta, X[0], X[0]) + 1e-2 * torch.eye(12, dtype=DOUBLE)
        h = 1e-4
        for m in range(5):
            total = 0.0
            for j in range(4):
                step = h * torch.eye(4, dtype=DOUBLE)[j]
                pair = torch.stack([Z[0, m] + step, Z[0, m] - step])
                prior = kernel(theta, pair, pair)
                across = kernel(theta, pair, X[0])
                covariance = prior - across @ torch.linalg.solve(K, across.T)
                difference = torch.tensor([0.5 / h, -0.5 / h], dtype=DOUBLE)
                total += float(difference @ covariance @ difference)
            assert float(fitted.uncertainty(Z)[0, m]) == pytest.approx(total, rel=1e-4, abs=1e-5)

    def test_the_likelihood_is_the_gaussian_processs(self):
        X, y, known = data(2)
        fitted = Surrogates.fit(Matern(), 0.6, 1e-2, X, y, known)
        scaled, _ = fitted.scaled()
        theta = torch.full((4,), math.log(0.6), dtype=DOUBLE)
        found = Surrogates.fit(Matern(), 1.0, 1e-2, X, y, known).log_likelihoods(torch.tensor([0.3, 0.6]))
        for i in range(2):
            K = Matern()(theta, X[i], X[i]) + 1e-2 * torch.eye(12, dtype=DOUBLE)
            exact = torch.distributions.MultivariateNormal(torch.zeros(12, dtype=DOUBLE), K).log_prob(
                scaled[i]
            )
            constant = 6.0 * math.log(2.0 * math.pi)
            assert float(found[i, 1]) == pytest.approx(float(exact) + constant, rel=1e-6)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 1000), st.integers(1, 11))
    def test_growing_is_fitting_anew_and_unknown_points_are_absent(self, seed, cut):
        X, y, known = data(seed=seed)
        known = torch.rand(known.shape, generator=torch.Generator().manual_seed(seed)) < 0.8
        known[:, :2] = True
        whole = Surrogates.fit(Matern(), 0.8, 1e-4, X, y, known)
        parts = Surrogates.fit(Matern(), 0.8, 1e-4, X[:, :cut], y[:, :cut], known[:, :cut])
        grown = parts.append(X[:, cut:], y[:, cut:], known[:, cut:])
        torch.testing.assert_close(grown.factor, whole.factor)
        x = torch.rand(3, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
        for i in range(3):
            only = known[i]
            alone = Surrogates.fit(
                Matern(), 0.8, 1e-4, X[i : i + 1, only], y[i : i + 1, only], known[i : i + 1, only]
            )
            torch.testing.assert_close(alone.gradient(x[i : i + 1])[0], whole.gradient(x)[i])
            torch.testing.assert_close(
                alone.uncertainty(x[i : i + 1, None])[0], whole.uncertainty(x[:, None])[i]
            )

    @pytest.mark.parametrize("kernel", [Matern(), RBF()])
    def test_features_gradients_approach_the_exact_one_as_one_over_root_m(self, kernel):
        X, y, known = data(1, 10, 3)
        fitted = Surrogates.fit(kernel, 0.8, 1e-2, X, y, known)
        x = torch.full((1, 3), 0.4, dtype=DOUBLE)
        exact = fitted.gradient(x)
        sizes, errors = (100, 400, 1600, 6400), []
        for M in sizes:
            found = []
            for seed in range(30):
                features = Features.of(kernel, M, 3, seed)
                gradient = features.gradient(x, fitted.summary(features), 0.8)
                found.append(float((gradient - exact).norm()) ** 2)
            errors.append(math.sqrt(np.mean(found)))
        assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(-0.5, abs=0.15)
        assert errors[-1] < 0.2 * float(exact.norm())

    def test_features_gradients_are_their_functions(self):
        features = Features.of(Matern(), 50, 3, 0)
        x, w = torch.rand(3, dtype=DOUBLE).requires_grad_(), torch.randn(50, dtype=DOUBLE)
        (features(x, 0.7) @ w).backward()
        torch.testing.assert_close(features.gradient(x.detach(), w, 0.7), x.grad)

    def test_features_covariances_are_the_kernels(self):
        features = Features.of(Matern(), 200_000, 2, 0)
        A = torch.rand(4, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
        phi = features(A, 0.5)
        theta = torch.full((2,), math.log(0.5), dtype=DOUBLE)
        torch.testing.assert_close(phi @ phi.T, Matern()(theta, A, A), atol=0.01, rtol=0)

    def test_its_mean_is_the_librarys_gaussian_process(self):
        """Up to how values are scaled: the same fixed lengthscale and noise, a centred process."""
        X, y, known = data(1)
        fitted = Surrogates.fit(RBF(), 1.0, 1e-6, X, y, known)
        scaled, extent = fitted.scaled()
        process = GaussianProcess(kernel=RBF(), learn_noise=False)
        theta = torch.zeros(4, dtype=DOUBLE)
        K = process.kernel(theta, X[0], X[0]) + 1e-6 * torch.eye(12, dtype=DOUBLE)
        alpha = torch.linalg.solve(K, scaled[0])
        h = 1e-6
        x = torch.full((4,), 0.5, dtype=DOUBLE)
        numeric = []
        for j in range(4):
            step = h * torch.eye(4, dtype=DOUBLE)[j]
            two = process.kernel(theta, torch.stack([x + step, x - step]), X[0]) @ alpha
            numeric.append((two[0] - two[1]) / (2 * h) * extent[0, 0])
        torch.testing.assert_close(fitted.gradient(x[None])[0], torch.stack(numeric), rtol=1e-4, atol=1e-5)


class TestFZooS:
    def test_one_client_without_correction_is_plain_descent_on_a_surrogate(self):
        """A loop with all queries refitted from the beginning at each step."""
        problem = quadratic(6, 1)
        method = FZooS(
            local_steps=4,
            lr=0.02,
            optimizer="sgd",
            gamma=0.0,
            active=0,
            lengthscale=2.0,
            initial=3,
            noise=1e-5,
        )
        found = solve(problem, method, stop=Stop(steps=2)).history
        state = method.init(problem, 0)
        for _ in range(2):
            state = method.step(problem, state)
        f, x = problem.clients[0], problem.x0.clone()
        X = torch.empty(0, 6, dtype=DOUBLE)
        for number in range(2):
            ask = Ask(lambda X: X, [0], 0, number)
            for t in range(4):
                X = torch.cat([X, x[None]])
                if number == t == 0:
                    X = torch.cat([X, (x + 0.01 * ask.uniform(3, 6)[0]).clamp(0, 1)])
                y = f(X)[None]
                fitted = Surrogates.fit(
                    Matern(), 2.0, 1e-5, X[None], y, torch.ones(1, len(X), dtype=torch.bool)
                )
                x = (x - 0.02 * fitted.gradient(x[None])[0]).clamp(0, 1)
        torch.testing.assert_close(state.x, x, rtol=1e-6, atol=1e-9)
        assert found.metrics[-1]["queries"] == len(X)

    @pytest.mark.parametrize("heterogeneity", [0.0, 1.0, 5.0])
    def test_quadratics_are_brought_near_their_minimum(self, heterogeneity):
        problem = quadratic(20, 4, heterogeneity)
        best = (1 - 20 / 4) / 200
        first = problem.metrics(problem.x0)["objective"]
        found = solve(problem, FZooS(), stop=Stop(steps=8))
        assert found.metrics["objective"] - best < 0.01 * (first - best)

    def test_the_correction_helps_where_clients_differ(self):
        problem = quadratic(30, 5, 5.0)
        ends = [solve(problem, FZooS(gamma=g), stop=Stop(steps=6)).metrics["objective"] for g in (0.0, 1.0)]
        best = (1 - 30 / 4) / 300
        assert ends[1] - best < 0.5 * (ends[0] - best)

    def test_fewer_queries_than_finite_differences(self):
        problem = ackley(40, 3, 1.0)
        ends = {}
        for name, method in {"ours": FZooS(), "theirs": FedZO()}.items():
            state = method.init(problem, 0)
            while state.queries < 600:
                state = method.step(problem, state)
            ends[name] = state.metrics["objective"]
        assert ends["ours"] < 0.7 * ends["theirs"]

    def test_the_lengthscale_follows_the_likelihood_unless_given(self):
        problem = quadratic(10, 3)
        state = FZooS(features=100).init(problem, 0)
        assert float(state.broadcast["lengthscale"]) == pytest.approx(math.sqrt(10))
        state = FZooS(features=100).step(problem, state)
        scales = math.sqrt(10) * np.logspace(-1, 1, 9)
        assert np.abs(scales - float(state.broadcast["lengthscale"])).min() < 1e-6
        fixed = FZooS(lengthscale=0.7, features=100)
        state = fixed.step(problem, fixed.init(problem, 0))
        assert float(state.broadcast["lengthscale"]) == 0.7
        assert (
            "likelihood"
            not in fixed.local(
                Ask(lambda X: X.sum(-1), [0], 0, 0),
                fixed.first_broadcast(problem.x0, 0),
                fixed.first_memory(1, 10),
            )[0]
        )

    def test_histories_are_bounded_and_the_nearest_are_used(self):
        problem = quadratic(5, 2)
        method = FZooS(features=50, history=40, nearest=20, local_steps=5)
        state = method.init(problem, 0)
        for _ in range(4):
            state = method.step(problem, state)
        assert state.memory["X"].shape == (2, 40, 5)
        from thalweg.distributed.zeroth_order.fzoos import _nearest

        near, _, _ = _nearest(state.memory, state.x, 20)
        far = (state.memory["X"][0] - state.x).norm(dim=-1).sort().values[:20]
        torch.testing.assert_close((near[0] - state.x).norm(dim=-1).sort().values, far)


class TestBaselines:
    def test_all_directions_give_a_linear_functions_gradient(self):
        slope = torch.tensor([1.0, -2.0, 0.5], dtype=DOUBLE)
        problem = FederatedBlackBox([lambda X: X @ slope], torch.full((3,), 0.5))
        method = FedZO(local_steps=1, directions=9, lr=0.01, optimizer="sgd")
        state = method.step(problem, method.init(problem, 0))
        torch.testing.assert_close(state.x, 0.5 - 0.01 * slope)

    def test_few_directions_are_unbiased(self):
        slope = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=DOUBLE)
        method = FedZO(directions=2)
        total = torch.zeros(4, dtype=DOUBLE)
        x = torch.full((1, 4), 0.5, dtype=DOUBLE)
        for seed in range(3000):
            ask = Ask(lambda X: X @ slope, [0], seed, 0)
            total += method.begin(ask, {"x": x[0]}, {}).direction(x, 0)[0]
        torch.testing.assert_close(total / 3000, slope, atol=0.12, rtol=0)

    def test_a_proximal_pull_of_nothing_is_none(self):
        problem = quadratic(6, 3)
        a, b = FedProxZO(directions=3, proximal=0.0), FedZO(directions=3)
        assert torch.equal(a.step(problem, a.init(problem, 0)).x, b.step(problem, b.init(problem, 0)).x)
        strong = FedProxZO(directions=3, proximal=50.0, optimizer="sgd", lr=0.02)
        free = FedZO(directions=3, optimizer="sgd", lr=0.02)
        moved = [float((m.step(problem, m.init(problem, 0)).x - problem.x0).norm()) for m in (strong, free)]
        assert moved[0] < moved[1]

    @pytest.mark.parametrize("option", [1, 2])
    def test_control_variates_find_the_means_minimum_where_clients_differ(self, option):
        """Two bowls of different curvature, all directions, many local steps: FedZO stops elsewhere."""
        bowls = [lambda X: 5.0 * (X - 0.2).square().sum(-1), lambda X: (X - 0.8).square().sum(-1)]
        problem = FederatedBlackBox(bowls, torch.full((2,), 0.6))
        options = {"directions": 2, "mu": 1e-5, "optimizer": "sgd", "lr": 0.03, "local_steps": 20}
        exact = (5 * 0.2 + 0.8) / 6
        corrected = solve(problem, ScaffoldZO(option=option, **options), stop=Stop(steps=80)).x
        plain = solve(problem, FedZO(**options), stop=Stop(steps=80)).x
        assert abs(float(corrected[0]) - exact) < 1e-3
        assert abs(float(plain[0]) - exact) > 0.03

    def test_the_first_option_costs_queries_and_keeps_the_servers_gradient(self):
        slope = torch.tensor([1.0, -2.0], dtype=DOUBLE)
        problem = FederatedBlackBox([lambda X: X @ slope], torch.full((2,), 0.5))
        method = ScaffoldZO(option=1, directions=2, local_steps=3)
        state = method.step(problem, method.init(problem, 0))
        assert state.queries == 3 * 4
        torch.testing.assert_close(state.memory["c"][0], slope)


class TestRounds:
    @pytest.mark.parametrize("name", METHODS)
    def test_clients_by_themselves_do_what_the_simulator_does(self, name):
        problem, method = quadratic(6, 3), METHODS[name]
        state = method.init(problem, 4)
        clients = [Client(method, f, i, seed=4) for i, f in enumerate(problem.clients)]
        broadcast, p = method.first_broadcast(problem.x0, 4), torch.full((3,), 1 / 3, dtype=DOUBLE)
        for number in range(3):
            state = method.step(problem, state)
            messages = [client.round(broadcast, number) for client in clients]
            broadcast, accepted = method.aggregate(broadcast, messages, p)
            assert bool(accepted.all())
        torch.testing.assert_close(broadcast["x"], state.x, rtol=1e-7, atol=1e-9)
        assert [client.queries for client in clients] == [state.queries] * 3

    @pytest.mark.parametrize("name", METHODS)
    def test_messages_tell_nothing_but_x_and_summaries(self, name):
        """No queried point and no value is in a message, in any row, but the x that is sent to be averaged."""
        problem, method = quadratic(5, 2), METHODS[name]
        asked: list[tuple[torch.Tensor, torch.Tensor]] = []

        def listened(f):
            def g(X):
                y = f(X)
                asked.append((X.clone(), y.clone()))
                return y

            return g

        clients = [Client(method, listened(f), i) for i, f in enumerate(problem.clients)]
        broadcast, p = method.first_broadcast(problem.x0, 0), torch.full((2,), 0.5, dtype=DOUBLE)
        allowed = {"fzoos": {"x", "w", "features", "likelihood"}, "fedzo": {"x"}, "prox": {"x"}}
        for number in range(3):
            messages = [client.round(broadcast, number) for client in clients]
            together = stacked(messages)
            assert set(together) == allowed.get(name, {"x", "c"})
            points = torch.cat([X for X, _ in asked])
            values = torch.cat([y for _, y in asked])
            for key, message in together.items():
                flat = message.reshape(-1).to(DOUBLE)
                assert not bool((flat[:, None] == values).any())
                if key != "features":
                    own = points[(points != broadcast["x"]).any(1)]
                    assert not bool((flat[:, None] == own.reshape(-1)).any())
            assert together["x"].shape == (2, 5)
            broadcast, _ = method.aggregate(broadcast, messages, p)

    def test_queries_and_bytes_are_counted(self):
        problem = quadratic(7, 3)
        method = FZooS(features=50, local_steps=4, active=2, candidates=9, initial=6)
        state = method.step(problem, method.init(problem, 0))
        first = 4 + 6 + 3 * 2
        assert state.queries == first
        assert state.calls == 3 * first
        down, up = 7 + 1 + 1, 7 + 50 + 1 + 9
        assert state.bytes == 8 * 3 * (down + up)
        state = method.step(problem, state)
        assert state.queries == first + 4 * 3
        assert state.bytes == 8 * 3 * (2 * up + down + (7 + 50 + 1 + 1 + 1))

    @settings(max_examples=10, deadline=None)
    @given(st.sampled_from(list(METHODS)), st.integers(0, 100))
    def test_no_query_leaves_the_cube(self, name, seed):
        problem = rosenbrock(4, 2, 1.0, seed)
        seen = []

        def watched(f):
            return lambda X: (seen.append(X.clone()), f(X))[1]

        boxed = FederatedBlackBox([watched(f) for f in problem.clients], torch.tensor([0.0, 1.0, 0.5, 1.0]))
        solve(boxed, METHODS[name], stop=Stop(steps=3), seed=seed)
        points = torch.cat(seen)
        assert bool(((points >= 0) & (points <= 1)).all())

    @pytest.mark.parametrize("name", METHODS)
    def test_resuming_gives_the_same_bits(self, name, tmp_path):
        problem = quadratic(5, 2)
        whole = solve(problem, METHODS[name], stop=Stop(steps=4))
        solve(problem, METHODS[name], stop=Stop(steps=2), callbacks=[Checkpoint(tmp_path / "c", every=1)])
        resumed = solve(problem, METHODS[name], stop=Stop(steps=4), resume=tmp_path / "c")
        assert torch.equal(whole.x, resumed.x)


class TestRay:
    def test_clients_in_processes_of_ray_do_what_the_simulator_does(self, ray_engine):
        """Actors hold their functions and queries; one is killed, comes back without memory, and training goes on."""
        problem, method = quadratic(6, 3), METHODS["fzoos"]
        p = torch.full((3,), 1 / 3, dtype=DOUBLE)
        hire = ray_engine.remote(num_cpus=0)(Client).remote
        actors = [hire(method, f, i, 4) for i, f in enumerate(problem.clients)]
        state, broadcast = method.init(problem, 4), method.first_broadcast(problem.x0, 4)
        for number in range(3):
            state = method.step(problem, state)
            messages = ray_engine.get([a.round.remote(broadcast, number) for a in actors])
            broadcast, _ = method.aggregate(broadcast, messages, p)
        torch.testing.assert_close(broadcast["x"], state.x, rtol=1e-7, atol=1e-9)
        ray_engine.kill(actors[1])
        with pytest.raises(ray_engine.exceptions.RayActorError):
            ray_engine.get(actors[1].round.remote(broadcast, 3))
        actors[1] = hire(method, problem.clients[1], 1, 4)
        before = problem.metrics(broadcast["x"])["objective"]
        for number in range(3, 8):
            messages = ray_engine.get([a.round.remote(broadcast, number) for a in actors])
            broadcast, _ = method.aggregate(broadcast, messages, p)
        assert problem.metrics(broadcast["x"])["objective"] < before


class TestFaults:
    @pytest.mark.parametrize("name", METHODS)
    def test_single_failures_of_an_evaluation_are_left_out(self, name):
        problem = quadratic(6, 3)
        calls = [0]

        def flaky(X):
            y = problem.clients[0](X).clone()
            calls[0] += 1
            if calls[0] % 3 == 0:
                y[-1] = math.nan
            return y

        mended = FederatedBlackBox([flaky, *problem.clients[1:]], problem.x0)
        method = METHODS[name]
        state = method.init(mended, 0)
        for _ in range(8):
            state = method.step(mended, state)
        assert state.rejected == 0
        true = problem.metrics(state.x)["objective"]
        assert true < 0.7 * problem.metrics(problem.x0)["objective"]

    def test_a_client_that_dies_is_left_out_of_its_round(self):
        problem = quadratic(8, 4)
        method = FZooS(features=200, faults=Faults(lost=0.4))
        found = solve(problem, method, stop=Stop(steps=15))
        assert found.metrics["objective"] < 0.05 * problem.metrics(problem.x0)["objective"]

    def test_messages_with_nan_are_rejected_and_counted(self):
        problem = quadratic(6, 3)

        def spoil(client, number, x):
            return x * math.nan if client == 1 else x

        method = FedZO(directions=6, faults=Faults(spoil=spoil))
        found = solve(problem, method, stop=Stop(steps=10))
        assert found.history.metrics[-1]["rejected"] == 10
        assert found.metrics["objective"] < problem.metrics(problem.x0)["objective"]

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda client, number, x: x * math.nan,
            lambda client, number, x: x + 5,
            lambda client, number, x: x[:2],
            lambda client, number, x: x - 2.0 * (x + 1.0),
        ],
        ids=["nan", "beyond", "short", "below"],
    )
    @pytest.mark.parametrize("name", METHODS)
    def test_a_round_of_bad_messages_changes_nothing_and_counts_them(self, name, spoil):
        problem = quadratic(6, 2)
        method = dataclasses.replace(METHODS[name], faults=Faults(spoil=spoil))
        found = solve(problem, method, stop=Stop(steps=3))
        assert found.history["rejected"].tolist() == [2, 4, 6]
        assert torch.equal(found.x, problem.x0)

    @pytest.mark.parametrize("bad", [lambda x: x[:2], lambda x: x + 5, lambda x: x * math.inf])
    def test_one_bad_client_is_left_out_and_the_others_go_on(self, bad):
        problem = quadratic(6, 3)
        faults = Faults(spoil=lambda client, number, x: bad(x) if client == 0 else x)
        found = solve(problem, FedZO(faults=faults), stop=Stop(steps=20))
        assert found.history["rejected"][-1] == 20
        assert bool(((found.x >= 0) & (found.x <= 1)).all())
        others = FederatedBlackBox(problem.clients[1:], problem.x0)
        assert others.metrics(found.x)["objective"] < 0.2 * others.metrics(problem.x0)["objective"]

    @pytest.mark.parametrize("name", METHODS)
    def test_a_round_in_which_all_messages_are_lost_is_empty(self, name):
        problem = quadratic(4, 2)
        method = dataclasses.replace(METHODS[name], faults=Faults(lost=0.5))
        found = solve(problem, method, stop=Stop(steps=12))
        assert found.steps == 12
        assert found.history["rejected"][-1] == 0
        assert found.metrics["objective"] < problem.metrics(problem.x0)["objective"]

    def test_features_of_another_seed_are_rejected(self):
        problem, method = quadratic(4, 2), FZooS(features=20)
        broadcasts = [method.first_broadcast(problem.x0, seed) for seed in (0, 1)]
        clients = [Client(method, f, i) for i, f in enumerate(problem.clients)]
        messages = [c.round(b, 0) for c, b in zip(clients, broadcasts, strict=True)]
        new, accepted = method.aggregate(broadcasts[0], messages, torch.full((2,), 0.5, dtype=DOUBLE))
        assert accepted.tolist() == [True, False]
        assert torch.equal(new["w"], messages[0]["w"][0])

    def test_messages_are_looked_at_one_at_a_time(self):
        method = ScaffoldZO()
        broadcast = method.first_broadcast(torch.full((4,), 0.5, dtype=DOUBLE), 0)
        good = {"x": torch.full((1, 4), 0.25, dtype=DOUBLE), "c": torch.ones(1, 4, dtype=DOUBLE)}
        other = [{"x": torch.zeros(1, 3)}, {"c": good["c"]}, {"x": good["x"]}, {**good, "c": good["c"] / 0}]
        new, accepted = method.aggregate(broadcast, [*other, good, good], torch.full((6,), 0.5, dtype=DOUBLE))
        assert accepted.tolist() == [False] * 4 + [True] * 2
        assert torch.equal(new["x"], good["x"][0])
        assert torch.equal(new["c"], good["c"][0])
        same, none = method.aggregate(broadcast, [], torch.zeros(0, dtype=DOUBLE))
        assert same is broadcast
        assert not len(none)
        with pytest.raises(InvalidProblem, match="Message 1 holds"):
            stacked([{"x": torch.zeros(1, 4)}, {"x": torch.zeros(1, 3)}])
        assert torch.equal(row({"x": torch.eye(3)}, 1)["x"], torch.eye(3)[1:2])


class TestClientsWithoutValues:
    def bowl(self, center):
        return lambda X: ((X - center) ** 2).sum(-1)

    @pytest.mark.parametrize("name", METHODS)
    @pytest.mark.parametrize("nothing", [math.nan, math.inf, -math.inf])
    def test_a_region_where_one_client_has_none_does_not_end_the_run(self, name, nothing):
        holed = lambda X: torch.where(X[:, 0] > 0.7, nothing, self.bowl(0.6)(X))  # noqa: E731
        problem = FederatedBlackBox([self.bowl(0.2), holed], torch.full((5,), 0.9))
        found = solve(problem, METHODS[name], stop=Stop(steps=6))
        assert found.steps == 6
        assert found.history["answered"][0] in (1.0, 2.0)
        assert math.isfinite(found.metrics["objective"])
        assert float((found.x - 0.4).abs().max()) < 0.5

    def test_x_is_judged_by_those_that_answered(self):
        clients = [self.bowl(0.0), lambda X: X[:, 0] * math.nan, self.bowl(1.0)]
        problem = FederatedBlackBox(clients, torch.full((2,), 0.5), p=[0.2, 0.5, 0.3])
        told = problem.metrics(torch.tensor([1.0, 1.0]))
        assert told == {"objective": pytest.approx(0.2 * 2 / 0.5), "answered": 2.0}
        mute = FederatedBlackBox([clients[1]], torch.full((2,), 0.5))
        assert mute.metrics(torch.ones(2)) == {"answered": 0.0}

    @pytest.mark.parametrize("name", METHODS)
    @pytest.mark.parametrize("nothing", [math.nan, math.inf])
    def test_where_nobody_ever_has_one_the_run_says_so(self, name, nothing):
        problem = FederatedBlackBox([lambda X: X[:, 0] * 0 + nothing] * 2, torch.full((3,), 0.5))
        found = solve(problem, METHODS[name], stop=Stop(steps=6))
        assert found.status is Status.DIVERGED
        assert "No client's function has a finite value at any of the" in found.message
        assert found.metrics["answered"] == 0

    def test_arrays_and_lists_are_values_too(self):
        clients = [lambda X: ((X.numpy() - 0.2) ** 2).sum(-1), lambda X: ((X - 0.6) ** 2).sum(-1).tolist()]
        problem = FederatedBlackBox(clients, torch.full((3,), 0.9))
        torches = FederatedBlackBox([self.bowl(0.2), self.bowl(0.6)], torch.full((3,), 0.9))
        found, same = (solve(p, FedZO(directions=3), stop=Stop(steps=3)) for p in (problem, torches))
        torch.testing.assert_close(found.x, same.x)
        alone = Client(FedZO(directions=3), clients[0], 0)
        assert alone.round(FedZO().first_broadcast(problem.x0, 0), 0)["x"].shape == (1, 3)

    def test_what_is_no_values_is_told_with_its_client(self):
        problem = FederatedBlackBox([self.bowl(0.2), lambda X: "high"], torch.full((3,), 0.9))
        with pytest.raises(InvalidProblem, match="Client 1 gives str, no values"):
            solve(problem, FedZO(), stop=Stop(steps=1))
        problem = FederatedBlackBox([self.bowl(0.2), lambda X: X], torch.full((3,), 0.9))
        with pytest.raises(InvalidProblem, match=r"Client 1 gives shape \(1, 3\) for 1 points"):
            solve(problem, FedZO(), stop=Stop(steps=1))


class TestScale:
    @pytest.mark.parametrize("name", METHODS)
    @pytest.mark.parametrize("exponent", [-490, -60, 490])
    def test_the_functions_unit_changes_no_point(self, name, exponent):
        boxes = [lambda X, c=c: ((X - c) ** 2).sum(-1) + 0.1 for c in (0.2, 0.5)]
        scaled = [lambda X, f=f: f(X) * 2.0**exponent for f in boxes]
        start, method = torch.full((3,), 0.9), METHODS[name]
        other = method
        if isinstance(method, FedProxZO):  # whose pull is in the functions' unit
            other = dataclasses.replace(method, proximal=method.proximal * 2.0**exponent)
        ones = solve(FederatedBlackBox(boxes, start), method, stop=Stop(steps=3))
        others = solve(FederatedBlackBox(scaled, start), other, stop=Stop(steps=3))
        assert torch.equal(ones.x, others.x)
        assert others.metrics["objective"] == pytest.approx(
            ones.metrics["objective"] * 2.0**exponent, rel=1e-12
        )


class TestTasks:
    def test_the_quadratics_mean_has_its_minimum_where_it_is_said(self):
        for heterogeneity in (0.0, 3.0):
            problem = quadratic(9, 4, heterogeneity)
            at = torch.full((9,), 9.5 / 20, dtype=DOUBLE)
            best = problem.metrics(at)["objective"]
            assert best == pytest.approx((1 - 9 / 4) / 90)
            for _ in range(20):
                other = (at + 0.05 * torch.randn(9, dtype=DOUBLE)).clamp(0, 1)
                assert problem.metrics(other)["objective"] >= best - 1e-12

    def test_without_heterogeneity_clients_are_the_same(self):
        for make in (quadratic, ackley, rosenbrock):
            problem = make(5, 3, 0.0)
            X = torch.rand(4, 5, dtype=DOUBLE)
            values = [f(X) for f in problem.clients]
            torch.testing.assert_close(values[0], values[2])
        assert float(rosenbrock(5, 1, 0.0).clients[0](torch.full((1, 5), 0.75, dtype=DOUBLE))) == 0.0
        assert float(ackley(5, 1, 0.0).clients[0](torch.full((1, 5), 0.5, dtype=DOUBLE))) == pytest.approx(
            0.0
        )

    def test_an_attack_succeeds_where_it_says_so(self):
        problem, succeeds = digits_attack(3, 6)
        assert not succeeds(problem.x0)
        found = solve(problem, FZooS(local_steps=5), stop=Stop(steps=15)).x
        assert problem.metrics(found)["objective"] < problem.metrics(problem.x0)["objective"]
        assert succeeds(found)

    @pytest.mark.parametrize("metric", ["precision", "recall", "f1", "jaccard"])
    def test_metrics_are_scikit_learns(self, metric, rng):
        theirs = {
            "precision": precision_score,
            "recall": recall_score,
            "f1": f1_score,
            "jaccard": jaccard_score,
        }[metric]
        y = rng.integers(0, 6, 40)
        predicted = np.where(rng.random((5, 40)) < 0.5, y, rng.integers(0, 8, (5, 40)))
        ours = macro(metric, torch.from_numpy(predicted), torch.from_numpy(y))
        for k in range(5):
            expected = theirs(y, predicted[k], average="macro", zero_division=0)
            assert float(ours[k]) == pytest.approx(expected)

    def test_a_metric_of_a_network_is_one_minus_the_metric(self):
        problem = metric_of_network("f1", clients=3)
        values = [float(f(problem.x0[None])) for f in problem.clients]
        assert all(0.0 < v < 1.0 for v in values)
        assert len(problem.x0) == 130


class TestBadInput:
    @pytest.mark.parametrize(
        "x0", [[0.25, 0.5], np.array([0.25, 0.5]), torch.tensor([0.25, 0.5], requires_grad=True)]
    )
    def test_the_start_may_be_a_list_or_an_array(self, x0):
        problem = FederatedBlackBox([lambda X: X.sum(-1)], x0)
        assert torch.equal(problem.x0, torch.tensor([0.25, 0.5], dtype=torch.float64))

    @pytest.mark.parametrize("x0", [[], [1j], [math.nan], [[0.1]], ["a"]])
    def test_a_start_that_is_no_place_in_the_cube_is_told(self, x0):
        with pytest.raises(InvalidProblem, match="x0"):
            FederatedBlackBox([lambda X: X.sum(-1)], x0)

    @pytest.mark.parametrize("clients", [lambda X: X.sum(-1), [3], (f for f in [torch.sum])])
    def test_clients_that_are_no_list_of_functions_are_told(self, clients):
        with pytest.raises(InvalidProblem, match="a list of functions"):
            FederatedBlackBox(clients, [0.5])

    def test_complex_values_are_no_values(self):
        problem = FederatedBlackBox([lambda X: X.sum(-1) + 1j], [0.5])
        with pytest.raises(InvalidProblem, match=r"Client 0 gives .*complex"):
            problem.metrics(problem.x0)

    def test_problems_are_checked(self):
        f = [lambda X: X.sum(-1)]
        with pytest.raises(InvalidProblem, match="no clients"):
            FederatedBlackBox([], torch.zeros(2))
        with pytest.raises(InvalidProblem, match="unit cube"):
            FederatedBlackBox(f, torch.full((2,), 1.5))
        with pytest.raises(InvalidProblem, match="sum"):
            FederatedBlackBox(f, torch.zeros(2), p=[0.5])
        with pytest.raises(InvalidProblem, match=r"gives shape \(1, 2\)"):
            FederatedBlackBox([lambda X: X], torch.zeros(2)).metrics(torch.zeros(2))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: FZooS(local_steps=0), "local_steps >= 1"),
            (lambda: FZooS(lr=0.0), "lr > 0"),
            (lambda: FZooS(optimizer="lion"), "'adam' and 'sgd'"),
            (lambda: FZooS(lengthscale=0.0), "lengthscale > 0"),
            (lambda: FZooS(noise=0.0), "noise > 0"),
            (lambda: FZooS(gamma=-1.0), "gamma >= 0"),
            (lambda: FZooS(active=200), "active <= candidates"),
            (lambda: FZooS(radius=0.0), "radius > 0"),
            (lambda: FZooS(nearest=0), "nearest >= 1"),
            (lambda: FZooS(initial=0), "initial >= 1"),
            (lambda: FedZO(directions=0), "directions >= 1"),
            (lambda: FedZO(mu=0.0), "mu > 0"),
            (lambda: FedProxZO(proximal=-1.0), "proximal >= 0"),
            (lambda: ScaffoldZO(option=3), "options 1 and 2"),
            (lambda: quadratic(0), "dim, clients >= 1"),
            (lambda: metric_of_network("auc"), "No such metric"),
        ],
    )
    def test_parameters_out_of_range_are_refused(self, make, message):
        with pytest.raises(InvalidParameter, match=message):
            make()
