"""scikit-learn estimators: two-layer ReLU networks fitted by convex optimization, with a certificate."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from thalweg.convex.datafits import Vector
from thalweg.convex.relu.neurons import SampledNeurons, sample_neurons
from thalweg.convex.relu.patterns import all_patterns, sample_patterns
from thalweg.convex.relu.polishing import NetworkCertificate, refine_patterns
from thalweg.convex.relu.problem import ConvexReLU, relative_gap
from thalweg.convex.relu.robust import RobustADMM, RobustConvexReLU
from thalweg.convex.relu.splitting import ReLUADMM
from thalweg.core import InvalidParameter, InvalidProblem, Result, Stop, solve

if TYPE_CHECKING:
    from torch import nn

    from thalweg.convex.relu.network import TwoLayerNetwork

#: What scikit-learn checks each parameter against.
RULES: dict[str, list[Any]] = {
    "beta": [Interval(Real, 0, None, closed="neither")],
    "patterns": [Interval(Integral, 1, None, closed="left"), StrOptions({"all"})],
    "solver": [StrOptions({"admm", "scp"})],
    "refinements": [Interval(Integral, 0, None, closed="left")],
    "radius": [Interval(Real, 0, None, closed="left")],
    "robust": [StrOptions({"relaxed", "exact"})],
    "hidden_bias": ["boolean"],
    "output_bias": ["boolean"],
    "tol": [Interval(Real, 0, None, closed="neither")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "random_state": ["random_state"],
}


class _ConvexReLU(BaseEstimator):
    """What both estimators share."""

    beta: float
    patterns: int | Literal["all"]
    solver: Literal["admm", "scp"]
    refinements: int
    radius: float
    robust: Literal["relaxed", "exact"]
    hidden_bias: bool
    output_bias: bool
    tol: float
    max_iter: int
    random_state: int | np.random.RandomState | None

    def _train(self, X: Vector, y: Vector, loss: str, sample_weight: ArrayLike | None) -> None:
        """Fit the network to checked X (n, d) and targets."""
        weights = None
        if sample_weight is not None:
            weights = np.asarray(
                _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            )
            kept = weights > 0
            if not kept.any():
                raise InvalidProblem("sample_weight is zero for every sample.")
            X, y, weights = X[kept], y[kept], weights[kept]
        rows = np.column_stack([X, np.ones(len(X))]) if self.hidden_bias else X
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        stop = Stop(
            below={"gap": self.tol, "violation": self.tol}, steps=-(-self.max_iter // ReLUADMM().iterations)
        )
        if self.solver == "scp":
            self._by_neurons(rows, y, loss, weights, seed)
            return
        if self.radius > 0:
            self._against_attacks(rows, y, loss, weights, seed)
            return
        complete = self.patterns == "all"
        found = (
            all_patterns(rows) if self.patterns == "all" else sample_patterns(rows, self.patterns, seed=seed)
        )
        problem = ConvexReLU(rows, y, found, float(self.beta), loss, self.output_bias, weights)
        if self.refinements and not complete:
            problem, x = refine_patterns(problem, rounds=self.refinements, seed=seed, stop=stop)
            problem = ConvexReLU(
                rows,
                y,
                problem.patterns,
                float(self.beta),
                loss,
                self.output_bias,
                weights,
                x0=problem.answer(x).blocks,
            )
        result = solve(problem, ReLUADMM(), stop=stop, progress=False)
        self._keep(problem.network(result.x), result, problem.lower_bound(result.x), complete)
        self.n_patterns_ = len(problem.patterns)

    def _by_neurons(self, rows: Vector, y: Vector, loss: str, weights: Vector | None, seed: int) -> None:
        if self.patterns == "all":
            raise InvalidParameter('solver="scp" draws neurons; patterns says how many, not "all".')
        if self.refinements or self.radius > 0:
            raise InvalidParameter('solver="scp" has no patterns to refine or to defend. Use solver="admm".')
        neurons = sample_neurons(rows, self.patterns, seed=seed)
        drawn = SampledNeurons(rows, y, neurons, float(self.beta), loss, self.output_bias, weights)
        stop = Stop(below={"gap": self.tol}, steps=max(1, self.max_iter // 15))
        result = solve(drawn, stop=stop, progress=False)
        metrics = result.metrics
        self._keep(drawn.network(result.x), result, metrics["objective"] * (1.0 - metrics["gap"]), False)
        self.n_patterns_ = len(neurons)

    def _against_attacks(self, rows: Vector, y: Vector, loss: str, weights: Vector | None, seed: int) -> None:
        """Fit against perturbations up to `radius` of each entry of a row; the column of ones stays."""
        if self.output_bias:
            raise InvalidParameter(
                "radius > 0 fits no output bias: set output_bias=False. Hidden biases stay."
            )
        if self.refinements:
            raise InvalidParameter("radius > 0 takes the patterns that are sampled: set refinements=0.")
        if weights is not None:
            raise InvalidParameter("radius > 0 takes no sample_weight.")
        if y.ndim > 1 or loss == "softmax":
            raise InvalidParameter("radius > 0 takes one target, or two classes.")
        mask = np.r_[np.ones(self.n_features_in_), np.zeros(rows.shape[1] - self.n_features_in_)]
        radius = float(self.radius)
        if self.patterns == "all":
            found = all_patterns(rows)
        else:
            found = sample_patterns(rows, self.patterns, seed=seed, radius=radius, mask=mask)
        problem = RobustConvexReLU(
            rows, y, found, float(self.beta), radius, mask, loss, exact=self.robust == "exact"
        )
        method = RobustADMM()
        stop = Stop(
            below={"gap": self.tol, "violation": self.tol}, steps=-(-self.max_iter // method.iterations)
        )
        result = solve(problem, method, stop=stop, progress=False)
        lower = np.max(result.history["objective"] * (1.0 - result.history["gap"]))
        self._keep(problem.network(result.x), result, float(lower), False)
        self.n_patterns_ = len(problem.patterns)

    def _keep(self, network: TwoLayerNetwork, result: Result, lower: float, complete: bool) -> None:
        self.network_ = network
        upper = result.metrics["objective"]
        self.certificate_ = NetworkCertificate(upper, lower, complete)
        self.n_iter_ = max(result.calls, 1)
        if not result.converged:
            warnings.warn(
                f"The gap is {relative_gap(upper, lower):.2g} after {self.n_iter_} iterations; {self.tol:.2g} was "
                "asked for. Raise max_iter, or scale the columns.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _outputs(self, X: ArrayLike) -> Vector:
        check_is_fitted(self)
        checked = validate_data(self, X, dtype=np.float64, reset=False)
        rows = np.column_stack([checked, np.ones(len(checked))]) if self.hidden_bias else checked
        return self.network_.outputs(rows)

    def to_module(self) -> nn.Sequential:
        """``Sequential(Linear, ReLU, Linear)`` of PyTorch in float64, with `network_`'s outputs."""
        check_is_fitted(self)
        return self.network_.to_module(hidden_bias=self.hidden_bias)


class ConvexReLURegressor(RegressorMixin, _ConvexReLU):
    """A two-layer ReLU network for squares, fitted by convex optimization: no learning rate, and a certificate.

    ``sum (f - y)^2/2 + beta/2 (sum of squares of all weights and hidden biases)``. Several targets are fitted at once,
    each with neurons of its own.

    Args:
        beta: weight decay beside the sum of the losses, n times that beside their mean. Default 0.1.
        patterns: how many activation patterns are sampled; ``"all"`` finds all there are, and the fit is then global:
            for few rows or few columns. Default 50.
        solver: ``"admm"`` on patterns; ``"scp"`` draws so many *neurons*, thousands for the price of a hundred
            patterns.
        refinements: rounds in which patterns that the residual asks for replace idle ones; one target. Default 0; 5
            come close to a network trained by gradients.
        radius: up to how much each entry of X may be changed by an adversary, in X's units: the fit defends against
            it. One target or two classes, ``output_bias=False``. Default 0: nobody.
        robust: with a radius, ``"relaxed"`` (default): the worst case of the losses while no neuron flips, which
            guarantees nothing and helps most; ``"exact"``: a guarantee, for radii below the data's margins.
        hidden_bias, output_bias: whether the layers have biases; the hidden one is penalised. Default True.
        tol: relative gap, and violation of cones. Default 1e-3.
        max_iter: of ADMM, in each round. Default 3000.
        random_state: of the samples.

    When not: a wide network on much data; train it by gradients, and let `polish` make it better and say how far it is
    from the best with its patterns.

    Attributes ``network_``, ``certificate_`` (upper, lower, gap, complete, is_global; for several outputs of networks
    each neuron of which feeds one), ``n_patterns_``, ``n_iter_``.

    >>> X = np.linspace(-1.0, 1.0, 9)[:, None]
    >>> model = ConvexReLURegressor(patterns="all", beta=0.01).fit(X, np.abs(X[:, 0]))
    >>> model.certificate_.is_global, round(model.score(X, np.abs(X[:, 0])), 2)
    (True, 1.0)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = RULES

    def __init__(
        self,
        beta: float = 0.1,
        *,
        patterns: int | Literal["all"] = 50,
        solver: Literal["admm", "scp"] = "admm",
        refinements: int = 0,
        radius: float = 0.0,
        robust: Literal["relaxed", "exact"] = "relaxed",
        hidden_bias: bool = True,
        output_bias: bool = True,
        tol: float = 1e-3,
        max_iter: int = 3000,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.beta = beta
        self.patterns = patterns
        self.solver = solver
        self.refinements = refinements
        self.radius = radius
        self.robust = robust
        self.hidden_bias = hidden_bias
        self.output_bias = output_bias
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to X, shape (n, d), and y, shape (n,) or (n, k); ``sample_weight`` counts as copies of each sample."""
        rows, target = validate_data(self, X, y, dtype=np.float64, y_numeric=True, multi_output=True)
        target = np.asarray(target, dtype=np.float64)
        self._is_flat = target.ndim == 1
        self._train(rows, target, "squares", sample_weight)
        return self

    def predict(self, X: ArrayLike) -> Vector:
        """Predictions, shape (n,) or (n, k)."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._is_flat else outputs

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _has_probabilities(model: ConvexReLUClassifier) -> bool:
    return model.loss == "logistic"


class ConvexReLUClassifier(ClassifierMixin, _ConvexReLU):
    """A two-layer ReLU network for classes, fitted by convex optimization. Parameters as `ConvexReLURegressor`.

    Args:
        loss: ``"logistic"`` (default), ``"hinge"``, or ``"squares"`` of labels -1 and 1. ``"scp"`` takes no hinge.
        multi_class: with three classes or more ``"ovr"``: each against the rest; ``"joint"``: the cross-entropy of
            their softmax, logistic only.

    >>> X = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    >>> ConvexReLUClassifier(patterns="all", beta=0.01).fit(X, [0, 0, 1, 1]).predict(X)
    array([0, 0, 1, 1])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **RULES,
        "loss": [StrOptions({"logistic", "hinge", "squares"})],
        "multi_class": [StrOptions({"ovr", "joint"})],
    }

    def __init__(
        self,
        beta: float = 0.1,
        *,
        loss: Literal["logistic", "hinge", "squares"] = "logistic",
        multi_class: Literal["ovr", "joint"] = "ovr",
        patterns: int | Literal["all"] = 50,
        solver: Literal["admm", "scp"] = "admm",
        refinements: int = 0,
        radius: float = 0.0,
        robust: Literal["relaxed", "exact"] = "relaxed",
        hidden_bias: bool = True,
        output_bias: bool = True,
        tol: float = 1e-3,
        max_iter: int = 3000,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.beta = beta
        self.loss = loss
        self.multi_class = multi_class
        self.patterns = patterns
        self.solver = solver
        self.refinements = refinements
        self.radius = radius
        self.robust = robust
        self.hidden_bias = hidden_bias
        self.output_bias = output_bias
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to X, shape (n, d), and labels y, shape (n,); ``sample_weight`` counts as copies of each sample."""
        rows, labels = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if sample_weight is not None:  # a class whose samples all weigh nothing is none
            weights = np.asarray(
                _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
            )
            present = np.unique(codes[weights > 0])
            count = len(present)
        else:
            count = len(self.classes_)
        if count < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data contains only one class: "
                f"{self.classes_[0]!r}"
            )
        if self.multi_class == "joint" and self.loss != "logistic":
            raise InvalidParameter(f'multi_class="joint" is for the logistic loss; got loss={self.loss!r}.')
        if len(self.classes_) == 2:
            self._train(rows, np.where(codes == 1, 1.0, -1.0), self.loss, sample_weight)
        elif self.multi_class == "joint":
            self._train(rows, codes.astype(np.float64), "softmax", sample_weight)
        else:
            signs = np.where(codes[:, None] == np.arange(len(self.classes_)), 1.0, -1.0)
            self._train(rows, signs, self.loss, sample_weight)
        return self

    def decision_function(self, X: ArrayLike) -> Vector:
        """Outputs, shape (n,) for two classes, (n, classes) for more."""
        outputs = self._outputs(X)
        return outputs[:, 0] if len(self.classes_) == 2 else outputs

    def predict(self, X: ArrayLike) -> np.ndarray[Any, Any]:
        """Labels, shape (n,)."""
        scores = self.decision_function(X)
        chosen = (scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(1)
        return np.asarray(self.classes_[chosen])

    @available_if(_has_probabilities)
    def predict_proba(self, X: ArrayLike) -> Vector:
        """Probabilities, shape (n, classes), of the logistic losses; each against the rest, they are normalised."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            p = expit(scores)
            return np.stack([1.0 - p, p], axis=1)
        if self.multi_class == "joint":
            return np.asarray(softmax(scores, axis=1))
        p = expit(scores)
        total = p.sum(1, keepdims=True)
        return np.asarray(np.divide(p, total, out=np.full_like(p, 1.0 / p.shape[1]), where=total > 0))
