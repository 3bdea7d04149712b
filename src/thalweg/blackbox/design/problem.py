"""A table of sequences and scores, from which better sequences are to be proposed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.blackbox.design.judge import Judge
from thalweg.blackbox.design.space import Codes, SequenceSpace, nearest
from thalweg.core import InvalidProblem, Problem, Stop
from thalweg.core.validation import as_real, check_finite, is_whole, require

#: Scores and their differences stay within this and its inverse: their squares are numbers.
LARGEST = 1e150
Array = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class SequenceTable(Problem):
    """Sequences with scores, larger is better, and no experiment possible now: propose ``n`` that score better.

    Args:
        space: what may be proposed. Rows of the table may lie outside of it; all are learned from.
        sequences: texts of one length. One that is there several times counts once, with the mean of its scores.
        scores: shape (rows,), finite.
        n: proposals, default 128. The ``n`` best rows are the starts; if there are fewer rows, all of them are used
            in turn, and the proposals that begin alike end alike.
        unscored: further sequences of that kind, without scores: encoders learn from them, too.

    An answer is an array of codes, shape (n, length). Its metrics say nothing of true scores, which nobody knows here:
    ``judged_best`` and ``judged_median`` are a judge's, kernel ridge regression on the letters that sequences share,
    which no method designs on; ``distance`` is the mean number of letters to the nearest row, ``known`` the share of
    proposals that are rows, ``repeated`` the share that come twice, ``outside`` the share that the space does not hold.

    Raises:
        InvalidProblem: unequal lengths, unknown letters, fewer than two different sequences, scores all alike.
        NotFinite: a score that is NaN or infinite.

    >>> table = SequenceTable(SequenceSpace("dna", 2), ["AA", "AC", "CC", "aa"], [0.0, 1.0, 3.0, 1.0], n=2)
    >>> table.rows, table.merged, float(table.scores[0])
    (3, 1, 0.5)
    """

    space: SequenceSpace
    sequences: Sequence[str]
    scores: ArrayLike
    n: int = 128
    unscored: Sequence[str] = ()
    codes: Codes = field(init=False, repr=False)
    merged: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        require(is_whole(self.n) and self.n >= 1, "SequenceTable needs n >= 1", got=self.n)
        texts = list(self.sequences)
        scores = as_real("scores", self.scores)
        if scores.shape != (len(texts),):
            raise InvalidProblem(
                f"scores has shape {scores.shape}; expected ({len(texts)},), one a sequence."
            )
        check_finite("scores", scores)
        codes, place, counts = np.unique(
            self.space.encode(texts), axis=0, return_inverse=True, return_counts=True
        )
        if len(codes) < 2:
            raise InvalidProblem(f"The table has {len(codes)} different sequences; expected two or more.")
        place = place.reshape(-1)
        means = np.bincount(place, weights=scores, minlength=len(codes)) / counts
        if not float(np.ptp(means)) > 1e-12 * float(np.abs(means).max()):
            raise InvalidProblem("All scores are alike: nothing says what is better.")
        if not (np.abs(means).max() < LARGEST and np.ptp(means) > 1.0 / LARGEST):
            raise InvalidProblem(
                f"Scores reach {np.abs(means).max():.3g} and differ by {np.ptp(means):.3g}, whose squares are no "
                "numbers. Give them in another unit."
            )
        differ = sum(np.ptp(scores[place == k]) > 0 for k in np.flatnonzero(counts > 1))
        if differ:
            warnings.warn(
                f"{differ} sequences have several rows with different scores; the mean of each is used.",
                stacklevel=3,
            )
        for name, value in (
            ("_given", scores),
            ("codes", codes),
            ("scores", means),
            ("merged", len(texts) - len(codes)),
            ("_extra", self.space.encode(list(self.unscored)) if len(self.unscored) else codes[:0]),
            ("_made", {}),
        ):
            object.__setattr__(self, name, value)

    @property
    def rows(self) -> int:
        """Different sequences in the table."""
        return len(self.codes)

    @property
    def values(self) -> Array:
        """The scores, one a row of ``codes``."""
        return np.asarray(self.scores)

    def asked(self, n: int) -> SequenceTable:
        """This table with another number of proposals; models made so far are shared."""
        if n == self.n:
            return self
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when this one was made
            other = SequenceTable(self.space, self.sequences, self._given, n, self.unscored)  # type: ignore[attr-defined]
        kept = {key: made for key, made in self._made.items() if key != "starts"}  # type: ignore[attr-defined]
        object.__setattr__(other, "_made", kept)
        return other

    @property
    def text(self) -> Codes:
        """All that encoders may learn from: the rows, and what came without scores."""
        extra: Codes = self._extra  # type: ignore[attr-defined]
        return np.concatenate([self.codes, extra])

    def starts(self) -> Codes:
        """The ``n`` best rows, brought into the space; from the beginning again where there are fewer."""
        return self.made("starts", self._starts)

    def _starts(self) -> Codes:
        order = np.argsort(-self.values, kind="stable")[: self.n]
        return self.space.mended(self.codes[np.resize(order, self.n)])

    def made(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returns, kept under ``key`` for as long as the table lives: models that methods share."""
        kept: dict[Hashable, T] = self._made  # type: ignore[attr-defined]
        if key not in kept:
            kept[key] = make()
        return kept[key]

    def judge(self) -> Judge:
        """The judge of metrics, made when first needed."""
        return self.made("judge", lambda: Judge(self.codes, self.values))

    def metrics(self, x: Codes) -> dict[str, float]:
        codes = np.asarray(x)
        if codes.ndim != 2 or codes.shape[1] != self.space.positions or not len(codes):
            raise InvalidProblem(
                f"An answer has shape {codes.shape}; expected (proposals, {self.space.positions})."
            )
        judged = self.judge()(codes)
        away, _ = nearest(codes, self.codes)
        return {
            "judged_best": float(judged.max()),
            "judged_median": float(np.median(judged)),
            "distance": float(away.mean()),
            "known": float((away == 0).mean()),
            "repeated": 1 - len(np.unique(codes, axis=0)) / len(codes),
            "outside": float(1 - self.space.holds(codes).mean()),
        }

    def recommended_stop(self) -> Stop:
        return Stop(steps=10_000)
