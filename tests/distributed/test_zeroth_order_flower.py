"""Rounds of zeroth-order optimization on Flower: a grid in this process for faults, and Flower's simulation."""

from __future__ import annotations

import math
import os

import pytest
import torch

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.distributed.federated import Faults
from thalweg.distributed.zeroth_order import FederatedBlackBox, FedZO, FZooS, ScaffoldZO, quadratic

os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # before Ray is imported
flwr = pytest.importorskip("flwr")

from flwr.app import ArrayRecord, RecordDict  # noqa: E402
from test_flower import Grid, identity  # noqa: E402, F401

from thalweg.distributed.zeroth_order.flower import FlowerServer, client_app, simulate  # noqa: E402

METHODS = {
    "fzoos": FZooS(features=60, candidates=20, active=2, local_steps=4),
    "fedzo": FedZO(local_steps=4),
    "scaffold": ScaffoldZO(option=2, local_steps=4),
}


def problem():
    return quadratic(6, 3, 2.0)


def virtual(method, rounds, seed=0):
    task = problem()
    state = method.init(task, seed)
    for _ in range(rounds):
        state = method.step(task, state)
    return state


def server(method, rounds=3, **settings):
    return FlowerServer(problem().x0, method, rounds, 3, **settings)


def grid(method, **options):
    return Grid(client_app(method, problem()), clients=3, **options)


def changed(content, name, change):
    message = content["message"].to_torch_state_dict()
    message[name] = change(message[name])
    rest = {k: v for k, v in content.items() if k != "message"}
    return RecordDict({"message": ArrayRecord.from_torch_state_dict(message), **rest})


@pytest.mark.usefixtures("identity")
class TestServer:
    @pytest.mark.parametrize("name", METHODS)
    def test_it_does_what_the_simulator_does(self, name):
        """Same x, queries and bytes, up to rounding in batches; late answers are waited for."""
        ours, expected = server(METHODS[name]), virtual(METHODS[name], 3)
        ours.run(grid(METHODS[name], late={0: 3}))
        torch.testing.assert_close(ours.x, expected.x, rtol=1e-7, atol=1e-9)
        assert ours.counted["queries"] == expected.queries * 3
        assert ours.counted["bytes"] == expected.bytes
        assert ours.counted["rejected"] == ours.counted["lost"] == 0

    def test_importances_are_the_servers(self):
        task = FederatedBlackBox(problem().clients, problem().x0, p=[0.7, 0.2, 0.1])
        state, method = METHODS["fedzo"].init(task, 0), METHODS["fedzo"]
        state = method.step(task, state)
        ours = server(method, 1, p={0: 7.0, 1: 2.0, 2: 1.0})
        ours.run(grid(method))
        torch.testing.assert_close(ours.x, state.x)

    def test_a_client_may_have_its_own_function_alone(self):
        method, functions, made = METHODS["fzoos"], problem().clients, []

        def make(number):
            made.append(number)
            return functions[number]

        ours = server(method)
        ours.run(Grid(client_app(method, make), clients=3))
        assert made == [0, 1, 2]
        torch.testing.assert_close(ours.x, virtual(method, 3).x, rtol=1e-7, atol=1e-9)

    def test_only_x_weights_likelihoods_and_counts_leave_a_client(self):
        """Nothing that is sent has the values that came back, or a queried point but x."""
        sent, asked = [], []

        def spy(f):
            def g(X):
                asked.append((X.clone(), f(X)))
                return asked[-1][1]

            return g

        def look(client, content):
            sent.append(content)
            return content

        method, whole = METHODS["fzoos"], problem()
        spied = FederatedBlackBox([spy(f) for f in whole.clients], whole.x0)
        server(method).run(Grid(client_app(method, spied), clients=3, spoil=look))
        assert len(sent) == 9
        values = torch.cat([y for _, y in asked])
        points = torch.cat([X for X, _ in asked])
        for content in sent:
            assert set(content) == {"message", "queries"}
            message = content["message"].to_torch_state_dict()
            assert set(message) == {"x", "w", "features", "likelihood"}
            numbers = torch.cat([v.reshape(-1).double() for v in message.values()])
            assert not torch.isin(values, numbers).any()
            ends = (points == message["x"]).all(1)
            assert not (torch.isin(points[~ends], message["w"])).any()

    @pytest.mark.parametrize("kind", ["nan", "shape", "other shape", "error"])
    def test_answers_that_are_no_messages_are_left_out_and_counted(self, kind):
        method = METHODS["fzoos"]

        def spoil(client, content):
            if client != 1 or kind == "error":
                return None if client == 1 else content
            name = "w" if kind == "other shape" else "x"
            return changed(content, name, (lambda v: v * math.nan) if kind == "nan" else lambda v: v[:, :2])

        ours = server(method)
        ours.run(grid(method, spoil=spoil))
        lame = FZooS(
            features=60,
            candidates=20,
            active=2,
            local_steps=4,
            faults=Faults(spoil=lambda i, n, x: x * math.nan if i == 1 else x),
        )
        assert ours.counted["rejected"] == 3
        torch.testing.assert_close(ours.x, virtual(lame, 3).x, rtol=1e-7, atol=1e-9)

    def test_a_client_that_goes_comes_back_without_its_queries(self):
        method = METHODS["fzoos"]
        nodes, taken = grid(method), []

        def look(number, x, counted):
            taken.append(counted["queries"])
            if number == 1:
                del nodes.nodes[102]
            elif number == 3:
                nodes.nodes[777] = 2

        ours = server(method, rounds=10, look=look)
        ours.run(nodes)
        assert taken[2] - taken[1] < taken[0]
        assert "memory" in nodes.contexts[777].state
        objectives = [
            problem().metrics(x)["objective"] for x in (problem().x0, ours.x, virtual(method, 10).x)
        ]
        assert objectives[1] < objectives[2] + 0.1 * (objectives[0] - objectives[2])

    def test_a_node_that_goes_in_mid_round_is_not_waited_for(self):
        method = METHODS["fedzo"]
        nodes = grid(method, late={2: 10**6})
        pulled = nodes.pull_messages

        def pull(names):
            if nodes.pulls == 8:
                del nodes.nodes[102]
            return pulled(names)

        nodes.pull_messages = pull
        ours = server(method, rounds=2)
        ours.run(nodes)
        assert ours.counted["lost"] == 1
        assert ours.round == 2

    def test_silent_clients_are_given_up_after_the_patience(self):
        ours = server(METHODS["fedzo"], rounds=1, patience=0.4)
        ours.run(grid(METHODS["fedzo"], late={0: 10**6}))
        assert ours.counted["lost"] == 1

    def test_a_restarted_server_goes_on_from_its_checkpoint(self, tmp_path):
        method, file = METHODS["fzoos"], tmp_path / "server"
        nodes = grid(method)
        server(method, rounds=2, checkpoint=file).run(nodes)
        again = server(method, rounds=5, checkpoint=file)
        again.run(nodes)
        whole = server(method, rounds=5)
        whole.run(grid(method))
        assert torch.equal(again.x, whole.x)
        assert again.counted == whole.counted
        other = FlowerServer(torch.zeros(2), method, 2, 3, checkpoint=file)
        with pytest.raises(InvalidProblem, match=r"shape \(6,\); expected \(2,\)"):
            other.run(nodes)

    def test_when_nobody_answers_it_is_said(self):
        with pytest.raises(InvalidProblem, match="None of the 0 messages of the first round"):
            server(METHODS["fedzo"]).run(grid(METHODS["fedzo"], spoil=lambda client, content: None))
        with pytest.raises(InvalidProblem, match="0 of 3 clients came"):
            server(METHODS["fedzo"], patience=0.2).run(
                Grid(client_app(METHODS["fedzo"], problem()), clients=0)
            )

    @pytest.mark.parametrize(
        ("settings", "message"),
        [({"rounds": 0}, "rounds >= 1"), ({"patience": 0.0}, "patience > 0")],
    )
    def test_parameters_out_of_range_are_refused(self, settings, message):
        with pytest.raises(InvalidParameter, match=message):
            server(METHODS["fedzo"], **settings)
        with pytest.raises(InvalidParameter, match="clients >= 1"):
            FlowerServer(problem().x0, METHODS["fedzo"], 1, 0)


class TestSimulation:
    def test_flowers_simulation_does_what_the_simulator_does(self):
        """Nodes share Ray's processes there; each still finds the queries it has asked."""
        ours, expected = simulate(problem(), METHODS["fzoos"], 3), virtual(METHODS["fzoos"], 3)
        torch.testing.assert_close(ours.x, expected.x, rtol=1e-7, atol=1e-9)
        assert ours.counted["queries"] == expected.queries * 3
