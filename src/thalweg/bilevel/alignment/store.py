"""Labelled pairs: what teachers have said, kept, and read from files that people fill in."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from thalweg.bilevel.alignment.segments import Array, Segments, joined
from thalweg.bilevel.alignment.teacher import InconsistentTeacher, as_targets, check_mistakes, contradictions
from thalweg.core import InvalidProblem, UnreadableFile
from thalweg.core.files import atomic_write
from thalweg.datasets import load_arrays, load_frame

#: Words of the column ``preferred``, and their targets.
WORDS = {"first": 1.0, "second": 0.0, "equal": 0.5, "skip": float("nan")}
_STEP = re.compile(r"(\d+):(\d+)")


class OneSidedLabels(UserWarning):
    """All labels say the same: the log-likelihood has no maximum, and only a penalty holds the reward back."""


@dataclass(frozen=True, eq=False)
class PairStore:
    """Pairs of segments and who was preferred.

    Args:
        first, second: N segments each, of one length.
        targets: shape (N,): 1 the first, 0 the second, 0.5 neither. None or NaN, no answer: the pair is left out.
        mistakes: the share of wrong answers that is expected; pairs that are there several times and contradict one
            another more often give an `InconsistentTeacher` warning.

    Raises:
        InvalidProblem: no pair with an answer, all of them ties or of a segment with itself, unequal lengths, targets
            that are none. InvalidParameter: mistakes out of [0, 0.5).

    Warns:
        OneSidedLabels: the first, or the second, is preferred in all.

    >>> pairs = PairStore(Segments([[0], [1]], [[0], [0]]), Segments([[1], [0]], [[1], [1]]), [1, 0])
    >>> len(pairs), pairs.length
    (2, 1)
    """

    first: Segments
    second: Segments
    targets: Array
    mistakes: float = 0.0

    def __post_init__(self) -> None:
        check_mistakes("PairStore", self.mistakes)
        for name in ("first", "second"):
            if not isinstance(getattr(self, name), Segments):
                raise InvalidProblem(
                    f"PairStore: {name} is a {type(getattr(self, name)).__name__}; expected Segments."
                )
        kinds = [(side.observations.shape[2:], side.actions.shape[2:]) for side in (self.first, self.second)]
        if kinds[0] != kinds[1]:
            raise InvalidProblem(
                f"PairStore: states and actions of the first segments have shapes {kinds[0]}, of the second "
                f"{kinds[1]}; expected the same, () for numbers."
            )
        if len(self.first) != len(self.second):
            raise InvalidProblem(
                f"PairStore: {len(self.first)} first and {len(self.second)} second segments."
            )
        targets = as_targets("PairStore: the file", self.targets, len(self.first))
        joined([self.first[:1], self.second[:1]])  # refuses unequal lengths
        answered = ~np.isnan(targets)
        if not answered.any():
            raise InvalidProblem("PairStore: no pair has an answer; at least one is needed.")
        if (targets[answered] == 0.5).all():
            raise InvalidProblem(
                f"PairStore: all {int(answered.sum())} answers are ties, which say nothing of what is better."
            )
        apart = np.array([_bytes(self.first, i) != _bytes(self.second, i) for i in range(len(targets))])
        if not apart[answered].any():
            raise InvalidProblem(
                f"PairStore: both segments are the same in all {int(answered.sum())} pairs; their answers say nothing."
            )
        decided = targets[answered & (targets != 0.5)]
        if len(decided) > 1 and (decided == decided[0]).all():
            side = "first" if decided[0] else "second"
            warnings.warn(
                f"All {len(decided)} decided pairs prefer the {side}: where order carries meaning the log-likelihood "
                "has no maximum. Keep a penalty > 0, and shuffle which piece is shown first.",
                OneSidedLabels,
                stacklevel=3,
            )
        object.__setattr__(self, "first", self.first[answered])
        object.__setattr__(self, "second", self.second[answered])
        object.__setattr__(self, "targets", targets[answered])
        self._check_repeated()

    def _check_repeated(self) -> None:
        seen: dict[bytes, float] = {}
        once, again = [], []
        for i, target in enumerate(self.targets):
            a, b = (_bytes(side, i) for side in (self.first, self.second))
            if a == b:
                continue
            key, value = (a + b, target) if a <= b else (b + a, 1.0 - target)
            if key in seen:
                once.append(seen[key])
                again.append(value)
            seen.setdefault(key, value)
        told = contradictions(np.array(once), np.array(again), self.mistakes)
        if told:
            warnings.warn(told, InconsistentTeacher, stacklevel=4)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def length(self) -> int:
        """L, steps of a segment."""
        return self.first.length

    @property
    def is_one_sided(self) -> bool:
        """Whether all decided pairs prefer the same side."""
        decided = self.targets[self.targets != 0.5]
        return bool((decided == decided[0]).all())

    def check_fits(self, states: int, actions: int) -> None:
        """Refuse states or actions that a world does not have."""
        for name, sides, most in (
            ("state", (self.first.observations, self.second.observations), states),
            ("action", (self.first.actions, self.second.actions), actions),
        ):
            found = max(int(side.max()) for side in sides)
            if any(side.ndim != 2 for side in sides) or found >= most:
                raise InvalidProblem(
                    f"PairStore: the largest {name} is {found}; the world has {most}, numbered 0 to {most - 1}."
                )


def _bytes(side: Segments, row: int) -> bytes:
    return side.observations[row].tobytes() + side.actions[row].tobytes()


def load_preferences(path: str | Path, *, mistakes: float = 0.0) -> PairStore:
    """Read labelled pairs.

    A table (``.csv``, ``.tsv``, ``.txt``) has the columns ``first`` and ``second``, pieces written as steps
    ``state:action`` with blanks between, such as ``0:1 4:1 5:2``, and ``preferred``: first, second, equal, or skip. An
    ``.npz`` has the arrays ``first_observations``, ``first_actions``, ``second_observations``, ``second_actions`` and
    ``targets``, as `PairStore` takes them, for states that are vectors.

    Raises:
        UnreadableFile, UnknownName: absent, damaged, or without these columns.
        InvalidProblem: a piece or a word that cannot be read; says the row. And as `PairStore`.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        arrays = load_arrays(path)
        names = [f"{side}_{what}" for side in ("first", "second") for what in ("observations", "actions")]
        missing = [name for name in (*names, "targets") if name not in arrays]
        if missing:
            raise UnreadableFile(
                f"{path} lacks {', '.join(missing)}; it holds {', '.join(arrays) or 'nothing'}."
            )
        first, second = (Segments(arrays[names[k]], arrays[names[k + 1]]) for k in (0, 2))  # type: ignore[arg-type]
        return PairStore(first, second, arrays["targets"], mistakes)  # type: ignore[arg-type]
    table = load_frame(path, header=True, wanted="preferred")
    for name in ("first", "second"):
        if name not in table:
            raise UnreadableFile(f"{path} has no column {name!r}; expected first, second and preferred.")
    targets = [_word(path, row, str(word)) for row, word in enumerate(table["preferred"])]
    sides = [
        [_piece(path, row, name, str(text)) for row, text in enumerate(table[name])]
        for name in ("first", "second")
    ]
    for row, (a, b) in enumerate(zip(*sides, strict=True)):
        for piece in (a, b):
            if len(piece) != len(sides[0][0]):
                raise InvalidProblem(
                    f"{path}: row {row + 1} has segments of {len(a)} and {len(b)} steps, the first row "
                    f"{len(sides[0][0])}; expected segments of equal length. Cut all to the shortest."
                )
    first, second = (Segments(np.array(side)[:, :, 0], np.array(side)[:, :, 1]) for side in sides)
    return PairStore(first, second, np.array(targets), mistakes)


def _word(path: Path, row: int, word: str) -> float:
    if word.strip().lower() not in WORDS:
        raise InvalidProblem(
            f"{path}: row {row + 1} prefers {word!r}; expected first, second, equal or skip."
        )
    return WORDS[word.strip().lower()]


def _piece(path: Path, row: int, name: str, text: str) -> list[tuple[int, int]]:
    steps = [_STEP.fullmatch(word) for word in text.split()]
    if not steps or None in steps:
        raise InvalidProblem(
            f"{path}: row {row + 1}, column {name!r}: {text!r}; expected steps state:action with blanks between, such "
            "as 0:1 4:1 5:2."
        )
    return [(int(step[1]), int(step[2])) for step in steps if step]


def save_preferences(
    path: str | Path, first: Segments, second: Segments, targets: ArrayLike | None = None
) -> None:
    """Write pairs as `load_preferences` reads them; without targets the column ``preferred`` says skip.

    Raises:
        InvalidProblem: states that are vectors, in a file that is no ``.npz``.
    """
    path, n = Path(path), len(first)
    given = np.full(n, np.nan) if targets is None else as_targets("save_preferences", targets, n)
    if path.suffix.lower() == ".npz":
        sides = {"first": first, "second": second}
        arrays = {
            f"{k}_{what}": getattr(side, what)
            for k, side in sides.items()
            for what in ("observations", "actions")
        }
        with atomic_write(path) as file:
            np.savez(file, allow_pickle=False, targets=given, **arrays)
        return
    if not (first.is_numbered and first.actions.ndim == 2):
        raise InvalidProblem(f"{path} is a table of numbered states; states that are vectors go into .npz.")
    words = {1.0: "first", 0.0: "second", 0.5: "equal"}
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    lines = [separator.join(["first", "second", "preferred"])]
    for i in range(n):
        texts = [
            " ".join(f"{s}:{a}" for s, a in zip(side.observations[i], side.actions[i], strict=True))
            for side in (first, second)
        ]
        lines.append(separator.join([*texts, words.get(float(given[i]), "skip")]))
    with atomic_write(path) as file:
        file.write(("\n".join(lines) + "\n").encode())
