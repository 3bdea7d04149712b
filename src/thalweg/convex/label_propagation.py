"""Labels spread over a graph of neighbours, by block coordinate descent on forests.

Zhu, Ghahramani and Lafferty (2003), "Semi-supervised learning using Gaussian fields and harmonic functions"; Nutini,
Laradji and Schmidt (2022), section 4.3, for how it is solved.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.neighbors import NearestNeighbors
from sklearn.utils._param_validation import Interval
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from thalweg.convex.coordinate import GSL, BlockCoordinateDescent, ForestBlocks, MessagePassing
from thalweg.convex.datafits import Vector
from thalweg.convex.losses import MatrixLike
from thalweg.convex.problem import Penalized
from thalweg.convex.quadratic import label_propagation
from thalweg.core import InvalidProblem, Stop, solve


class LabelPropagation(ClassifierMixin, BaseEstimator):
    """A classifier for few labels: those known stay, every other point takes the average of its neighbours'.

    Use it when unlabelled data are plenty and classes lie on connected shapes. With labels for all points it is a
    weighted nearest-neighbour classifier.

    Args:
        n_neighbors: of the graph, made symmetric. Default 10.
        gamma: weights are ``exp(-gamma d^2)``; None, the default, is one over the mean squared distance of neighbours.
        tol: largest residual of a harmonic equation, relative to a node's degree. Default 1e-6.
        max_iter: most block updates a class. Default 10 000.

    Labels of -1 (or None, for strings) mean unknown. Attributes ``classes_``, ``n_iter_``, ``transduction_``
    (a label for every training point), ``label_distributions_`` (n, classes).

    Raises:
        InvalidProblem: points of the graph that no label reaches.

    >>> X = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
    >>> LabelPropagation(n_neighbors=2).fit(X, [0, -1, -1, 1, -1, -1]).transduction_.tolist()
    [0, 0, 0, 1, 1, 1]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "gamma": [Interval(Real, 0, None, closed="neither"), None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self, *, n_neighbors: int = 10, gamma: float | None = None, tol: float = 1e-6, max_iter: int = 10_000
    ) -> None:
        self.n_neighbors = n_neighbors
        self.gamma = gamma
        self.tol = tol
        self.max_iter = max_iter

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: MatrixLike, y: ArrayLike) -> Self:
        """Fit to X, shape (n, features), and labels y, shape (n,), unknown ones -1."""
        points, labels = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(labels)
        known = np.array([label is not None and label != -1 for label in labels])
        if not known.any():
            raise InvalidProblem("LabelPropagation: no point has a label; those of -1 are unknown.")
        self.classes_ = np.unique(labels[known])
        held = np.where(known[:, None], labels[:, None] == self.classes_, 0.0)
        self._neighbours = NearestNeighbors(n_neighbors=min(self.n_neighbors, len(points) - 1)).fit(points)
        self.label_distributions_ = held
        distances, indices = self._neighbours.kneighbors()
        self.gamma_ = self.gamma or 1.0 / max(float((distances**2).mean()), 1e-300)
        self.n_iter_ = 1
        if not known.all():
            self.label_distributions_[~known] = self._harmonic(held, known, self._kernel(distances), indices)
        self.transduction_ = self.classes_[self.label_distributions_.argmax(1)]
        return self

    def _harmonic(
        self, held: Vector, known: NDArray[np.bool_], weights: Vector, indices: NDArray[np.intp]
    ) -> Vector:
        n, k = indices.shape
        one_way = sp.csr_array((weights.ravel(), indices.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
        graph = sp.csr_array(one_way.maximum(one_way.T))
        method = BlockCoordinateDescent(ForestBlocks(), GSL(), MessagePassing())
        found = []
        for column in held.T[:-1]:
            problem = Penalized(label_propagation(graph, column, known))
            smallest = float(problem.loss.lipschitz.min())
            stop = Stop(below={"violation": self.tol * smallest}, steps=self.max_iter)
            result = solve(problem, method, stop=stop, progress=False)
            self.n_iter_ = max(self.n_iter_, result.steps)
            found.append(result.x)
        last = 1.0 - np.sum(found, axis=0) if found else np.ones(int((~known).sum()))
        return np.clip(np.stack([*found, last], axis=1), 0.0, 1.0)

    def _kernel(self, distances: Vector) -> Vector:
        return np.maximum(np.exp(-self.gamma_ * distances**2), 1e-12)  # a far neighbour stays a neighbour

    def predict_proba(self, X: MatrixLike) -> Vector:
        """Averages of the neighbours' labels, shape (n, classes)."""
        check_is_fitted(self)
        points = validate_data(self, X, dtype=np.float64, reset=False)
        distances, indices = self._neighbours.kneighbors(points)
        weights = self._kernel(distances)
        found = (weights[:, :, None] * self.label_distributions_[indices]).sum(1)
        total: Vector = found / found.sum(1, keepdims=True)
        return total

    def predict(self, X: MatrixLike) -> NDArray[np.generic]:
        """The likeliest class, shape (n,)."""
        check_is_fitted(self)
        found: NDArray[np.generic] = self.classes_[self.predict_proba(X).argmax(1)]
        return found
