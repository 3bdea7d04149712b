"""Flower, imported where it is wanted, and a server's nodes: who they are, what they were asked, what has come."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

from thalweg.core import InvalidProblem, MissingExtra
from thalweg.core.ray_engine import prepare_ray

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

#: Seconds between two looks for replies.
POLL = 0.05


def import_flower() -> ModuleType:
    """Flower's package.

    Raises:
        MissingExtra: it is not installed.
    """
    prepare_ray()  # which Flower's simulation starts
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    try:
        import flwr.app
        import flwr.clientapp  # noqa: F401 -- loads the submodule
        import flwr.serverapp  # noqa: F401 -- loads the submodule
    except ImportError as error:
        raise MissingExtra("flwr", "flower") from error
    found: ModuleType = flwr
    return found


def server_app(run: Callable[[Grid], None]) -> ServerApp:
    """Flower's ``ServerApp`` that runs a function of the ``Grid``."""
    app = import_flower().serverapp.ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run(grid)

    return app


def client_number(context: Context) -> int:
    """Which client a node is."""
    return int(context.node_config["partition-id"])


def answer(
    message: Message,
    kind: str,
    record: ArrayRecord | MetricRecord | ConfigRecord,
    **more: ArrayRecord | MetricRecord | ConfigRecord,
) -> Message:
    """A reply of one record, or of several."""
    flwr = import_flower()
    return flwr.app.Message(content=flwr.app.RecordDict({kind: record, **more}), reply_to=message)


def answer_who(app: ClientApp, examples: Callable[[int], int]) -> None:
    """Have a ``ClientApp`` answer `Nodes` who it is and how many examples it has."""
    flwr = import_flower()

    @app.query()
    def about(message: Message, context: Context) -> Message:
        number = client_number(context)
        told = {"number": number, "examples": examples(number)}
        return answer(message, "about", flwr.app.MetricRecord(told))


def simulate_apps(server: ServerApp, client: ClientApp, nodes: int) -> None:
    """Flower's simulation on this machine, a core for each task.

    Raises:
        MissingExtra: Flower's simulation is not installed.
    """
    import_flower()
    from flwr.simulation import run_simulation

    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, client, nodes, backend_config=resources)


@dataclass
class Pending:
    """A message under way."""

    node: int
    kind: str
    sent: float
    version: int = 0


@dataclass
class Nodes:
    """The nodes of a Flower ``Grid``.

    Args:
        grid: Flower's.
        patience: seconds after which a task is given up.
        counted: where tasks are counted that are ``lost``, given up or without their node, and ``rejected``, answered
            by an error.
        known: client and number of examples, by node.
        busy: tasks under way, by message.
    """

    grid: Grid
    patience: float
    counted: dict[str, float]
    known: dict[int, tuple[int, int]] = field(default_factory=dict)
    busy: dict[str, Pending] = field(default_factory=dict)

    def clients(self) -> list[int]:
        """Numbers of those that take part."""
        return sorted({client for client, _ in self.known.values()})

    def of_clients(self) -> dict[int, int]:
        """Nodes by client."""
        return {client: node for node, (client, _) in self.known.items()}

    def tasks(self) -> bool:
        """Whether any task is under way."""
        return any(task.kind == "train" for task in self.busy.values())

    def push(
        self, node: int, kind: str, records: dict[str, ArrayRecord | ConfigRecord], version: int = 0
    ) -> None:
        """Send a message."""
        flwr = import_flower().app
        message = flwr.Message(
            content=flwr.RecordDict(records), dst_node_id=node, message_type=kind, group_id=str(version)
        )
        for name in self.grid.push_messages([message]):
            self.busy[name] = Pending(node, kind, time.monotonic(), version)

    def meet(self) -> None:
        """Ask nodes that are new who they are, and forget those that have gone."""
        present = set(self.grid.get_node_ids())
        for name, task in list(self.busy.items()):
            if task.node not in present or time.monotonic() - task.sent > self.patience:
                self._lose(name)
        self.known = {node: who for node, who in self.known.items() if node in present}
        asked = {task.node for task in self.busy.values()}
        for node in sorted(present - set(self.known) - asked):
            self.push(node, "query", {})

    def _lose(self, name: str) -> None:
        self.counted["lost"] += self.busy.pop(name).kind == "train"

    def pull(self) -> Iterator[tuple[int, Pending, RecordDict]]:
        """Client, task and content of the tasks that have been answered since."""
        for reply in self.grid.pull_messages(list(self.busy)):
            task = self.busy.pop(reply.metadata.reply_to_message_id, None)
            if task is None:
                continue  # answered before
            if not reply.has_content():
                self.counted["rejected"] += task.kind == "train"
            elif task.kind == "query":
                told = reply.content["about"]
                self._know(task.node, int(told["number"]), int(told["examples"]))
            elif task.node in self.known:
                yield self.known[task.node][0], task, reply.content

    def _know(self, node: int, client: int, examples: int) -> None:
        """A client that comes again has another node: the old one's tasks are lost."""
        old = [n for n, (number, _) in self.known.items() if number == client and n != node]
        for name, task in list(self.busy.items()):
            if task.node in old:
                self._lose(name)
        self.known = {n: who for n, who in self.known.items() if n not in old} | {node: (client, examples)}

    def wait_for(self, clients: int) -> None:
        """Until so many clients are there.

        Raises:
            InvalidProblem: too few come within the patience.
        """
        begun = time.monotonic()
        while len(self.clients()) < clients:
            if time.monotonic() - begun > self.patience:
                raise InvalidProblem(
                    f"{len(self.clients())} of {clients} clients came within {self.patience:g} seconds. Start more "
                    "nodes, ask for fewer clients, or have more patience."
                )
            self.meet()
            list(self.pull())
            time.sleep(POLL)
