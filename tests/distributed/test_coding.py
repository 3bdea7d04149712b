"""Gradient codes over workers and rounds: every pattern, deadlines, replays, training as if nobody were late."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thalweg import Stop, solve
from thalweg.core import Checkpoint, InvalidParameter, InvalidProblem, NotFinite, Status
from thalweg.distributed.coding import (
    CodedTraining,
    DataParallel,
    DelayProfile,
    GradientCode,
    GradientCoding,
    IgnoreStragglers,
    Ledger,
    Master,
    Multiplexed,
    SelectedCoding,
    SelectiveRepeat,
    TooManyStragglers,
    Uncoded,
    VirtualCluster,
    bursty_pattern,
    fit_slope,
    gilbert_elliott,
    is_arbitrary,
    is_bursty,
    plan,
    replay,
    waterfall,
)
from thalweg.distributed.coding.replay import rehearsed
from thalweg.distributed.coding.replay import settings as tried

CONSTRUCTIONS = ["repetition", "circulant", "random"]
SCHEMES = [
    Uncoded(4),
    GradientCoding(6, 2),
    GradientCoding(5, 1),
    SelectiveRepeat(6, 1, 2, 3),
    SelectiveRepeat(6, 2, 3, 2),
    Multiplexed(5, 1, 2, 2),
    Multiplexed(4, 2, 4, 3),
    Multiplexed(4, 1, 3, 4),
]


def computed(task, parts):
    return sum(c * parts[task.job][p] for p, c in zip(task.parts, task.coefficients))


def played(scheme, late):
    """The protocol with real vectors: jobs' gradients, and the rounds in which they came."""
    rng, master, done = np.random.default_rng(0), Master(scheme), {}
    parts = rng.standard_normal((len(late) + 1, len(scheme.shares), 3))
    for r, row in enumerate(late):
        arrived = set(np.flatnonzero(~row))
        for worker in range(scheme.n):  # a wait-out where the pattern is more than the scheme tolerates
            if not master.may_end(arrived):
                arrived.add(worker)
        work = master.assignments()
        for job, gradient in master.close({w: [computed(t, parts) for t in work[w]] for w in arrived}):
            done[job] = (r, gradient, parts[job].sum(0))
    return done


class TestCodes:
    @pytest.mark.parametrize("construction", CONSTRUCTIONS)
    @pytest.mark.parametrize("n", range(1, 7))
    def test_every_pattern_of_small_codes_decodes_the_sum(self, n, construction):
        for s in range(n):
            fits = {"repetition": n % (s + 1) == 0, "circulant": (n - s) % 2 == 1, "random": True}
            if not fits[construction]:
                with pytest.raises(InvalidParameter, match="construction"):
                    GradientCode(n, s, construction)
                continue
            code = GradientCode(n, s, construction)
            assert (np.count_nonzero(code.encoding, axis=1) <= s + 1).all()
            for k in range(n - s, n + 1):
                for arrived in itertools.combinations(range(n), k):
                    a = code.decoding(arrived)
                    np.testing.assert_allclose(a @ code.encoding[list(arrived)], 1.0, atol=1e-9)

    @settings(max_examples=40, deadline=None)
    @given(n=st.integers(2, 40), data=st.data())
    def test_any_n_minus_s_results_decode_in_any_order(self, n, data):
        s = data.draw(st.integers(0, min(n - 1, 10)))
        code = GradientCode(n, s)
        arrived = data.draw(st.permutations(range(n)))[: n - s]
        g = np.random.default_rng(n).standard_normal((n, 4))
        total = code.decoding(arrived) @ (code.encoding @ g)[arrived]
        np.testing.assert_allclose(total, g.sum(0), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize(
        ("n", "s"), [(64, 33), (64, 45), (40, 37), (128, 61), (100, 49), (65, 33), (33, 32), (48, 12)]
    )
    def test_whoever_is_late_the_sum_is_exact(self, n, s):
        """Neighbours, every k-th, a random set; by the default code and by those of the schemes."""
        parts = np.random.default_rng(0).normal(size=(n, 3))
        codes = [GradientCode(n, s), GradientCoding(n, s).code, Multiplexed(n, 1, 2, s).code]
        spread = np.unique(np.arange(s) * n // s)
        random = np.random.default_rng(1).permutation(n)[:s]
        for late in (np.arange(s), (n - s // 2 + np.arange(s)) % n, spread, random):
            arrived = np.setdiff1d(np.arange(n), late)
            for code in codes:
                got = code.decoding(arrived) @ (code.encoding @ parts)[arrived]
                np.testing.assert_allclose(got, parts.sum(0), atol=1e-8 * np.abs(parts.sum(0)).max())

    @pytest.mark.parametrize(("n", "s"), [(64, 33), (64, 61), (128, 41), (256, 33)])
    def test_a_circulant_code_is_refused_where_it_has_lost_its_digits(self, n, s):
        code = GradientCode(n, s, "circulant")
        with pytest.raises(InvalidProblem, match=r'an error of .* take construction="random"'):
            code.decoding(np.arange(s, n))
        if s < 50:  # the same code where stragglers are far apart
            late = np.unique(np.arange(s) * n // s)
            a = code.decoding(np.setdiff1d(np.arange(n), late))
            np.testing.assert_allclose(a @ code.encoding[np.setdiff1d(np.arange(n), late)], 1.0, atol=1e-8)

    @pytest.mark.parametrize(
        ("arrived", "message"),
        [
            ([0, 1, 2, 3, 99], r"Result 4 \(from 0\) is of a worker outside 0 .. 7; got 99"),
            ([-1, 0, 1, 2, 3], r"Result 0 \(from 0\) is of a worker outside 0 .. 7; got -1"),
            ([0, 1, 2, 3, 3], "stands twice"),
            ([0.0, 1.0, 2.0, 3.0, 4.0], "whole numbers"),
            ([True, False, True, True, True], "whole numbers"),
            ([[0, 1], [2, 3]], "whole numbers"),
        ],
    )
    def test_results_of_no_worker_are_refused(self, arrived, message):
        with pytest.raises(InvalidParameter, match=message):
            GradientCode(8, 3).decoding(arrived)
        with pytest.raises(InvalidParameter, match=message):
            GradientCode(8, 3).approximate(arrived)

    @pytest.mark.parametrize("numbers", [(4, 1.5), (4.0, 1), ("4", 1), (4, True)])
    def test_numbers_that_are_not_whole_are_refused(self, numbers):
        with pytest.raises(InvalidParameter, match="whole numbers n and s"):
            GradientCode(*numbers)

    def test_codes_for_256_workers_keep_single_precision_gradients(self):
        random = np.random.default_rng(0)
        g = random.standard_normal((256, 100))
        for s in (15, 16, 30):
            code = GradientCode(256, s)
            arrived = np.sort(random.permutation(256)[: 256 - s])
            results = (code.encoding @ g)[arrived]
            error = np.abs(code.decoding(arrived) @ results - g.sum(0)).max() / np.abs(g.sum(0)).max()
            assert error < 1e-8
            assert code.amplification(20)[1] < 1e6
        assert GradientCode(256, 15).amplification(20) == (1.0, 1.0)

    def test_fewer_results_decode_to_the_nearest(self):
        code = GradientCode(6, 1)
        arrived = [0, 1, 2, 3]
        a = code.approximate(arrived)
        best = np.linalg.norm(a @ code.encoding[arrived] - 1)
        for seed in range(5):
            other = a + 0.1 * np.random.default_rng(seed).standard_normal(4)
            assert np.linalg.norm(other @ code.encoding[arrived] - 1) >= best
        with pytest.raises(TooManyStragglers, match="4 results of 6; the code needs 5"):
            code.decoding(arrived)


class TestSchemes:
    def test_loads_are_the_papers(self):
        assert GradientCoding(256, 15).load == 0.0625
        assert Multiplexed(256, 1, 2, 27).load == pytest.approx(28 * 2 / (256 * 29))
        assert Multiplexed(8, 2, 3, 8).load == pytest.approx(4 / (8 * 2))
        assert SelectiveRepeat(8, 2, 5, 4).s == math.ceil(2 * 4 / 6)

    @pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
    def test_work_is_what_the_load_says_and_parts_are_all_the_data(self, scheme):
        assert scheme.shares.sum() == pytest.approx(1.0)
        ledger = Ledger()
        ledger.late = [frozenset()] * 50
        tasks = scheme.tasks(50, ledger)
        work = [sum(scheme.shares[p] for t in tasks[w] for p in t.parts) for w in range(scheme.n)]
        assert max(work) == pytest.approx(scheme.load)

    @settings(max_examples=60, deadline=None)
    @given(scheme=st.sampled_from(SCHEMES), seed=st.integers(0, 10**6), often=st.floats(0.0, 0.9))
    def test_every_gradient_is_exact_and_in_time_whoever_is_late(self, scheme, seed, often):
        late = np.random.default_rng(seed).random((25, scheme.n)) < often
        done = played(scheme, late)
        assert set(done) >= set(range(25 - scheme.delay))
        for job, (r, gradient, total) in done.items():
            assert job <= r <= job + scheme.delay
            np.testing.assert_allclose(gradient, total, atol=1e-7)

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10**6), B=st.integers(1, 2), more=st.integers(1, 3), lam=st.integers(1, 4))
    def test_m_sgc_never_waits_for_a_pattern_of_its_model(self, seed, B, more, lam):
        scheme = Multiplexed(5, B, B + more, lam)
        late = bursty_pattern(20, 5, B, B + more, lam, seed)
        master = Master(scheme)
        for row in late:
            arrived = set(np.flatnonzero(~row))
            if not arrived:
                break
            assert master.may_end(arrived)
            work = master.assignments()
            master.close({w: [0.0] * len(work[w]) for w in arrived})

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10**6))
    def test_the_incremental_test_of_bursts_is_the_definition(self, seed):
        late = np.random.default_rng(seed).random((12, 4)) < 0.25
        scheme, ledger = Multiplexed(4, 2, 4, 2), Ledger()
        for r, row in enumerate(late):
            now = frozenset(np.flatnonzero(row).tolist())
            window = late[max(r - 3, 0) : r + 1]
            whole = is_bursty(window, 2, 4, 2)
            if is_bursty(late[max(r - 3, 0) : r], 2, 4, 2):
                assert scheme.tolerates(now, r, ledger) == whole
            ledger.late.append(now)

    def test_leaving_stragglers_out_is_biased(self):
        scheme = IgnoreStragglers(4, 1)
        results = {(w,): np.array([float(w)]) for w in range(3)}
        assert scheme.decode(0, results)[0] == pytest.approx(4 / 3 * 3)
        assert scheme.decode(0, dict(list(results.items())[:2])) is None

    def test_gradients_may_be_containers(self):
        scheme = Uncoded(2)
        results = {(w,): {"a": np.ones(2), "b": [np.zeros(1), np.ones(1)]} for w in range(2)}
        total = scheme.decode(0, results)
        np.testing.assert_array_equal(total["a"], [2, 2])
        np.testing.assert_array_equal(total["b"][1], [2])


class TestPatterns:
    def test_bursts_and_counts(self):
        burst = np.zeros((6, 3), bool)
        burst[1:3, 0] = True
        assert is_bursty(burst, 2, 4, 1)
        assert not is_bursty(burst, 1, 4, 1)
        burst[4, 0] = True
        assert not is_bursty(burst, 2, 4, 1)
        assert is_arbitrary(burst, 3, 4, 1)
        assert not is_arbitrary(burst, 1, 4, 1)

    def test_the_chain_has_its_stationary_share_and_burst_length(self):
        late = gilbert_elliott(4000, 50, 0.05, 0.25, seed=1)
        assert late.mean() == pytest.approx(0.05 / 0.3, rel=0.05)
        ends = (late[:-1] & ~late[1:]).sum()
        assert late[:-1].sum() / ends == pytest.approx(4.0, rel=0.05)

    def test_a_line_through_loads_and_times(self):
        base, slope = fit_slope([0.1, 0.3], [1.5, 2.5])
        assert (base, slope) == pytest.approx((1.0, 5.0))


class TestReplay:
    @pytest.mark.parametrize("slope", [0.0, 5.0, 40.0])
    def test_kernels_live_every_round_as_the_protocol_does(self, slope):
        profile = DelayProfile.generated(30, 5, slope=slope, enter=0.25, leave=0.4, seed=int(slope))
        for scheme in [*tried(5, 3, 6), IgnoreStragglers(5, 2)]:
            lived, quick = rehearsed(profile, scheme), replay(profile, scheme)
            np.testing.assert_allclose(quick.seconds, lived.seconds)
            np.testing.assert_array_equal(quick.late, lived.late)

    def test_without_stragglers_all_take_their_fastest(self):
        profile = DelayProfile(np.ones((10, 6)))
        assert replay(profile, Uncoded(6)).total == pytest.approx(10.0)
        assert replay(profile, GradientCoding(6, 2)).total == pytest.approx(10.0)

    def test_one_straggler_is_left_out_and_load_is_paid_for(self):
        seconds = np.ones((10, 4))
        seconds[:, 0] = 9.0
        profile = DelayProfile(seconds, slope=2.0)
        assert replay(profile, Uncoded(4)).total == pytest.approx(90.0)
        coded = replay(profile, GradientCoding(4, 1), mu=0.0)
        assert coded.total == pytest.approx(10 * (1 + 2.0 * 0.25))
        assert coded.late[:, 0].all()

    def test_the_plan_is_the_best_of_every_setting(self):
        profile = DelayProfile.generated(60, 12, slope=30.0, enter=0.05, leave=0.8, seed=3)
        found = plan(profile, most_B=2, most_W=4)
        totals = [replay(profile, scheme).total for scheme in tried(12, 2, 4)]
        assert found.tried == len(totals)
        assert found.ranked[0][1] == pytest.approx(min(totals))
        assert replay(profile, found.best).total == pytest.approx(min(totals))

    def test_the_picture_has_the_rounds_and_who_was_late(self):
        profile = DelayProfile.generated(15, 6, seed=1)
        lengths, who = waterfall(replay(profile, GradientCoding(6, 1)), profile)
        assert len(lengths.series[0].y) == 15
        assert np.shape(who.surface.z) == (15, 6)


X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([1.0, -2.0, 0.5]) + 0.3


def regression():
    return DataParallel(lambda: nn.Linear(3, 1), lambda out, y: ((out[:, 0] - y) ** 2).sum(), X, Y)


def synchronous(seed, jobs, lr=0.1, momentum=0.5):
    """Plain gradient descent on all the data, by torch."""
    problem = regression()
    x = problem.start(seed)
    velocity = torch.zeros_like(x)
    for _ in range(jobs):
        w = x.clone().requires_grad_()
        (((X @ w[:3] + w[3] - Y) ** 2).mean()).backward()
        velocity = momentum * velocity + w.grad
        x = x - lr * velocity
    return x


class TestTraining:
    @pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
    def test_each_model_is_trained_as_by_synchronous_descent(self, scheme):
        profile = DelayProfile.generated(40, scheme.n, enter=0.3, leave=0.5, seed=5)
        states = []
        method = CodedTraining(scheme, VirtualCluster(profile), lr=0.1, momentum=0.5)
        solve(
            regression(),
            method,
            stop=Stop(steps=31),
            seed=2,
            callbacks=[lambda run: states.append(run.state) or False],
        )
        last = states[-1]
        count = scheme.delay + 1
        assert last.jobs >= 31 - scheme.delay
        for k in range(count):
            jobs = len(range(k, last.jobs, count))
            torch.testing.assert_close(last.models[k], synchronous(2 + k, jobs), atol=1e-5, rtol=1e-4)

    def test_virtual_seconds_are_the_replays(self):
        profile = DelayProfile.generated(20, 6, slope=10.0, enter=0.2, seed=2)
        scheme = Multiplexed(6, 1, 2, 2)
        found = solve(regression(), CodedTraining(scheme, VirtualCluster(profile)), stop=Stop(steps=20))
        assert found.history["seconds"][-1] == pytest.approx(replay(profile, scheme).total)

    def test_a_restarted_master_ends_where_the_undisturbed_one_does(self, tmp_path):
        scheme, file = Multiplexed(5, 1, 2, 2), tmp_path / "run.npz"
        profile = DelayProfile.generated(40, 5, enter=0.3, seed=5)

        def run(**options):
            method = CodedTraining(scheme, VirtualCluster(profile), lr=0.1)
            return solve(regression(), method, seed=1, **options)

        whole = run(stop=Stop(below={"loss": 1e-4}))
        run(stop=Stop(steps=11), callbacks=[Checkpoint(file, every=1)])
        again = run(stop=Stop(below={"loss": 1e-4}), resume=file)
        assert again.metrics["loss"] <= 1e-4
        torch.testing.assert_close(again.x, whole.x, atol=1e-4, rtol=1e-3)

    @pytest.mark.parametrize("spoil", [lambda v: v * math.nan, lambda v: v[:-1]], ids=["nan", "shape"])
    def test_bad_results_count_as_late_and_change_nothing(self, spoil):
        class Spoiled(VirtualCluster):
            def wait(self, until):
                arrival = super().wait(until)
                if arrival is None or arrival.worker != 1:
                    return arrival
                return arrival._replace(results=[spoil(v) for v in arrival.results])

        profile = DelayProfile(np.ones((5, 5)))
        ran = [
            solve(regression(), CodedTraining(GradientCoding(5, 1), cluster(profile)), stop=Stop(steps=20))
            for cluster in (VirtualCluster, Spoiled)
        ]
        torch.testing.assert_close(ran[0].x, ran[1].x, atol=1e-5, rtol=1e-4)
        assert ran[1].history["faults"][-1] == 20
        with pytest.raises(InvalidProblem, match="1 workers have no results and none to come"):
            solve(regression(), CodedTraining(Uncoded(5), Spoiled(profile)), stop=Stop(steps=3))

    def test_a_rate_that_is_too_large_is_told(self):
        method = CodedTraining(Uncoded(3), VirtualCluster(DelayProfile(np.ones((2, 3)))), lr=1e20)
        problem = regression()
        found = solve(problem, method, stop=Stop(steps=50))
        assert found.status is Status.DIVERGED
        assert found.metrics["loss"] <= problem.metrics(problem.start(0))["loss"]  # the best answer is kept
        state = method.init(problem, 0)
        with pytest.raises(
            NotFinite, match=r"diverged after \d+ jobs\. A smaller lr than 1e\+20 may mend it"
        ):
            for _ in range(50):
                state = method.step(problem, state)


class TestSelection:
    def changing(self):
        """A hundred calm rounds, then one straggler a round that takes ten times as long."""
        rng = np.random.default_rng(0)
        seconds = 1.0 + 0.01 * rng.random((400, 6))
        seconds[np.arange(100, 400), rng.integers(6, size=300)] = 10.0
        return DelayProfile(seconds, slope=0.6)

    def method(self, **options):
        settings = {"slope": 0.6, "probe": 10, "keep": 60, "lr": 0.1, "momentum": 0.5, **options}
        return SelectedCoding(6, VirtualCluster(self.changing()), **settings)

    def test_the_code_follows_the_profile_and_gains_time(self):
        found = solve(regression(), self.method(), stop=Stop(steps=400)).history
        loads, seconds = found["load"], found["seconds"]
        assert set(np.round(loads[:60], 6)) == {round(1 / 6, 6)}  # calm: uncoded
        assert max(loads[150:]) > 0.17
        uncoded = replay(self.changing(), Uncoded(6)).total
        assert seconds[-1] < 0.65 * uncoded
        coded = np.array(loads) > 0.17
        assert np.diff([0.0, *seconds])[coded].mean() < 3.0  # ten uncoded; some are waited out

    def test_each_model_is_trained_as_by_synchronous_descent_across_changes(self):
        states = []
        solve(
            regression(),
            self.method(keep=25),
            stop=Stop(steps=160),
            seed=2,
            callbacks=[lambda run: states.append(run.state) or False],
        )
        kinds = {state.kind for state in states}
        assert len(kinds) >= 2
        last = states[-1]
        count = len(last.models)
        assert last.jobs > 120
        for k in range(count):
            jobs = len(range(k, last.jobs, count))
            torch.testing.assert_close(last.models[k], synchronous(2 + k, jobs), atol=1e-5, rtol=1e-4)

    def test_a_restarted_run_goes_on_with_the_same_scheme(self, tmp_path):
        file = tmp_path / "run.npz"
        solve(regression(), self.method(), stop=Stop(steps=130), callbacks=[Checkpoint(file, every=1)])
        states = []
        look = [lambda run: states.append(run.state) or False]
        again = solve(regression(), self.method(), stop=Stop(steps=200), resume=file, callbacks=look)
        assert len(states) == 70
        assert again.metrics["loss"] < 1e-3
        assert all(state.jobs >= 110 for state in states)

    def test_many_workers_are_planned_on_fewer_levels(self):
        profile = DelayProfile.generated(20, 2000, slope=32.0)
        found = plan(profile, most_B=1, most_W=2)
        assert found.tried < 1600
        assert len(list(tried(100, 1, 2))) == 300

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"probe": 1}, "probe >= 2"),
            ({"slope": -1.0}, "slope >= 0"),
            ({"bursts": 4, "window": 4}, "bursts < window"),
            ({"lr": 0.0}, "lr > 0"),
        ],
    )
    def test_parameters_out_of_range_are_refused(self, settings, message):
        with pytest.raises(InvalidParameter, match=message):
            self.method(**settings)


class TestBadInput:
    @pytest.mark.parametrize(
        "loss",
        [
            lambda out, y: ((out[:, 0] - y) ** 2).mean(),
            lambda out, y: ((out - y) ** 2).sum(),  # (n, 1) beside (n,): each output with every target
            lambda out, y: (out[:, 0] - y) ** 2,
            lambda out, y: None,
            lambda out, y: 1.0,
        ],
    )
    def test_a_loss_that_is_not_the_sum_over_examples_is_told(self, loss):
        with pytest.raises(InvalidProblem, match=r"DataParallel needs a loss that is .*the sum over a batch"):
            DataParallel(lambda: nn.Linear(3, 1), loss, X, Y)

    def test_a_network_that_draws_in_training_is_no_other_loss(self):
        def network():
            return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))

        before = torch.get_rng_state()
        problem = DataParallel(network, lambda out, y: ((out[:, 0] - y) ** 2).sum(), X, Y)
        assert problem.model is network
        assert torch.equal(torch.get_rng_state(), before), (
            "the look at the loss draws from a stream of its own"
        )

    def test_examples_that_are_no_tensors_are_told(self):
        with pytest.raises(InvalidProblem, match="X to be a tensor"):
            DataParallel(lambda: nn.Linear(3, 1), lambda out, y: out.sum(), X.numpy(), Y)

    @pytest.mark.parametrize("seconds", [[["a", "b"]], [[1j, 1.0]], [[1.0, 2.0], [3.0]]])
    def test_a_profile_that_holds_no_numbers_is_told(self, seconds):
        with pytest.raises(InvalidProblem, match="profile"):
            DelayProfile(seconds)

    @pytest.mark.parametrize(
        ("loads", "seconds"),
        [
            ([0.1, 0.1], [1.0, 2.0]),
            ([0.1], [1.0]),
            ([0.1, 0.2], [1.0]),
            ([0.1, 0.2], [1.0, math.nan]),
            (["a"], [1.0]),
        ],
    )
    def test_loads_and_times_that_have_no_slope_are_told(self, loads, seconds):
        with pytest.raises(InvalidProblem):
            fit_slope(loads, seconds)

    def test_parameters_are_told(self):
        with pytest.raises(InvalidParameter, match="B to divide W - 1"):
            SelectiveRepeat(6, 2, 4, 1)
        with pytest.raises(InvalidParameter, match="0 <= lam <= n"):
            Multiplexed(4, 1, 2, 5)
        with pytest.raises(InvalidParameter, match="0 <= s < n"):
            GradientCoding(4, 4)
        with pytest.raises(InvalidParameter, match="W > B"):
            Multiplexed(4, 2, 2, 1)

    def test_profiles_are_checked(self):
        with pytest.raises(InvalidProblem, match="all positive"):
            DelayProfile(np.array([[1.0, 0.0]]))
        with pytest.raises(NotFinite, match="profile holds 1 NaN"):
            DelayProfile(np.array([[1.0, math.nan]]))
        with pytest.raises(InvalidProblem, match="3 workers and the scheme 4"):
            replay(DelayProfile(np.ones((2, 3))), Uncoded(4))

    def test_more_stragglers_than_the_code_takes_are_told(self):
        master = Master(GradientCoding(4, 1))
        assert not master.may_end({0, 1})
        work = master.assignments()
        with pytest.raises(InvalidProblem, match="Job 0 is not decodable by its deadline"):
            master.close({w: [0.0] * len(work[w]) for w in (0, 1)})
