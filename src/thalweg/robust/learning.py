"""Labels for a value network, in parallel and resumable, and its training.

Dumouchelle et al. (2024), section 4.1 and appendix F: Adam, mean squared error, the best validation epoch, data split
by instance. Half of the scenarios are vertices of the set, where worst cases are.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Tensor

from thalweg.core import InvalidProblem, Method, Problem, Result, State, Status, solve
from thalweg.core.processes import beside
from thalweg.core.seeding import generator, torch_generator
from thalweg.core.tree import load_tree, save_tree
from thalweg.core.validation import is_whole, require
from thalweg.robust.budgeting import CapitalBudgeting
from thalweg.robust.facility import FacilityLocation
from thalweg.robust.knapsack import RobustKnapsack
from thalweg.robust.milp import Array
from thalweg.robust.problem import TwoStageRobust
from thalweg.robust.value_network import Floats, Shape, ValueNetwork, scenario_rows

#: Makes the problem of a size and a seed.
Maker = Callable[[int, int], TwoStageRobust]

#: Problems of one chunk: what a file of a folder holds.
CHUNK = 25
#: Every fifth problem is for validation.
FOLD = 5


@dataclass(frozen=True)
class LabelSet:
    """Problems of one size with their labels: (p, items, k), (p, a, items), (p, a, g), (p, b, rows, q), (p, a, b)."""

    features: Floats
    bits: Floats
    others: Floats
    scenarios: Floats
    values: Array

    @property
    def size(self) -> int:
        """Items."""
        return int(self.bits.shape[2])


def _made(make: Maker, size: int, seed: int, k: int) -> TwoStageRobust:
    return make(size, k + 1_000_003 * (1 + seed))


def _chunk(
    make: Maker, size: int, seed: int, first: int, count: int, decisions: int, scenarios: int
) -> LabelSet:
    rows: list[list[Array]] = [[] for _ in range(5)]
    for k in range(first, first + count):
        problem, rng = _made(make, size, seed, k), generator(seed, size, k)
        if k == first:
            kind, items = type(problem), len(problem.items)
        if type(problem) is not kind or len(problem.items) != items:
            raise InvalidProblem(
                f"make({size}, ...) gave a {kind.__name__} of {items} items and a {type(problem).__name__} of "
                f"{len(problem.items)}; expected problems of one class and number of items for a size."
            )
        X = problem.sample_decisions(decisions, rng)
        XI = problem.uncertainty.sample(scenarios, rng)
        values = problem.labels(X, XI)
        if not np.isfinite(values).all():
            a, b = np.argwhere(~np.isfinite(values))[0]
            raise InvalidProblem(
                f"{type(problem).__name__} of size {size}, problem {k}: no plan is feasible for decision {a} at "
                f"scenario {b}, xi = {np.round(XI[b], 4).tolist()}. A network needs a second stage that always has "
                "one: add a plan with a penalty, or rows to the first stage."
            )
        for kept, part in zip(
            rows,
            (
                problem.item_features(),
                X[:, problem.items],
                X[:, problem.others],
                scenario_rows(problem, XI),
                values,
            ),
            strict=True,
        ):
            kept.append(part)
    stacked = [np.stack(part) for part in rows]
    features, bits, others, rows_seen = (part.astype(np.float32) for part in stacked[:4])
    return LabelSet(features, bits, others, rows_seen, stacked[4])


def label_sets(
    make: Maker,
    sizes: Sequence[int],
    *,
    problems: int = 500,
    decisions: int = 10,
    scenarios: int = 50,
    seed: int = 0,
    folder: str | Path | None = None,
    workers: int = 1,
) -> list[LabelSet]:
    """Labels of random problems, one set a size: every decision at every scenario of its problem.

    Args:
        make: ``make(size, seed)``, a problem; picklable where ``workers`` is above 1.
        sizes: numbers of items.
        problems, decisions, scenarios: so many of each; the paper's numbers by default.
        seed: the same seed gives the same labels, whatever ``workers`` and ``folder``.
        folder: chunks of 25 problems are kept here as they are done, and those that are there are not made again;
            chunks of other problems are refused.
        workers: processes.

    Raises:
        InvalidProblem: a decision has no feasible plan at a scenario, which is named; a range of labels is zero; a
            size has problems of two kinds; the folder holds labels of other problems.
    """
    require(len(sizes) > 0, "label_sets needs a size")
    require(len(set(sizes)) == len(sizes), "label_sets needs each size once", got=list(sizes))
    counts = {"problems": problems, "decisions": decisions, "scenarios": scenarios, "workers": workers}
    for name, value in counts.items():
        require(is_whole(value) and value >= 1, f"label_sets needs {name} >= 1", got=value)
    jobs = [
        (size, first, min(CHUNK, problems - first)) for size in sizes for first in range(0, problems, CHUNK)
    ]

    def path_of(size: int, first: int, count: int) -> Path | None:
        name = f"labels-{size}-{seed}-{first}-{count}-{decisions}-{scenarios}.thalweg"
        return None if folder is None else Path(folder) / name

    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    run, parent = delayed(beside), os.getpid()
    parts = Parallel(n_jobs=workers, backend="loky")(
        run(parent, _kept_chunk, path_of(*job), make, job[0], seed, job[1], job[2], decisions, scenarios)
        for job in jobs
    )
    found = []
    for size in sizes:
        own = [part for job, part in zip(jobs, parts, strict=True) if job[0] == size]
        joined = {
            f.name: np.concatenate([getattr(p, f.name) for p in own]) for f in dataclasses.fields(LabelSet)
        }
        found.append(LabelSet(**joined))
    return found


def _kept_chunk(
    path: Path | None,
    make: Maker,
    size: int,
    seed: int,
    first: int,
    count: int,
    decisions: int,
    scenarios: int,
) -> LabelSet:
    if path is not None and path.exists():
        kept = LabelSet(**load_tree(path))
        features = _made(make, size, seed, first).item_features().astype(np.float32)
        if not np.array_equal(kept.features[0], features):
            raise InvalidProblem(
                f"{path} holds labels of other problems than make gives. Take another folder."
            )
        return kept
    made = _chunk(make, size, seed, first, count, decisions, scenarios)
    if path is not None:
        save_tree(path, {f.name: getattr(made, f.name) for f in dataclasses.fields(made)})
    return made


@dataclass(frozen=True, eq=False)
class ValueLearning(Problem):
    """Fit a value network to labels; every fifth problem of each size is held out.

    Args:
        kind: the class of problem, ``RobustKnapsack``.
        sets: from `label_sets`.

    Metrics: ``loss`` of the held-out problems, mean squared error of labels scaled to [0, 1], the mean over sizes;
    ``r2``, the share of their variance that is explained.

    Raises:
        InvalidProblem: fewer than five problems of a size, or labels that are all alike.
    """

    kind: str
    sets: Sequence[LabelSet]

    def __post_init__(self) -> None:
        require(len(self.sets) > 0, "ValueLearning needs a set of labels", error=InvalidProblem)
        for part in self.sets:
            low, high = self.range_of(part)
            if len(part.values) < FOLD:
                raise InvalidProblem(
                    f"ValueLearning: {len(part.values)} problems of {part.size} items; expected {FOLD} or more."
                )
            if not high > low:
                raise InvalidProblem(
                    f"ValueLearning: all labels of {part.size} items are {low:g}; there is nothing to learn. Sample "
                    "other decisions and scenarios."
                )

    @staticmethod
    def range_of(part: LabelSet) -> tuple[float, float]:
        """Least and largest label."""
        return float(part.values.min()), float(part.values.max())

    def network(self, seed: int = 0) -> ValueNetwork:
        """A new network with the scales of these labels."""
        first = self.sets[0]
        shape = Shape(first.features.shape[2], first.others.shape[2], first.scenarios.shape[3])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = ValueNetwork(self.kind, shape)
        for name, part in (("item", "features"), ("other", "others"), ("scenario", "scenarios")):
            tables = [getattr(s, part) for s in self.sets]
            if not tables[0].shape[-1]:
                continue
            rows = np.concatenate([table.reshape(-1, table.shape[-1]) for table in tables])
            low = rows.min(0)
            width = rows.max(0) - low
            getattr(network, f"{name}_low").copy_(torch.from_numpy(low))
            getattr(network, f"{name}_width").copy_(torch.from_numpy(np.where(width > 0, width, 1.0)))
        network.ranges = {part.size: self.range_of(part) for part in self.sets}
        return network

    def loss(self, network: ValueNetwork, which: int, rows: Tensor) -> Tensor:
        """Mean squared error on some problems of a set."""
        part, (low, high) = self.sets[which], self.range_of(self.sets[which])
        at = rows.numpy()
        features, bits, others, scenarios = (
            torch.from_numpy(values[at]) for values in (part.features, part.bits, part.others, part.scenarios)
        )
        wanted = torch.from_numpy(((part.values[at] - low) / (high - low)).astype(np.float32))
        told = network(network.decision(bits, features, others), network.scenario(scenarios))
        return (told - wanted).square().mean()

    def rows(self, which: int, held_out: bool) -> Tensor:
        """The problems of a set that are fitted, or held out."""
        all_rows = torch.arange(len(self.sets[which].values))
        return all_rows[(all_rows % FOLD == 0) == held_out]

    def metrics(self, x: ValueNetwork) -> dict[str, float]:
        losses, shares = [], []
        with torch.no_grad():
            for k, part in enumerate(self.sets):
                rows = self.rows(k, True)
                losses.append(float(self.loss(x, k, rows)))
                low, high = self.range_of(part)
                spread = float((part.values[rows.numpy()] / (high - low)).var())
                shares.append(1.0 - losses[-1] / max(spread, 1e-30))
        return {"loss": sum(losses) / len(losses), "r2": sum(shares) / len(shares)}


@dataclass(kw_only=True)
class ValueTrainingState(State):
    """``x`` is the network of the best epoch; ``network`` the one that is trained."""

    x: ValueNetwork
    network: ValueNetwork
    optimizer: torch.optim.Adam
    seed: int
    best: float
    epoch: int = 0


@dataclass(frozen=True)
class ValueTraining(Method[ValueLearning, ValueTrainingState]):
    """Adam on mean squared error, its rate falling to zero as a cosine; a step is an epoch.

    The answer is the network of the epoch with the least held-out loss. Each epoch is shuffled by the seed and its
    number, so that a resumed run has the same bits.

    Args:
        epochs: default 250.
        step_size: of the first epoch. Default 3e-3.
        batch_size: problems of a batch, each with all its decisions and scenarios. Default 8.

    Cost per step: ``problems (decisions + scenarios) items`` passes through the item MLP, forward and back.
    """

    in_place: ClassVar[bool] = True

    epochs: int = 250
    step_size: float = 3e-3
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            require(is_whole(value) and value >= 1, f"ValueTraining needs {name} >= 1", got=value)
        fits = 0 < self.step_size < math.inf
        require(fits, "ValueTraining needs step_size > 0", got=self.step_size)

    def init(self, problem: ValueLearning, seed: int) -> ValueTrainingState:
        network, best = problem.network(seed), problem.network(seed)
        adam = torch.optim.Adam(network.parameters(), self.step_size)
        return ValueTrainingState(x=best, network=network, optimizer=adam, seed=seed, best=math.inf)

    def step(self, problem: ValueLearning, state: ValueTrainingState) -> ValueTrainingState:
        network, adam, t = state.network, state.optimizer, state.epoch
        adam.param_groups[0]["lr"] = self.step_size * (1 + math.cos(math.pi * t / self.epochs)) / 2
        drawn = torch_generator(state.seed, 0x1E, t)
        batches = []
        for k in range(len(problem.sets)):
            rows = problem.rows(k, False)
            batches += [
                (k, b) for b in torch.split(rows[torch.randperm(len(rows), generator=drawn)], self.batch_size)
            ]
        for i in torch.randperm(len(batches), generator=drawn).tolist():
            loss = problem.loss(network, *batches[i])
            adam.zero_grad()
            torch.autograd.backward(loss)
            adam.step()
        state.metrics, state.epoch = problem.metrics(network), t + 1
        if state.metrics["loss"] < state.best:
            state.best = state.metrics["loss"]
            state.x.load_state_dict(network.state_dict())
        if state.epoch >= self.epochs:
            state.status, state.message = (
                Status.CONVERGED,
                f"{self.epochs} epochs, held-out loss {state.best:.3g}.",
            )
        return state


def train_value(
    make: Maker,
    sizes: Sequence[int],
    *,
    epochs: int = 250,
    problems: int = 500,
    decisions: int = 10,
    scenarios: int = 50,
    seed: int = 0,
    folder: str | Path | None = None,
    workers: int = 1,
    **options: Any,  # noqa: ANN401 -- passed on to solve
) -> Result[ValueNetwork]:
    """Make labels and train a network on them; ``result.x`` is it, in float64.

    Args:
        make, sizes, problems, decisions, scenarios, folder, workers: of `label_sets`.
        epochs: of `ValueTraining`.
        seed: of labels, weights and batches.
        options: of `solve`: ``callbacks``, ``stop``, ``resume``, ``progress``.

    >>> def make(size, seed): return RobustKnapsack.random(size, seed)
    >>> train_value(make, [4], epochs=2, problems=5, decisions=2, scenarios=4).x.kind
    'RobustKnapsack'
    """
    sets = label_sets(
        make,
        sizes,
        problems=problems,
        decisions=decisions,
        scenarios=scenarios,
        seed=seed,
        folder=folder,
        workers=workers,
    )
    learning = ValueLearning(type(make(sizes[0], 0)).__name__, sets)
    result = solve(learning, ValueTraining(epochs), seed=seed, **options)
    return dataclasses.replace(result, x=result.x.double().eval())


def any_knapsack(size: int, seed: int) -> RobustKnapsack:
    """A knapsack of the published generator with every setting drawn at random."""
    rng = generator(seed, 0x5E)
    kind = ("UN", "WC", "ASC", "SC")[int(rng.integers(4))]
    spread, h, budget = (rng.choice(values) for values in ((0.1, 0.5, 1.0), (40, 80), (0.1, 0.15, 0.2)))
    return RobustKnapsack.random(
        size,
        seed,
        kind,  # type: ignore[arg-type]
        spread=float(spread),
        h=int(h),
        budget=float(budget),
    )


def any_budgeting(size: int, seed: int) -> CapitalBudgeting:
    """A capital budgeting problem of the published generator, without loans."""
    return CapitalBudgeting.random(size, seed)


def any_facility(size: int, seed: int) -> FacilityLocation:
    """Sites and twice as many customers, of whom one to three surge."""
    return FacilityLocation.random(size, 2 * size, seed, gamma=1.0 + seed % 3)


@dataclass(frozen=True)
class Recipe:
    """How a shipped network was made, seed 0."""

    make: Maker
    sizes: tuple[int, ...]
    problems: int
    epochs: int


#: ``train_value(recipe.make, recipe.sizes, problems=recipe.problems, epochs=recipe.epochs)`` makes a network anew.
RECIPES = {
    "knapsack": Recipe(any_knapsack, (20, 30, 40, 50), 400, 120),
    "budgeting": Recipe(any_budgeting, (10, 20, 30), 300, 120),
    "facility": Recipe(any_facility, (5, 10), 100, 200),
}
