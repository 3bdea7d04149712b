"""Matrix completion as a scikit-learn estimator."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from thalweg.core import InvalidParameter, InvalidProblem, Stop, solve
from thalweg.matrix.alternating import (
    AltMin,
    AutomaticAltMin,
    CGAltMin,
    CoordinateAltMin,
    ExactAltMin,
    SketchedAltMin,
)
from thalweg.matrix.factors import Factors
from thalweg.matrix.half_steps import UNBOUNDED, Coordinates, Exact, Rows, Work
from thalweg.matrix.held_out_error import held_out_error
from thalweg.matrix.observations import Duplicates, Entries, Given, Reals
from thalweg.matrix.problem import Completion
from thalweg.matrix.reading import read_entries, unmasked

SOLVERS: dict[str, type[AltMin]] = {
    "automatic": AutomaticAltMin,
    "cg": CGAltMin,
    "exact": ExactAltMin,
    "sketched": SketchedAltMin,
}
#: Passes of coordinate descent by which a new row's bounded factors are found.
PASSES = 1000
#: Shares of a row's entries, each predicted from the others, by which `MatrixCompletion.score` judges.
FOLDS = 5


@dataclass(frozen=True)
class Terms:
    """What a model was fitted with, and new rows are: parameters that are changed later hold from the next fit on."""

    ridge: float
    ridge_by_count: bool
    biases: bool
    nonnegative: bool
    confidence: float | None


class ColdWarning(UserWarning):
    """Rows or columns without any entry are predicted by the mean and the other's bias alone."""


class MatrixCompletion(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Fill a matrix from a few of its entries by a low-rank model with biases, by alternating minimisation.

    ``M_ij = mean + b_i + c_j + u_i . v_j``. Use it for ratings, for sensors that drop out, for any table of one
    quantity with more holes than numbers. Not where columns are different quantities (impute these with
    `sklearn.impute.IterativeImputer`), and not where what is missing is missing because of its value.

    Args:
        rank: length of u and v, or ``"auto"``: doubled while the held-out error falls by more than 0.5 %. Default.
        ridge: weight of ``|u|^2`` and ``|v|^2``, in units of the entries' spread. Default 0.05; 0 for entries without
            noise and many for each row.
        ridge_by_count: times the number of entries of the row or column. Default True.
        biases: default ``"auto"``: unless ``confidence`` or ``nonnegative`` is given.
        nonnegative: hold u, v >= 0.
        confidence: take entries for counts of implicit feedback, with weights ``1 + confidence * count``, and fit what
            was not seen as 0. Default None.
        solver: ``"automatic"`` (exact up to 16 unknowns, else conjugate gradients), ``"cg"``, ``"exact"`` or
            ``"sketched"``. Bounds have their own.
        held_out: share of entries by which the fit is stopped and its rank chosen. Default 0.05. Without any (few
            entries, or 0) a fit ends at a small gradient, and ``rank="auto"`` is 1.
        test: share set apart for `test_error_`. Default 0.05.
        max_rank: where ``"auto"`` ends. Default 128.
        max_iter: most sweeps. Default 300.
        duplicates: for places given twice, ``"error"`` (default), ``"sum"`` or ``"mean"``.
        workers: fit in so many processes of Ray, on one machine or several; see `AltMin`. By default in threads.
        dtype: of the factors, float64 (default) or float32, which takes two thirds of the memory.
        random_state: which entries are held out, and the start; a whole number, default 0.

    X is a sparse matrix, whose *stored* values are entries, zeros too; an array or table with NaN where nothing was
    seen; or, for `fit` alone, a tuple (rows, columns, values).

    Attributes:
        row_factors_, column_factors_: shapes (m, rank), (n, rank), in the entries' unit and without.
        row_bias_, column_bias_, mean_: in the entries' unit.
        rank_: the rank.
        held_out_error_: what was stopped by; NaN without entries held out.
        test_error_: a `HeldOutError` on entries that nothing was chosen by.
        cold_rows_, cold_columns_: those without an entry, predicted by the mean and the other's bias.
        n_iter_: sweeps.

    >>> import numpy as np
    >>> from thalweg.matrix import MatrixCompletion
    >>> rng = np.random.default_rng(0)
    >>> M = 3.0 + np.add.outer(rng.standard_normal(60), rng.standard_normal(50))
    >>> X = np.where(rng.random(M.shape) < 0.3, M, np.nan)
    >>> model = MatrixCompletion(rank=1, ridge=1e-4).fit(X)
    >>> bool(np.abs(model.predict([0, 5], [3, 7]) - M[[0, 5], [3, 7]]).max() < 0.05)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "rank": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "ridge": [Interval(Real, 0, None, closed="left")],
        "ridge_by_count": ["boolean"],
        "biases": ["boolean", StrOptions({"auto"})],
        "nonnegative": ["boolean"],
        "confidence": [None, Interval(Real, 0, None, closed="neither")],
        "solver": [StrOptions(set(SOLVERS))],
        "held_out": [Interval(Real, 0, 1, closed="left")],
        "test": [Interval(Real, 0, 1, closed="left")],
        "max_rank": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "duplicates": [StrOptions({"error", "sum", "mean"})],
        "workers": [None, Interval(Integral, 1, None, closed="left")],
        "dtype": "no_validation",
        "random_state": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        rank: int | Literal["auto"] = "auto",
        *,
        ridge: float = 0.05,
        ridge_by_count: bool = True,
        biases: bool | Literal["auto"] = "auto",
        nonnegative: bool = False,
        confidence: float | None = None,
        solver: Literal["automatic", "cg", "exact", "sketched"] = "automatic",
        held_out: float = 0.05,
        test: float = 0.05,
        max_rank: int = 128,
        max_iter: int = 300,
        duplicates: Duplicates = "error",
        workers: int | None = None,
        dtype: DTypeLike = np.float64,
        random_state: int = 0,
    ) -> None:
        self.rank = rank
        self.ridge = ridge
        self.ridge_by_count = ridge_by_count
        self.biases = biases
        self.nonnegative = nonnegative
        self.confidence = confidence
        self.solver = solver
        self.held_out = held_out
        self.test = test
        self.max_rank = max_rank
        self.max_iter = max_iter
        self.duplicates = duplicates
        self.workers = workers
        self.dtype = dtype
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Given,
        y: object = None,
        *,
        weights: ArrayLike | None = None,
        shape: tuple[int, int] | None = None,
    ) -> Self:
        """Fit to what is seen of a matrix of shape (m, n).

        ``weights``, > 0, one for each entry in the order of ``X.data`` or of the triples (for an array, of its shape),
        count as so many copies of each. ``shape`` is for triples.

        Raises:
            InvalidProblem, NotFinite: see `Completion`.
        """
        problem = self._problem(self._entries(X, weights, shape, reset=True))
        kind = CoordinateAltMin if self.nonnegative else SOLVERS[self.solver]
        method: AltMin = kind(workers=self.workers)
        stop = Stop(below=problem.recommended_stop().below, steps=self.max_iter)
        result = solve(problem, method, stop=stop, seed=int(self.random_state), progress=False)
        if not result.converged:
            warnings.warn(
                f"Stopped after {result.steps} sweeps, before the error had settled: {result.message} Raise max_iter.",
                ConvergenceWarning,
                stacklevel=2,
            )
        x = result.x
        self._set(Factors.of(problem, x))
        self._terms = self._asked()
        self.rank_ = problem.rank_of(x)
        self.unit_ = problem.unit
        self.n_iter_ = max(result.steps, 1)
        self.n_features_in_ = problem.n
        self.held_out_error_ = float(result.metrics.get("held_out", math.nan))
        self.test_error_ = held_out_error(problem, x)
        seen = [np.bincount(i, minlength=size) for i, size in self._seen(problem)]
        self.cold_rows_, self.cold_columns_ = (np.flatnonzero(count == 0) for count in seen)
        if len(self.cold_rows_) or len(self.cold_columns_):
            warnings.warn(
                f"{len(self.cold_rows_)} rows and {len(self.cold_columns_)} columns have no entry: they are predicted "
                "by the mean and the other's bias (cold_rows_, cold_columns_).",
                ColdWarning,
                stacklevel=2,
            )
        return self

    @staticmethod
    def _seen(problem: Completion) -> tuple[tuple[NDArray[np.int32], int], ...]:
        return (problem.seen.rows, problem.m), (problem.seen.columns, problem.n)

    def _entries(
        self,
        X: Given,
        weights: ArrayLike | None = None,
        shape: tuple[int, int] | None = None,
        *,
        reset: bool = False,
    ) -> Entries:
        if not isinstance(X, tuple):
            if shape is not None:
                raise InvalidParameter("shape is for triples; a matrix has its own.")
            X = validate_data(
                self,
                unmasked(X),
                accept_sparse=("csr", "csc", "coo"),
                dtype=np.float64,
                ensure_all_finite="allow-nan",
                reset=reset,
            )
        return read_entries(
            X, name="X", shape=shape, weights=weights, duplicates=self.duplicates, may_be_empty=not reset
        )

    def _problem(self, entries: Entries) -> Completion:
        options: dict[str, Any] = {
            **asdict(self._asked()),
            "held_out": self.held_out,
            "test": self.test,
            "max_rank": int(self.max_rank),
            "standardize": True,
            "seed": int(self.random_state),
            "dtype": self.dtype,
        }
        rank = self.rank if self.rank == "auto" else int(self.rank)
        if rank == "auto" and int(self.held_out * len(entries)) < 1:
            rank = 1
        return Completion(entries, rank, **options)

    def _asked(self) -> Terms:
        plain = self.confidence is None and not self.nonnegative
        biases = plain if self.biases == "auto" else bool(self.biases)
        held = (float(self.ridge), bool(self.ridge_by_count), biases, bool(self.nonnegative))
        return Terms(*held, self.confidence)

    def _set(self, factors: Factors) -> None:
        self.row_factors_, self.column_factors_ = factors.row_factors, factors.column_factors
        self.row_bias_, self.column_bias_ = factors.row_bias, factors.column_bias
        self.mean_ = factors.mean

    @property
    def factors_(self) -> Factors:
        """All of the model in one, to be kept or sent."""
        check_is_fitted(self, "row_factors_")
        sides = (self.row_factors_, self.column_factors_, self.row_bias_, self.column_bias_)
        return Factors(*sides, self.mean_)

    @property
    def _n_features_out(self) -> int:
        return self.rank_ + int(self._has_biases)

    @property
    def _has_biases(self) -> bool:
        return self._terms.biases

    def predict(self, rows: ArrayLike | Given, columns: ArrayLike | None = None) -> Reals:
        """Entries at places (rows, columns), counted from 0, shape (places,).

        With one argument, a matrix of other rows: all its entries, shape (rows, n), from those it has.
        """
        check_is_fitted(self, "row_factors_")
        if columns is None:
            return self.inverse_transform(self.transform(rows))
        return self.factors_.predict(np.asarray(rows), columns)

    def transform(self, X: Given) -> Reals:
        """The factors of rows, from their entries and the columns' factors, shape (rows, rank), by least squares.

        The last column is the row's bias, where the model has biases. Both in the entries' unit.
        """
        check_is_fitted(self, "row_factors_")
        return self._folded(self._entries(X))

    def _folded(self, entries: Entries) -> Reals:
        n = self.n_features_in_
        if entries.shape[1] != n:
            raise InvalidProblem(
                f"X has {entries.shape[1]} columns, but MatrixCompletion is expecting {n} columns."
            )
        kind = self.column_factors_.dtype
        unit = kind.type(self.unit_)
        terms, confidence = self._terms, self._terms.confidence
        values = entries.values if confidence is not None else (entries.values - self.mean_) / self.unit_
        kept = entries.weights.astype(kind)
        D, offset = self.column_factors_, np.empty(0, kind)
        if terms.biases:
            D = np.hstack([D, np.ones((n, 1), kind)])
            offset = self.column_bias_ / unit
        if confidence is not None:
            kept = (confidence * values).astype(kind)
            values = kept + 1
        seen = Entries(entries.shape, entries.rows, entries.columns, values.astype(kind), kept)
        free = int(terms.biases) if terms.nonnegative else UNBOUNDED
        held = (terms.ridge, terms.ridge_by_count, confidence is not None)
        rows = Rows(seen.by_row, *held, free)
        gram = D.T @ D if confidence is not None else np.empty((0, D.shape[1]), kind)
        work = Work(rows, np.ascontiguousarray(D), gram, rows.targets(offset))
        x, spare = np.zeros((entries.shape[0], D.shape[1]), kind), np.zeros(entries.shape[0])
        fit = Coordinates(PASSES) if terms.nonnegative else Exact()
        fit(work, 0, len(x), x, spare, spare.copy())
        return x * unit

    def fit_transform(self, X: Given, y: object = None, **options: Any) -> Reals:  # noqa: ANN401
        """`fit`, and the factors of the same rows from all their entries."""
        return self.fit(X, y, **options).transform(X)

    def inverse_transform(self, X: ArrayLike) -> Reals:
        """All entries of rows of which the factors are given, as `transform` gives them; shape (rows, n)."""
        check_is_fitted(self, "row_factors_")
        x = np.asarray(X)
        if x.ndim != 2 or x.shape[1] != self._n_features_out:
            raise InvalidProblem(f"X has shape {x.shape}; expected (rows, {self._n_features_out}).")
        out = x[:, : self.rank_] @ self.column_factors_.T + self.column_bias_ + self.mean_
        return out + x[:, self.rank_ :] if self._has_biases else out

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Given, y: object = None) -> Self:
        """New rows below those there are, fitted to the columns' factors as they are; without a fit, `fit`.

        Their places follow the others': ``predict`` takes them at once.
        """
        if not hasattr(self, "row_factors_"):
            return self.fit(X)
        entries = self._entries(X)
        new, before = self._folded(entries), len(self.row_factors_)
        bias = new[:, -1] if self._has_biases else np.zeros(len(new), new.dtype)
        self.row_factors_ = np.vstack([self.row_factors_, new[:, : self.rank_]])
        self.row_bias_ = np.concatenate([self.row_bias_, bias])
        cold = np.flatnonzero(np.bincount(entries.rows, minlength=len(new)) == 0)
        self.cold_rows_ = np.concatenate([self.cold_rows_, before + cold])
        return self

    def score(self, X: Given, y: object = None) -> float:
        """Minus the root mean square error of the entries of rows, a fifth of each row's predicted from its others.

        Larger is better, as scikit-learn's searches want it.
        """
        check_is_fitted(self, "row_factors_")
        entries = self._entries(X)
        turn = (np.arange(len(entries)) - entries.by_row.starts[entries.rows] + entries.rows) % FOLDS
        squares = 0.0
        for fold in range(FOLDS):
            hidden, rest = entries.subset(turn == fold), entries.subset(turn != fold)
            x = self._folded(rest)
            sides = (x[:, : self.rank_], self.column_factors_)
            bias = x[:, -1] if self._has_biases else np.zeros(len(x), x.dtype)
            found = Factors(np.ascontiguousarray(sides[0]), sides[1], bias, self.column_bias_, self.mean_)
            truth = np.ones(len(hidden)) if self._terms.confidence is not None else hidden.values
            squares += float(((found.predict(hidden.rows, hidden.columns) - truth) ** 2).sum())
        return -math.sqrt(squares / len(entries))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        tags.target_tags.required = False
        tags.transformer_tags.preserves_dtype = []
        return tags
