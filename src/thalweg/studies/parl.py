"""33: the derivative of a preference objective has a part that flows through the policy: what it is good for.

Chakraborty and others (2024), "PARL" (arXiv 2308.02585). Exact in tables: squares with a goal and traps.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thalweg.bilevel.alignment import (
    APARL,
    PEBBLE,
    Alternation,
    Episodes,
    LikelihoodIsNotReturn,
    LinearReward,
    NetworkReward,
    PreferenceTask,
    SampledAPARL,
    ScriptedTeacher,
    TableReward,
    TabularMDP,
    exact_ascent,
    gridworld,
    sampled_ascent,
    trajectory_gradient,
)
from thalweg.bilevel.alignment.levels import is_worth
from thalweg.core import Method, Stop, solve
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Table, Tell
from thalweg.studies.intervals import log_slope, median, median_interval
from thalweg.studies.standings import Standings
from thalweg.studies.verdict import Verdict

Array = NDArray[np.float64]
BETA = 3.0
#: So small that no method is held back by it; the default of 1e-3 stops the alternation on some squares.
FREE = 1e-5


@dataclass(frozen=True)
class Size:
    """Judging seeds, steps of a run, worlds and repetitions for sampled derivatives, whether poles are balanced."""

    seeds: int
    steps: int
    worlds: int
    repeats: int
    poles: bool = False


SIZES: dict[Scale, Size] = {
    "smoke": Size(2, 30, 2, 2),
    "quick": Size(5, 80, 5, 3),
    "full": Size(10, 150, 10, 12, True),
}
PAIRS = (32, 128, 512, 2048, 8192)
SETTINGS = [(0.05, 1e-3), (0.1, 1e-3), (0.2, 1e-3), (0.1, FREE), (0.2, FREE), (0.4, FREE)]


def square(side: int, traps: int, seed: int, **options: float) -> PreferenceTask:
    """A square whose teacher compares single steps, and whose score is the true reward."""
    world = gridworld(side, traps, seed=seed, **options)  # type: ignore[arg-type]
    return PreferenceTask(world, TableReward(side * side, 4), ScriptedTeacher(BETA), scores=world.reward)


def three_states(seed: int) -> PreferenceTask:
    """Three states, two actions, three steps: all trajectories are listed."""
    rng = np.random.default_rng([0x33, seed])
    moves = rng.dirichlet(np.ones(3), (3, 2))
    world = TabularMDP(moves, np.full(3, 1 / 3), 0.9, 3, rng.standard_normal((3, 2)))
    return PreferenceTask(world, TableReward(3, 2), ScriptedTeacher(BETA), scores=world.reward)


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LikelihoodIsNotReturn)
        tell(0.0, "derivatives")
        verdicts, table = _derivatives(size)
        tell(0.1, "five by five")
        found, rows, figure = _long_runs(size)
        verdicts += found
        table += rows
        tell(0.6, "early steps")
        early = _early(size, tell)
        late = _late(size)
        verdicts += _speed(early, late)
        table += early.table()
        tell(0.85, "sampled derivatives")
        found, rows, curves = _sampled(size)
        verdicts += found
        table += rows
        table += _misspecified(size)
        if size.poles:
            tell(0.9, "poles")
            table += _poles(size)
    notes = (
        "A higher log-likelihood under the own policy is not a better policy: see the two verdicts on the literal "
        "objective. Rewards beside the truth and balanced poles are reported in the table, nothing is claimed. "
        f"{early.notes()}"
    )
    return Evidence(verdicts, table, [figure, curves], early.costs(), notes)


def _derivatives(size: Size) -> tuple[list[Verdict], Table]:
    """Against central differences of the re-solved objective."""
    cases: Mapping[str, tuple[Sequence[PreferenceTask], str]] = {
        "three states, loglik": ([three_states(k) for k in range(size.seeds)], "loglik"),
        "4 x 4, loglik": ([square(4, 3, k) for k in range(min(size.seeds, 2))], "loglik"),
        "4 x 4, utility": ([square(4, 3, k) for k in range(min(size.seeds, 2))], "utility"),
    }
    verdicts, table = [], []
    for name, (tasks, objective) in cases.items():
        errors = np.array([_errors(task, objective, k) for k, task in enumerate(tasks)])
        whole, without = float(errors[:, 0].max()), errors[:, 1]
        claim = f"{name}: relative error without the term"
        verdicts += [
            Verdict(f"{name}: largest relative error of the whole derivative", whole, 1e-6),
            _over_seeds(claim, without, 0.05, ">=")
            if len(without) > 2
            else Verdict(claim, without.min(), 0.05, ">="),
        ]
        table.append(
            {
                "case": name,
                "error": whole,
                "without the term": median(without),
                "sign turned": median(errors[:, 2]),
            }
        )
    return verdicts, table


def _errors(task: PreferenceTask, objective: str, seed: int) -> tuple[float, float, float]:
    nu, h = 0.5 * np.random.default_rng(seed).standard_normal(task.reward.size), 1e-5

    def value(at: Array) -> float:
        return exact_ascent(task, at, objective, term=False).value  # type: ignore[arg-type]

    true = np.array([(value(nu + h * e) - value(nu - h * e)) / (2 * h) for e in np.eye(len(nu))])
    found = exact_ascent(task, nu, objective)  # type: ignore[arg-type]
    parts = (found.direct + found.term, found.direct, found.direct - found.term)
    return tuple(float(np.linalg.norm(part - true) / np.linalg.norm(true)) for part in parts)  # type: ignore[return-value]


def _long_runs(size: Size) -> tuple[list[Verdict], Table, Figure]:
    """Literal objective and scores on 5 x 5, to the end."""
    methods: dict[str, Method] = {
        "alternation": Alternation(penalty=FREE),
        "literal PARL": APARL("loglik", penalty=FREE),
        "loglik+versus": APARL(penalty=FREE),
        "utility": APARL("utility"),
        "utility without the term": APARL("utility", term="off"),
    }
    ends: dict[str, dict[str, list[float]]] = {}
    curves: list[Series] = []
    for seed in range(1, size.seeds + 1):
        task = square(5, 5, seed)
        for name, method in methods.items():
            shares: list[float] = []
            watch = [lambda run, task=task, shares=shares: shares.append(task.metrics(run.state.x)["share"])]
            found = solve(
                task,
                method,
                stop=Stop(steps=size.steps),
                progress=False,
                callbacks=watch if seed == 1 else (),
            )
            for key in ("loglik", "return", "share"):
                ends.setdefault(name, {}).setdefault(key, []).append(found.metrics[key])
            if seed == 1:
                curves.append(Series.of(name, np.arange(1, size.steps + 1), np.array(shares)))

    def of(name: str, key: str) -> Array:
        return np.array(ends[name][key])

    raised = of("literal PARL", "loglik") - of("alternation", "loglik")
    lost = of("literal PARL", "share") - of("alternation", "share")
    share, without = of("utility", "share"), of("utility without the term", "share")
    verdicts = [
        Verdict(
            "5 x 5: log-likelihood, literal PARL less alternation, least over seeds", raised.min(), 0.0, ">="
        ),
        _over_seeds("5 x 5: log-likelihood, literal PARL less alternation", raised, 0.03, ">="),
        _over_seeds(
            "5 x 5: share of the best return, literal PARL less alternation (a loss)", lost, -0.1, "<="
        ),
        _over_seeds("5 x 5, utility: share of the best return", share, 0.97, ">="),
        _over_seeds("5 x 5, utility: share of the best return without the term", without, 0.2, "<="),
    ]
    table: Table = [
        {"method": name, "steps": size.steps, **{key: median(values) for key, values in found.items()}}
        for name, found in ends.items()
    ]
    caption = "Share of the return of the policy trained on the true reward; 0 is the uniform policy. One 5 x 5 square."
    return verdicts, table, Figure("True return along the way", caption, "step", "share", curves)


def _grid(make: type[APARL], **options: str) -> dict[str, Method]:
    return {
        f"step {step:g}, penalty {penalty:g}": make(step_size=step, penalty=penalty, **options)  # type: ignore[arg-type]
        for step, penalty in SETTINGS
    }


def _early(size: Size, tell: Tell) -> Standings:
    """Five steps, everybody tuned alike."""
    return contest(
        {
            "4 x 4": lambda seed: square(4, 3, seed),
            "4 x 4, slip 0.3": lambda seed: square(4, 3, seed, slip=0.3),
        },
        {
            "loglik+versus": _grid(APARL),
            "versus": _grid(APARL, objective="versus"),
            "literal PARL": _grid(APARL, objective="loglik"),
            "alternation": _grid(Alternation),
        },
        lambda result: 1.0 - result.metrics["share"],
        ours="loglik+versus",
        what="share of the return missing after 5 steps",
        stop=Stop(steps=5),
        tuning_seeds=(100, 101),
        judging_seeds=tuple(range(1, size.seeds + 1)),
        needs_convergence=False,
        tell=lambda share, what: tell(0.6 + 0.2 * share, what),
    )


def _late(size: Size) -> dict[str, dict[int, Array]]:
    """Shares after 5 and 40 steps with the defaults."""
    found: dict[str, dict[int, list[float]]] = {}
    for seed in range(1, size.seeds + 1):
        for name, method in {"loglik+versus": APARL(), "alternation": Alternation()}.items():
            task = square(4, 3, seed)
            for steps in (5, 40):
                share = solve(task, method, stop=Stop(steps=steps), progress=False).metrics["share"]
                found.setdefault(name, {}).setdefault(steps, []).append(share)
    return {name: {steps: np.array(v) for steps, v in by.items()} for name, by in found.items()}


def _speed(early: Standings, late: dict[str, dict[int, Array]]) -> list[Verdict]:
    ahead = late["loglik+versus"][5] - late["alternation"][5]
    verdicts = [
        _over_seeds(
            "4 x 4, defaults: share after 5 steps, loglik+versus less alternation", ahead, 0.08, ">="
        ),
        _over_seeds(
            "4 x 4, defaults: share after 40 steps, loglik+versus", late["loglik+versus"][40], 0.97, ">="
        ),
    ]
    return verdicts + early.compared("loglik+versus", "alternation", 0.0, by="difference")


def _sampled(size: Size) -> tuple[list[Verdict], Table, Figure]:
    """Errors of sampled derivatives on worlds of three states, at rewards near zero, and what the switch does."""
    errors = np.empty((size.worlds, len(PAIRS), 2))
    for world in range(size.worlds):
        task = three_states(world)
        nu = 0.3 * np.random.default_rng(world).standard_normal(6)
        theta = task.enumerated.solved(nu.reshape(3, 2), task.ridge, np.zeros((3, 2)))[0].theta
        exact = exact_ascent(task, nu, "loglik")
        whole = exact.direct + exact.term
        for k, pairs in enumerate(PAIRS):
            drawn = [
                trajectory_gradient(task, nu, theta, "loglik", pairs, np.random.default_rng([s, world]))
                for s in range(size.repeats if pairs < 2000 else max(size.repeats // 2, 1))
            ]
            each = [[np.linalg.norm(d + t - whole), np.linalg.norm(d - whole)] for d, t in drawn]
            errors[world, k] = np.mean(each, axis=0) / np.linalg.norm(whole)
    slopes = np.array([log_slope(PAIRS, e[:, 0]) for e in errors])
    few, many = (errors[:, k, 0] / errors[:, k, 1] for k in (0, -1))
    switched = _switched(size)
    verdicts = [
        _over_seeds("sampled derivative: error with the term over without, 8192 pairs", many, 1.0, "<="),
        _over_seeds("sampled derivative: error with the term over without, 32 pairs", few, 1.0, ">="),
        _within("sampled derivative: power of the pairs by which its error changes", slopes, (-0.7, -0.3)),
        _over_seeds(
            "switch: squared error over the better of on and off, worst number of pairs", switched, 1.25, "<="
        ),
    ]
    table: Table = [
        {
            "pairs": n,
            "error": float(np.median(errors[:, k, 0])),
            "error without the term": float(np.median(errors[:, k, 1])),
        }
        for k, n in enumerate(PAIRS)
    ]
    x = [float(n) for n in PAIRS]
    series = [
        Series(name, x, np.median(errors[:, :, k], axis=0).tolist())
        for k, name in enumerate(("with the term", "without"))
    ]
    caption = (
        f"Relative error of the sampled derivative of the log-likelihood; medians over {size.worlds} worlds."
    )
    return (
        verdicts,
        table,
        Figure("When the term pays", caption, "pairs", "relative error", series, log_x=True, log_y=True),
    )


def _switched(size: Size) -> Array:
    """For each world the mean squared error of the switch over that of the better of always and never, the worst."""
    found = []
    for world in range(size.worlds):
        lives = three_states(world)
        endless = replace(lives.world, horizon=None, discount=0.9)  # type: ignore[type-var]
        task = PreferenceTask(endless, TableReward(3, 2), ScriptedTeacher(BETA), length=5)
        nu = 0.3 * np.random.default_rng(world).standard_normal(6)
        truth = sampled_ascent(task, nu, "loglik+versus", 50_000, np.random.default_rng(world)).term
        worst = 0.0
        for pairs in (16, 64, 256, 1024):
            off = float(truth @ truth)
            drawn = [
                sampled_ascent(task, nu, "loglik+versus", pairs, np.random.default_rng([s, world, 1]))
                for s in range(10 * size.repeats)
            ]
            on = [float((a.term - truth) @ (a.term - truth)) for a in drawn]
            auto = [e if is_worth(a.term, a.noise) else off for e, a in zip(on, drawn, strict=True)]
            worst = max(worst, float(np.mean(auto)) / min(float(np.mean(on)), off))
        found.append(worst)
    return np.array(found)


def _misspecified(size: Size) -> Table:
    """Random features, too few for the truth, and 64 pairs a step."""
    table: Table = []
    for features in (12, 32):
        shares: dict[str, list[float]] = {}
        for seed in range(1, min(size.seeds, 5) + 1):
            world = gridworld(4, 3, seed=seed)
            phi = np.random.default_rng(seed).standard_normal((16, 4, features)) / np.sqrt(features)
            task = PreferenceTask(world, LinearReward(phi), ScriptedTeacher(BETA), length=20)
            for name, method in {
                "loglik+versus": APARL(pairs=64),
                "alternation": Alternation(pairs=64),
            }.items():
                found = solve(task, method, stop=Stop(steps=size.steps // 2), seed=seed, progress=False)
                shares.setdefault(name, []).append(found.metrics["share"])
        for name, values in shares.items():
            row = {"case": f"{features} random features, 64 pairs", "method": name, "share": median(values)}
            table.append({**row, "least": min(values), "most": max(values)})
    return table


def _poles(size: Size) -> Table:
    """CartPole with networks: returns and labels, five seeds, nothing claimed."""
    world = Episodes("CartPole-v1", 100)
    sampled = SampledAPARL(step_size=3e-3, policy_step=0.02, inner_steps=5, episodes=16, pairs=16)
    methods: dict[str, tuple[Method, int]] = {
        "loglik+versus": (sampled, 8),
        "alternation": (replace(sampled, objective="loglik", term="off"), 8),
        "PEBBLE": (PEBBLE(pretraining=500, step_size=3e-3, policy_step=3e-3), 25),
    }
    table: Table = []
    for name, (method, steps) in methods.items():
        ends, labels = [], 0
        for seed in range(5):
            model = NetworkReward(4, 2, False, hidden=(32, 32))
            task = PreferenceTask(world, model, ScriptedTeacher(1.0), length=25, entropy=0.01)
            found = solve(task, method, stop=Stop(steps=steps), seed=seed, progress=False)
            ends.append(found.metrics["return"])
            labels = max(labels, found.calls)
        low, high = median_interval(ends)
        row = {"case": "CartPole, 100 steps", "method": name, "labels": labels, "return": median(ends)}
        table.append({**row, "least": low, "most": high})
    return table


def _over_seeds(claim: str, values: Array, required: float, relation: str) -> Verdict:
    return Verdict(claim, median(values), required, relation, median_interval(values))  # type: ignore[arg-type]


def _within(claim: str, values: Array, band: tuple[float, float]) -> Verdict:
    return Verdict(claim, median(values), band, "within", median_interval(values))
