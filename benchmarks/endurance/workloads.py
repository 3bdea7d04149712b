"""Commands that take some seconds, and what their folders must hold."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.io

from benchmarks.endurance.harness import Workload
from thalweg.blackbox import Real, Study
from thalweg.core import ThalwegError
from thalweg.core.tree import load_tree
from thalweg.numerics import FivePointStencil


def _resumed(folder: Path, name: str = "kept") -> list[str]:
    """``--checkpoint``, and ``--resume`` where something was kept."""
    return ["--checkpoint", name, *(["--resume", name] if (folder / name).exists() else [])]


def _same_bits(first: object, second: object) -> bool:
    return bool(np.array_equal(np.asarray(first), np.asarray(second)))


def _readable(name: str) -> Callable[[Path], str]:
    """Whether a checkpoint, if there is one, can be read whole."""

    def whole(folder: Path) -> str:
        path = folder / name
        if not path.exists():
            return ""
        try:
            load_tree(path)
        except ThalwegError as error:
            return str(error)
        return ""

    return whole


def linear() -> Workload:
    """Some thousand sweeps of SOR."""

    def prepare(folder: Path) -> None:
        scipy.io.mmwrite(folder / "A.mtx", FivePointStencil(120, 120).to_csr())

    def words(folder: Path) -> Sequence[str]:
        method = ["--method", "sor:omega=1.5", "--tol", "1e-8", "--steps", "40000"]
        return ["solve", "linear", "A.mtx", *method, "--out", "x.npy", *_resumed(folder)]

    return Workload(
        "solve linear",
        words,
        prepare,
        lambda folder: np.load(folder / "x.npy"),
        _same_bits,
        _readable("kept"),
    )


def matrix() -> Workload:
    """Alternating minimisation, ended by its steps: a run that has ended itself takes one more when resumed."""

    def prepare(folder: Path) -> None:
        rng = np.random.default_rng(0)
        U, V = rng.standard_normal((2, 600, 4))
        rows, columns = rng.integers(0, 600, (2, 150_000))
        pairs = np.unique(np.stack([rows, columns], 1), axis=0)
        values = np.einsum("ij,ij->i", U[pairs[:, 0]], V[pairs[:, 1]]) + 0.1 * rng.standard_normal(len(pairs))
        table = np.column_stack([pairs, np.round(values, 4)])
        np.savetxt(folder / "r.csv", table, "%d,%d,%.4f", header="user,item,rating", comments="")

    def words(folder: Path) -> Sequence[str]:
        how = ["--rank", "16", "--steps", "12", "--tol", "0"]
        return ["solve", "matrix", "r.csv", *how, "--out", "f.npz", *_resumed(folder)]

    def answer(folder: Path) -> object:
        with np.load(folder / "f.npz") as found:
            return np.concatenate([np.ravel(found[k]) for k in sorted(found) if found[k].dtype.kind == "f"])

    return Workload("solve matrix", words, prepare, answer, _same_bits, _readable("kept"))


def blackbox() -> Workload:
    """A program of the user's, two at once: nothing told is lost, no place is paid for twice."""

    def prepare(folder: Path) -> None:
        (folder / "s.toml").write_text('[x]\ntype = "real"\nlow = 0.0\nhigh = 1.0\n', encoding="utf-8")
        program = '#!/bin/sh\necho $1 >> calls\nsleep 0.3\nawk "BEGIN {print ($1 - 0.3)^2}"\n'
        (folder / "run.sh").write_text(program, encoding="utf-8")
        (folder / "run.sh").chmod(0o755)

    def words(folder: Path) -> Sequence[str]:
        how = ["--space", "s.toml", "--trials", "16", "--parallel", "2", "--study", "kept", "--exact"]
        return ["solve", "blackbox", *how, "--out", "b.json", "--", "./run.sh", "{x:.12f}"]

    def answer(folder: Path) -> object:
        study = Study({"x": Real(0.0, 1.0)}, noise="none")
        study.load(folder / "kept")
        told = [trial for trial in study.trials if trial.value is not None]
        best = json.loads((folder / "b.json").read_text(encoding="utf-8"))
        return len(told), float(best["best"]["value"])

    def alike(first: object, second: object) -> bool:
        """As many evaluations, and a value as good: which points are asked hangs on who ends first."""
        (count, value), (wanted, _) = first, second  # type: ignore[misc]
        return bool(count == wanted and value < 1e-2)

    return Workload("solve blackbox --parallel 2", words, prepare, answer, alike, _readable("kept"))


def discover() -> Workload:
    """A search over programs."""

    def words(folder: Path) -> Sequence[str]:
        how = [
            "--evaluations",
            "60",
            "--population",
            "12",
            "--tournament",
            "4",
            "--no-progress",
            "--no-simplify",
        ]
        return ["discover", "digits-mlp", *how, "--out", "found.py", *_resumed(folder)]

    return Workload(
        "discover",
        words,
        lambda folder: None,
        lambda folder: (folder / "found.py").read_text(encoding="utf-8"),
        lambda first, second: first == second,
        _readable("kept"),
    )


def reproduce() -> Workload:
    """Two studies at smoke scale, their records and the page."""

    def answer(folder: Path) -> object:
        records = sorted((folder / "runs").rglob("*.json"))
        rows = [json.loads(path.read_text(encoding="utf-8")) for path in records]
        return [[v["claim"] for v in row.get("evidence", row).get("verdicts", [])] for row in rows]

    def whole(folder: Path) -> str:
        for path in (folder / "runs").rglob("*.json"):
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                return f"{path}: {error}"
        return ""

    return Workload(
        "reproduce 11 24 --jobs 2",
        lambda folder: ["reproduce", "11", "24", "--scale", "smoke", "--jobs", "2", "--runs", "runs"],
        lambda folder: None,
        answer,
        lambda first, second: bool(first) and first == second,
        whole,
    )


CODED = """
import os
from pathlib import Path
os.environ["RAY_worker_niceness"] = "0"
import numpy as np, torch
from torch import nn
from thalweg import Checkpoint, Stop, solve
from thalweg.distributed.coding import CodedTraining, DataParallel, DelayProfile, GradientCoding, RayCluster

if __name__ == "__main__":
    X = torch.linspace(0, 1, 24)[:, None]
    loss = lambda out, y: ((out[:, 0] - y) ** 2).sum()
    problem = DataParallel(lambda: nn.Linear(1, 1), loss, X, 2 * X[:, 0] + 1)
    cluster = RayCluster(DelayProfile(np.full((60, 4), 0.02)))
    kept = Path("kept")
    found = solve(
        problem, CodedTraining(GradientCoding(4, 1), cluster, lr=0.3, mu=0.5), stop=Stop(steps=60), seed=4,
        callbacks=[Checkpoint(kept, every=2)], resume=kept if kept.exists() else None, progress=False,
    )
    np.save("x.npy", np.float64(found.metrics["loss"]))
    cluster.end()
"""


def coded() -> Workload:
    """Coded training by workers of Ray; a job that was killed in the midst is done again."""

    def prepare(folder: Path) -> None:
        (folder / "coded.py").write_text(CODED, encoding="utf-8")

    def alike(first: object, second: object) -> bool:
        return bool(np.allclose(np.asarray(first), np.asarray(second), rtol=1e-3, atol=1e-6))

    return Workload(
        "coded training on Ray",
        lambda folder: ["coded.py"],
        prepare,
        lambda folder: np.load(folder / "x.npy"),
        alike,
        _readable("kept"),
        (sys.executable,),
    )


FEDERATED = """
from pathlib import Path
import numpy as np, torch
from thalweg import Checkpoint, Stop, solve
from thalweg.distributed.federated import ClientTimes, Federated, Federation, FedFix

rng = np.random.default_rng(0)
clients = [(torch.as_tensor(rng.normal(c, 1.0, (64, 10))), torch.zeros(64)) for c in range(20)]
problem = Federated(lambda x, X, y: ((x - X) ** 2).mean(), torch.zeros(10, dtype=torch.float64), clients)
method = Federation(FedFix(0.5), ClientTimes.heterogeneous(20, 0.8), lr=0.01, local_steps=5, batch=16)
kept = Path("kept")
found = solve(
    problem, method, stop=Stop(steps=250), seed=4, callbacks=[Checkpoint(kept, every=5)],
    resume=kept if kept.exists() else None, progress=False,
)
np.save("x.npy", found.x.numpy())
"""


def federated() -> Workload:
    """A federation of slow and fast clients in virtual time: the same bits, clients' clocks and streams included."""

    def prepare(folder: Path) -> None:
        (folder / "federated.py").write_text(FEDERATED, encoding="utf-8")

    return Workload(
        "federated training",
        lambda folder: ["federated.py"],
        prepare,
        lambda folder: np.load(folder / "x.npy"),
        _same_bits,
        _readable("kept"),
        (sys.executable,),
    )


WORKLOADS = (linear, matrix, blackbox, discover, reproduce, coded, federated)
