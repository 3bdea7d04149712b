"""A federation in virtual time: an event queue of clients' finishing times, deterministic by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.core import InvalidProblem, Method, State
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, require, require_counts, require_positive
from thalweg.distributed.federated.aggregation import AggregationRule, Update
from thalweg.distributed.federated.problem import Federated
from thalweg.distributed.federated.schemes import Aggregation, arrival_shares
from thalweg.distributed.federated.times import ClientTimes

Rows: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Faults:
    """What goes wrong at clients.

    Args:
        lost: chance that an update never arrives; its client begins anew when it would have.
        stale: updates that are more aggregations old are thrown away; none by default.
        spoil: ``spoil(client, task, update)`` returns what arrives in the update's place, for experiments.
    """

    lost: float = 0.0
    stale: int | None = None
    spoil: Callable[[int, int, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        require(is_real(self.lost) and 0 <= self.lost < 1, "Faults needs 0 <= lost < 1", got=self.lost)
        if self.stale is not None:
            require_counts(self, "stale", least=0)


@dataclass(kw_only=True)
class FederationState(State):
    """``x`` is the model; ``calls`` counts the tasks that clients have done."""

    x: Tensor  # (parameters,)
    seed: int
    clock: float = 0.0  # seconds
    aggregation: int = 0
    busy: Rows  # a row for each task under way: finishes, began, client, task, version
    tasks: NDArray[np.int64]  # (clients,) begun by each
    versions: dict[str, Tensor]  # models that tasks under way began from, by aggregation
    rejected: int = 0
    discarded: int = 0


@dataclass(frozen=True)
class Federation(Method[Federated, FederationState]):
    """Federated training under an aggregation scheme; a step is an aggregation.

    Clients work all the time: one whose update has been taken gets the new model and begins its next task. With
    `FedAvg` and `Sampled` the server waits for all it has called.

    Args:
        scheme: the aggregation.
        times: how long tasks take.
        lr: eta_l, of the local steps.
        server_lr: eta_g.
        local_steps: K.
        batch: examples a local step; None for all.
        proximal: FedProx's pull towards the model received.
        faults: what goes wrong.
        judge: aggregations between two evaluations of the loss.

    Updates of a wrong shape or with NaN are rejected and counted, and so are those that are too old.

    Cost per step: the local steps of the updates taken, up to 512 clients at once by `torch.func.vmap`; the models
    that tasks under way began from are kept.

    Source: Fraboni and others (2023), algorithm 1.

    >>> import torch
    >>> from thalweg import Stop, solve
    >>> from thalweg.distributed.federated import ClientTimes, Federated, Federation, FedFix
    >>> clients = [(torch.full((1, 1), float(c)), torch.zeros(1)) for c in range(4)]
    >>> mean = Federated(lambda theta, X, y: 0.5 * ((theta - X) ** 2).mean(), torch.zeros(1), clients)
    >>> method = Federation(FedFix(0.5), ClientTimes.heterogeneous(4, 0.8), lr=0.1, local_steps=1)
    >>> solve(mean, method, stop=Stop(steps=400)).x.round(decimals=1)
    tensor([1.5000])
    """

    scheme: Aggregation
    times: ClientTimes
    lr: float = 0.1
    server_lr: float = 1.0
    local_steps: int = 5
    batch: int | None = None
    proximal: float = 0.0
    faults: Faults = Faults()
    judge: int = 1

    def __post_init__(self) -> None:
        require_positive(self, "lr", "server_lr")
        require_positive(self, "proximal", zero=True)
        require_counts(self, "local_steps", "judge", *([] if self.batch is None else ["batch"]))

    def init(self, problem: Federated, seed: int) -> FederationState:
        count = len(problem.clients)
        if self.times.clients != count:
            raise InvalidProblem(f"There are times for {self.times.clients} clients, and {count} clients.")
        x = problem.x0.clone()
        state = FederationState(
            x=x,
            seed=seed,
            busy=np.empty((0, 5)),
            tasks=np.zeros(count, dtype=np.int64),
            versions={"0": x},
            metrics={"loss": problem.metrics(x)["loss"], "seconds": 0.0},
        )
        called = self.scheme.chosen(count, problem.weights, 0, seed)
        self._begin(state, range(count) if called is None else called)
        return state

    def _begin(self, state: FederationState, who: Iterable[int]) -> None:
        """Tasks that start now, from the present model."""
        rows = [self._task(state, int(client), state.clock) for client in who]
        if rows:
            state.busy = np.vstack([state.busy, rows])

    def _task(self, state: FederationState, client: int, now: float) -> tuple[float, ...]:
        task = int(state.tasks[client])
        state.tasks[client] += 1
        return (now + self.times.draw(client, task, state.seed), now, client, task, state.aggregation)

    @property
    def rule(self) -> AggregationRule:
        """The server's part, the same on every engine."""
        return AggregationRule(self.scheme, self.server_lr, self.faults.stale)

    def step(self, problem: Federated, state: FederationState) -> FederationState:
        new = replace(state, tasks=state.tasks.copy(), versions=dict(state.versions))
        taken, anew = self._collect(new)
        updates = self._updates(problem, new, taken)
        done = self.rule.aggregate(
            state.x, updates, state.aggregation, problem.weights, arrival_shares(self.times)
        )
        new.calls += len(taken)
        new.rejected += done.rejected
        new.discarded += done.discarded
        new.x, new.aggregation = done.x, state.aggregation + 1
        called = self.scheme.chosen(len(problem.clients), problem.weights, new.aggregation, new.seed)
        new.versions[str(new.aggregation)] = new.x
        self._begin(new, anew if called is None else called)
        needed = {str(int(v)) for v in new.busy[:, 4]}
        new.versions = {name: v for name, v in new.versions.items() if name in needed}
        new.metrics = {"seconds": new.clock, "updates": float(len(taken)), "rejected": float(new.rejected)}
        new.metrics |= {"discarded": float(new.discarded)}
        if new.aggregation % self.judge == 0:
            new.metrics |= problem.metrics(new.x)
        return new

    def _collect(self, state: FederationState) -> tuple[Rows, Iterable[int]]:
        """The tasks that this aggregation takes, by client, and who begins anew after it; the clock moves to it."""
        busy, scheme = state.busy, self.scheme
        if scheme.arrivals is not None:
            return self._arrivals(state, scheme.arrivals)
        state.clock = scheme.due(busy[:, 0], state.aggregation)
        ready = busy[:, 0] <= state.clock * (1.0 + 1e-12)
        state.busy, taken = busy[~ready], busy[ready]
        taken = taken[np.lexsort((taken[:, 3], taken[:, 2]))]
        return taken, taken[:, 2].astype(np.int64)

    def _arrivals(self, state: FederationState, count: int) -> tuple[Rows, Iterable[int]]:
        """The next ``count``; clients go on at once with the model of that moment, the last with the coming one."""
        state.busy, taken = state.busy.copy(), np.empty((count, 5))
        for k in range(count):
            first = int(state.busy[:, 0].argmin())
            taken[k] = state.busy[first]
            state.clock = float(taken[k, 0])
            if k < count - 1:
                state.busy[first] = self._task(state, int(taken[k, 2]), state.clock)
        state.busy = np.delete(state.busy, first, axis=0)
        return taken, [int(taken[-1, 2])]

    def _updates(self, problem: Federated, state: FederationState, taken: Rows) -> list[Update]:
        """What has arrived, faults of the way included; updates that will be discarded are not worked out."""
        arrived = [row for row in taken if not self._lost(row, state.seed)]
        fresh = [row for row in arrived if not self.rule.is_stale(int(row[4]), state.aggregation)]
        state.discarded += len(arrived) - len(fresh)
        if not fresh:
            return []
        who = [(int(row[2]), int(row[3])) for row in fresh]
        theta = torch.stack([state.versions[str(int(row[4]))] for row in fresh])
        found = problem.updates(theta, who, self.local_steps, self.lr, self.batch, self.proximal, state.seed)
        return [
            Update(client, self._sent(client, task, change), float(row[0] - row[1]), int(row[4]))
            for row, (client, task), change in zip(fresh, who, found, strict=True)
        ]

    def _sent(self, client: int, task: int, change: Tensor) -> Tensor:
        return change if self.faults.spoil is None else self.faults.spoil(client, task, change)

    def _lost(self, row: Rows, seed: int) -> bool:
        lost = self.faults.lost
        return lost > 0 and bool(generator(seed, int(row[2]), int(row[3]), 0x1E).random() < lost)
