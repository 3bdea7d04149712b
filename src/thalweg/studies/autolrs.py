"""35 AutoLRS: the rate found on the fly against tuned schedules, population-based training and Optuna.

Jin et al. (2021), section 5, at the size of two cores: steps to the loss of schedules tuned by hand, the loss at the
end with and without normalisation, runs that a rate killed, and how far forecasts are off.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from thalweg.core import Figure, Method, MissingExtra, NotFinite, Run, Series, State, Status, Stop, solve
from thalweg.studies import loss_forecasts, tasks
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Scale, Tell
from thalweg.studies.standings import Standings, together
from thalweg.studies.verdict import Verdict
from thalweg.training import AutoLRS, ProfileSchedule, Train, TrainingTask
from thalweg.training.task import TrainingState

Vector = NDArray[np.float64]
OURS, HAND = "AutoLRS", ("cosine", "linear", "step")
#: Evaluations on held-out data during a run; a run of ten classes that ends above this loss has been lost.
LOOKS, LOST = 10, 1.0
#: Trials of AutoLRS before a stage, each of this share of it (paper: 10 of a tenth).
TRIALS, SHARE = 5, 0.2


@dataclass(frozen=True)
class Setting:
    """A task, its optimizer, the hand's grid of rates, the range for those who search, and what the claim allows."""

    name: str
    task: Callable[..., TrainingTask]
    optimizer: Callable[..., Optimizer]
    rates: tuple[float, ...]
    low: float
    high: float
    most: float  # of the best rival's loss


@dataclass(frozen=True, eq=False)
class Job:
    """A task with its optimizer and range, and the runs on it so far, by contestant's setting and seed."""

    task: TrainingTask
    optimizer: Callable[..., Optimizer]
    low: float
    high: float
    kept: dict[tuple[Any, int], Course] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Course:
    """Held-out loss after each tenth of training, and the steps of search beside."""

    losses: Vector
    search: int


@dataclass(frozen=True)
class Entry:
    """A way to find rates, with its one setting; it counts for the held-out loss at the end."""

    way: Callable[[Job, Any, int], Course]
    setting: Any

    def course(self, job: Job, seed: int) -> Course:
        """The run of a seed; kept."""
        if (self, seed) not in job.kept:
            job.kept[self, seed] = self.way(job, self.setting, seed)
        return job.kept[self, seed]

    def __call__(self, job: Job, seed: int) -> float:
        return float(self.course(job, seed).losses[-1])


def _settings(scale: Scale) -> list[Setting]:
    steps = {"smoke": 16, "quick": 60, "full": 1000}[scale]
    plain, normed = ("cnn", "cnn-bn") if scale == "full" else ("mlp", "mlp-bn")
    momentum = functools.partial(SGD, momentum=0.9)

    def digits(name: str, network: str, most: float) -> Setting:
        task = functools.partial(tasks.digits, steps, network=network)
        return Setting(f"digits, {name}", task, momentum, (0.03, 0.1, 0.3), 0.01, 1.0, most)

    settings = [digits("no normalisation", plain, 1.3), digits("batch normalisation", normed, 1.1)]
    text = functools.partial(tasks.text, steps)
    if scale == "full":
        settings.append(Setting("characters, Adam", text, Adam, (3e-3, 1e-2, 3e-2), 1e-4, 0.1, 1.1))
    return settings[:1] if scale == "smoke" else settings


def _grids(setting: Setting) -> dict[str, dict[str, Entry]]:
    """Three settings each: rates, lengths of a stage, members, trials."""
    hand = {name: {f"rate {r:g}": Entry(_by_hand, (name, r)) for r in setting.rates} for name in HAND}
    return {
        OURS: {f"{n} stages": Entry(_auto, n) for n in (1, 2, 3)},
        **hand,
        "PBT": {f"{n} members": Entry(_population, n) for n in (2, 4, 8)},
        "Optuna": {f"{n} trials' length": Entry(_optuna, n) for n in (2, 4, 8)},
    }


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    settings, seeds = _settings(scale), tuple(range(1, {"smoke": 3, "quick": 6, "full": 9}[scale]))
    races, verdicts, figures, steps = [], [], [], []
    for i, setting in enumerate(settings):

        def told(share: float, what: str, i: int = i) -> None:
            tell(0.9 * (i + share) / len(settings), what)

        race, needed, figure = _race(setting, seeds, told)
        lost = float(np.mean(race.scores[setting.name][OURS] > LOST))
        verdicts += [*race.beats(setting.most), *(v for found in needed for v in found.beats(1.0))]
        if "digits" in setting.name:
            claim = f"{setting.name}: share of {len(seeds)} runs of AutoLRS that a rate killed (loss above {LOST:g})"
            verdicts.append(Verdict(claim, lost, 0.0))
        races.append(race)
        steps += needed
        figures += figure
    tell(0.9, "forecasts")
    errors = loss_forecasts.errors(scale)
    scores = together(races)
    return Evidence(
        verdicts=[*verdicts, *loss_forecasts.verdicts(errors)],
        table=[
            *scores.table(),
            *(row for found in steps for row in found.table()),
            *loss_forecasts.table(errors),
        ],
        figures=figures,
        costs=scores.costs(least=1e-4),
        notes=(
            f"{len(seeds)} judging seeds; three settings each, chosen under another seed on data set apart: a rate for "
            "a schedule, stages of AutoLRS, members of PBT, the part of a run that a trial of Optuna (TPE, median "
            "pruning, then a whole run with a cosine) lasts. AutoLRS, PBT and Optuna search for about as many steps "
            "as they train; of schedules the other rates' runs are the search. Steps to the target are training steps "
            "until the held-out loss is within 5 % of the least that a schedule ends at, seed by seed. Stages here are "
            "of some hundred steps at most and not of thousands, as in the paper: a trial of a fifth does not see that "
            "a rate kills a network later. Forecasts are of training losses at a constant rate, ten times ahead, the "
            f"median of three places of each course. {scores.notes()}"
        ),
    )


def _race(
    setting: Setting, seeds: tuple[int, ...], tell: Tell
) -> tuple[Standings, list[Standings], list[Figure]]:
    """Losses at the end; steps to the best schedule's loss, where no run failed; losses along the way."""
    grids = _grids(setting)
    jobs = {tuning: _job(setting, tuning) for tuning in (False, True)}
    race = contest(
        {setting.name: lambda seed: jobs[False]},
        grids,
        ours=OURS,
        what="held-out loss",
        tuning_problems={setting.name: lambda seed: jobs[True]},
        judging_seeds=seeds,
        needs_convergence=False,
        tell=tell,
    )
    chosen = {n: grids[n][label.partition(" (")[0]] for n, label in race.settings[setting.name].items()}
    courses = {
        name: [jobs[False].kept[entry, seed] for seed in seeds]
        for name, entry in chosen.items()
        if np.isfinite(race.scores[setting.name][name]).all()
    }
    figure = Figure(
        setting.name,
        "Over training steps, search left out; band: range over seeds. PBT: its best member.",
        "share of training",
        "held-out loss",
        [
            Series.of(name, np.arange(1, LOOKS + 1) / LOOKS, np.array([c.losses for c in runs]))
            for name, runs in courses.items()
        ],
        log_y=True,
    )
    if not {OURS, *HAND} <= courses.keys():
        return race, [], [figure]
    target = 1.05 * np.array([[c.losses[-1] for c in courses[name]] for name in HAND]).min(0)
    share = {
        name: np.array([_share_to(c, t) for c, t in zip(courses[name], target, strict=True)])
        for name in (OURS, *HAND)
    }
    needed = Standings("share of training to the best schedule's loss", OURS, {setting.name: share})
    return race, [needed], [figure]


def _job(setting: Setting, tuning: bool) -> Job:
    return Job(setting.task(tuning=tuning), setting.optimizer, setting.low, setting.high)


def _share_to(course: Course, target: float) -> float:
    reached = np.flatnonzero(course.losses <= target)
    return float(reached[0] + 1) / LOOKS if len(reached) else math.inf


def _watched(task: TrainingTask, method: Method, length: int, seed: int, search: int) -> Course:
    """A run by `solve`, looked at from time to time."""
    losses: list[float] = []

    def look(run: Run) -> None:
        while run.steps * LOOKS >= (len(losses) + 1) * length:
            losses.append(task.metrics(run.state.x)["test_loss"])

    found = solve(task, method, stop=Stop(steps=length), callbacks=[look], seed=seed, progress=False)
    if found.status is Status.DIVERGED:
        raise NotFinite(found.message)
    return Course(np.array(losses), search)


def _by_hand(job: Job, setting: tuple[str, float], seed: int) -> Course:
    profile, rate = setting
    method = Train(job.optimizer, {"lr": rate}, functools.partial(ProfileSchedule, profile=profile))
    return _watched(job.task, method, job.task.steps, seed, 2 * job.task.steps)


class Batches:
    """Batches of shuffled examples, an epoch each time it is iterated over, in an order from the global generator."""

    def __init__(self, task: TrainingTask) -> None:
        self.data, self.size = task.train, min(task.batch_size, len(task.train[0]))

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order = torch.randperm(len(self.data[0]))
        for batch in order[: len(order) // self.size * self.size].split(self.size):
            yield tuple(t[batch] for t in self.data)


def _auto(job: Job, stages: int, seed: int) -> Course:
    """AutoLRS as its users write it."""
    task = job.task
    torch.manual_seed(seed)
    model = task.fresh_model(seed)
    optimizer = job.optimizer(model.parameters(), lr=job.low)
    stage = max(task.steps // stages, 8)
    auto = AutoLRS(
        model,
        optimizer,
        job.low,
        job.high,
        total_steps=task.steps,
        stage_steps=stage,
        max_stage_steps=stage,
        explore=TRIALS,
        explore_fraction=SHARE,
        seed=seed,
    )
    losses: list[float] = []
    for batch in auto.steps(Batches(task)):
        loss = task.loss(model, *batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        training = not auto.exploring
        auto.step(loss)
        while training and auto.trained * LOOKS >= (len(losses) + 1) * task.steps:
            losses.append(task.metrics(model)["test_loss"])
    return Course(np.array(losses), auto.explored)


@dataclass(kw_only=True)
class PopulationState(State):
    """``x`` is the best member's network."""

    x: nn.Module
    members: list[TrainingState]
    scores: Vector
    random: np.random.Generator


@dataclass(frozen=True)
class Population(Method[TrainingTask, PopulationState]):
    """Population-based training (Jaderberg et al., 2017): the worse half copies the better and perturbs its rate."""

    in_place: ClassVar[bool] = True

    job: Job
    members: int
    steps: int  # of each member
    exploits: int = 5

    def init(self, problem: TrainingTask, seed: int) -> PopulationState:
        rng = np.random.default_rng((seed, 35))
        places = (np.arange(self.members) + rng.random(self.members)) / self.members
        rates = self.job.low * (self.job.high / self.job.low) ** places
        members = [
            Train(self.job.optimizer, {"lr": float(rate)}).init(problem, seed + 1000 * k)
            for k, rate in enumerate(rates)
        ]
        scores = np.zeros(self.members)
        return PopulationState(x=members[0].x, members=members, scores=scores, random=rng)

    def step(self, problem: TrainingTask, state: PopulationState) -> PopulationState:
        train = Train(self.job.optimizer)
        for k, member in enumerate(state.members):
            if np.isfinite(state.scores[k]):
                try:
                    train.step(problem, member)
                except NotFinite:  # dead until it copies another
                    state.scores[k] = np.inf
        done = max(member.step for member in state.members)
        if done % max(self.steps // self.exploits, 1) == 0 or done * LOOKS % self.steps < LOOKS:
            alive = np.isfinite(state.scores)
            judged = [
                problem.metrics(m.x)["test_loss"] if a else np.inf
                for m, a in zip(state.members, alive, strict=True)
            ]
            state.scores = np.nan_to_num(judged, nan=np.inf)
            state.x = state.members[int(state.scores.argmin())].x
        if done % max(self.steps // self.exploits, 1) == 0 and done < self.steps:
            self._exploit(state)
        state.metrics = {"loss": float(state.scores.min())}
        return state

    def _exploit(self, state: PopulationState) -> None:
        order, half = state.scores.argsort(), self.members // 2
        for worse, better in zip(order[half:], order[:half], strict=True):
            old, new = state.members[worse], state.members[better]
            old.x.load_state_dict(new.x.state_dict())
            old.optimizer.load_state_dict(copy.deepcopy(new.optimizer.state_dict()))
            old.optimizer.param_groups[0]["lr"] *= float(state.random.choice([0.8, 1.2]))
            old.step, state.scores[worse] = new.step, state.scores[better]


def _population(job: Job, members: int, seed: int) -> Course:
    """All members together take twice the steps of a run."""
    length = 2 * job.task.steps // members
    search = 2 * job.task.steps - length
    return _watched(job.task, Population(job, members, length), length, seed, search)


def _optuna(job: Job, parts: int, seed: int) -> Course:
    """TPE over the rate with median pruning, on short runs; then a whole run with a cosine at the best rate."""
    try:
        import optuna
    except ImportError:
        raise MissingExtra("optuna", "studies") from None

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    task = dataclasses.replace(job.task, steps=max(job.task.steps // parts, 4))
    spent = 0

    def objective(trial: Any) -> float:
        nonlocal spent
        told: list[float] = [math.inf]

        def look(run: Run) -> None:
            if run.steps % (task.steps // 4) == 0:
                told.append(task.metrics(run.state.x)["test_loss"])
                trial.report(told[-1], run.steps)
                if trial.should_prune():
                    raise optuna.TrialPruned

        method = Train(job.optimizer, {"lr": trial.suggest_float("rate", job.low, job.high, log=True)})
        try:
            found = solve(task, method, callbacks=[look], seed=seed, progress=False)
        finally:
            spent += (len(told) - 1) * (task.steps // 4)
        return math.inf if found.status is Status.DIVERGED else told[-1]

    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=2)
    study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.MedianPruner(n_startup_trials=2))
    trials = 0
    while spent < job.task.steps and trials < 10 * parts:
        study.optimize(objective, n_trials=1)
        trials += 1
    course = _by_hand(job, ("cosine", float(study.best_params["rate"])), seed)
    return replace(course, search=spent)
