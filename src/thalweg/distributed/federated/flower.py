"""Federated training on Flower: the same problem and the same schemes, Flower carrying the messages.

Flower starts and ends processes, transports, retries, encrypts and authenticates; its own settings say how
(https://flower.ai/docs). What is here is the server's loop, on ``push_messages`` and ``pull_messages``, and the
clients' answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.tree import load_tree, save_tree
from thalweg.core.validation import require
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
from thalweg.distributed.federated.aggregation import Update
from thalweg.distributed.federated.problem import Federated
from thalweg.distributed.federated.simulation import Federation
from thalweg.distributed.federated.times import ClientTimes

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

Vector = NDArray[np.float64]


def client_app(
    problem: Federated | Callable[[int], Federated], pause: ClientTimes | None = None
) -> ClientApp:
    """Flower's ``ClientApp`` for a problem; what a SuperNode runs.

    Args:
        problem: all clients' data, of which a node uses its own, or a function that loads client i's alone, as a
            `Federated` of one. The node's number is its ``partition-id``, which Flower's simulation sets; SuperNodes
            take it from ``--node-config partition-id=3``.
        pause: seconds to sleep besides computing, to try a scheme out; none by default.

    Raises:
        MissingExtra: Flower is not installed.
    """
    flwr = import_flower()
    app: ClientApp = flwr.clientapp.ClientApp()
    held: dict[int, Federated] = {}

    def own(number: int) -> tuple[Federated, int]:
        if isinstance(problem, Federated):
            return problem, number
        if number not in held:
            held[number] = problem(number)
        return held[number], 0

    def examples(number: int) -> int:
        data, index = own(number)
        return int(data.counts[index])

    answer_who(app, examples)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number, asked = client_number(context), message.content["task"]
        data, index = own(number)
        theta = torch.from_numpy(np.array(message.content["model"].to_numpy_ndarrays()[0]))
        batch, task, seed = int(asked["batch"]) or None, int(asked["task"]), int(asked["seed"])
        steps, lr, proximal = int(asked["steps"]), float(asked["lr"]), float(asked["proximal"])
        update = data.updates(theta, [(index, task)], steps, lr, batch, proximal, seed)[0]
        if pause is not None:
            time.sleep(pause.draw(number, task, seed))
        return answer(message, "update", flwr.app.ArrayRecord([update.numpy()]))

    return app


@dataclass
class FlowerServer:
    """The server: calls nodes, waits as the scheme says, aggregates what has come.

    Args:
        x0: the first model.
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

    x0: Tensor
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
        self.x = self.x0.clone()
        self.counted = {"rejected": 0.0, "discarded": 0.0, "lost": 0.0, "updates": 0.0}
        self._tasks: dict[int, int] = {}  # begun, by client
        self._seconds: dict[int, list[float]] = {}  # total and count, by client
        self._come: list[tuple[int, Tensor, float, int]] = []  # client, update, seconds, version

    def app(self) -> ServerApp:
        """Flower's ``ServerApp``."""
        return server_app(self.run)

    def run(self, grid: Grid) -> None:
        """All aggregations, over a Flower ``Grid``."""
        self._restore()
        nodes = self._nodes = Nodes(grid, self.patience, self.counted)
        nodes.wait_for(self.clients)
        begun, first = time.monotonic(), self.aggregation
        while self.aggregation < self.aggregations:
            self._call()
            due = self.method.scheme.due(np.array([math.inf]), self.aggregation - first) + begun
            self._gather(due)
            self._aggregate()
            if self.checkpoint is not None:
                save_tree(self.checkpoint, self._kept())
            if self.look is not None:
                self.look(self.aggregation, self.x, {**self.counted, "seconds": time.monotonic() - begun})

    def _kept(self) -> dict[str, object]:
        return {
            "x": self.x,
            "aggregation": self.aggregation,
            "counted": self.counted,
            "tasks": {str(i): v for i, v in self._tasks.items()},
            "seconds": {str(i): v for i, v in self._seconds.items()},
        }

    def _restore(self) -> None:
        if self.checkpoint is None or not Path(self.checkpoint).exists():
            return
        kept = load_tree(self.checkpoint)
        if kept["x"].shape != self.x0.shape:
            raise InvalidProblem(
                f"{self.checkpoint} holds a model of shape {tuple(kept['x'].shape)}; expected "
                f"{tuple(self.x0.shape)}."
            )
        self.x, self.aggregation, self.counted = kept["x"], kept["aggregation"], kept["counted"]
        self._tasks = {int(i): v for i, v in kept["tasks"].items()}
        self._seconds = {int(i): v for i, v in kept["seconds"].items()}

    def _call(self) -> None:
        """A task for every node that the scheme wants and that has none."""
        nodes = self._nodes
        nodes.meet()
        numbers = nodes.clients()
        p = self._importances(numbers)
        called = self.method.scheme.chosen(len(numbers), p, self.aggregation, self.seed)
        wanted = numbers if called is None else [numbers[int(i)] for i in called]
        by_client, busy = nodes.of_clients(), {task.node for task in nodes.busy.values()}
        for client in wanted:
            if by_client[client] not in busy or called is not None:
                self._begin(by_client[client], client)

    def _begin(self, node: int, client: int) -> None:
        flwr, method = import_flower().app, self.method
        number = self._tasks.get(client, 0)
        self._tasks[client] = number + 1
        asked = {
            "task": number,
            "seed": self.seed,
            "steps": method.local_steps,
            "lr": method.lr,
            "batch": method.batch or 0,
            "proximal": method.proximal,
        }
        model = flwr.ArrayRecord([self.x.numpy()])
        self._nodes.push(node, "train", {"model": model, "task": flwr.ConfigRecord(asked)}, self.aggregation)

    def _gather(self, due: float) -> None:
        """Until the time that is due, so many arrivals, or all that were called have answered or gone."""
        arrivals, nodes = self.method.scheme.arrivals, self._nodes
        while True:
            self._pull()
            if arrivals is not None and len(self._come) >= arrivals:
                return
            if arrivals is None and math.isinf(due) and not nodes.tasks():
                return
            if time.monotonic() >= due:
                return
            nodes.meet()
            if arrivals is not None:
                self._call()  # who has answered goes on at once
            time.sleep(max(min(POLL, due - time.monotonic()), 0.0))

    def _pull(self) -> None:
        for client, task, content in self._nodes.pull():
            update = torch.from_numpy(np.array(content["update"].to_numpy_ndarrays()[0]))
            self._come.append((client, update, time.monotonic() - task.sent, task.version))

    def _importances(self, numbers: list[int]) -> Vector:
        examples = dict(self._nodes.known.values())
        counts = np.array([examples[i] for i in numbers], dtype=float)
        return np.asarray(counts / counts.sum())

    def _aggregate(self) -> None:
        arrivals = self.method.scheme.arrivals
        taken = self._come if arrivals is None else self._come[:arrivals]
        self._come = [] if arrivals is None else self._come[arrivals:]
        for client, _, seconds, _ in taken:
            sums = self._seconds.setdefault(client, [0.0, 0.0])
            sums[0], sums[1] = sums[0] + seconds, sums[1] + 1.0
        numbers = self._nodes.clients()
        here = [
            Update(numbers.index(client), change, seconds, version)
            for client, change, seconds, version in taken
            if client in numbers
        ]
        p, shares = self._importances(numbers), self._shares(numbers)
        done = self.method.rule.aggregate(self.x, here, self.aggregation, p, shares)
        self.x, self.aggregation = done.x, self.aggregation + 1
        self.counted["lost"] += len(taken) - len(here)
        self.counted["updates"] += done.taken
        self.counted["rejected"] += done.rejected
        self.counted["discarded"] += done.discarded

    def _shares(self, numbers: list[int]) -> Vector:
        """Shares of the clients among updates, from how long their tasks have taken so far."""
        means = {i: s[0] / s[1] for i, s in self._seconds.items() if s[1]}
        usual = float(np.mean(list(means.values()))) if means else 1.0
        rates = 1.0 / np.array([means.get(i, usual) for i in numbers])
        return np.asarray(rates / rates.sum())


def simulate(
    problem: Federated,
    method: Federation,
    aggregations: int,
    *,
    seed: int = 0,
    pause: ClientTimes | None = None,
    checkpoint: Path | None = None,
    look: Callable[[int, Tensor, dict[str, float]], None] | None = None,
) -> FlowerServer:
    """Train in Flower's simulation, whose clients are tasks of Ray on this machine; the server, with its model ``x``.

    Raises:
        MissingExtra: Flower's simulation is not installed.
    """
    count = len(problem.clients)
    server = FlowerServer(problem.x0, method, aggregations, count, seed, checkpoint=checkpoint, look=look)
    simulate_apps(server.app(), client_app(problem, pause), count)
    return server
