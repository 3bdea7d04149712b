"""Coded data-parallel training: T + 1 models interleaved, so that no job waits for the gradient before it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from thalweg.core import InvalidProblem, Method, NotFinite, Problem, State, Stop
from thalweg.core.seeding import generator
from thalweg.core.validation import require
from thalweg.distributed.coding.master import Master
from thalweg.distributed.coding.schemes import Scheme, WorkItem
from thalweg.distributed.coding.stragglers import DelayProfile

Vector = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DataParallel(Problem):
    """Minimise the mean loss of a module over examples that workers share out among themselves.

    Args:
        model: makes the module, anew at each call; called under the run's seed.
        loss: ``loss(outputs, y)``, the *sum* over a batch of examples.
        X, y: tensors of examples, first axis alike.

    Raises:
        InvalidProblem: no tensors, other lengths, a loss that is no number or not the sum over the examples: a mean,
            say, or outputs of shape (n, 1) set against targets of shape (n,), which pairs each with every other.
        NotFinite: NaN or infinity in X.

    An answer is the module's parameters as one vector. The metric is ``loss``, the mean.

    >>> X = torch.arange(6.0)[:, None]
    >>> line = DataParallel(lambda: nn.Linear(1, 1), lambda out, y: ((out[:, 0] - y) ** 2).sum(), X, 2 * X[:, 0])
    >>> line.metrics(torch.tensor([2.0, 0.0]))
    {'loss': 0.0}
    """

    objective: ClassVar[str | None] = "loss"

    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    X: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        for name, given in (("X", self.X), ("y", self.y)):
            if not isinstance(given, Tensor) or given.ndim == 0:
                raise InvalidProblem(f"DataParallel needs {name} to be a tensor of examples; got {given!r}.")
        require(
            len(self.X) == len(self.y) > 0,
            "DataParallel needs as many X as y, at least one",
            got=(len(self.X), len(self.y)),
            error=InvalidProblem,
        )
        if not bool(torch.isfinite(self.X).all()):
            raise NotFinite("X holds NaN or infinity. Remove or impute them before training.")
        self._check_loss()

    def _check_loss(self) -> None:
        """Refuse a loss of two examples that is not the sum of theirs: workers' parts would not make the whole."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = self.model().eval()
        values = []
        for rows in (slice(0, 2), slice(0, 1), slice(1, 2)):
            if len(self.X[rows]):
                with torch.no_grad():
                    value = self.loss(module(self.X[rows]), self.y[rows])
                if not isinstance(value, Tensor) or value.shape != ():
                    raise InvalidProblem(
                        "DataParallel needs a loss that is one number, a tensor of shape (): the sum over a batch; got "
                        f"{tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}."
                    )
                values.append(float(value))
        if len(values) == 3 and abs(values[0] - values[1] - values[2]) > 1e-2 * sum(map(abs, values)):
            raise InvalidProblem(
                f"DataParallel needs a loss that is the sum over a batch; that of two examples is {values[0]:g}, and "
                f"those of each {values[1]:g} and {values[2]:g}. Give reduction='sum', and outputs the shape of y."
            )

    def start(self, seed: int) -> Tensor:
        """Parameters of a fresh module."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return parameters_to_vector(self.model().parameters()).detach().clone()

    def recommended_stop(self) -> Stop:
        """A thousand rounds, or fifty without a smaller loss: there is no measure of being solved."""
        return Stop(steps=1000, patience=50)

    def metrics(self, x: Tensor) -> dict[str, float]:
        """``loss``."""
        module = self.model()
        vector_to_parameters(x.clone(), module.parameters())
        with torch.no_grad():
            return {"loss": float(self.loss(module(self.X), self.y)) / len(self.X)}

    def rows(self, shares: Sequence[float]) -> list[NDArray[np.int64]]:
        """Examples of each part, in a fixed random order, cut by their shares."""
        order = generator(0, 0x25).permutation(len(self.X))
        cuts = np.round(np.cumsum(shares) * len(self.X)).astype(np.int64)
        return np.split(order, cuts[:-1])


class Worker:
    """Partial gradients of one worker's tasks; the same on every engine."""

    def __init__(self, problem: DataParallel, shares: Sequence[float]) -> None:
        self.problem, self.rows = problem, problem.rows(shares)
        self.module = problem.model()

    def compute(self, tasks: Sequence[WorkItem], parameters: Mapping[int, Vector]) -> list[Vector]:
        """The weighted sum of the gradients of a task's parts, at its job's parameters, over the number of examples."""
        return [self._task(task, torch.from_numpy(parameters[task.job])) for task in tasks]

    def _task(self, task: WorkItem, x: Tensor) -> Vector:
        problem = self.problem
        vector_to_parameters(x, self.module.parameters())
        self.module.zero_grad(set_to_none=False)
        for part, weight in zip(task.parts, task.coefficients, strict=True):
            rows = torch.from_numpy(self.rows[part])
            if len(rows):
                (
                    weight / len(problem.X) * problem.loss(self.module(problem.X[rows]), problem.y[rows])
                ).backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.module.parameters()]
        return parameters_to_vector(grads).detach().numpy().copy()


class Arrival(NamedTuple):
    """A worker's results and when they came, in seconds since the round began; None where it has failed."""

    worker: int
    seconds: float
    results: list[Vector] | None


class Cluster(ABC):
    """What carries work to workers and results back: an engine."""

    @abstractmethod
    def begin(self, problem: DataParallel, scheme: Scheme) -> None:
        """Make the workers."""

    @abstractmethod
    def send(
        self, round: int, work: Mapping[int, Sequence[WorkItem]], parameters: Mapping[int, Vector]
    ) -> None:
        """Hand out a round's work."""

    @abstractmethod
    def wait(self, until: float) -> Arrival | None:
        """The next arrival; None where there is none before ``until``, in seconds since the round began."""

    def end(self) -> None:  # noqa: B027
        """Let the workers go."""


@dataclass(eq=False)
class VirtualCluster(Cluster):
    """Workers of one process in virtual time: a profile says when each one's results come. Deterministic.

    Args:
        profile: seconds; used from its beginning again where it is shorter than the run.
    """

    profile: DelayProfile

    def begin(self, problem: DataParallel, scheme: Scheme) -> None:
        if self.profile.workers != scheme.n:
            raise InvalidProblem(f"The profile has {self.profile.workers} workers and the scheme {scheme.n}.")
        self.worker = Worker(problem, scheme.shares.tolist())
        self.seconds = self.profile.at(scheme.load)

    def send(
        self, round: int, work: Mapping[int, Sequence[WorkItem]], parameters: Mapping[int, Vector]
    ) -> None:
        row = self.seconds[round % len(self.seconds)]
        self.queue = sorted(((float(row[w]), w) for w in work), reverse=True)
        self.work, self.parameters = work, parameters

    def wait(self, until: float) -> Arrival | None:
        if not self.queue or self.queue[-1][0] > until:
            return None
        seconds, worker = self.queue.pop()
        return Arrival(worker, seconds, self.worker.compute(self.work[worker], self.parameters))


@dataclass(kw_only=True)
class CodedState(State):
    """``x`` is the first of the models."""

    x: Tensor  # (parameters,)
    models: Tensor  # (T + 1, parameters)
    velocity: Tensor  # (T + 1, parameters)
    jobs: int = 0  # done
    round: int = 0
    seconds: float = 0.0  # the cluster's
    faults: int = 0
    master: Master[Vector] | None = None
    offset: int = 0  # jobs done by the masters before this one
    arrived: NDArray[np.float64] | None = None  # (workers,) seconds in the last round, NaN where late

    def tree(self) -> dict[str, Any]:
        """Without what is on its way: a restarted master begins the jobs in flight again."""
        return {name: value for name, value in super().tree().items() if name != "master"}


C = TypeVar("C", bound=CodedState)


@dataclass(frozen=True)
class CodedTraining(Method[DataParallel, CodedState]):
    """Gradient descent on models that workers train by a code, a round a step.

    Job t is the next step of model ``t mod (T + 1)``, T the scheme's delay; its gradient is known before its model's
    next job begins, so that each model is trained as by synchronous gradient descent, exactly, whoever is late.

    Args:
        scheme: the code.
        cluster: the engine, `VirtualCluster` or `RayCluster`.
        lr: learning rate.
        momentum: of the heavy ball.
        mu: a round waits this share longer than the fastest worker took.

    Results of a wrong shape or with NaN count as those of a straggler (``faults`` of the metrics).

    Cost per step: the gradients of the round's tasks, ``load`` times the data for each worker, and the decoding's sums.

    >>> import torch
    >>> from torch import nn
    >>> from thalweg.distributed.coding import CodedTraining, DataParallel, VirtualCluster
    >>> from thalweg import Stop, solve
    >>> from thalweg.distributed.coding import DelayProfile, GradientCoding
    >>> X = torch.arange(6.0)[:, None] / 6
    >>> line = DataParallel(lambda: nn.Linear(1, 1), lambda out, y: ((out[:, 0] - y) ** 2).sum(), X, 2 * X[:, 0])
    >>> method = CodedTraining(GradientCoding(3, 1), VirtualCluster(DelayProfile.generated(50, 3)), lr=0.5)
    >>> solve(line, method, stop=Stop(steps=200)).metrics["loss"] < 1e-3
    True
    """

    scheme: Scheme
    cluster: Cluster
    lr: float = 0.1
    momentum: float = 0.0
    mu: float = 0.2

    def __post_init__(self) -> None:
        require(self.lr > 0, "CodedTraining needs lr > 0", got=self.lr)
        require(0 <= self.momentum < 1, "CodedTraining needs 0 <= momentum < 1", got=self.momentum)
        require(self.mu >= 0, "CodedTraining needs mu >= 0", got=self.mu)

    def init(self, problem: DataParallel, seed: int) -> CodedState:
        count = self.scheme.delay + 1
        models = torch.stack([problem.start(seed + k) for k in range(count)])
        self.cluster.begin(problem, self.scheme)
        metrics = problem.metrics(models[0]) | {"seconds": 0.0, "late": 0.0, "jobs": 0.0, "faults": 0.0}
        return CodedState(
            x=models[0].clone(), metrics=metrics, models=models, velocity=torch.zeros_like(models)
        )

    def step(self, problem: DataParallel, state: C) -> C:
        master, offset = state.master, state.offset
        if master is None:
            master, offset = Master(self.scheme), state.jobs
        models, velocity, count = state.models.clone(), state.velocity.clone(), len(state.models)
        work = master.assignments()
        jobs = {task.job for tasks in work.values() for task in tasks}
        parameters = {job: models[(job + offset) % count].numpy() for job in jobs}
        results, times, seconds, faults = self._round(master, state.round, work, parameters, models.shape[1])
        finished = master.close(results)
        for job, gradient in finished:
            k = (job + offset) % count
            velocity[k] = self.momentum * velocity[k] + torch.from_numpy(np.asarray(gradient))
            models[k] -= self.lr * velocity[k]
        if not bool(torch.isfinite(models).all()):
            raise NotFinite(
                f"Training has diverged after {state.jobs} jobs. A smaller lr than {self.lr:g} may mend it."
            )
        metrics = {"seconds": state.seconds + seconds, "late": float(self.scheme.n - len(results))}
        metrics |= {"jobs": float(state.jobs + len(finished)), "faults": float(state.faults + faults)}
        if any((job + offset) % count == 0 for job, _ in finished):
            metrics |= problem.metrics(models[0])
        return replace(
            state,
            x=models[0],
            metrics=metrics,
            models=models,
            velocity=velocity,
            jobs=state.jobs + len(finished),
            round=state.round + 1,
            seconds=state.seconds + seconds,
            faults=state.faults + faults,
            master=master,
            offset=offset,
            arrived=times,
        )

    def _round(
        self,
        master: Master[Vector],
        round: int,
        work: Mapping[int, Sequence[WorkItem]],
        parameters: Mapping[int, Vector],
        size: int,
    ) -> tuple[dict[int, list[Vector]], NDArray[np.float64], float, int]:
        """Results in time and when they came, the round's length, and the faults."""
        results: dict[int, list[Vector]] = {}
        times = np.full(self.scheme.n, np.nan)
        cluster, first, last, faults = self.cluster, math.inf, 0.0, 0
        cluster.send(round, work, parameters)
        while len(results) < self.scheme.n:
            enough = bool(results) and master.may_end(set(results))
            arrival = cluster.wait((1.0 + self.mu) * first if enough else math.inf)
            if arrival is None:
                if enough:
                    last = max(last, (1.0 + self.mu) * first)
                    break
                raise InvalidProblem(
                    f"{self.scheme.n - len(results)} workers have no results and none to come; "
                    f"{type(self.scheme).__name__} cannot do without them."
                )
            values = arrival.results
            if values is None or any(v.shape != (size,) or not np.isfinite(v).all() for v in values):
                faults += 1
                continue
            results[arrival.worker], times[arrival.worker] = values, arrival.seconds
            first, last = min(first, arrival.seconds), max(last, arrival.seconds)
        return results, times, last, faults
