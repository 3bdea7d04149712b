"""Pieces of behaviour: what was seen and done, step by step, in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, check_finite

Array = NDArray[np.float64]
Actions = NDArray[np.int64] | Array
#: The largest number of a state or an action.
MOST_STATES = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Segments:
    """N pieces of behaviour of L steps each.

    Args:
        observations: numbered states, whole numbers of shape (N, L); or vectors, shape (N, L, d).
        actions: numbered, shape (N, L); or vectors, shape (N, L, k).
        lived: shape (N, L), False for steps after an episode's end, which have no reward. Default: all True.

    Raises:
        InvalidProblem: shapes that do not fit, none, numbers that are not whole. NotFinite: NaN or infinity.

    >>> Segments([[0, 1], [1, 1]], [[1, 0], [0, 0]]).length
    2
    """

    observations: Actions
    actions: Actions
    lived: NDArray[np.bool_] = None  # type: ignore[assignment]  # an array from here on

    def __post_init__(self) -> None:
        seen, done = _column("observations", self.observations), _column("actions", self.actions)
        if seen.shape[:2] != done.shape[:2] or 0 in seen.shape[1:]:
            raise InvalidProblem(
                f"Segments: observations have shape {seen.shape} and actions {done.shape}; expected (N, L) or "
                "(N, L, d), with the same N and L >= 1."
            )
        lived = np.ones(seen.shape[:2], dtype=bool) if self.lived is None else np.asarray(self.lived)
        if lived.shape != seen.shape[:2] or lived.dtype != bool:
            raise InvalidProblem(
                f"Segments: lived has shape {lived.shape} of {lived.dtype}; expected truth values {seen.shape[:2]}."
            )
        for name, value in (("observations", seen), ("actions", done), ("lived", lived)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def length(self) -> int:
        """L."""
        return int(self.actions.shape[1])

    @property
    def is_numbered(self) -> bool:
        """Whether states are numbers, and not vectors."""
        return self.observations.ndim == 2

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Segments:
        return Segments(self.observations[rows], self.actions[rows], self.lived[rows])

    def cut(self, start: int, length: int) -> Segments:
        """``length`` steps of each, from step ``start``."""
        steps = slice(start, start + length)
        return Segments(self.observations[:, steps], self.actions[:, steps], self.lived[:, steps])


def joined(parts: Sequence[Segments]) -> Segments:
    """Several as one; all of one length."""
    lengths = sorted({part.length for part in parts})
    if len(lengths) != 1:
        raise InvalidProblem(
            f"Segments of unequal length, {' and '.join(map(str, lengths))} steps: a number added to the reward "
            "would change which is better. Cut all to the shortest."
        )
    return Segments(
        np.concatenate([part.observations for part in parts]),
        np.concatenate([part.actions for part in parts]),
        np.concatenate([part.lived for part in parts]),
    )


def _column(name: str, values: ArrayLike) -> Actions:
    try:
        array = np.asarray(values)
    except ValueError:
        raise InvalidProblem(
            f"Segments: {name} have rows of unequal length; expected (N, L) or (N, L, d). Cut all to the shortest."
        ) from None
    if array.ndim not in (2, 3) or array.dtype.kind not in "iuf":
        raise InvalidProblem(
            f"Segments: {name} has shape {array.shape} of {array.dtype}; expected numbers, (N, L) or (N, L, d). "
            "Segments of unequal length have no such array: cut all to the shortest."
        )
    if array.ndim == 2 and array.dtype.kind == "f":
        raise InvalidProblem(
            f"Segments: {name} of shape (N, L) are numbers of states or actions; got {array.dtype}. Vectors of one "
            "entry have shape (N, L, 1)."
        )
    if array.ndim == 2:
        if array.size and int(array.min()) < 0:
            raise InvalidProblem(f"Segments: {name} hold {int(array.min())}; expected numbers from 0.")
        if array.size and int(array.max()) > MOST_STATES:
            raise InvalidProblem(
                f"Segments: {name} hold {int(array.max())}; numbers of states or actions end at {MOST_STATES}."
            )
        return array.astype(np.int64)
    found = as_real(name, array)
    check_finite(name, found)
    return found
