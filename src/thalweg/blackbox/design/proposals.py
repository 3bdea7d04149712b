"""Proposals: the designs of a run that differ and are new, with what models say of them, best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.blackbox.design.descent import LetterDescent
from thalweg.blackbox.design.encoders import Encoder
from thalweg.blackbox.design.masked import MaskedLetters
from thalweg.blackbox.design.problem import SequenceTable
from thalweg.blackbox.design.proxy import Proxy, proxy_of
from thalweg.blackbox.design.space import Codes, SequenceSpace, distances, nearest
from thalweg.core import Callback, InvalidProblem, Method, Result
from thalweg.core.run import Run
from thalweg.core.seeding import generator
from thalweg.datasets.sequences import save_sequences

Array = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]
#: Letters of a word whose being new counts as novelty.
WORD = 3
#: Neighbours looked at in a round.
MOST_NEAR = 20_000


class Visited(Callback):
    """A callback of `solve` that keeps the designs of every step: what fills up where designs have become one.

    Cost: n times length bytes a step.
    """

    method: Method
    seed: int

    def __init__(self) -> None:
        self.steps: list[NDArray[np.uint8]] = []

    def start(self, run: Run) -> None:
        self.method, self.seed = run.method, run.seed

    def __call__(self, run: Run) -> None:
        self.steps.append(np.asarray(run.state.x).astype(np.uint8))

    def codes(self, positions: int) -> Codes:
        """All of them, the last step first, shape (designs, length)."""
        found = [step.astype(np.int64) for step in reversed(self.steps)]
        return np.concatenate([np.empty((0, positions), np.int64), *found])


@dataclass(frozen=True)
class Proposals:
    """Sequences to try, best first.

    Args:
        frame: a row each. ``predicted``: the ridge's score, which designs are drawn to and which is mostly too high.
            ``second``: the auxiliary ensemble's, a second opinion. ``doubt``: how far its members are apart.
            ``distance``: letters to the nearest row of the table, ``nearest``. ``novelty``: the share of the words of
            three letters that the table has nowhere at that place. ``parent``: the row that it came from, brought into
            the space, ``changed`` letters away. ``source``: ``"design"``; where designs are alike or rows of the
            table, ``"way"``, one passed on the way, or ``"near"``, one letter or more beside a design, the best by the
            models. The order is by the two scores' ranks together.
        space: what they were taken from.
        correlation: rank correlation of the ensemble with scores held out; near 0 nothing was learned.
        notes: what a reader should know.
    """

    frame: pd.DataFrame
    space: SequenceSpace
    correlation: float
    notes: Sequence[str] = field(default=())

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def sequences(self) -> list[str]:
        """The texts."""
        return [str(text) for text in self.frame["sequence"]]

    @property
    def diversity(self) -> float:
        """The mean number of letters between two proposals; NaN of one."""
        if len(self) < 2:
            return float("nan")
        codes = self.space.encode(self.sequences)
        apart = distances(codes, codes)
        return float(apart.sum() / (len(codes) * (len(codes) - 1)))

    def write(self, path: str | Path) -> None:
        """Into ``.csv``, or ``.fasta``, whole or not at all."""
        save_sequences(path, self.frame)


def collect_proposals(problem: SequenceTable, result: Result, visited: Visited) -> Proposals:
    """What a run found, made fit to be tried: rows of the table and repeats are left out, and filled up for.

    Args:
        visited: the callback that saw the run. Where its method has no encoder, ``predicted`` is the default one's.

    Raises:
        InvalidProblem: the table has every sequence of the space.
    """
    space, method = problem.space, visited.method
    encoder = getattr(method, "encoder", None)
    proxy = proxy_of(problem, encoder if isinstance(encoder, Encoder) else MaskedLetters(), visited.seed)
    final = np.asarray(result.x)
    way = visited.codes(space.positions)
    every = np.concatenate([final, way])
    starts = problem.starts()
    if isinstance(method, LetterDescent):
        parents = np.tile(starts, (len(every) // len(starts), 1))
    else:
        parents = starts[nearest(every, starts)[1]]  # searches have no design of their own for each start
    away, _ = nearest(every, problem.codes)
    _, first = np.unique(every, axis=0, return_index=True)
    usable = np.zeros(len(every), bool)
    usable[first] = True
    usable &= (away > 0) & space.holds(every)
    designs = np.flatnonzero(usable[: len(final)])
    chosen = np.concatenate([designs, _fill(problem, every, usable, len(final), proxy, len(designs))])
    codes, parents, sources = every[chosen], parents[chosen], ["design"] * len(designs)
    sources += ["way"] * (len(chosen) - len(designs))
    if len(codes) < problem.n:
        near, of = _near(problem, proxy, np.concatenate([codes, final]), np.concatenate([parents, starts]))
        codes, parents = np.concatenate([codes, near]), np.concatenate([parents, of])
        sources += ["near"] * len(near)
    if not len(codes):
        raise InvalidProblem("No sequence of the space is new: the table has them all.")
    away, which = nearest(codes, problem.codes)
    predicted = proxy.predict(codes)
    second, doubt = proxy.auxiliary(codes)
    order = np.argsort(-(_ranks(predicted) + _ranks(second)), kind="stable")
    frame = pd.DataFrame(
        {
            "sequence": space.decode(codes),
            "predicted": predicted,
            "second": second,
            "doubt": doubt,
            "distance": away,
            "novelty": novelty(codes, problem.codes),
            "nearest": space.decode(problem.codes[which]),
            "parent": space.decode(parents),
            "changed": (codes != parents).sum(1),
            "source": sources,
        }
    ).iloc[order]
    return Proposals(
        frame.reset_index(drop=True),
        space,
        proxy.ensemble.correlation,
        _notes(problem, len(final), sources),
    )


def _fill(problem: SequenceTable, every: Codes, usable: Flags, begin: int, proxy: Proxy, have: int) -> Whole:
    """Which designs of the way take the place of those left out: the best by the two scores' ranks."""
    rest = begin + np.flatnonzero(usable[begin:])
    missing = max(problem.n - have, 0)
    if not missing or not len(rest):
        return rest[:0]
    codes = every[rest]
    told = _ranks(proxy.predict(codes)) + _ranks(proxy.auxiliary(codes)[0])
    found: Whole = rest[np.argsort(-told, kind="stable")[:missing]]
    return found


def _ranks(values: Array) -> Whole:
    found: Whole = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return found


def novelty(codes: Codes, table: Codes) -> Array:
    """The share of each row's words of three letters, or of its length if shorter, that no row of ``table`` has there.

    >>> novelty(np.array([[0, 1, 2, 3]]), np.array([[0, 1, 2, 0], [1, 1, 2, 0]])).tolist()
    [0.5]
    """
    k = min(WORD, codes.shape[1])
    places = codes.shape[1] - k + 1
    base = int(max(codes.max(), table.max())) + 1
    powers = base ** np.arange(k)
    fresh = np.zeros(len(codes))
    for start in range(places):
        fresh += ~np.isin(codes[:, start : start + k] @ powers, table[:, start : start + k] @ powers)
    return fresh / places


def _near(problem: SequenceTable, proxy: Proxy, found: Codes, parents: Codes) -> tuple[Codes, Codes]:
    """New sequences one letter from those that were found, or, round by round, more, with their parents."""
    space, drawn = problem.space, generator(0, 0x05, 12)
    known = {row.tobytes() for row in np.concatenate([problem.codes, found])}
    missing = problem.n - (len(found) - problem.n)  # the last n are the run's designs, not all of them new
    near, of = found[:0], parents[:0]
    pool, kin = found, parents
    while len(near) < missing and len(pool):
        rows, places, letters = np.nonzero(np.broadcast_to(space.table, (len(pool), *space.table.shape)))
        if len(rows) > MOST_NEAR:
            some = drawn.choice(len(rows), MOST_NEAR, replace=False)
            rows, places, letters = rows[some], places[some], letters[some]
        changed = pool[rows].copy()
        changed[np.arange(len(rows)), places] = letters
        changed, own = space.within(changed, kin[rows]), kin[rows]
        _, first = np.unique(changed, axis=0, return_index=True)
        fresh = np.array([i for i in first if changed[i].tobytes() not in known], np.int64)
        pool, kin = changed[fresh], own[fresh]
        known |= {row.tobytes() for row in pool}
        if len(pool):
            told = _ranks(proxy.predict(pool)) + _ranks(proxy.auxiliary(pool)[0])
            best = np.argsort(-told, kind="stable")[: missing - len(near)]
            near, of = np.concatenate([near, pool[best]]), np.concatenate([of, kin[best]])
    return near, of


def _notes(problem: SequenceTable, final: int, sources: Sequence[str]) -> list[str]:
    found = []
    if problem.rows < problem.n:
        found.append(f"The table has {problem.rows} different rows, fewer than {problem.n}: all are starts.")
    if problem.merged:
        found.append(f"{problem.merged} rows repeat a sequence; the mean of their scores was used.")
    designs, way, near = (sources.count(kind) for kind in ("design", "way", "near"))
    if designs < final:
        found.append(
            f"{final - designs} of {final} designs are alike or rows of the table; {way} passed on the way and {near} "
            "one letter or more beside them fill up."
        )
    if len(sources) < problem.n:
        found.append(
            f"{len(sources)} proposals, fewer than {problem.n}: the space has no more new sequences near."
        )
    return found
