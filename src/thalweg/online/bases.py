"""Learners of one group: the compiled ones by name, and anybody's by what they can do."""

from __future__ import annotations

import copy
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone

from thalweg.core import InvalidParameter, UnknownName
from thalweg.online import _group_kernels as kernels

#: Compiled learners: least squares with a ridge, Vovk-Azoury-Warmuth's, and two by projected gradients.
BASES = {
    "ridge": kernels.RIDGE,
    "vaw": kernels.VAW,
    "gradient": kernels.GRADIENT,
    "logistic": kernels.LOGISTIC,
}


@runtime_checkable
class Learner(Protocol):
    """What an object must be able to do to learn for a group: river's convention, with rows as vectors."""

    def predict_one(self, x: Any, /) -> float:  # noqa: ANN401 -- a vector, or river's dictionary
        """What is expected for a row."""

    def learn_one(self, x: Any, y: float, /) -> object:  # noqa: ANN401
        """Take in a row with its label."""


class _Fitted:
    """A scikit-learn estimator with ``partial_fit``, row by row; 1/2 before its first one."""

    def __init__(self, estimator: BaseEstimator) -> None:
        self.estimator, self.is_fitted = estimator, False

    def predict_one(self, x: NDArray[np.float64]) -> float:
        return float(np.ravel(self.estimator.predict(x[None]))[0]) if self.is_fitted else 0.5

    def learn_one(self, x: NDArray[np.float64], y: float) -> None:
        self.estimator.partial_fit(x[None], np.array([y]))
        self.is_fitted = True


class _Named:
    """A river model, whose rows are dictionaries."""

    def __init__(self, model: Learner) -> None:
        self.model = model

    def predict_one(self, x: NDArray[np.float64]) -> float:
        return float(self.model.predict_one(dict(enumerate(x.tolist()))) or 0.0)

    def learn_one(self, x: NDArray[np.float64], y: float) -> None:
        self.model.learn_one(dict(enumerate(x.tolist())), y)


def compiled(base: object) -> int | None:
    """The number of a compiled learner; None for an object of the user's.

    Raises:
        UnknownName: no learner is called so.
        InvalidParameter: an object that cannot learn row by row.
    """
    if isinstance(base, str):
        if base not in BASES:
            raise UnknownName("base", base, BASES)
        return BASES[base]
    if isinstance(base, type) or not (hasattr(base, "partial_fit") or isinstance(base, Learner)):
        raise InvalidParameter(
            f"base is {base!r}; expected one of {', '.join(BASES)}, an estimator with partial_fit, or an object with "
            "predict_one and learn_one."
        )
    return None


def fresh(base: object) -> Learner:
    """A learner that has learned nothing, like ``base``."""
    if hasattr(base, "partial_fit"):
        return _Fitted(clone(base))
    if type(base).__module__.startswith("river."):
        return _Named(base.clone())  # type: ignore[attr-defined]
    return copy.deepcopy(base)  # type: ignore[return-value]
