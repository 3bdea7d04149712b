"""16, 20, 23: encoding and decoding against the bandwidth of memory, thousands of replays, client updates by
vmap, surrogates that grow."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern
from torch import nn

from benchmarks.race import Row, race
from thalweg.distributed.coding import DelayProfile, GradientCoding, plan
from thalweg.distributed.coding.schemes import weighted_sum
from thalweg.distributed.federated import ClientTimes, FedAvg, Federated, Federation
from thalweg.distributed.zeroth_order import FZooS, quadratic


def rows() -> Iterator[Row]:
    """Codes, then clients."""
    yield from codes()
    yield replays()
    yield clients()
    yield flower()
    yield surrogates()


def codes(workers: int = 256, size: int = 1_000_000) -> Iterator[Row]:
    """Gradients of 10^6 numbers (a gigabyte in all) against NumPy reading them once, and against its matrix product."""
    scheme = GradientCoding(workers, 15)
    results = np.random.default_rng(0).standard_normal((workers, size)).astype(np.float32)
    weights = scheme.code.decoding(range(workers - 15))
    weights = np.where(weights == 0.0, 1.0, weights)  # as a dense code would have them
    terms = [(float(w), v) for w, v in zip(weights, results)]
    dense = weights.astype(np.float32)
    decode = lambda: weighted_sum(terms)  # noqa: E731
    read = lambda: results[: len(weights)].max()  # noqa: E731
    product = lambda: dense @ results[: len(weights)]  # noqa: E731
    (ours, total), (bandwidth, _), (blas, exact) = race(decode, read, product, rounds=3)
    error = float(np.abs(total - exact).max() / np.abs(exact).max())
    name = f"decode {len(weights)} gradients of {size:.0e}"
    yield Row("20", name, ours, "one pass over memory", bandwidth, accuracy_ours=error)
    yield Row("20", name, ours, "NumPy's matrix product", blas, accuracy_ours=error)


def replays() -> Row:
    """Parameters for 256 workers and 300 rounds against the 30 seconds that were allowed."""
    profile = DelayProfile.generated(300, 256, slope=32.0)
    ((seconds, found),) = race(lambda: plan(profile, most_B=3, most_W=9), rounds=3)
    return Row("20", f"{found.tried} settings, 256 workers, 300 rounds", seconds, "allowed", 30.0)


def clients(count: int = 512) -> Row:
    """Five local steps of many clients at once against one after another."""
    made = torch.Generator().manual_seed(0)
    shared = [
        (torch.randn(50, 64, generator=made), torch.randint(10, (50,), generator=made)) for _ in range(count)
    ]
    problem = Federated.from_module(lambda: nn.Linear(64, 10), nn.functional.cross_entropy, shared)
    who = [(i, 0) for i in range(count)]

    def alone() -> torch.Tensor:
        each = []
        for client, task in who:
            layer = nn.Linear(64, 10)
            problem.into(layer, problem.x0)
            optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
            X, y = shared[client]
            uniform = np.random.default_rng((0, client, task, 0x1B)).random((5, 16))
            for draw in (uniform * len(y)).astype(np.int64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(layer(X[draw]), y[draw]).backward()
                optimizer.step()
            each.append(nn.utils.parameters_to_vector(layer.parameters()).detach() - problem.x0)
        return torch.stack(each)

    (ours, one), (theirs, other) = race(
        lambda: problem.updates(problem.x0, who, 5, 0.1, 16, 0.0, 0), alone, rounds=3
    )
    return Row(
        "16",
        f"{count} client updates",
        ours,
        "a torch loop",
        theirs,
        accuracy_ours=float((one - other).abs().max()),
    )


def flower(count: int = 20, rounds: int = 10) -> Row:
    """The same federation of small models in virtual time and in Flower's simulation: seconds an update, without the
    start of processes; both give the same model."""
    from thalweg.distributed.federated.flower import simulate

    made = torch.Generator().manual_seed(0)
    shared = [
        (torch.randn(50, 64, generator=made), torch.randint(10, (50,), generator=made)) for _ in range(count)
    ]
    problem = Federated.from_module(lambda: nn.Linear(64, 10), nn.functional.cross_entropy, shared)
    method = Federation(FedAvg(), ClientTimes([1.0] * count), batch=16, judge=1000)
    state = method.init(problem, 0)

    def ours() -> torch.Tensor:
        now = state
        for _ in range(rounds):
            now = method.step(problem, now)
        return now.x

    ((seconds, _),) = race(ours, rounds=3)
    ends: list[float] = []
    server = simulate(problem, method, rounds + 1, look=lambda number, x, told: ends.append(told["seconds"]))
    assert float((method.step(problem, _after(problem, method, rounds)).x - server.x).abs().max()) == 0.0
    peer = (ends[-1] - ends[0]) / (rounds * count)  # the first starts Ray's processes
    told = f"{count} clients, {rounds} aggregations, an update"
    return Row("16", told, seconds / (rounds * count), "Flower's simulation", peer)


def _after(problem: Federated, method: Federation, rounds: int) -> Any:
    state = method.init(problem, 0)
    for _ in range(rounds):
        state = method.step(problem, state)
    return state


def surrogates(dim: int = 300, points: int = 150) -> Row:
    """A local step of FZooS for one client, active queries and all, against fitting a process anew as its reference
    does: scikit-learn's, twenty restarts, and differences of its mean."""
    problem = quadratic(dim, 1)
    method = FZooS(nearest=points)
    state = method.init(problem, 0)
    while state.memory["X"].shape[1] < points:
        state = method.step(problem, state)
    X, y = state.memory["X"][0, -points:].numpy(), state.memory["y"][0, -points:].numpy()
    x = state.x.numpy()

    def refit() -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            process = GaussianProcessRegressor(
                Matern(nu=2.5), alpha=1e-6, n_restarts_optimizer=20, random_state=0
            )
            process.fit(X, (y - y.min()) / (y.max() - y.min()))
            near = np.concatenate([x[None], x + 1e-6 * np.eye(dim)])
            values = process.predict(near)
        return (values[1:] - values[0]) / 1e-6

    (ours, _), (peer, _) = race(lambda: method.step(problem, state), refit, rounds=2)
    return Row(
        "23",
        f"local step, {dim} dimensions, {points} points",
        ours / method.local_steps,
        "scikit-learn refitted",
        peer,
    )
