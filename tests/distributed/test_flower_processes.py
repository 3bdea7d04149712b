"""Flower in processes of its own, which listen on the loopback and are ended by their ids."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_flower import problem
from test_zeroth_order_flower import problem as zeroth_order_problem

from thalweg.core.tree import load_tree

pytest.importorskip("flwr")

#: Seconds after which a test is given up: nothing is measured by it, so that a busy machine only takes longer.
LIMIT = 900.0

APP = """
[project]
name = "clients"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "clients.app:server"
clientapp = "clients.app:client"
[tool.flwr.federations]
default = "loopback"
[tool.flwr.federations.loopback]
address = "127.0.0.1:{port}"
insecure = true
"""

CODE = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_flower import method, problem
from thalweg.distributed.federated import FedAvg
from thalweg.distributed.federated.flower import FlowerServer, client_app

folder = Path({folder!r})

def look(number, x, counted):
    with open(folder / "log.txt", "a") as file:
        file.write(f"{{number}} {{int(counted['updates'])}} {{int(counted['rejected'])}}\\n")
    while number == 1 and not (folder / "killed").exists():  # what happens between two aggregations
        time.sleep(0.1)

many = int((folder / "aggregations").read_text())
client = client_app(problem())
server = FlowerServer(
    problem().x0, method(FedAvg()), many, 2, checkpoint=folder / "server", patience={limit}, look=look
).app()
"""


ROUNDS = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_zeroth_order_flower import METHODS, problem
from thalweg.distributed.zeroth_order.flower import FlowerServer, client_app

folder = Path({folder!r})

def look(number, x, counted):
    with open(folder / "log.txt", "a") as file:
        file.write(f"{{number}} {{int(counted['queries'])}} {{int(counted['rejected'])}}\\n")

many = int((folder / "aggregations").read_text())
client = client_app(METHODS["fzoos"], lambda number: problem().clients[number])
server = FlowerServer(
    problem().x0, METHODS["fzoos"], many, 2, checkpoint=folder / "server", patience={limit}, look=look
).app()
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Deployment:
    """A SuperLink and SuperNodes, processes that listen on the loopback, ended by their ids."""

    def __init__(self, folder, code=CODE):
        self.folder, self.bin = folder, Path(sys.executable).parent
        self.ports = free_ports(4)
        app = folder / "app"
        (app / "clients").mkdir(parents=True)
        (app / "pyproject.toml").write_text(APP.format(port=self.ports[0]))
        (app / "clients" / "__init__.py").touch()
        code = code.format(tests=str(Path(__file__).parent), folder=str(folder), limit=LIMIT)
        (app / "clients" / "app.py").write_text(code)
        self.environment = {
            **os.environ,
            "FLWR_HOME": str(folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        (folder / "home").mkdir()
        self.processes = []

    def start(self, *words):
        log = (self.folder / f"process-{len(self.processes)}.log").open("w")
        process = subprocess.Popen(
            [str(self.bin / words[0]), *words[1:]],
            stdout=log,
            stderr=log,
            env=self.environment,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def link(self):
        """The SuperLink, once it listens."""
        process = self.start(
            "flower-superlink",
            "--insecure",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.ports[0]),
            "--disable-runtime-dependency-installation",
        )
        end = time.monotonic() + LIMIT
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.ports[0])) == 0:
                    return process
            assert time.monotonic() < end, "the SuperLink does not listen"
            time.sleep(0.1)

    def node(self, number, port):
        return self.start(
            "flower-supernode",
            "--insecure",
            "--superlink",
            f"127.0.0.1:{self.ports[0]}",
            "--port",
            str(self.ports[port]),
            "--node-config",
            f"partition-id={number}",
        )

    def run(self, aggregations):
        (self.folder / "aggregations").write_text(str(aggregations))
        words = [str(self.bin / "flwr"), "run", str(self.folder / "app"), "loopback"]
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0, done.stdout + done.stderr
        return int(re.search(r"run (\d+)", done.stdout)[1])

    def told(self):
        file = self.folder / "log.txt"
        return (
            [tuple(map(int, line.split())) for line in file.read_text().splitlines()] if file.exists() else []
        )

    def until(self, condition):
        end = time.monotonic() + LIMIT
        while not condition(self.told()):
            assert time.monotonic() < end, "\n".join(p.read_text()[-2000:] for p in self.folder.glob("*.log"))
            time.sleep(0.2)

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


class TestProcesses:
    def test_a_killed_client_comes_back_and_a_restarted_server_goes_on(self, tmp_path):
        """SuperLink, two SuperNodes and server in processes of their own; a node is killed with SIGKILL."""
        deployment = Deployment(tmp_path)
        try:
            deployment.link()
            nodes = [deployment.node(i, i + 1) for i in range(2)]
            deployment.run(2)
            deployment.until(lambda told: len(told) >= 1)
            os.killpg(nodes[1].pid, signal.SIGKILL)
            nodes[1].wait()
            deployment.node(1, 3)
            (tmp_path / "killed").touch()  # the server goes on
            deployment.until(lambda told: told and told[-1][0] == 2)
            between = load_tree(tmp_path / "server")
            assert between["aggregation"] == 2
            # without the one who was killed, or with him come back
            assert between["counted"]["updates"] in (3, 4)
            deployment.run(3)  # another server, from the checkpoint
            deployment.until(lambda told: told[-1][0] == 3)
            kept, told = load_tree(tmp_path / "server"), deployment.told()
            assert [number for number, _, _ in told] == [1, 2, 3]
            assert kept["counted"]["updates"] == between["counted"]["updates"] + 2
            assert kept["counted"]["rejected"] == 0
            assert kept["tasks"]["1"] >= between["tasks"]["1"] + 1
            task = problem()
            assert task.metrics(kept["x"])["loss"] < task.metrics(task.x0)["loss"]
        finally:
            deployment.end()

    def test_rounds_go_on_without_a_killed_client_and_its_queries(self, tmp_path):
        """FZooS: a node is killed with SIGKILL between two servers, and comes back with nothing it had asked."""
        deployment = Deployment(tmp_path, ROUNDS)
        task = zeroth_order_problem()
        try:
            deployment.link()
            nodes = [deployment.node(i, i + 1) for i in range(2)]
            deployment.run(1)
            deployment.until(bool)
            between = load_tree(tmp_path / "server")
            os.killpg(nodes[1].pid, signal.SIGKILL)
            deployment.node(1, 3)
            deployment.run(2)
            deployment.until(lambda told: told[-1][0] == 2)
            kept, told = load_tree(tmp_path / "server"), deployment.told()
            assert [number for number, _, _ in told] == [1, 2]
            assert kept["counted"]["rejected"] == 0
            assert kept["counted"]["queries"] > between["counted"]["queries"] > 0
            losses = [task.metrics(s["broadcast"]["x"])["objective"] for s in (between, kept)]
            assert losses[1] < losses[0] < task.metrics(task.x0)["objective"]
        finally:
            deployment.end()
