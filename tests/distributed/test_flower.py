"""Federated training on Flower: a grid in this process for faults, Flower's simulation, and processes of its own."""

from __future__ import annotations

import itertools
import math
import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
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
)

os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # before Ray is imported
flwr = pytest.importorskip("flwr")

from flwr.app import ArrayRecord, RecordDict  # noqa: E402

from thalweg.distributed.federated.flower import FlowerServer, client_app, simulate  # noqa: E402

CLIENTS = 4


def problem():
    made = torch.Generator().manual_seed(0)
    shared = [
        (torch.randn(20 + i, 5, generator=made), torch.randint(0, 3, (20 + i,), generator=made))
        for i in range(CLIENTS)
    ]
    return Federated.from_module(lambda: nn.Linear(5, 3), nn.functional.cross_entropy, shared)


def method(scheme, **options):
    return Federation(scheme, ClientTimes([1.0] * CLIENTS), **{"lr": 0.1, "batch": 8, **options})


class Context:
    def __init__(self, number):
        self.node_config, self.state = {"partition-id": number}, RecordDict()


class Grid:
    """Flower's grid in this process: replies after so many pulls, spoiled or silent on demand.

    Args:
        app: the client's.
        late: pulls until a client's reply to a task is there.
        spoil: ``spoil(client, content)`` returns the content that arrives; None for an error.
        clients: how many.
    """

    def __init__(self, app, late=None, spoil=None, clients=CLIENTS):
        self.app, self.late, self.spoil = app, late or {}, spoil
        self.nodes, self.contexts = {100 + i: i for i in range(clients)}, {}
        self.waiting, self.pulls, self.sent, self.repeat = {}, 0, 0, []

    def get_node_ids(self):
        return list(self.nodes)

    def push_messages(self, messages):
        for message in messages:
            name, node = f"m{self.sent}", message.metadata.dst_node_id
            self.sent += 1
            is_task = message.metadata.message_type == "train"
            due = self.pulls + (self.late.get(self.nodes[node], 0) if is_task else 0)
            self.waiting[name] = (due, node, message)
            yield name

    def pull_messages(self, names):
        self.pulls += 1
        replies, self.repeat = self.repeat, []
        for name in names:
            due, node, message = self.waiting.get(name, (math.inf, 0, None))
            if due > self.pulls or node not in self.nodes:
                continue
            del self.waiting[name]
            context = self.contexts.setdefault(node, Context(self.nodes[node]))
            content = self.app(message, context).content
            if self.spoil is not None and message.metadata.message_type == "train":
                content = self.spoil(self.nodes[node], content)
            told = SimpleNamespace(reply_to_message_id=name)
            replies.append(
                SimpleNamespace(metadata=told, content=content, has_content=lambda c=content: c is not None)
            )
        return replies


def server(scheme, aggregations=3, clients=CLIENTS, options=None, **settings):
    return FlowerServer(problem().x0, method(scheme, **(options or {})), aggregations, clients, **settings)


def changed(content, change):
    values = torch.from_numpy(content["update"].to_numpy_ndarrays()[0].copy())
    return RecordDict({"update": ArrayRecord([change(values).numpy()])})


def virtual(scheme, steps, **options):
    made, task = method(scheme, **options), problem()
    state = made.init(task, 0)
    for _ in range(steps):
        state = made.step(task, state)
    return state.x


@pytest.fixture
def identity(monkeypatch):
    """What Flower sets in the processes that it starts."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(f"flwr.supercore.task_identity.TaskIdentity.{name}", 1)


@pytest.mark.usefixtures("identity")
class TestServer:
    @pytest.mark.parametrize("scheme", [FedAvg(), Sampled(2), Sampled(2, "uniform")])
    def test_waiting_schemes_do_what_the_simulator_does(self, scheme):
        ours = server(scheme)
        ours.run(Grid(client_app(problem()), late={0: 3}))
        assert torch.equal(ours.x, virtual(scheme, 3))

    def test_fedfix_keeps_late_replies_for_the_aggregation_after(self):
        """Clients 0 to 2 answer at once; client 3 in the third interval, with a weight of three rounds."""
        taken = []
        ours = server(FedFix(0.4), aggregations=4, look=lambda n, x, c: taken.append(c["updates"]))
        grid = Grid(client_app(problem()), late={3: 20})  # 20 pulls are one second
        ours.run(grid)
        assert taken[0] == 3
        assert taken[1] == 6
        assert taken[-1] >= 12
        assert ours.counted["rejected"] == ours.counted["lost"] == 0

    @pytest.mark.parametrize("scheme", [FedBuff(2), AsyncFedAvg()])
    def test_arrivals_end_an_aggregation(self, scheme):
        taken = []
        ours = server(
            scheme,
            aggregations=5,
            options={"server_lr": 0.3},
            look=lambda n, x, c: taken.append(c["updates"]),
        )
        ours.run(Grid(client_app(problem()), late={0: 4, 1: 1}))
        assert taken == [scheme.count * (k + 1) for k in range(5)]
        assert problem().metrics(ours.x)["loss"] < problem().metrics(problem().x0)["loss"]

    def test_a_client_may_load_its_own_data_alone(self):
        whole = problem()

        def load(number):
            return Federated(whole.loss, whole.x0, [whole.clients[number]])

        full = server(FedAvg(), options={"batch": None})
        full.run(Grid(client_app(whole)))
        alone = server(FedAvg(), options={"batch": None})
        alone.run(Grid(client_app(load)))
        torch.testing.assert_close(alone.x, full.x)

    @pytest.mark.parametrize("kind", ["nan", "shape", "error"])
    def test_replies_that_are_no_updates_are_left_out_and_counted(self, kind):
        def spoil(client, content):
            if client != 1 or kind == "error":
                return None if client == 1 else content
            return changed(content, (lambda v: v * math.nan) if kind == "nan" else (lambda v: v[:3]))

        ours = server(FedAvg())
        ours.run(Grid(client_app(problem()), spoil=spoil))
        assert ours.counted["rejected"] == 3
        assert ours.counted["updates"] == 9
        expected = virtual(FedAvg(), 3, faults=Faults(spoil=lambda i, t, v: v * math.nan if i == 1 else v))
        torch.testing.assert_close(ours.x, expected)

    def test_a_reply_that_comes_twice_counts_once(self):
        class Stutter(Grid):
            def pull_messages(self, names):
                replies = super().pull_messages(names)
                self.repeat = list(replies)
                return replies

        ours = server(FedAvg())
        ours.run(Stutter(client_app(problem())))
        assert ours.counted["updates"] == 12
        assert torch.equal(ours.x, virtual(FedAvg(), 3))

    def test_stale_updates_are_discarded_and_counted(self):
        options = {"faults": Faults(stale=1), "server_lr": 0.1}
        ours = server(AsyncFedAvg(), aggregations=12, options=options)
        ours.run(Grid(client_app(problem()), late={3: 4}))
        assert ours.counted["discarded"] >= 1
        assert ours.counted["updates"] + ours.counted["discarded"] == 12

    def test_a_node_that_goes_is_not_waited_for_and_comes_back_as_another(self):
        grid, taken = Grid(client_app(problem())), [0.0]

        def look(number, x, counted):
            taken.append(counted["updates"])
            if number == 2:
                grid.late[2] = 10**6
            elif number == 3:
                del grid.nodes[102]  # with its task under way
            elif number == 6:
                grid.late[2], grid.nodes[777] = 0, 2

        ours = server(FedFix(0.3), aggregations=9, look=look)
        ours.run(grid)
        gained = [b - a for a, b in itertools.pairwise(taken)]
        assert ours.counted["lost"] == 1
        assert gained[1:6] == [4, 3, 3, 3, 3]
        assert gained[7:] == [4, 4]

    def test_training_ends_where_the_undisturbed_one_does(self):
        """A client away for six of sixty aggregations, and one whose updates are NaN twice."""
        grid, calls = Grid(client_app(problem())), [0]

        def look(number, x, counted):
            if number == 5:
                del grid.nodes[102]
            elif number == 11:
                grid.nodes[777] = 2

        def spoil(client, content):
            calls[0] += client == 1
            return changed(content, lambda v: v * math.nan) if client == 1 and calls[0] in (7, 9) else content

        grid.spoil = spoil
        disturbed = server(FedAvg(), aggregations=60, look=look)
        disturbed.run(grid)
        plain = server(FedAvg(), aggregations=60)
        plain.run(Grid(client_app(problem())))
        assert disturbed.counted["rejected"] == 2
        ends = [problem().metrics(s.x)["loss"] for s in (disturbed, plain)]
        assert ends[0] == pytest.approx(ends[1], rel=0.02)

    def test_silent_tasks_are_given_up_after_the_patience(self):
        ours = server(FedAvg(), aggregations=1, patience=0.4)
        ours.run(Grid(client_app(problem()), late={0: 10**6}))
        assert ours.counted["lost"] == 1
        assert ours.counted["updates"] == 3

    def test_a_restarted_server_goes_on_from_its_checkpoint(self, tmp_path):
        file = tmp_path / "server"
        whole = server(FedAvg(), aggregations=6)
        whole.run(Grid(client_app(problem())))
        server(FedAvg(), aggregations=2, checkpoint=file).run(Grid(client_app(problem())))
        again = server(FedAvg(), aggregations=6, checkpoint=file)
        again.run(Grid(client_app(problem())))
        assert torch.equal(again.x, whole.x)
        assert again.counted["updates"] == 24
        other = FlowerServer(torch.zeros(3), method(FedAvg()), 2, CLIENTS, checkpoint=file)
        with pytest.raises(InvalidProblem, match=r"shape \(18,\); expected \(3,\)"):
            other.run(Grid(client_app(problem())))

    def test_too_few_clients_are_told(self):
        with pytest.raises(InvalidProblem, match="4 of 9 clients came"):
            server(FedAvg(), clients=9, patience=0.3).run(Grid(client_app(problem())))

    def test_a_model_that_blows_up_is_told(self):
        with pytest.raises(NotFinite, match="Lower lr"):
            server(FedAvg(), aggregations=5, options={"server_lr": 1e42}).run(Grid(client_app(problem())))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"aggregations": 0}, "aggregations >= 1"),
            ({"clients": 0}, "clients >= 1"),
            ({"patience": 0.0}, "patience > 0"),
        ],
    )
    def test_parameters_out_of_range_are_refused(self, settings, message):
        with pytest.raises(InvalidParameter, match=message):
            server(FedAvg(), **settings)


class TestSimulation:
    def test_flowers_simulation_gives_the_simulators_model_bit_for_bit(self):
        ours = simulate(problem(), method(FedAvg()), 3)
        assert torch.equal(ours.x, virtual(FedAvg(), 3))
        assert ours.counted["updates"] == 12


class Broken(Federated):
    """Client 1 sends NaN, client 2 a vector that is too short."""

    def updates(self, theta, who, *rest):
        found = super().updates(theta, who, *rest)
        ((client, _),) = who
        return found * math.nan if client == 1 else found[:, :3] if client == 2 else found


class TestBrokenClients:
    def test_nan_and_wrong_shapes_are_left_out_on_the_engine_too(self):
        whole = problem()
        ours = simulate(Broken(whole.loss, whole.x0, whole.clients), method(FedAvg()), 4)
        assert ours.counted["rejected"] == 8
        assert ours.counted["updates"] == 8
        left = virtual(FedAvg(), 4, faults=Faults(spoil=lambda i, t, v: v * math.nan if i in (1, 2) else v))
        torch.testing.assert_close(ours.x, left)
