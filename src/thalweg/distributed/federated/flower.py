"""Federated training on Flower: the same problem and the same schemes, Flower carrying the messages.

Flower starts and ends processes, transports, retries, encrypts and authenticates; its own settings say how
(https://flower.ai/docs). What is here is the server's loop, on ``push_messages`` and ``pull_messages``, and the
clients' answer.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalweg.core import InvalidProblem, MissingExtra, NotFinite
from thalweg.core.storage import load_tree, save_tree
from thalweg.core.validation import require
from thalweg.distributed._ray import prepare_ray
from thalweg.distributed.federated.problem import Federated
from thalweg.distributed.federated.simulation import Federation
from thalweg.distributed.federated.times import ClientTimes

#: Seconds between two looks for replies.
POLL = 0.05


def _flower() -> Any:
    prepare_ray()  # which Flower's simulation starts
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    try:
        import flwr.app
        import flwr.clientapp
        import flwr.serverapp
    except ImportError as error:
        raise MissingExtra("flwr", "flower") from error
    return flwr


def client_app(problem: Federated | Callable[[int], Federated], pause: ClientTimes | None = None) -> Any:
    """Flower's ``ClientApp`` for a problem; what a SuperNode runs.

    Args:
        problem: all clients' data, of which a node uses its own, or a function that loads client i's alone, as a
            `Federated` of one. The node's number is its ``partition-id``, which Flower's simulation sets; SuperNodes
            take it from ``--node-config partition-id=3``.
        pause: seconds to sleep besides computing, to try a scheme out; none by default.

    Raises:
        MissingExtra: Flower is not installed.
    """
    flwr = _flower()
    app, held = flwr.clientapp.ClientApp(), {}
    Message, Record = flwr.app.Message, flwr.app.RecordDict

    def own(number: int) -> tuple[Federated, int]:
        if isinstance(problem, Federated):
            return problem, number
        if number not in held:
            held[number] = problem(number)
        return held[number], 0

    @app.query()
    def about(message: Any, context: Any) -> Any:
        number = int(context.node_config["partition-id"])
        data, index = own(number)
        told = {"number": number, "examples": int(data.counts[index])}
        return Message(content=Record({"about": flwr.app.MetricRecord(told)}), reply_to=message)

    @app.train()
    def train(message: Any, context: Any) -> Any:
        number, asked = int(context.node_config["partition-id"]), message.content["task"]
        data, index = own(number)
        theta = torch.from_numpy(np.array(message.content["model"].to_numpy_ndarrays()[0]))
        batch, task, seed = int(asked["batch"]) or None, int(asked["task"]), int(asked["seed"])
        steps, lr, proximal = int(asked["steps"]), float(asked["lr"]), float(asked["proximal"])
        update = data.updates(theta, [(index, task)], steps, lr, batch, proximal, seed)[0]
        if pause is not None:
            time.sleep(pause.draw(number, task, seed))
        return Message(content=Record({"update": flwr.app.ArrayRecord([update.numpy()])}), reply_to=message)

    return app


@dataclass
class _Task:
    """A message under way."""

    node: int
    kind: str
    sent: float
    version: int = 0


@dataclass
class FlowerServer:
    """The server: calls nodes, waits as the scheme says, aggregates what has come.

    Args:
        start: the first model.
        method: scheme, rates and local steps; its ``times`` are not used, its ``faults.stale`` is.
        aggregations: how many.
        clients: nodes to wait for before the first.
        seed: of the clients' batches and of who is sampled.
        checkpoint: a file, written after every aggregation; where it is there, the server goes on from it.
        patience: seconds after which a task is given up and its node called again.
        look: called after each aggregation with its number, the model and what was counted.

    Replies that are errors, NaN, of a wrong shape or too old are left out and counted; so are tasks whose node has
    gone. A node that comes later, or again, is asked for its number and takes part from then on. Importances are the
    nodes' shares of the examples.

    Raises:
        InvalidProblem: from `run`, when too few nodes come within the patience.
        NotFinite: from `run`, when the model is no longer finite.
    """

    start: Tensor
    method: Federation
    aggregations: int
    clients: int
    seed: int = 0
    checkpoint: Path | None = None
    patience: float = 300.0
    look: Callable[[int, Tensor, dict[str, float]], None] | None = None

    x: Tensor = field(init=False)
    aggregation: int = field(init=False, default=0)
    counted: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        require(self.aggregations >= 1, "FlowerServer needs aggregations >= 1", got=self.aggregations)
        require(self.clients >= 1, "FlowerServer needs clients >= 1", got=self.clients)
        require(self.patience > 0, "FlowerServer needs patience > 0", got=self.patience)
        self.x = self.start.clone()
        self.counted = {"rejected": 0.0, "discarded": 0.0, "lost": 0.0, "updates": 0.0}
        self._tasks: dict[int, int] = {}  # begun, by client
        self._seconds: dict[int, list[float]] = {}  # total and count, by client
        self._nodes: dict[int, tuple[int, int]] = {}  # client and examples, by node
        self._busy: dict[str, _Task] = {}  # by message
        self._come: list[tuple[int, Tensor, float, int]] = []  # client, update, seconds, version

    def app(self) -> Any:
        """Flower's ``ServerApp``."""
        app = _flower().serverapp.ServerApp()

        @app.main()
        def main(grid: Any, context: Any) -> None:
            self.run(grid)

        return app

    def run(self, grid: Any) -> None:
        """All aggregations, over a Flower ``Grid``."""
        self._flower = _flower()
        self._restore()
        self._await_clients(grid)
        begun, first = time.monotonic(), self.aggregation
        while self.aggregation < self.aggregations:
            self._call(grid)
            due = self.method.scheme.due(np.array([math.inf]), self.aggregation - first) + begun
            self._gather(grid, due)
            self._aggregate()
            if self.checkpoint is not None:
                save_tree(self.checkpoint, self._kept())
            if self.look is not None:
                self.look(self.aggregation, self.x, {**self.counted, "seconds": time.monotonic() - begun})

    def _kept(self) -> dict[str, Any]:
        named: dict[str, dict[int, Any]] = {"tasks": self._tasks, "seconds": self._seconds}
        plain = {k: {str(i): v for i, v in d.items()} for k, d in named.items()}
        return {"x": self.x, "aggregation": self.aggregation, "counted": self.counted, **plain}

    def _restore(self) -> None:
        if self.checkpoint is None or not Path(self.checkpoint).exists():
            return
        kept = load_tree(self.checkpoint)
        if kept["x"].shape != self.start.shape:
            raise InvalidProblem(
                f"{self.checkpoint} holds a model of shape {tuple(kept['x'].shape)}; expected "
                f"{tuple(self.start.shape)}."
            )
        self.x, self.aggregation, self.counted = kept["x"], kept["aggregation"], kept["counted"]
        self._tasks = {int(i): v for i, v in kept["tasks"].items()}
        self._seconds = {int(i): v for i, v in kept["seconds"].items()}

    def _await_clients(self, grid: Any) -> None:
        begun = time.monotonic()
        while len(self._numbers()) < self.clients:
            if time.monotonic() - begun > self.patience:
                raise InvalidProblem(
                    f"{len(self._numbers())} of {self.clients} clients came within {self.patience:g} seconds. Start "
                    "more nodes, ask for fewer clients, or have more patience."
                )
            self._meet(grid)
            self._pull(grid)
            time.sleep(POLL)

    def _numbers(self) -> list[int]:
        return sorted({client for client, _ in self._nodes.values()})

    def _push(self, grid: Any, node: int, kind: str, content: Any) -> None:
        flwr = self._flower.app
        message = flwr.Message(
            content=content, dst_node_id=node, message_type=kind, group_id=str(self.aggregation)
        )
        for name in grid.push_messages([message]):
            self._busy[name] = _Task(node, kind, time.monotonic(), self.aggregation)

    def _meet(self, grid: Any) -> None:
        """Ask nodes that are new who they are, and forget those that have gone."""
        present = set(grid.get_node_ids())
        for name, task in list(self._busy.items()):
            if task.node not in present or time.monotonic() - task.sent > self.patience:
                self._lose(name)
        self._nodes = {node: who for node, who in self._nodes.items() if node in present}
        asked = {task.node for task in self._busy.values()}
        for node in sorted(present - set(self._nodes) - asked):
            self._push(grid, node, "query", self._flower.app.RecordDict())

    def _lose(self, name: str) -> None:
        self.counted["lost"] += self._busy.pop(name).kind == "train"

    def _call(self, grid: Any) -> None:
        """A task for every node that the scheme wants and that has none."""
        self._meet(grid)
        numbers = self._numbers()
        p = self._importances(numbers)
        called = self.method.scheme.chosen(len(numbers), p, self.aggregation, self.seed)
        wanted = numbers if called is None else [numbers[int(i)] for i in called]
        by_client = {client: node for node, (client, _) in self._nodes.items()}
        busy = {task.node for task in self._busy.values()}
        for client in wanted:
            if by_client[client] not in busy or called is not None:
                self._begin(grid, by_client[client], client)

    def _begin(self, grid: Any, node: int, client: int) -> None:
        flwr, method = self._flower.app, self.method
        number = self._tasks.get(client, 0)
        self._tasks[client] = number + 1
        asked = {
            "task": number, "seed": self.seed, "steps": method.local_steps, "lr": method.lr,
            "batch": method.batch or 0, "proximal": method.proximal,
        }  # fmt: skip
        model = flwr.ArrayRecord([self.x.numpy()])
        self._push(grid, node, "train", flwr.RecordDict({"model": model, "task": flwr.ConfigRecord(asked)}))

    def _gather(self, grid: Any, due: float) -> None:
        """Until the time that is due, so many arrivals, or all that were called have answered or gone."""
        arrivals = self.method.scheme.arrivals
        while True:
            self._pull(grid)
            if arrivals is not None and len(self._come) >= arrivals:
                return
            if (
                arrivals is None
                and math.isinf(due)
                and not any(t.kind == "train" for t in self._busy.values())
            ):
                return
            if time.monotonic() >= due:
                return
            self._meet(grid)
            if arrivals is not None:
                self._call(grid)  # who has answered goes on at once
            time.sleep(max(min(POLL, due - time.monotonic()), 0.0))

    def _pull(self, grid: Any) -> None:
        for reply in grid.pull_messages(list(self._busy)):
            task = self._busy.pop(reply.metadata.reply_to_message_id, None)
            if task is None:
                continue  # answered before
            if not reply.has_content():
                self.counted["rejected"] += task.kind == "train"
            elif task.kind == "query":
                told = reply.content["about"]
                self._know(task.node, int(told["number"]), int(told["examples"]))
            elif task.node in self._nodes:
                update = torch.from_numpy(np.array(reply.content["update"].to_numpy_ndarrays()[0]))
                client = self._nodes[task.node][0]
                self._come.append((client, update, time.monotonic() - task.sent, task.version))

    def _know(self, node: int, client: int, examples: int) -> None:
        """A client that comes again has another node: the old one's tasks are lost."""
        old = [n for n, (number, _) in self._nodes.items() if number == client and n != node]
        for name, task in list(self._busy.items()):
            if task.node in old:
                self._lose(name)
        self._nodes = {n: who for n, who in self._nodes.items() if n not in old} | {node: (client, examples)}

    def _importances(self, numbers: list[int]) -> Any:
        examples = dict(self._nodes.values())
        counts = np.array([examples[i] for i in numbers], dtype=float)
        return counts / counts.sum()

    def _aggregate(self) -> None:
        arrivals = self.method.scheme.arrivals
        taken = self._come if arrivals is None else self._come[:arrivals]
        self._come = [] if arrivals is None else self._come[arrivals:]
        numbers, total = self._numbers(), torch.zeros_like(self.x)
        p, stale = self._importances(numbers), self.method.faults.stale
        for client, _, seconds, _ in taken:
            sums = self._seconds.setdefault(client, [0.0, 0.0])
            sums[0], sums[1] = sums[0] + seconds, sums[1] + 1.0
        shares = self._shares(numbers)
        for client, update, seconds, version in sorted(taken, key=lambda t: t[0]):
            if update.shape != self.x.shape or not bool(torch.isfinite(update).all()):
                self.counted["rejected"] += 1.0
            elif stale is not None and self.aggregation - version > stale:
                self.counted["discarded"] += 1.0
            elif client in numbers:
                total += self.method.scheme.weight(numbers.index(client), seconds, p, shares) * update
                self.counted["updates"] += 1.0
        self.x = self.x + self.method.server_lr * total
        self.aggregation += 1
        if not bool(torch.isfinite(self.x).all()):
            raise NotFinite(
                f"The model is not finite after {self.aggregation} aggregations. Lower lr or server_lr."
            )

    def _shares(self, numbers: list[int]) -> Any:
        """Shares of the clients among updates, from how long their tasks have taken so far."""
        means = {i: s[0] / s[1] for i, s in self._seconds.items() if s[1]}
        usual = float(np.mean(list(means.values()))) if means else 1.0
        rates = 1.0 / np.array([means.get(i, usual) for i in numbers])
        return rates / rates.sum()


def simulate(
    problem: Federated, method: Federation, aggregations: int, *, seed: int = 0, pause: ClientTimes | None = None,
    checkpoint: Path | None = None, look: Callable[[int, Tensor, dict[str, float]], None] | None = None,
) -> FlowerServer:  # fmt: skip
    """Train in Flower's simulation, whose clients are tasks of Ray on this machine; the server, with its model ``x``.

    Raises:
        MissingExtra: Flower's simulation is not installed.
    """
    _flower()
    from flwr.simulation import run_simulation

    count = len(problem.clients)
    server = FlowerServer(problem.start, method, aggregations, count, seed, checkpoint=checkpoint, look=look)
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server.app(), client_app(problem, pause), count, backend_config=resources)
    return server
