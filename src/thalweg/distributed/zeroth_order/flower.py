"""Rounds of federated zeroth-order optimization on Flower: the same method, Flower carrying the messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.tree import load_tree, save_tree
from thalweg.core.validation import require_counts, require_positive
from thalweg.distributed._flower import (
    POLL,
    Nodes,
    answer,
    answer_who,
    client_number,
    import_flower,
    server_app,
    simulate_apps,
)
from thalweg.distributed.zeroth_order.problem import FederatedBlackBox
from thalweg.distributed.zeroth_order.rounds import Client, Message, ZerothOrder

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Context
    from flwr.app import Message as FlowerMessage
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

BlackBox = Callable[[Tensor], Tensor]


def client_app(method: ZerothOrder, clients: FederatedBlackBox | Callable[[int], BlackBox]) -> ClientApp:
    """Flower's ``ClientApp`` for a method; what a SuperNode runs.

    Args:
        method: the same as the server's.
        clients: all clients' functions, of which a node uses its own, or a function that makes client i's alone. The
            node's number is its ``partition-id``.

    What a client keeps, its queries above all, stays in its node's context and is never sent.

    Raises:
        MissingExtra: Flower is not installed.
    """
    flwr = import_flower()
    app: ClientApp = flwr.clientapp.ClientApp()
    answer_who(app, lambda number: 1)
    own = clients.clients.__getitem__ if isinstance(clients, FederatedBlackBox) else cache(clients)

    @app.train()
    def train(message: FlowerMessage, context: Context) -> FlowerMessage:
        number, asked = client_number(context), message.content["round"]
        client = Client(method, own(number), number, int(asked["seed"]))
        if "memory" in context.state:
            client.memory = _message(context.state["memory"])
        sent = client.round(_message(message.content["broadcast"]), int(asked["round"]))
        context.state["memory"] = _record(client.memory or {})
        queries = flwr.app.MetricRecord({"queries": client.queries})
        return answer(message, "message", _record(sent), queries=queries)

    return app


def _record(message: Message) -> ArrayRecord:
    return import_flower().app.ArrayRecord.from_torch_state_dict(message)


def _message(record: ArrayRecord) -> Message:
    return {name: v.clone() for name, v in record.to_torch_state_dict().items()}


@dataclass
class FlowerServer:
    """The server: sends a broadcast to all, waits for those that are there, aggregates.

    Args:
        x0: where to start, in the unit cube.
        method: the same as the clients'.
        rounds: how many.
        clients: nodes to wait for before the first.
        seed: of the clients' random numbers and the features.
        p: importances by client, scaled to sum to one over those that take part; equal by default.
        checkpoint: a file, written after every round; where it is there, the server goes on from it.
        patience: seconds after which a client is no longer waited for in a round.
        look: called after each round with its number, x and what was counted.

    ``counted`` has the ``queries`` of all clients, ``bytes`` both ways, and messages ``rejected`` and ``lost``.
    Replies that are errors, not finite, out of the cube or of another shape than most are left out; a later round that
    brings none that can be used changes nothing. A client that comes back has forgotten its
    queries and starts over with the present x.

    Raises:
        InvalidProblem: from `run`, when too few nodes come within the patience, or the first round brings no message
            that can be used.
    """

    x0: Tensor
    method: ZerothOrder
    rounds: int
    clients: int
    seed: int = 0
    p: Mapping[int, float] | None = None
    checkpoint: Path | None = None
    patience: float = 300.0
    look: Callable[[int, Tensor, dict[str, float]], None] | None = None

    round: int = field(init=False, default=0)
    broadcast: Message = field(init=False)
    counted: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        require_counts(self, "rounds", "clients")
        require_positive(self, "patience")
        self.broadcast = self.method.first_broadcast(self.x0.to(torch.float64), self.seed)
        self.counted = {"queries": 0.0, "bytes": 0.0, "rejected": 0.0, "lost": 0.0}

    @property
    def x(self) -> Tensor:
        """Where the server is."""
        return self.broadcast["x"]

    def app(self) -> ServerApp:
        """Flower's ``ServerApp``."""
        return server_app(self.run)

    def run(self, grid: Grid) -> None:
        """All rounds, over a Flower ``Grid``."""
        if self.checkpoint is not None and Path(self.checkpoint).exists():
            self._restore(self.checkpoint)
        nodes = Nodes(grid, self.patience, self.counted)
        nodes.wait_for(self.clients)
        while self.round < self.rounds:
            self._aggregate(self._round(nodes))
            if self.checkpoint is not None:
                kept = {"round": self.round, "broadcast": self.broadcast, "counted": self.counted}
                save_tree(self.checkpoint, kept)
            if self.look is not None:
                self.look(self.round, self.x, dict(self.counted))

    def _restore(self, checkpoint: Path) -> None:
        kept = load_tree(checkpoint)
        found = tuple(kept["broadcast"]["x"].shape)
        if found != tuple(self.x0.shape):
            raise InvalidProblem(f"{checkpoint} holds x of shape {found}; expected {tuple(self.x0.shape)}.")
        self.round, self.broadcast, self.counted = kept["round"], kept["broadcast"], kept["counted"]

    def _round(self, nodes: Nodes) -> dict[int, Message]:
        """Send the broadcast to all that are there, and gather what they answer."""
        nodes.meet()
        asked = import_flower().app.ConfigRecord({"round": self.round, "seed": self.seed})
        for _, node in sorted(nodes.of_clients().items()):
            nodes.push(node, "train", {"broadcast": _record(self.broadcast), "round": asked}, self.round)
            self.counted["bytes"] += _size(self.broadcast)
        come: dict[int, Message] = {}
        while nodes.tasks():
            for client, _, content in nodes.pull():
                come[client] = _message(content["message"])
                self.counted["queries"] += int(content["queries"]["queries"])
                self.counted["bytes"] += _size(come[client])
            if nodes.tasks():
                nodes.meet()
                time.sleep(POLL)
        return come

    def _aggregate(self, come: dict[int, Message]) -> None:
        numbers = sorted(come)
        weights = torch.tensor([1.0 if self.p is None else self.p[i] for i in numbers], dtype=torch.float64)
        self.broadcast, accepted = self.method.aggregate(self.broadcast, [come[i] for i in numbers], weights)
        if self.round == 0 and not bool(accepted.any()):
            raise InvalidProblem(
                f"None of the {len(come)} messages of the first round can be used. See the clients' logs."
            )
        self.counted["rejected"] += len(come) - int(accepted.sum())
        self.round += 1


def _size(message: Message) -> int:
    return sum(v.numel() * v.element_size() for v in message.values())


def simulate(
    problem: FederatedBlackBox,
    method: ZerothOrder,
    rounds: int,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    look: Callable[[int, Tensor, dict[str, float]], None] | None = None,
) -> FlowerServer:
    """Optimize in Flower's simulation, whose clients are tasks of Ray on this machine; the server, with its ``x``.

    Raises:
        MissingExtra: Flower's simulation is not installed.
    """
    count, p = len(problem.clients), dict(enumerate(problem.weights.tolist()))
    server = FlowerServer(problem.x0, method, rounds, count, seed, p, checkpoint=checkpoint, look=look)
    simulate_apps(server.app(), client_app(method, problem), count)
    return server
