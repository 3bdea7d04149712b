"""What options of a completion problem, its labels and its answers must be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from thalweg.core import InvalidProblem
from thalweg.core.validation import is_real, is_whole, require
from thalweg.matrix.observations import Entries, Labels, Reals, limits_of


def check_shares(held_out: object, test: object) -> None:
    """Refuse shares of entries that leave none to be fitted."""
    for name, share in (("held_out", held_out), ("test", test)):
        require(is_real(share) and 0 <= share < 1, f"Completion needs 0 <= {name} < 1", got=share)
    both = float(held_out) + float(test)  # type: ignore[arg-type]
    require(both < 1, "Completion needs held_out + test < 1", got=both)


def check_rank(rank: object, most: object, shape: tuple[int, int]) -> None:
    """Refuse ranks that a matrix of the shape cannot have."""
    if rank != "auto":
        require(is_whole(rank) and rank >= 1, 'Completion needs rank >= 1 or "auto"', got=rank)
        if is_whole(rank) and rank > min(shape):
            raise InvalidProblem(
                f"Completion: rank {rank} is more than a {shape[0]} x {shape[1]} matrix can have; at most {min(shape)}."
            )
    require(is_whole(most) and most >= 1, "Completion needs max_rank >= 1", got=most)


def check_labels(name: str, ids: Labels | None, size: int) -> None:
    """Refuse labels that are not sorted, each once, one for each row or column."""
    if ids is None:
        return
    labels: np.ndarray[Any, Any] = np.asarray(ids)
    if labels.shape != (size,):
        raise InvalidProblem(f"Completion: {name} has shape {labels.shape}; expected ({size},).")
    if labels.dtype.kind not in "iU" or not (labels[1:] > labels[:-1]).all():
        raise InvalidProblem(
            f"Completion: {name} are not sorted whole numbers or words, each once. `np.unique` makes such labels."
        )


def check_confidence(confidence: float, seen: Entries, number: np.dtype[np.floating], biases: bool) -> None:
    """Refuse what implicit feedback excludes."""
    fits = is_real(confidence) and 0 < confidence < math.inf
    require(fits, "Completion needs confidence > 0", got=confidence)
    if biases or len(seen.weights):
        raise InvalidProblem("Completion: implicit feedback takes no biases and no weights of its own.")
    least, most = float(seen.values.min()), float(seen.values.max())
    if least < 0:
        raise InvalidProblem(f"Completion: implicit feedback is counts >= 0; the least entry is {least:g}.")
    heaviest = limits_of(number).heaviest
    if not confidence * most <= heaviest:
        raise InvalidProblem(
            f"Completion: confidence times the largest entry is {confidence * most:.3g}; expected at most "
            f"{heaviest:g}. Scale the entries, or lower confidence."
        )


def check_answer(x: Reals, shape: tuple[int, int], biases: bool) -> None:
    """Refuse what is no answer."""
    rows, most, extra = sum(shape), min(shape), int(biases)
    if not (isinstance(x, np.ndarray) and x.ndim == 2 and len(x) == rows and 1 <= x.shape[1] - extra <= most):
        raise InvalidProblem(
            f"Completion: an answer has shape {np.shape(x)}; expected ({rows}, rank{' + 1' * extra}), U above V."
        )
