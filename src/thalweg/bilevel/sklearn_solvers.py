"""Estimators of scikit-learn as functions of data and regularisation that torch differentiates."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import SVC
from torch import Tensor
from torch.nn import functional

from thalweg.bilevel._trees import Tree, given_tensor
from thalweg.bilevel.implicit import custom_root
from thalweg.core import InvalidProblem
from thalweg.core.validation import check_finite, is_real, require
from thalweg.numerics.projections import box_section
from thalweg.numerics.torch_krylov import LinearSolver

Fit = Callable[..., tuple[Tensor, Tensor]]


def sklearn_fit(estimator: BaseEstimator, *, solve: LinearSolver | None = None) -> Fit:
    """``fit(X, y, strength, ...) -> (coefficients, intercept)`` by an estimator, differentiable in all tensors.

    Args:
        estimator: its ``solver``, ``tol``, ``max_iter`` and ``fit_intercept`` are used; a derivative is as exact as the
            fit, so ``tol=1e-10`` and enough iterations are well spent.
            `sklearn.linear_model.Ridge`: ``fit(X, y, alpha, sample_weight=None)``; y of shape (n,) or (n, targets).
            `sklearn.linear_model.LogisticRegression` (l2): ``fit(X, y, C, sample_weight=None)``; y holds 0, 1, ....
            `sklearn.svm.SVC` (kernel ``"linear"`` or ``"rbf"``, two classes): ``fit(X, y, C, gamma=None)`` gives the
            dual coefficients of all examples, ``y_i alpha_i`` with y in {-1, 1}, shape (n,), and the intercept.
        solve: of the derivative's linear system. ``LinearSolver("cg")`` suits large Ridge and LogisticRegression.

    Options that move the optimum and are not in the condition, ``class_weight`` or ``positive``, say, are refused;
    class weights can be given as ``sample_weight``.

    Raises:
        InvalidProblem: another estimator, penalty, kernel or option; give `custom_root` its condition instead. Data
            that the estimator refuses.
        InvalidParameter: a strength that is no number > 0 (Ridge's alpha may be 0).
        NotFinite: NaN or infinity in the data.

    Cost: the fit, and a linear solve a derivative: in the coefficients, or for SVC in the examples.

    >>> X = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    >>> y, alpha = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    >>> fit = sklearn_fit(Ridge(fit_intercept=False))
    >>> torch.func.jacrev(lambda a: fit(X, y, a)[0])(alpha)  # -X'y / (X'X + alpha)^2
    tensor([-0.0664], dtype=torch.float64)
    """
    kind = type(estimator)
    if kind not in _UNDERSTOOD:
        raise InvalidProblem(
            f"sklearn_fit knows Ridge, LogisticRegression and SVC; got {kind.__name__}. "
            "Wrap its fit with custom_root and the condition that its solution satisfies."
        )
    estimator = clone(estimator)  # what is checked here is what is fitted later
    if kind is Ridge:
        estimator.set_params(copy_X=True)  # the condition needs X as it was
    if kind is SVC:
        _require_kernel(estimator)
    if kind is LogisticRegression:
        _require_l2(estimator)
    _require_understood(estimator)
    makers = {Ridge: _ridge, LogisticRegression: _logistic, SVC: _support_vectors}
    made = makers[kind](estimator, solve)

    def taken(value: Tree, what: str) -> Tree:
        return given_tensor(value, what) if isinstance(value, np.ndarray | list | tuple) else value

    @functools.wraps(made)
    def fit(*given: Tree, **named: Tree) -> tuple[Tensor, Tensor]:
        tensors = [taken(v, f"Argument {i} of the fit") for i, v in enumerate(given)]
        return made(*tensors, **{name: taken(v, f"The fit's {name}") for name, v in named.items()})

    return fit


#: Options that the conditions hold, or that say how the optimum is found and not where it is.
_UNDERSTOOD: dict[type[BaseEstimator], str] = {
    Ridge: "alpha copy_X fit_intercept max_iter random_state solver tol",
    LogisticRegression: "C dual fit_intercept intercept_scaling l1_ratio max_iter n_jobs penalty random_state solver "
    "tol verbose warm_start",
    SVC: "C break_ties cache_size coef0 decision_function_shape degree gamma kernel max_iter probability random_state "
    "shrinking tol verbose",
}


def _require_understood(estimator: BaseEstimator) -> None:
    """Refuse every option that is not known to leave the optimum alone and is not at its default."""
    name, usual = type(estimator).__name__, type(estimator)().get_params()
    known = _UNDERSTOOD[type(estimator)].split()
    for option, value in estimator.get_params().items():
        if option not in known and value is not usual[option] and value != usual[option]:
            raise InvalidProblem(
                f"sklearn_fit takes {name} with {option}={usual[option]!r} only: its condition does not know the "
                f"option; got {value!r}. "
                + (
                    "Give the weights as sample_weight."
                    if option == "class_weight" and name != "SVC"
                    else "Wrap the fit with custom_root and the condition that its solution satisfies."
                )
            )


def _require_l2(estimator: LogisticRegression) -> None:
    ratio = getattr(estimator, "l1_ratio", None)
    if ratio not in (None, 0, 0.0) or getattr(estimator, "penalty", None) in ("l1", "elasticnet", None):
        raise InvalidProblem(
            "sklearn_fit takes LogisticRegression with the l2 penalty only: others have corners."
        )
    if estimator.solver == "liblinear" and estimator.fit_intercept:
        raise InvalidProblem(
            "sklearn_fit takes LogisticRegression with solver='liblinear' for fit_intercept=False only: it penalises "
            "the intercept. Use solver='lbfgs'."
        )


def _require_kernel(estimator: SVC) -> None:
    if estimator.kernel not in ("linear", "rbf"):
        raise InvalidProblem(
            f"sklearn_fit takes SVC with kernel 'linear' or 'rbf'; got {estimator.kernel!r}."
        )


def _fitted(
    estimator: BaseEstimator, X: Tensor, y: Tensor, weight: Tensor | None = None, **strengths: Tensor
) -> BaseEstimator:
    """The estimator, fitted with these strengths; what is wrong with them or the data is told first."""
    name, numbers = type(estimator).__name__, {}
    if X.ndim != 2 or y.shape[:1] != X.shape[:1]:
        raise InvalidProblem(
            f"{name}: X has shape {tuple(X.shape)}, y {tuple(y.shape)}; expected (n, d), and n along y's first axis."
        )
    if weight is not None and weight.shape != X.shape[:1]:
        raise InvalidProblem(f"{name}: sample_weight has shape {tuple(weight.shape)}; expected ({len(X)},).")
    for what, values in (("X", X), ("y", y), ("sample_weight", weight)):
        if values is not None:
            check_finite(f"{name}: {what}", _array(values))
    if weight is not None and bool((weight < 0).any()):
        raise InvalidProblem(f"{name}: sample_weight needs numbers >= 0; got {float(weight.min()):g}.")
    for option, value in strengths.items():
        number = float(value) if value.numel() == 1 else math.nan
        least = "> 0" if option != "alpha" else ">= 0"
        allowed = math.isfinite(number) and (number > 0 or (number == 0 and option == "alpha"))
        require(allowed, f"{name} needs one finite {option} {least}", got=value.tolist())
        numbers[option] = number
    fitted = clone(estimator).set_params(**numbers)
    try:
        if weight is None:
            return fitted.fit(_array(X), _array(y))
        return fitted.fit(_array(X), _array(y), _array(weight))
    except ValueError as error:
        raise InvalidProblem(f"{name} could not be fitted: {str(error).splitlines()[0]}") from error


def _ridge(estimator: Ridge, solve: LinearSolver | None) -> Fit:
    def gradient(
        x: tuple[Tensor, Tensor], X: Tensor, y: Tensor, alpha: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        coef, intercept = x
        residual = X @ coef.mT + intercept - y if coef.ndim == 2 else X @ coef + intercept - y
        if weight is not None:
            residual = residual * (weight if y.ndim == 1 else weight[:, None])
        slope = residual.mT @ X + alpha * coef if coef.ndim == 2 else residual @ X + alpha * coef
        return slope, residual.sum(0) if estimator.fit_intercept else intercept

    @custom_root(gradient, solve=solve)
    def solved(_: None, X: Tensor, y: Tensor, alpha: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        fitted = _fitted(estimator, X, y, weight, alpha=alpha)
        return _like(fitted.coef_, y), _like(np.asarray(fitted.intercept_ + np.zeros(y.shape[1:])), y)

    def fit(
        X: Tensor, y: Tensor, alpha: Tensor, sample_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return solved(None, X, y, _strength("alpha", alpha, X), sample_weight)

    return fit


def _logistic(estimator: LogisticRegression, solve: LinearSolver | None) -> Fit:
    def value(x: tuple[Tensor, Tensor], X: Tensor, y: Tensor, C: Tensor, weight: Tensor | None) -> Tensor:
        coef, intercept = x
        logits = X @ coef.T + intercept
        if coef.shape[0] == 1:
            losses = functional.softplus(logits[:, 0]) - y * logits[:, 0]
        else:
            losses = logits.logsumexp(1) - logits.gather(1, y[:, None])[:, 0]
        if weight is not None:
            losses = losses * weight
        return losses.sum() + 0.5 * coef.square().sum() / C

    def gradient(
        x: tuple[Tensor, Tensor], X: Tensor, y: Tensor, C: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        coef, intercept = torch.func.grad(value)(x, X, y, C, weight)
        return coef, intercept if estimator.fit_intercept else x[1]

    @custom_root(gradient, solve=solve)
    def solved(_: None, X: Tensor, y: Tensor, C: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        fitted = _fitted(estimator, X, y, weight, C=C)
        return _like(fitted.coef_, X), _like(np.broadcast_to(fitted.intercept_, len(fitted.coef_)), X)

    def fit(X: Tensor, y: Tensor, C: Tensor, sample_weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        classes = torch.unique(y)
        if len(classes) < 2 or classes.tolist() != list(range(len(classes))):
            raise InvalidProblem(f"sklearn_fit needs classes 0, 1, ...; got {classes.tolist()[:10]}.")
        if len(classes) > 2 and estimator.solver == "liblinear":
            raise InvalidProblem(
                f"LogisticRegression with solver='liblinear' is for two classes; got {len(classes)}. Use 'lbfgs'."
            )
        return solved(None, X, y.long(), _strength("C", C, X), sample_weight)

    return fit


def _support_vectors(estimator: SVC, solve: LinearSolver | None) -> Fit:
    def gram(X: Tensor, gamma: Tensor) -> Tensor:
        products = X @ X.T
        if estimator.kernel == "linear":
            return products
        squares = products.diagonal()
        return torch.exp(-gamma * (squares[:, None] + squares - 2.0 * products))

    def moved(alpha: Tensor, X: Tensor, signs: Tensor, C: Tensor, gamma: Tensor) -> Tensor:
        """A projected gradient step of ``alpha' Q alpha / 2 - sum alpha`` on ``0 <= alpha <= C, signs' alpha = 0``."""
        K = gram(X, gamma)
        slope = signs * (K @ (signs * alpha)) - 1.0
        ahead = alpha - slope / float(K.detach().diagonal().mean())
        # with beta = signs alpha the equality has coefficients of one
        low, high = torch.where(signs > 0, 0.0, -C), torch.where(signs > 0, C, 0.0)
        return signs * box_section(signs * ahead, low, high, torch.ones_like(signs), 0.0)

    @custom_root(lambda alpha, *theta: moved(alpha, *theta) - alpha, solve=solve)
    def dual(_: None, X: Tensor, signs: Tensor, C: Tensor, gamma: Tensor) -> Tensor:
        width = {"gamma": gamma} if estimator.kernel == "rbf" else {}
        fitted = _fitted(estimator, X, signs, C=C, **width)
        alpha = np.zeros(len(X))
        alpha[fitted.support_] = np.abs(fitted.dual_coef_[0])
        return _like(alpha, X)

    def fit(X: Tensor, y: Tensor, C: Tensor, gamma: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
        classes = torch.unique(y)
        if len(classes) != 2:
            raise InvalidProblem(f"sklearn_fit takes SVC for two classes; got {len(classes)}.")
        if estimator.kernel == "rbf" and gamma is None:
            raise InvalidProblem("sklearn_fit with kernel 'rbf' needs gamma, a tensor or number.")
        signs = torch.where(y == classes[1], 1.0, -1.0).to(X.dtype)
        C, gamma = _strength("C", C, X), _strength("gamma", 0.0 if gamma is None else gamma, X)
        alpha = dual(None, X, signs, C, gamma)
        coefficients = signs * alpha
        # on the margin, where alpha is inside, the decision is the sign; the intercept is what makes it so
        free = (alpha.detach() > 1e-6 * C) & (alpha.detach() < (1.0 - 1e-6) * C)
        if not bool(free.any()):
            raise InvalidProblem("No support vector is inside (0, C): the intercept is not unique. Change C.")
        scores = gram(X, gamma) @ coefficients
        return coefficients, (signs - scores)[free].mean()

    return fit


def _strength(name: str, value: Tensor | float, like: Tensor) -> Tensor:
    require(
        isinstance(value, Tensor) or is_real(value), f"sklearn_fit: {name} is a tensor or a number", got=value
    )
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def _array(x: Tensor) -> NDArray[np.float64]:
    return np.asarray(x.detach().cpu().numpy())


def _like(values: ArrayLike, like: Tensor) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=like.dtype, device=like.device)
