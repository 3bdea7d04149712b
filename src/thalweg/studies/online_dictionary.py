"""28 Online orthogonal dictionary learning: bases recovered from streams, and what momentum, floors and whitening do.

Xue and Lau (2021), on Bernoulli-Gaussian codes of a known orthogonal basis, and on patches of photographs.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import FastICA, MiniBatchDictionaryLearning

from thalweg.core import Figure, Series, Stop, solve
from thalweg.core.seeding import generator
from thalweg.matrix import (
    KTermBasis,
    OnlineDictionary,
    SparsestBasis,
    SparseStream,
    cosines,
    grey_photographs,
    match_atoms,
    patch_stream,
    recovery_error,
)
from thalweg.matrix._dictionary_steps import Learned, Rule, advanced
from thalweg.matrix.dictionary_alignment import random_orthogonal
from thalweg.matrix.dictionary_codes import largest
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Scale, Table, Tell
from thalweg.studies.intervals import log_slope, median, median_interval
from thalweg.studies.standings import Standings
from thalweg.studies.verdict import Relation, Verdict

#: Seconds are among the claims: it runs alone.
timed = True
Matrix = NDArray[np.float64]
#: Steps of orthogonal MOD, after which its residual no longer changes in three digits.
OFFLINE = 40
OURS, POLAR, CLASSIC = "Frank-Wolfe", "polar only", "Frank-Wolfe, rho = t^-2/3, gamma = 2/(t+2)"


@dataclass(frozen=True)
class Size:
    """Share of the published steps, seeds, patches, and whether all settings are run."""

    share: float
    seeds: int
    patches: int
    whole: bool = True

    def steps(self, published: int) -> int:
        """A number of steps at this size."""
        return max(int(self.share * published), 8)


SIZES = {"smoke": Size(0.1, 2, 640), "quick": Size(1.0, 5, 3200, whole=False), "full": Size(1.0, 15, 19_200)}


class Classic(Rule):
    """Steps and averages of the usual stochastic Frank-Wolfe method."""

    def rates(self, t: int) -> tuple[float, float]:
        """``t^-2/3`` and ``2 / (t + 2)``."""
        return t ** (-2 / 3), 2.0 / (t + 2)


@dataclass(frozen=True)
class Course:
    """Errors after some steps, and the gap of each."""

    errors: dict[int, float]
    gaps: Matrix

    @property
    def error(self) -> float:
        """At the end."""
        return list(self.errors.values())[-1]


def follow(stream: SparseStream, rule: Rule, size: int, steps: int, seed: int) -> Course:
    """Learn from a stream, and look at the error after a quarter, a half and all of the steps."""
    state = Learned.at(random_orthogonal(stream.n, generator(seed, 2)), whiten=False)
    errors, gaps = {}, []
    for t, Y in enumerate(stream.batches(size, steps), 1):
        state = advanced(state, rule, Y)
        gaps.append(state.gap)
        if t in (steps // 4, steps // 2, steps):
            errors[t * size] = recovery_error(state.basis, stream.basis)
    return Course(errors, np.array(gaps))


def _claim(claim: str, values: Sequence[float], required: float, relation: Relation = "<=") -> Verdict:
    return Verdict(claim, median(values), required, relation, median_interval(values))


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    seeds = range(1, size.seeds + 1)
    parts: list[tuple[str, Callable[[Size, range], Part]]] = [
        ("recovery", recovery),
        ("one sample at a time", momentum),
        ("a basis that is not orthogonal", complete),
        ("a basis that changes", drift),
        ("scikit-learn's learner", rivals),
        ("photographs", photographs),
    ]
    found = []
    for k, (what, part) in enumerate(parts):
        tell(k / len(parts), what)
        found.append(part(size, seeds))
    return Evidence(
        verdicts=[verdict for part in found for verdict in part.verdicts],
        table=[row for part in found for row in part.table],
        figures=[figure for part in found for figure in part.figures],
        notes=(
            f"{size.seeds} seeds, {size.share:.0%} of the steps named, {size.patches} patches of photographs. "
            "Streams are Bernoulli-Gaussian with a share of codes that are not zero, theta; the error is "
            "|1 - |D'T|_3^3 / n| of the polar factor. Nothing is tuned: the steps are the method's own. Polar only "
            "keeps the same momentum. With half of the codes not zero it is ahead "
            "of Frank-Wolfe, which is not yet at its end there."
        ),
    )


@dataclass(frozen=True)
class Part:
    """What one part of the study found."""

    verdicts: list[Verdict]
    table: Table
    figures: list[Figure]


def recovery(size: Size, seeds: range) -> Part:
    """Claims A and B: errors at three shares and two sizes, and how they fall with the samples."""
    settings = [(20, 0.1, 16, 1500, 1e-3), (20, 0.3, 16, 1500, 2e-3), (20, 0.5, 16, 1500, 0.1)]
    settings += [(64, 0.1, 64, 800, 2e-3)] if size.whole else []
    verdicts, table, series = [], Table(), []
    for n, theta, batch, published, bound in settings:
        steps = size.steps(published)
        courses = [follow(SparseStream(n, theta, seed=s), Rule(), batch, steps, s) for s in seeds]
        errors = [c.error for c in courses]
        name = f"n = {n}, theta = {theta}, minibatches of {batch}"
        verdicts.append(_claim(f"{name}: error after {published} steps", errors, bound))
        table.append({"problem": name, "method": OURS, "error": median(errors)})
        samples = list(courses[0].errors)
        series.append(Series.of(name, samples, np.array([list(c.errors.values()) for c in courses])))
        if (n, theta) == (20, 0.1):
            slopes = [log_slope(samples, list(c.errors.values())) for c in courses]
            verdicts.append(
                _claim("n = 20, theta = 0.1: power of the samples in the error, 6000 to 24 000", slopes, -0.5)
            )
    caption = "Mean and range over seeds; after a quarter, a half and all of the steps."
    return Part(
        verdicts,
        table,
        [Figure("Error over samples", caption, "samples", "error", series, log_x=True, log_y=True)],
    )


def _stream(n: int, theta: float, seed: int) -> SparseStream:
    return SparseStream(n, theta, seed=seed)


def momentum(size: Size, seeds: range) -> Part:
    """Claims B (one sample at a time), C and D: what momentum and steps do, and the gap."""
    verdicts, table, series = [], Table(), []
    courses: dict[tuple[str, str], list[Course]] = {}
    settings = {"n = 10, theta = 0.3, one sample a step": (10, 0.3, 1, 3000, 3e-3)}
    settings |= {"n = 30, theta = 0.2, one sample a step": (30, 0.2, 1, 3000, 1.5e-2)}
    if size.whole:
        settings |= {"n = 20, theta = 0.2, minibatches of 20": (20, 0.2, 20, 1500, 2e-3)}
    rules = {OURS: Rule(), POLAR: Rule(update="polar")} | ({CLASSIC: Classic()} if size.whole else {})

    def trial(name: str, label: str, stream: SparseStream, seed: int) -> float:
        _, _, batch, published, _ = settings[name]
        course = follow(stream, rules[label], batch, size.steps(published), seed)
        courses.setdefault((name, label), []).append(course)
        return course.error

    standings: list[Standings] = []
    for name, (n, theta, _, published, bound) in settings.items():
        found = contest(
            {name: partial(_stream, n, theta)},
            {label: {label: partial(trial, name, label)} for label in rules},
            ours=OURS,
            what="error",
            judging_seeds=list(seeds),
        )
        standings.append(found)
        verdicts.append(
            _claim(f"{name}: error after {published} steps", found.scores[name][OURS].tolist(), bound)
        )
        verdicts += found.compared(POLAR, OURS, 2.0, ">=")
        table += found.table()
    if size.whole:
        verdicts += standings[1].compared(CLASSIC, OURS, 2.0, ">=")
    least = math.inf
    for name in settings:
        runs = courses[name, OURS]
        most = max(len(runs[0].gaps) // 30, 2)
        ratios = [c.gaps[-most:].mean() / c.gaps[:most].mean() for c in runs]
        least = min(least, *(float(np.nanmin(c.gaps)) for c in runs))
        words = "mean gap of the last hundred steps over that of the first hundred"
        verdicts.append(_claim(f"{name}: {words}", ratios, 0.6))
        gaps = np.array([c.gaps for c in runs]).mean(0)
        series.append(Series.of(name, np.arange(1, len(gaps) + 1), np.maximum(gaps, 1e-16)))
    verdicts.append(
        Verdict("The least gap of all steps is not below zero by more than rounding", least, -1e-12, ">=")
    )
    figures = [
        Figure(
            "The gap",
            "Of the running gradient, mean over seeds.",
            "step",
            "gap",
            series,
            log_x=True,
            log_y=True,
        )
    ]
    return Part(
        verdicts, table, [*figures, *(s.bars(f"Errors, {next(iter(s.scores))}") for s in standings[:1])]
    )


def complete(size: Size, seeds: range) -> Part:
    """Claim E: a complete basis of condition 3, with and without whitening."""
    cosine: dict[bool, list[float]] = {True: [], False: []}
    for seed in seeds:
        stream = SparseStream(20, 0.1, condition=3.0, seed=seed)
        for whiten, found in cosine.items():
            model = OnlineDictionary(whiten=whiten, random_state=seed)
            model.partial_fit(np.vstack(list(stream.batches(16, size.steps(1500)))))
            found.append(float(match_atoms(model.components_.T, stream.basis)[2].mean()))
    gain = [a - b for a, b in zip(cosine[True], cosine[False], strict=True)]
    name = "Condition 3, n = 20, theta = 0.1"
    return Part(
        [
            _claim(f"{name}: mean cosine of atoms with whitening", cosine[True], 0.99, ">="),
            _claim(f"{name}: gain of the mean cosine by whitening", gain, 0.02, ">="),
        ],
        [
            {"problem": name, "method": "whitened" if w else "not whitened", "mean cosine": median(v)}
            for w, v in cosine.items()
        ],
        [],
    )


def drift(size: Size, seeds: range) -> Part:
    """Claim F: a basis that is replaced at half of the steps, with falling weights and with floors."""
    errors: dict[str, list[float]] = {"falling steps": [], "floors": []}
    rules = {"falling steps": Rule(), "floors": Rule(momentum_floor=0.1, step_floor=0.02)}
    for seed in seeds:
        streams = [SparseStream(20, 0.2, seed=1000 * k + seed) for k in range(2)]
        for name, rule in rules.items():
            state = Learned.at(random_orthogonal(20, generator(seed, 2)), whiten=False)
            for Y in _both(streams, size.steps(800)):
                state = advanced(state, rule, Y)
            errors[name].append(recovery_error(state.basis, streams[1].basis))
    name = "A basis that is replaced at half of 1600 steps, n = 20, theta = 0.2"
    return Part(
        [
            _claim(f"{name}: error with falling steps", errors["falling steps"], 0.1, ">="),
            _claim(f"{name}: error with floors", errors["floors"], 0.01),
        ],
        [{"problem": name, "method": how, "error": median(v)} for how, v in errors.items()],
        [],
    )


def _both(streams: Sequence[SparseStream], steps: int) -> Iterator[Matrix]:
    for stream in streams:
        yield from stream.batches(16, steps)


def _ours(batches: Sequence[Matrix], seed: int) -> Matrix:
    model = OnlineDictionary(random_state=seed)
    for Y in batches:
        model.partial_fit(Y)
    return np.asarray(model.components_.T)


def _sklearn(batches: Sequence[Matrix], seed: int) -> Matrix:
    model = MiniBatchDictionaryLearning(20, alpha=0.3, batch_size=16, random_state=seed)
    for Y in batches:
        model.partial_fit(Y)
    return np.asarray(model.components_.T)


def _fast_ica(batches: Sequence[Matrix], seed: int) -> Matrix:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(FastICA(whiten="unit-variance", random_state=seed).fit(np.vstack(batches)).mixing_)


def _offline(batches: Sequence[Matrix], seed: int) -> Matrix:
    stop = Stop(below={"gap": 1e-8}, steps=200)
    return np.asarray(solve(SparsestBasis(np.vstack(batches)), stop=stop, seed=seed, progress=False).x)


def rivals(size: Size, seeds: range) -> Part:
    """Claim G: errors and seconds of learners on the same 500 minibatches of 16."""
    learners: dict[str, Callable[[Sequence[Matrix], int], Matrix]] = {
        OURS: _ours,
        "scikit-learn, minibatches": _sklearn,
        "scikit-learn, FastICA (all data)": _fast_ica,
        "matching, stretching, projection (all data)": _offline,
    }
    name = "500 minibatches of 16, n = 20, theta = 0.1"
    seconds: dict[str, list[float]] = {label: [] for label in learners}

    def trial(label: str, stream: SparseStream, seed: int) -> float:
        batches = list(stream.batches(16, size.steps(500)))
        start = time.perf_counter()
        D = learners[label](batches, seed)
        seconds[label].append(time.perf_counter() - start)
        sizes = np.linalg.norm(D, axis=0)
        return recovery_error(D / np.where(sizes > 0, sizes, 1.0), stream.basis)

    found = contest(
        {name: lambda seed: SparseStream(20, 0.1, seed=seed)},
        {label: {label: partial(trial, label)} for label in learners},
        ours=OURS,
        what="error",
        judging_seeds=list(seeds),
    )
    times = Standings("seconds", OURS, {name: {label: np.array(v) for label, v in seconds.items()}})
    minibatches = "scikit-learn, minibatches"
    return Part(
        [*times.compared(minibatches, OURS, 5.0, ">="), *found.compared(OURS, minibatches, 1.0)],
        [*found.table(), *times.table()],
        [],
    )


def _psnr(D: Matrix, rows: Matrix, k: int) -> float:
    left = rows - largest(rows @ D, k) @ D.T
    return 10.0 * math.log10(255.0**2 / float(np.mean(left * left)))


def photographs(size: Size, seeds: range) -> Part:
    """Claim H: k-term codes of patches of the photographs' right halves, learned on their left halves."""
    left, right = grey_photographs("left"), grey_photographs("right")
    test = next(patch_stream(right, 4000, 1, seed=0))
    found: dict[str, list[list[float]]] = {}
    for seed in seeds:
        batches = list(patch_stream(left, 64, max(size.patches // 64, 1), seed=seed))
        train = np.vstack(batches)
        offline = solve(
            KTermBasis(train, 16), stop=Stop(below={"gap": 1e-8}, steps=OFFLINE), seed=seed, progress=False
        ).x
        bases: dict[str, Any] = {
            "Frank-Wolfe, random start": _learned(train, seed, "random"),
            "Frank-Wolfe, from principal components": _learned(train, seed, "pca"),
            "orthogonal MOD, all patches kept": offline,
            "principal components": np.linalg.eigh(train.T @ train)[1],
            "discrete cosine transform": cosines(8),
        }
        for name, D in bases.items():
            found.setdefault(name, []).append([_psnr(D, test, k) for k in (4, 8, 16)])
    behind = [
        b[2] - a[2]
        for a, b in zip(
            found["Frank-Wolfe, random start"], found["orthogonal MOD, all patches kept"], strict=True
        )
    ]
    claim = "Patches of photographs, 16 of 64 codes: dB by which orthogonal MOD, which keeps all patches, is ahead"
    table: Table = [
        {"problem": "patches 8 x 8", "method": name}
        | {f"dB, {k} codes": round(median([v[i] for v in values]), 2) for i, k in enumerate((4, 8, 16))}
        for name, values in found.items()
    ]
    series = [Series(name, [4.0, 8.0, 16.0], np.median(v, 0).tolist()) for name, v in found.items()]
    caption = "Signal-to-noise of patches that were not learned from, medians over seeds."
    return Part(
        [_claim(claim, behind, 1.2)],
        table,
        [Figure("Codes of photographs", caption, "codes kept of 64", "dB", series)],
    )


def _learned(train: Matrix, seed: int, start: str) -> Matrix:
    model = OnlineDictionary(batch_size=16, start=start, random_state=seed)
    return np.asarray(model.partial_fit(train).components_.T)
