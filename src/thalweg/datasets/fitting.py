"""A data set to fit: what is given, and a scikit-learn estimator as the method that fits it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidParameter, InvalidProblem, Method, Problem, State, Status, Stop
from thalweg.core.contestant import contestant
from thalweg.core.recommended import recommended
from thalweg.core.seeding import generator
from thalweg.core.validation import require


class Estimator(Protocol):
    """What scikit-learn calls one: `fit`, `score`, `get_params`."""

    def fit(self, X: object, y: object) -> object:
        """Learn from examples."""

    def score(self, X: object, y: object) -> float:
        """How good the predictions are; more is better."""

    def get_params(self, deep: bool = True) -> dict[str, object]:
        """Its parameters."""

    def set_params(self, **params: object) -> Self:
        """Change some."""


@dataclass(frozen=True, eq=False)
class FittingTask(Problem):
    """Predict y from X: fit on a part of the examples, judge on the rest.

    Args:
        X: features, shape (n, d), an array, a data frame or a sparse matrix.
        y: targets, shape (n,).
        test_share: the share of the examples that judge, in (0, 1); a quarter by default.
        split: the seed by which they are drawn.
        scores: more numbers to judge by, by name, each ``score(estimator, X_test, y_test)`` (scikit-learn's scorers).

    The metrics of an answer, a fitted estimator, are ``score``, its own on the test examples (accuracy, R^2), and
    ``scores``. More is better.

    Raises:
        InvalidProblem: X and y of different lengths, too few examples to split.

    >>> from sklearn.linear_model import Ridge
    >>> from thalweg import compare
    >>> X = np.random.default_rng(0).standard_normal((80, 3))
    >>> found = compare(FittingTask(X, X @ [1.0, 2.0, 3.0]), [Ridge(1e-6), Ridge(1e3)])
    >>> [round(row["score"], 2) for row in found.rows]
    [1.0, 0.07]
    """

    X: ArrayLike
    y: ArrayLike
    test_share: float = 0.25
    split: int = 0
    scores: dict[str, Callable[[Estimator, object, object], float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = np.shape(self.X)[0] if np.ndim(self.X) or hasattr(self.X, "shape") else 0
        if n != len(np.asarray(self.y)):
            raise InvalidProblem(f"FittingTask: X has {n} rows and y {len(np.asarray(self.y))} values.")
        require(0 < self.test_share < 1, "FittingTask needs test_share in (0, 1)", got=self.test_share)
        if min(len(part) for part in self.rows()) < 1:
            raise InvalidProblem(
                f"FittingTask: {n} examples are too few to split with test_share={self.test_share}."
            )

    def rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The examples to fit and those to judge, drawn without regard to their order."""
        n = len(np.asarray(self.y))
        order = generator(self.split, 0x5D).permutation(n)
        kept = n - round(self.test_share * n)
        return order[:kept], order[kept:]

    def part(self, rows: NDArray[np.int64]) -> tuple[object, object]:
        """X and y of some examples."""
        from sklearn.utils import _safe_indexing

        return _safe_indexing(self.X, rows), _safe_indexing(self.y, rows)

    def recommended_stop(self) -> Stop:
        """One fit."""
        return Stop(steps=1)

    def metrics(self, x: Estimator | None) -> dict[str, float]:
        """``score`` and ``scores``; none before anything is fitted."""
        if x is None:
            return {}
        X, y = self.part(self.rows()[1])
        return {"score": float(x.score(X, y))} | {
            name: float(score(x, X, y)) for name, score in self.scores.items()
        }


@dataclass(kw_only=True)
class FitState(State):
    """``x`` is the fitted estimator, ``fresh`` the one to fit."""

    fresh: Estimator


@dataclass(frozen=True, eq=False)
class Fit(Method[FittingTask, FitState]):
    """A scikit-learn estimator's `fit` as one step.

    Args:
        estimator: left as it is; a clone is fitted. Its ``random_state`` becomes the run's seed where it has one
            that is None.
    """

    estimator: Estimator

    @property
    def name(self) -> str:
        """The estimator as scikit-learn prints it, in one line."""
        return " ".join(repr(self.estimator).split())

    def init(self, problem: FittingTask, seed: int) -> FitState:
        from sklearn.base import clone

        fresh: Estimator = clone(self.estimator)
        unset = {
            k: seed
            for k, v in fresh.get_params().items()
            if k.split("__")[-1] == "random_state" and v is None
        }
        return FitState(x=None, fresh=fresh.set_params(**unset))

    def step(self, problem: FittingTask, state: FitState) -> FitState:
        fitted = state.fresh
        fitted.fit(*problem.part(problem.rows()[0]))
        metrics = problem.metrics(fitted)
        return FitState(x=fitted, fresh=fitted, metrics=metrics, status=Status.CONVERGED, message="Fitted.")


@recommended.register
def for_fitting(problem: FittingTask) -> Fit:
    """Gradient boosting: good on tables without any tuning."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.utils.multiclass import type_of_target

    continuous = type_of_target(problem.y).startswith("continuous")
    return Fit(HistGradientBoostingRegressor() if continuous else HistGradientBoostingClassifier())


@contestant.register
def of_fitting(problem: FittingTask, entrant: object) -> Method[FittingTask, FitState]:
    """Any estimator of scikit-learn's kind."""
    if isinstance(entrant, Method):
        return entrant
    if all(hasattr(entrant, name) for name in ("fit", "score", "get_params")) and not isinstance(
        entrant, type
    ):
        return Fit(entrant)  # type: ignore[arg-type]
    raise InvalidParameter(f"A FittingTask is compared by estimators with fit and score; got {entrant!r}.")
