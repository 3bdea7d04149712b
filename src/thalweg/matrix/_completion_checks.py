"""What a completion problem and its answers must be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.core.validation import is_real, is_whole, require
from thalweg.matrix.observations import Reals, limits_of

if TYPE_CHECKING:
    from thalweg.matrix.problem import Completion


def check_options(problem: Completion) -> None:
    """Refuse options of `Completion` that are out of range, or do not go together."""
    _check_rank(problem)
    fits = is_real(problem.ridge) and 0 <= problem.ridge < math.inf
    require(fits, "Completion needs ridge >= 0", got=problem.ridge)
    largest = limits_of(problem.number).largest
    require(
        problem.ridge <= largest, f"Completion needs ridge <= {largest:g} in its dtype", got=problem.ridge
    )
    for name in ("ridge_by_count", "biases", "nonnegative", "standardize"):
        value = getattr(problem, name)
        require(isinstance(value, bool | np.bool_), f"Completion: {name} is True or False", got=value)
    for name in ("held_out", "test"):
        share = getattr(problem, name)
        require(is_real(share) and 0 <= share < 1, f"Completion needs 0 <= {name} < 1", got=share)
    both = problem.held_out + problem.test
    require(both < 1, "Completion needs held_out + test < 1", got=both)
    require(is_whole(problem.seed) and problem.seed >= 0, "Completion needs seed >= 0", got=problem.seed)
    if problem.rank == "auto" and not len(problem.parts["held_out"]):
        raise InvalidParameter(
            f'Completion: rank="auto" goes by the held-out error, and of {len(problem.seen)} entries none is held out. '
            "Name a rank, or raise held_out."
        )
    _check_labels(problem)
    if problem.nonnegative and not problem.biases and float(problem.seen.values.max()) <= 0:
        raise InvalidProblem("Completion: no entry is positive, so that nonnegative factors are all zero.")
    if problem.confidence is not None:
        _check_confidence(problem)


def _check_rank(problem: Completion) -> None:
    rank, least = problem.rank, min(problem.m, problem.n)
    if rank != "auto":
        require(is_whole(rank) and rank >= 1, 'Completion needs rank >= 1 or "auto"', got=rank)
        if rank > least:
            raise InvalidProblem(
                f"Completion: rank {rank} is more than a {problem.m} x {problem.n} matrix can have; at most {least}."
            )
    fits = is_whole(problem.max_rank) and problem.max_rank >= 1
    require(fits, "Completion needs max_rank >= 1", got=problem.max_rank)


def _check_labels(problem: Completion) -> None:
    for name, ids, size in (
        ("row_ids", problem.row_ids, problem.m),
        ("column_ids", problem.column_ids, problem.n),
    ):
        if ids is None:
            continue
        if np.shape(ids) != (size,):
            raise InvalidProblem(f"Completion: {name} has shape {np.shape(ids)}; expected ({size},).")
        labels: np.ndarray[Any, Any] = np.asarray(ids)
        if labels.dtype.kind not in "iU" or not (labels[1:] > labels[:-1]).all():
            raise InvalidProblem(
                f"Completion: {name} are not sorted whole numbers or words, each once. `np.unique` makes such labels."
            )


def _check_confidence(problem: Completion) -> None:
    confidence, values = problem.confidence, problem.seen.values
    fits = is_real(confidence) and 0 < confidence < math.inf
    require(fits, "Completion needs confidence > 0", got=confidence)
    if problem.biases or len(problem.seen.weights):
        raise InvalidProblem("Completion: implicit feedback takes no biases and no weights of its own.")
    least, most = float(values.min()), float(values.max())
    if least < 0:
        raise InvalidProblem(f"Completion: implicit feedback is counts >= 0; the least entry is {least:g}.")
    heaviest = limits_of(problem.number).heaviest
    if confidence is not None and not confidence * most <= heaviest:
        raise InvalidProblem(
            f"Completion: confidence times the largest entry is {confidence * most:.3g}; expected at most "
            f"{heaviest:g}. Scale the entries, or lower confidence."
        )


def check_answer(problem: Completion, x: Reals) -> None:
    """Refuse what is no answer of the problem."""
    rows, most = problem.m + problem.n, min(problem.m, problem.n)
    extra = int(problem.biases)
    if not (isinstance(x, np.ndarray) and x.ndim == 2 and len(x) == rows and 1 <= x.shape[1] - extra <= most):
        raise InvalidProblem(
            f"Completion: an answer has shape {np.shape(x)}; expected ({rows}, rank{' + 1' * extra}), U above V."
        )
