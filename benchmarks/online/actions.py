"""17: promises of a net against a dense sweep in NumPy, its memory, a design, and a linear program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.race import Row, race
from thalweg.online import LazyElimination, NetElimination, NetSize, g_optimal_design
from thalweg.online.actions.generators import nearly_linear, signs, sparse_parameter, sphere
from thalweg.online.actions.net import Net
from thalweg.online.actions.sparse_fit import shortest_fit

#: Candidates in a block of the dense sweep, so that it stays within the memory that ours is allowed.
DENSE_BLOCK = 20_000


def rows() -> Iterator[Row]:
    """All rows."""
    yield promises()
    yield elimination()
    yield design()
    yield program()


def large_net() -> tuple[Any, NetSize]:
    """A thousand actions of 64 features, and a net of a million candidates."""
    features = sphere(1000, 64)
    return features, NetSize.of(features, 2, 0.0345)


def promises() -> Row:
    """A million candidates at a thousand actions: the net, sorted, and a dense product in float32, not sorted."""
    features, size = large_net()
    net = Net(features, size)
    ordered = net.rounding

    def dense() -> Any:
        columns, found, block = features.T.astype(np.float32), [], []
        for c, support in enumerate(net.supports):
            part = np.zeros((len(net.grid), size.d), dtype=np.float32)
            part[:, support] = net.grid
            block.append(part)
            if len(block) * len(net.grid) >= DENSE_BLOCK or c + 1 == len(net.supports):
                found.append((np.concatenate(block) @ columns).max(1))
                block = []
        return np.concatenate(found)

    (ours, made), (theirs, exact) = race(lambda: Net(features, size), dense, rounds=2)
    off = float(np.abs(made._promises() - exact).max())
    assert off <= 2 * ordered + 1e-6
    return Row(
        "17",
        f"{size.count} candidates x 1000 actions",
        ours,
        "dense product in blocks, NumPy",
        theirs,
        off,
        0.0,
    )


def elimination() -> Row:
    """From nothing to the end, d = 256, s = 2: the polytopes of 32 640 supports, and a net as fine as fits."""
    features = sphere(1000, 256)
    table = nearly_linear(features, sparse_parameter(256, 2), 0.1, "adversarial")

    def played(method: Any) -> float:
        search = method.begin(features)
        while not search.done:
            search.observe(float(table.rewards[search.next_action()]))  # type: ignore[index]
        return table.metrics(search.answer())["gap"]

    (ours, gap), (theirs, other) = race(
        lambda: played(LazyElimination(2, 0.1)), lambda: played(NetElimination(2, 0.1)), rounds=2
    )
    return Row(
        "17", "elimination, d = 256, s = 2, 1000 actions", ours, "our net, 4 eps for 2", theirs, gap, other
    )


def design() -> Row:
    """A G-optimal design of a thousand actions, d = 256, and plain Frank-Wolfe with a fresh inverse every step."""
    features = sphere(1000, 256)

    def plain() -> float:
        n, d = features.shape
        w = np.full(n, 1.0 / n)
        for _ in range(100_000):
            inverse = np.linalg.inv(features.T @ (w[:, None] * features))
            leverages = np.einsum("ij,ij->i", features @ inverse, features)
            most = int(leverages.argmax())
            if leverages[most] <= 1.02 * d:
                break
            step = (leverages[most] / d - 1) / (leverages[most] - 1)
            w *= 1 - step
            w[most] += step
        return float(leverages.max()) / d

    (ours, found), (theirs, other) = race(lambda: g_optimal_design(features), plain, rounds=1)
    return Row(
        "17",
        "G-optimal design, 1000 x 256",
        ours,
        "Frank-Wolfe, inverse anew",
        theirs,
        found.leverage / 256,
        other,
    )


def program() -> Row:
    """The shortest parameter that fits 70 answers, d = 1024, and CVXPY with its default."""
    import cvxpy as cp

    features, theta = signs(70, 1024), sparse_parameter(1024, 4, alike=True)
    rewards = features @ theta + 0.02

    def modelled() -> Any:
        x = cp.Variable(1024)
        cp.Problem(cp.Minimize(cp.norm1(x)), [cp.norm_inf(features @ x - rewards) <= 0.02]).solve(
            solver=cp.HIGHS
        )
        return x.value

    (ours, found), (theirs, other) = race(lambda: shortest_fit(features, rewards, 0.02), modelled, rounds=3)
    lengths = [float(np.abs(x).sum()) for x in (found, other)]
    return Row("17", "shortest fit, 70 answers, d = 1024", ours, "CVXPY, HiGHS inside", theirs, *lengths)


def memory() -> float:
    """MB that a process of its own grows by in making the large net, the libraries not counted."""
    code = (
        "import resource; from benchmarks.online.actions import large_net; from thalweg.online.actions.net import Net, "
        "NetSize; f, size = large_net(); Net(f[:9], NetSize.of(f[:9], 2, 0.5)); "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; Net(f, size); "
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=True)  # noqa: S603 -- our own code
    return float(done.stdout)


if __name__ == "__main__":  # python -m benchmarks.online.actions
    print(f"the large net takes {memory():.0f} MB")
