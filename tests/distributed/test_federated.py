"""Federations: expectations by simulation, fixed points in closed form, FedFix at its limit, faults, designs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thalweg import Status, Stop, solve
from thalweg.core import Checkpoint, InvalidParameter, InvalidProblem, NotFinite
from thalweg.distributed.federated import (
    AsyncFedAvg,
    ClientTimes,
    Faults,
    FedAvg,
    FedBuff,
    Federated,
    Federation,
    FedFix,
    Sampled,
    by_class,
    design,
    dirichlet,
)

TIMES = {
    "fixed": ClientTimes.heterogeneous(6, 0.8),
    "exponential": ClientTimes.heterogeneous(6, 0.6, "exponential"),
    "lognormal": ClientTimes.heterogeneous(6, 0.8, "lognormal", 0.4),
    "gaussian": ClientTimes.heterogeneous(6, 0.4, "gaussian", 0.2),
    "recorded": ClientTimes.recorded(np.random.default_rng(0).uniform(0.2, 2.0, (50, 6))),
}
P = np.array([0.1, 0.2, 0.1, 0.3, 0.2, 0.1])


def quadratic(count=6, p=P, scale=None):
    """``L_i = a_i/2 (theta - i)^2``: with one local step the fixed point is that of the weighted gradients."""
    a = np.ones(count) if scale is None else scale
    clients = [(torch.tensor([[float(i), float(a[i])]]), torch.zeros(1)) for i in range(count)]
    return Federated(
        lambda theta, X, y: (0.5 * X[:, 1] * (theta - X[:, 0]) ** 2).mean(), torch.zeros(1), clients, p
    )


class Counting(Federated):
    """Clients whose updates write down whose they are."""

    def updates(self, theta, who, *settings):
        return torch.eye(6)[[client for client, _ in who]]


def counted(scheme, times, steps, p=P):
    """Mean d_i over aggregations, by unit updates."""
    clients = [(torch.eye(6)[i : i + 1], torch.zeros(1)) for i in range(6)]
    counting = Counting(lambda theta, X, y: -(theta * X).sum(), torch.zeros(6), clients, p)
    method = Federation(scheme, times, lr=1.0, local_steps=1, judge=10**9)
    found = {}

    def look(run):
        found["x"] = run.state.x

    solve(counting, method, stop=Stop(steps=steps), callbacks=[look])
    return found["x"].numpy() / steps


class TestWeights:
    @pytest.mark.parametrize("kind", TIMES)
    @pytest.mark.parametrize(
        "scheme",
        [
            FedAvg(),
            FedFix(0.45),
            FedFix(0.45, False),
            AsyncFedAvg(),
            FedBuff(3),
            FedBuff(3, False),
            Sampled(3),
            Sampled(3, "md"),
        ],
        ids=str,
    )
    def test_expectations_are_those_of_the_simulation(self, scheme, kind):
        seen = counted(scheme, TIMES[kind], steps=1000)
        np.testing.assert_allclose(seen, scheme.expected(P, TIMES[kind]), rtol=0.15)

    def test_corrected_schemes_are_unbiased_and_others_favour_the_fast(self):
        times = TIMES["fixed"]
        for scheme in (FedAvg(), FedFix(0.3), AsyncFedAvg(), FedBuff(4), Sampled(2), Sampled(2, "md")):
            assert design(scheme, times, P).unbiased
        for scheme in (FedFix(0.3, False), FedBuff(4, False), AsyncFedAvg(corrected=False)):
            found = design(scheme, times, P)
            assert not found.unbiased
            assert found.favoured[0] == 5
            assert found.neglected[0] == 0

    def test_windows_and_intervals_of_fixed_times(self):
        found = design(FedFix(0.3), ClientTimes(np.array([0.9, 0.3, 0.5])))
        np.testing.assert_allclose(found.participation, [1 / 3, 1, 1 / 2])
        assert (found.window, found.interval) == (3, 0.3)
        assert design(FedAvg(), TIMES["fixed"]).interval == 1.0
        assert design(AsyncFedAvg(), ClientTimes(np.array([1.0, 0.5]))).interval == pytest.approx(1 / 3)

    def test_variances_are_those_of_a_coin(self):
        found = design(FedFix(0.5), ClientTimes(np.array([1.0, 0.5])))
        np.testing.assert_allclose(found.variance, [0.25 * 1.0, 0.0])

    def test_windows_know_whom_importance_calls_rarely(self):
        p = np.array([0.01, 0.99])
        assert design(Sampled(2, "md"), ClientTimes(np.ones(2)), p).window == 50
        assert design(Sampled(1, "uniform"), ClientTimes(np.ones(2)), p).window == 2

    def test_reports_say_what_to_change(self):
        said = str(design(FedFix(0.1, False), TIMES["fixed"], P))
        assert "BIASED" in said
        assert "use the corrected weights" in said
        assert "neglected" in said
        assert "shorter than the slowest" in str(design(FedAvg(), TIMES["fixed"]))


class TestTraining:
    def test_fedfix_with_the_slowest_clients_interval_is_fedavg_bit_for_bit(self):
        X = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
        y = torch.randint(3, (60,), generator=torch.Generator().manual_seed(2))
        clients = [(X[k::5], y[k::5]) for k in range(5)]
        problem = Federated.from_module(
            lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)),
            nn.functional.cross_entropy,
            clients,
        )
        times = ClientTimes.heterogeneous(5, 0.8)
        ran = [
            solve(problem, Federation(s, times, batch=4, judge=1), stop=Stop(steps=15), seed=3)
            for s in (FedAvg(), FedFix(1.0))
        ]
        np.testing.assert_array_equal(ran[0].history["loss"], ran[1].history["loss"])
        np.testing.assert_allclose(ran[0].history["seconds"], ran[1].history["seconds"])
        assert torch.equal(ran[0].x, ran[1].x)

    @pytest.mark.parametrize(
        ("scheme", "tolerance"),
        [(FedAvg(), 1e-3), (FedFix(0.5), 0.1), (AsyncFedAvg(), 0.1), (FedBuff(3), 0.1)],
        ids=str,
    )
    def test_corrected_schemes_come_to_the_right_optimum_and_others_to_theirs(self, scheme, tolerance):
        scale = np.array([1.0, 2.0, 1.0, 0.5, 1.0, 3.0])
        means = {}

        def end(scheme):
            tail = []
            method = Federation(scheme, TIMES["fixed"], lr=0.02, local_steps=1, judge=10**9)
            solve(
                quadratic(scale=scale),
                method,
                stop=Stop(steps=1200),
                callbacks=[lambda run: tail.append(float(run.state.x[0])) or False],
            )
            return float(np.mean(tail[-600:]))

        def optimum(q):
            return float((q * scale * np.arange(6)).sum() / (q * scale).sum())

        means["right"] = end(scheme)
        assert means["right"] == pytest.approx(optimum(P), abs=tolerance)
        if not isinstance(scheme, FedAvg):
            wrong = type(scheme)(*([0.5] if isinstance(scheme, FedFix) else [scheme.count]), corrected=False)
            q = design(wrong, TIMES["fixed"], P).q
            assert abs(optimum(q) - optimum(P)) > 0.2
            assert end(wrong) == pytest.approx(optimum(q), abs=tolerance)

    def test_one_client_is_gradient_descent(self):
        X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
        y = X @ torch.tensor([1.0, 2.0, 3.0])
        problem = Federated(lambda t, A, b: 0.5 * ((A @ t - b) ** 2).mean(), torch.zeros(3), [(X, y)])
        method = Federation(FedFix(1.0), ClientTimes(np.ones(1)), lr=0.1, local_steps=4)
        found = solve(problem, method, stop=Stop(steps=5))
        theta = torch.zeros(3)
        for _ in range(20):
            theta = theta - 0.1 * X.T @ (X @ theta - y) / 20
        torch.testing.assert_close(found.x, theta)

    def test_vectorised_updates_are_those_of_each_client(self):
        problem = Federated.from_module(
            lambda: nn.Linear(2, 1),
            nn.functional.mse_loss,
            [(torch.randn(n, 2), torch.randn(n, 1)) for n in (3, 5, 4)],
        )
        theta, who = problem.x0, [(0, 1), (1, 0), (2, 7)]
        whole = problem.updates(theta, who, 3, 0.1, 2, 0.5, 9)
        for k, one in enumerate(who):
            torch.testing.assert_close(problem.updates(theta, [one], 3, 0.1, 2, 0.5, 9)[0], whole[k])

    def test_a_module_with_an_answer_in_it_is_trained_without_changing_the_answer(self):
        ones = [(torch.ones(3, 2), torch.ones(3, 1))]
        problem = Federated.from_module(lambda: nn.Linear(2, 1), nn.functional.mse_loss, ones)
        before = problem.x0.clone()
        layer = problem.into(nn.Linear(2, 1), problem.x0)
        torch.testing.assert_close(nn.utils.parameters_to_vector(layer.parameters()).detach(), before)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        nn.functional.mse_loss(layer(torch.ones(3, 2)), torch.ones(3, 1)).backward()
        optimizer.step()
        assert torch.equal(problem.x0, before)
        moved = nn.utils.parameters_to_vector(layer.parameters()).detach() - before
        torch.testing.assert_close(problem.updates(before, [(0, 0)], 1, 0.1, None, 0.0, 0)[0], moved)

    def test_the_proximal_pull_keeps_local_steps_near(self):
        problem = quadratic()
        free, held = (problem.updates(torch.zeros(1), [(5, 0)], 20, 0.1, None, mu, 0) for mu in (0.0, 2.0))
        assert 0 < float(held) < 0.5 * float(free)

    @pytest.mark.parametrize("scheme", [FedFix(0.4), FedBuff(2), Sampled(3)], ids=str)
    def test_a_restarted_server_has_the_same_bits(self, scheme, tmp_path):
        file = tmp_path / "server.npz"
        method = Federation(scheme, TIMES["lognormal"], lr=0.05, local_steps=2, faults=Faults(lost=0.2))
        stop = Stop(below={"loss": 0.0}, steps=20)
        states = []

        def run(**options):
            solve(
                quadratic(),
                method,
                seed=5,
                callbacks=options.pop("callbacks", [lambda r: states.append(r.state) or False]),
                **options,
            )

        run(stop=stop)
        run(stop=Stop(steps=9), callbacks=[Checkpoint(file, every=1)])
        run(stop=stop, resume=file)
        assert torch.equal(states[19].x, states[-1].x)
        assert states[19].clock == states[-1].clock


class TestRates:
    def distances(self, scheme, rate, times, lr=0.2, local_steps=3):
        """How far from the optimum along the way; all clients have the curvature one."""
        far = []
        method = Federation(scheme, times, lr=lr, local_steps=local_steps, server_lr=rate, judge=10**9)
        state = method.init(quadratic(), 0)
        for _ in range(400):
            state = method.step(quadratic(), state)
            far.append(abs(float(state.x[0]) - float(P @ np.arange(6))))
        return far

    @pytest.mark.parametrize("scheme", [FedAvg(), FedFix(0.5), FedFix(0.3)])
    @pytest.mark.parametrize(("lr", "local_steps"), [(0.2, 3), (1.5, 1)])
    def test_the_advised_rate_settles(self, scheme, lr, local_steps):
        times = ClientTimes.heterogeneous(6, 0.7)
        rate = design(scheme, times, P).server_rate(1.0, lr, local_steps)
        far = self.distances(scheme, 0.95 * rate, times, lr, local_steps)
        assert max(far[-50:]) < max(0.5 * far[0], 0.6 if not isinstance(scheme, FedAvg) else 1e-3)
        assert np.isfinite(far).all()

    def test_beyond_it_waiting_schemes_diverge(self):
        """Without delays the limit is exact."""
        times = ClientTimes.heterogeneous(6, 0.7)
        rate = design(FedAvg(), times, P).server_rate(1.0, 0.2, 3)
        assert self.distances(FedAvg(), 0.99 * rate, times)[-1] < 0.1
        assert self.distances(FedAvg(), 1.01 * rate, times)[-1] > 10.0

    def test_a_common_delay_is_within_the_sharp_limit(self):
        """For one delay tau the exact limit is ``2 sin(pi / (2 (2 tau + 1)))``; ours is below it, and not by half."""
        for window in range(2, 12):
            sharp = 2.0 * math.sin(math.pi / (2.0 * (2 * (window - 1) + 1)))
            assert 0.5 * sharp < 1.5 / window <= sharp + 0.27 / window

    def test_bad_rates_are_refused(self):
        found = design(FedAvg(), ClientTimes.heterogeneous(6, 0.7), P)
        with pytest.raises(InvalidParameter, match="lr < 2 / curvature"):
            found.server_rate(1.0, 2.5, 1)
        with pytest.raises(InvalidParameter, match="curvature, lr > 0"):
            found.server_rate(0.0, 0.1, 1)


class TestFaults:
    def test_lost_updates_cost_time_and_not_the_optimum(self):
        tail = []
        method = Federation(
            FedFix(1.0), ClientTimes(np.ones(6)), lr=0.02, local_steps=1, faults=Faults(lost=0.4), judge=10**9
        )
        solve(
            quadratic(),
            method,
            stop=Stop(steps=3000),
            callbacks=[lambda r: tail.append(float(r.state.x[0])) or False],
        )
        assert np.mean(tail[-1500:]) == pytest.approx(float(P @ np.arange(6)), abs=0.1)

    @pytest.mark.parametrize(
        "bad", [lambda u: u * math.nan, lambda u: torch.cat([u, u])], ids=["nan", "shape"]
    )
    def test_updates_that_are_no_updates_are_rejected_and_counted(self, bad):
        spoil = Faults(spoil=lambda client, task, update: bad(update) if client == 2 else update)
        method = Federation(FedAvg(), ClientTimes(np.ones(6)), lr=0.1, local_steps=1, faults=spoil)
        last = []
        found = solve(
            quadratic(),
            method,
            stop=Stop(steps=200),
            callbacks=[lambda r: last.append(float(r.state.x[0])) or False],
        )
        assert found.history["rejected"][-1] == 200
        rest = np.delete(P, 2)
        assert last[-1] == pytest.approx(float(rest @ np.delete(np.arange(6), 2) / rest.sum()), abs=1e-3)

    def test_updates_that_are_too_old_are_thrown_away(self):
        times = ClientTimes(np.array([1.0, 1.0, 1.0, 1.0, 1.0, 9.5]))
        method = Federation(FedFix(1.0), times, lr=0.1, local_steps=1, faults=Faults(stale=5))
        found = solve(quadratic(), method, stop=Stop(steps=40))
        assert found.history["discarded"][-1] == 4


class TestData:
    @settings(max_examples=25, deadline=None)
    @given(clients=st.integers(1, 12), alpha=st.floats(0.05, 10.0), seed=st.integers(0, 1000))
    def test_partitions_hand_out_every_example_once(self, clients, alpha, seed):
        labels = np.repeat(np.arange(4), 15)
        for parts in (dirichlet(labels, clients, alpha, seed), by_class(labels, clients, 2, seed)):
            assert sorted(np.concatenate(parts).tolist()) == list(range(60))
            assert min(map(len, parts)) > 0

    def test_small_alphas_give_clients_few_classes(self):
        labels = np.repeat(np.arange(5), 200)
        few, many = (
            np.mean([len(np.unique(labels[part])) for part in dirichlet(labels, 10, alpha)])
            for alpha in (0.05, 100.0)
        )
        assert few < 4 < many

    def test_times_have_their_means(self):
        for kind in ("exponential", "lognormal", "gaussian"):
            times = ClientTimes(np.array([2.0]), kind, 0.3)
            assert np.mean([times.draw(0, k, 1) for k in range(3000)]) == pytest.approx(2.0, rel=0.06)


class TestBadInput:
    def test_what_does_not_fit_is_told(self):
        with pytest.raises(InvalidProblem, match=r"sum to 0\.9"):
            design(FedAvg(), ClientTimes(np.ones(2)), [0.5, 0.4])
        with pytest.raises(InvalidParameter, match="FedFix needs seconds > 0"):
            FedFix(0.0)
        with pytest.raises(InvalidProblem, match="positive seconds"):
            ClientTimes(np.array([1.0, 0.0]))
        with pytest.raises(InvalidProblem, match="times for 3 clients, and 6"):
            solve(quadratic(), Federation(FedAvg(), ClientTimes(np.ones(3))), stop=Stop(steps=1))
        with pytest.raises(InvalidProblem, match="Client 1 has 2 X and 1 y"):
            Federated(
                lambda t, X, y: t.sum(),
                torch.zeros(1),
                [(torch.ones(1, 1), torch.ones(1)), (torch.ones(2, 1), torch.ones(1))],
            )
        with pytest.raises(NotFinite, match="Client 0's X"):
            Federated(
                lambda t, X, y: t.sum(), torch.zeros(1), [(torch.full((1, 1), math.nan), torch.ones(1))]
            )

    @pytest.mark.parametrize(
        ("X", "y", "message"),
        [
            (
                [[1.0], [2.0]],
                [1.0, math.nan],
                r"Client 1's y holds NaN or infinity in 1 of 2 examples, first in",
            ),
            ([[1.0], [2.0]], [math.inf, math.nan], "in 2 of 2 examples, first in example 0"),
            ([[math.nan], [2.0]], [1.0, 2.0], "Client 1's X holds NaN or infinity in 1 of 2"),
        ],
    )
    def test_examples_that_are_not_finite_are_told_with_their_place(self, X, y, message):
        good = (torch.ones(2, 1), torch.ones(2))
        with pytest.raises(NotFinite, match=message):
            Federated(lambda t, X, y: t.sum(), torch.zeros(1), [good, (torch.tensor(X), torch.tensor(y))])

    def test_labels_that_are_whole_are_taken(self):
        clients = [(torch.ones(2, 1), torch.tensor([0, 1]))]
        assert Federated(lambda t, X, y: t.sum(), torch.zeros(1), clients).weights.tolist() == [1.0]

    def test_arrays_are_refused(self):
        X, y = torch.ones(3, 2), np.ones(3)
        with pytest.raises(InvalidProblem, match=r"clients\[1\]\[1\] is a ndarray; expected a tensor"):
            Federated(lambda x, X, y: ((X @ x - y) ** 2).mean(), torch.zeros(2), [(X, X[:, 0]), (X, y)])

    def test_a_loss_that_is_not_one_number_is_refused(self):
        clients = [(torch.ones(2, 1), torch.ones(2))] * 2
        problem = Federated(lambda t, X, y: (X[:, 0] * t - y).square(), torch.zeros(1), clients)
        with pytest.raises(InvalidProblem, match=r"one number for a batch; got shape \(2,\)"):
            problem.updates(torch.zeros(1), [(0, 0), (1, 0)], 1, 0.1, None, 0.0, 0)

    def test_a_loss_that_theta_has_no_say_in_moves_nothing(self):
        clients = [(torch.ones(2, 1), torch.ones(2))] * 2
        problem = Federated(lambda t, X, y: y.mean(), torch.zeros(1), clients)
        found = problem.updates(torch.ones(1), [(0, 0), (1, 0)], 3, 0.1, None, 0.0, 0)
        assert torch.equal(found, torch.zeros(2, 1))

    def test_a_loss_that_branches_on_values_is_told_in_our_words(self):
        def branching(theta, X, y):
            return theta.sum() if (X > 0).all() else -theta.sum()

        clients = [(torch.ones(2, 1), torch.ones(2))] * 2
        with pytest.raises(InvalidProblem, match=r"may not branch on values.*Use torch.where"):
            Federated(branching, torch.zeros(1), clients).metrics(torch.zeros(1))
        with pytest.raises(InvalidProblem, match="may not branch on values"):
            Federated(branching, torch.zeros(1), clients).updates(
                torch.zeros(1), [(0, 0)], 1, 0.1, None, 0.0, 0
            )

    @pytest.mark.parametrize(
        ("p", "message"),
        [
            ([0.5, 0.0, 0.5], r"that of client 1 \(from 0\) is 0\. Leave out"),
            ([0.5, 0.6, -0.1], r"that of client 2 \(from 0\) is -0\.1"),
            ([math.nan, 0.5, 0.5], r"that of client 0 \(from 0\) is nan"),
            ([0.25, 0.25, 0.25], r"these sum to 0\.75\. Divide"),
            ([0.5, 0.5], "one for each client"),
            ("abc", "expected numbers"),
        ],
    )
    def test_importances_are_told_with_their_client(self, p, message):
        with pytest.raises(InvalidProblem, match=message):
            design(FedAvg(), ClientTimes(np.ones(3)), p)

    @pytest.mark.parametrize(
        ("record", "error", "place"),
        [
            ([[1.0, 2.0], [3.0, math.nan]], NotFinite, r"row 1, client 1 \(from 0\) is nan"),
            ([[1.0, 0.0], [-3.0, 1.0]], InvalidProblem, r"row 0, client 1 \(from 0\) is 0, the first of 2"),
            ([[1.0, 1.0], [math.inf, 1.0]], NotFinite, r"row 1, client 0 \(from 0\) is inf"),
        ],
    )
    def test_times_are_told_with_their_place(self, record, error, place):
        with pytest.raises(error, match=place):
            ClientTimes.recorded(record)
        with pytest.raises(
            InvalidProblem, match=r"Times are positive seconds; that of client 2 \(from 0\) is -1"
        ):
            ClientTimes(np.array([1.0, 2.0, -1.0]))

    @pytest.mark.parametrize(
        ("scheme", "word"),
        [
            (FedAvg(), "FedFix, with an interval shorter"),
            (FedFix(9.0), "an interval shorter than the slowest client's time saves"),
            (FedBuff(50), "a smaller count saves"),
            (Sampled(3), "a smaller count saves"),
        ],
    )
    def test_advice_is_about_what_the_scheme_has(self, scheme, word):
        (said,) = design(scheme, ClientTimes(np.array([1.0, 2.0, 3.0]))).advice()
        assert word in said

    def test_a_count_beyond_the_clients_is_told(self):
        with pytest.raises(InvalidParameter, match="there are 3: take a count of at most that; got 10"):
            design(Sampled(10), ClientTimes(np.ones(3)))

    def test_an_interval_that_all_clients_exceed_waits_and_goes_on(self):
        method = Federation(FedFix(0.3), ClientTimes(np.ones(6)), lr=0.1, local_steps=1)
        found = solve(quadratic(), method, stop=Stop(steps=8))
        assert found.history["updates"].tolist() == [0, 0, 0, 6, 0, 0, 0, 6]

    def test_rates_that_are_too_large_are_told(self):
        method = Federation(AsyncFedAvg(), TIMES["fixed"], lr=5.0, local_steps=3)
        found = solve(quadratic(), method, stop=Stop(steps=500))
        assert found.status is Status.DIVERGED
