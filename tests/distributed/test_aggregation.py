"""The server's rule against its formula, whatever the updates are, and the shortest calls of the area."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg import Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, Status
from thalweg.distributed.coding import DataParallel
from thalweg.distributed.federated import (
    ClientTimes,
    FedAvg,
    FedBuff,
    Federated,
    FedFix,
    Sampled,
    arrival_shares,
)
from thalweg.distributed.federated.aggregation import AggregationRule, Update
from thalweg.distributed.zeroth_order import quadratic

P = np.array([0.1, 0.2, 0.3, 0.4])
TIMES = ClientTimes.heterogeneous(4, 0.75)
SHARES = arrival_shares(TIMES)
X = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)


def updates(seed, count=6):
    random = np.random.default_rng(seed)
    return [
        Update(
            int(random.integers(4)),
            torch.from_numpy(random.standard_normal(3)),
            float(random.uniform(0.1, 3.0)),
            int(random.integers(5)),
        )
        for _ in range(count)
    ]


#: What the paper's table says of d_i, written down a second time.
WEIGHTS = {
    FedAvg(): lambda i, t: P[i],
    FedFix(0.4): lambda i, t: np.ceil(t / 0.4) * P[i],
    FedBuff(3): lambda i, t: P[i] / (3 * SHARES[i]),
    FedBuff(3, corrected=False): lambda i, t: P[i] * 4 / 3,
    Sampled(2): lambda i, t: P[i] * 4 / 2,
    Sampled(2, "md"): lambda i, t: 0.5,
}


class TestBadInput:
    @pytest.mark.parametrize("client", [-1, 4])
    def test_a_client_that_is_not_among_the_importances_is_refused(self, client):
        with pytest.raises(InvalidProblem, match=f"client {client}; importances are of clients 0 to 3"):
            AggregationRule(FedAvg()).aggregate(X, [Update(client, X, 1.0, 0)], 0, P, SHARES)

    def test_complex_updates_and_models_of_whole_numbers_are_refused(self):
        rule, update = AggregationRule(FedAvg()), Update(0, X.to(torch.complex128), 1.0, 0)
        with pytest.raises(InvalidProblem, match="client 0 is complex"):
            rule.aggregate(X, [update], 0, P, SHARES)
        with pytest.raises(InvalidProblem, match=r"torch\.int64; expected real floating-point"):
            rule.aggregate(X.long(), [update], 0, P, SHARES)

    @pytest.mark.parametrize("options", [{"server_lr": float("inf")}, {"server_lr": "1"}, {"stale": 0.5}])
    def test_settings_that_are_no_numbers_are_refused(self, options):
        with pytest.raises(InvalidParameter, match=f"AggregationRule needs .*{next(iter(options))}"):
            AggregationRule(FedAvg(), **options)


class TestRule:
    @pytest.mark.parametrize("scheme", list(WEIGHTS), ids=str)
    def test_the_model_moves_by_the_weighted_sum(self, scheme):
        for seed in range(10):
            come = updates(seed)
            done = AggregationRule(scheme, 0.7).aggregate(X, come, 4, P, SHARES)
            moved = sum(WEIGHTS[scheme](u.client, u.seconds) * u.change for u in come)
            torch.testing.assert_close(done.x, X + 0.7 * moved, rtol=1e-12, atol=1e-12)
            assert (done.taken, done.rejected, done.discarded) == (6, 0, 0)

    @given(st.integers(0, 10_000))
    def test_the_order_in_which_clients_come_changes_no_bit(self, seed):
        come = [u for _, u in sorted({u.client: u for u in updates(seed)}.items())]
        rule = AggregationRule(FedBuff(4))
        found = [rule.aggregate(X, some, 4, P, SHARES).x for some in itertools.permutations(come)]
        assert all(torch.equal(x, found[0]) for x in found)

    def test_broken_updates_are_rejected_and_old_ones_discarded(self):
        come = [
            Update(0, torch.ones(3).double(), 1.0, 5),
            Update(1, torch.tensor([1.0, float("inf"), 0.0]), 1.0, 5),
            Update(2, torch.ones(2), 1.0, 5),
            Update(3, torch.ones(3).double(), 1.0, 2),
            Update(3, torch.full((3,), float("nan")), 1.0, 1),
        ]
        done = AggregationRule(FedAvg(), stale=2).aggregate(X, come, 5, P, SHARES)
        torch.testing.assert_close(done.x, X + 0.1)
        assert (done.taken, done.rejected, done.discarded) == (1, 2, 2)

    @given(st.integers(0, 20), st.integers(0, 20))
    def test_an_update_is_stale_when_it_is_older_than_allowed(self, version, aggregation):
        assert AggregationRule(FedAvg(), stale=3).is_stale(version, aggregation) == (
            aggregation - version > 3
        )
        assert not AggregationRule(FedAvg()).is_stale(version, aggregation)

    def test_nothing_to_take_leaves_the_model_as_it_is(self):
        assert torch.equal(AggregationRule(FedAvg()).aggregate(X, [], 0, P, SHARES).x, X)

    def test_the_new_model_remembers_no_gradients(self):
        change = torch.ones(3, dtype=torch.float64, requires_grad=True)
        found = AggregationRule(FedAvg()).aggregate(X, [Update(0, 2 * change, 1.0, 0)], 0, P, SHARES)
        assert found.taken == 1
        assert not found.x.requires_grad

    def test_a_model_that_overflows_is_told_with_its_aggregation(self):
        come = [Update(0, torch.full((3,), 1e300, dtype=torch.float64), 1.0, 6)]
        with pytest.raises(NotFinite, match=r"not finite after 7 aggregations\. Lower lr or server_lr"):
            AggregationRule(FedAvg(), 1e300).aggregate(X, come, 6, P, SHARES)

    def test_rules_out_of_range_are_refused(self):
        with pytest.raises(InvalidParameter, match="server_lr > 0"):
            AggregationRule(FedAvg(), 0.0)
        with pytest.raises(InvalidParameter, match="stale >= 0"):
            AggregationRule(FedAvg(), stale=-1)


class TestTimes:
    def test_recorded_times_need_a_record_and_others_none(self):
        with pytest.raises(InvalidParameter, match="needs a record for kind='recorded'"):
            ClientTimes(np.ones(2), "recorded")
        with pytest.raises(InvalidParameter, match="for no other kind; got 'fixed'"):
            ClientTimes(np.ones(2), record=np.ones((3, 2)))


class TestShortestCall:
    """A loss that has no measure of being solved ends when it gets no better."""

    def test_a_federation_comes_to_its_mean(self):
        clients = [(torch.full((1, 1), float(c)), torch.zeros(1)) for c in range(4)]
        mean = Federated(lambda theta, X, y: 0.5 * ((theta - X) ** 2).mean(), torch.zeros(1), clients)
        result = solve(mean)
        assert result.status is Status.STALLED
        assert float(result.x) == pytest.approx(1.5, abs=1e-3)

    def test_black_boxes_come_near_their_minimum(self):
        result = solve(quadratic(10, 3))
        assert result.status in (Status.STALLED, Status.EXHAUSTED)
        assert result.steps <= 50
        least = (1 - 10 / 4) / (10 * 10)
        assert result.metrics["objective"] <= least + 0.05 * abs(least)

    def test_data_parallel_training_is_gradient_descent(self):
        X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
        line = DataParallel(lambda: nn.Linear(3, 1), lambda out, y: ((out[:, 0] - y) ** 2).sum(), X, X.sum(1))
        result = solve(line)
        assert result.status is Status.STALLED
        assert result.metrics["loss"] < 1e-10
        x = line.start(0)
        module = line.model()
        nn.utils.vector_to_parameters(x, module.parameters())
        (line.loss(module(X), line.y) / 60).backward()
        by_hand = x - 0.1 * nn.utils.parameters_to_vector([p.grad for p in module.parameters()])
        torch.testing.assert_close(solve(line, stop=Stop(steps=1)).x, by_hand)
