"""An orthonormal basis in which a stream is sparse, learned sample by sample and kept in O(n^2) numbers.

Xue and Lau (2021), "Online orthogonal dictionary learning based on Frank-Wolfe method", arXiv 2103.01484, IEEE TNNLS.
"""

from __future__ import annotations

import dataclasses
import math
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from thalweg.core import CheckpointMismatch, InvalidProblem, UnreadableFile
from thalweg.core.tree import load_tree, require_alike, restoring, save_tree
from thalweg.core.validation import as_real
from thalweg.matrix._dictionary_start import first_basis
from thalweg.matrix._dictionary_steps import Learned, Loss, Matrix, Rule, advanced, fields_of
from thalweg.matrix.dictionary_codes import Coding, check_coding, coded, filled

#: What scikit-learn checks each parameter against.
Rules = dict[str, list[Any]]
#: What a dense Gaussian stream scores, which has no sparse basis: ``E |z|^3 / (E z^2)^(3/2) = sqrt(8 / pi)``.
GAUSSIAN = math.sqrt(8.0 / math.pi)
#: Rows of a whole array that go through a product at once.
ROWS = 8192


class OnlineDictionary(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """An orthonormal basis D in which samples have sparse codes ``z = D'y``, learned from a stream that is not kept.

    Each step takes a minibatch, moves a running gradient of ``-E |D'y|_3^3 / 3`` and takes a Frank-Wolfe step to the
    extreme point of the spectral ball that this gradient names, a polar factor. What is given out is the polar factor
    of D: exactly orthonormal.

    Use it where samples are many, memory is small, and a complete orthonormal basis is wanted: readings of n sensors,
    small patches, n up to some hundreds. When not: more atoms than entries, or n in the thousands (the step costs
    n^3); data whose codes are dense or Gaussian, where no basis is better than another (see `score`); photographs,
    for which the discrete cosine transform is as good. When all data fit into memory, `orthogonal_mod` reaches a
    lower error of the k-term code.

    Args:
        loss: what sparse codes maximise. ``"l3"``, the default, is ``E |z|^3``; ``"l4"`` weighs large codes more, and
            needs about three times the samples; ``"smooth-l1"`` is minus a smoothed l1 norm plus as much of
            ``E |z|^2``, which is the same in every orthonormal basis, as makes it convex: large codes weigh least.
        batch_size: samples a step, >= 1. Default 16. More make steps surer and fewer.
        epochs: passes over X that `fit` makes, in shuffled order. `partial_fit` makes one, in the order given.
        coding: what `transform` keeps: ``"full"``, the default, all codes; ``"top-k"`` the ``n_nonzero`` largest,
            the best code of so many terms; ``"hard"`` those above ``threshold``; ``"soft"`` those, less it.
        n_nonzero, threshold: numbers of the codings; they have no default.
        start: ``"random"``, an orthogonal matrix; ``"pca"``, eigenvectors of the first data's second moment;
            ``"dct"``, cosines; or an array, shape (n, n), of orthonormal columns. The first step replaces D by what
            the first minibatch says, so that a start only steers it.
        update: ``"frank-wolfe"``, or ``"polar"``: D is always the whole step's extreme point, the online form of
            matching, stretching and projection. It is faster in the first steps, and ends less exactly.
        momentum_floor, step_floor: least weights of the newest gradient and of a step. Default 0: weights fall, and
            the basis settles. For a stream that drifts 0.1 and 0.02.
        forgetting: factor of older samples in running mean and moment, in (0, 1]. Default 1: none is forgotten.
        center: subtract a running mean. Default False; readings that vary about a level need it.
        whiten: divide by the root of the running second moment, for ``y = A x`` with A complete but not orthogonal;
            ``components_`` are then A's columns. Default False: of patches it makes the code worse.
        missing: samples with NaN are refused (``"refuse"``, the default), left out and counted (``"skip"``), or
            completed by sparse codes in the present basis (``"fill"``); in `transform`, too. A sample without any entry
            is left out by both.
        clip: quantile in (0, 1) of the codes' sizes at which they are cut, for heavy tails. Default none.
        smoothing: of ``"smooth-l1"``, in root mean squares of the codes. Default 2; below 1 it stops at bases that are
            none.
        lmo: how polar factors are found: ``"svd"``, the default, or ``"newton-schulz"``, products alone.
        random_state: of start and shuffling.

    Attributes:
        components_: shape (n, n), rows are atoms: ``y = codes @ components_ + mean_``.
        mean_: shape (n,), zeros without ``center``.
        gap_: Frank-Wolfe's gap of the last step as a share of the gradient's nuclear norm: 0 at a stationary basis.
        n_steps_, n_samples_seen_: steps, and samples learned from.
        n_zero_, n_incomplete_: samples of zeros, which say nothing and are left out; samples with missing entries.

    Raises:
        InvalidProblem: nothing to learn from; a column to fill that has no entry; complex numbers; a start that is
            not orthogonal.
        InvalidParameter: a coding without its number.
        ValueError: scikit-learn's own, of shapes, NaN and parameters.

    Cost of a step: ``4 b n^2`` operations and one singular value decomposition, about ``20 n^3``; with ``whiten`` an
    eigenvalue decomposition in every tenth. Memory: five matrices n x n, whatever the number of samples.

    >>> from thalweg.matrix import OnlineDictionary
    >>> from thalweg.matrix import SparseStream, recovery_error
    >>> stream = SparseStream(n=8, share=0.2, seed=0)
    >>> model = OnlineDictionary(random_state=0)
    >>> for batch in stream.batches(64, count=60):
    ...     _ = model.partial_fit(batch)
    >>> recovery_error(model.components_.T, stream.basis) < 0.01
    True
    """

    _parameter_constraints: ClassVar[Rules] = {
        "loss": [StrOptions({"l3", "l4", "smooth-l1"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "coding": [StrOptions({"full", "top-k", "soft", "hard"})],
        "n_nonzero": [None, Interval(Integral, 1, None, closed="left")],
        "threshold": [None, Interval(Real, 0, None, closed="left")],
        "start": [StrOptions({"random", "pca", "dct"}), "array-like"],
        "update": [StrOptions({"frank-wolfe", "polar"})],
        "momentum_floor": [Interval(Real, 0, 1, closed="both")],
        "step_floor": [Interval(Real, 0, 1, closed="both")],
        "forgetting": [Interval(Real, 0, 1, closed="right")],
        "center": ["boolean"],
        "whiten": ["boolean"],
        "missing": [StrOptions({"refuse", "skip", "fill"})],
        "clip": [None, Interval(Real, 0, 1, closed="neither")],
        "smoothing": [Interval(Real, 0, None, closed="neither")],
        "lmo": [StrOptions({"svd", "newton-schulz"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        loss: Loss = "l3",
        *,
        batch_size: int = 16,
        epochs: int = 10,
        coding: Coding = "full",
        n_nonzero: int | None = None,
        threshold: float | None = None,
        start: Literal["random", "pca", "dct"] | ArrayLike = "random",
        update: Literal["frank-wolfe", "polar"] = "frank-wolfe",
        momentum_floor: float = 0.0,
        step_floor: float = 0.0,
        forgetting: float = 1.0,
        center: bool = False,
        whiten: bool = False,
        missing: Literal["refuse", "skip", "fill"] = "refuse",
        clip: float | None = None,
        smoothing: float = 2.0,
        lmo: Literal["svd", "newton-schulz"] = "svd",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.loss = loss
        self.batch_size = batch_size
        self.epochs = epochs
        self.coding = coding
        self.n_nonzero = n_nonzero
        self.threshold = threshold
        self.start = start
        self.update = update
        self.momentum_floor = momentum_floor
        self.step_floor = step_floor
        self.forgetting = forgetting
        self.center = center
        self.whiten = whiten
        self.missing = missing
        self.clip = clip
        self.smoothing = smoothing
        self.lmo = lmo
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn afresh from X, shape (samples, n), in ``epochs`` shuffled passes; y is ignored."""
        X = self._checked(X, reset=True)
        check_coding(self.coding, self.n_nonzero, self.threshold, X.shape[1])
        usable = X.any(1) & ~self._unknown(X)
        if not usable.any():
            raise InvalidProblem(
                "OnlineDictionary: no sample of X says anything: each is zeros, or has missing entries."
            )
        empty = np.flatnonzero(np.isnan(X).all(0))
        if self.missing == "fill" and empty.size:
            raise InvalidProblem(
                f"OnlineDictionary: column {empty[0]} of X has no entry: nothing can be learned of it. Leave it out."
            )
        random = check_random_state(self.random_state)
        state = Learned.at(first_basis(self.start, X, random), self.whiten)
        for _ in range(self.epochs):
            order = random.permutation(len(X))
            for first in range(0, len(X), self.batch_size):
                state = self._advanced(state, X[order[first : first + self.batch_size]])
        self.state_ = state
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: ArrayLike, y: object = None) -> Self:
        """Go on with X, shape (samples, n), in its order, ``batch_size`` samples a step; y is ignored.

        Ctrl-C leaves what was learned up to the last whole step.
        """
        first_call = not hasattr(self, "state_")
        X = self._checked(X, reset=first_call)
        if first_call:
            check_coding(self.coding, self.n_nonzero, self.threshold, X.shape[1])
            self.state_ = Learned.at(
                first_basis(self.start, X, check_random_state(self.random_state)), self.whiten
            )
        for first in range(0, len(X), self.batch_size):
            self.state_ = self._advanced(self.state_, X[first : first + self.batch_size])
        return self

    def transform(self, X: ArrayLike) -> Matrix:
        """Codes of X, shape (samples, n), kept as ``coding`` says; NaN for samples that are left out."""
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        check_coding(self.coding, self.n_nonzero, self.threshold, X.shape[1])
        codes = np.empty_like(X)
        for first in range(0, len(X), ROWS):
            rows = slice(first, first + ROWS)
            codes[rows] = coded(self._codes(X[rows]), self.coding, self.n_nonzero, self.threshold)
        codes[self._unknown(X)] = np.nan
        return codes

    def inverse_transform(self, X: ArrayLike) -> Matrix:
        """Samples of codes X, shape (samples, n): ``X @ components_ + mean_``.

        Raises:
            InvalidProblem: codes of another number of entries.
        """
        check_is_fitted(self)
        codes = as_real("codes", X)
        if codes.ndim != 2 or codes.shape[1] != self.n_features_in_:
            raise InvalidProblem(
                f"OnlineDictionary: codes have shape {codes.shape}; expected (samples, {self.n_features_in_})."
            )
        return codes @ self.components_ + self.mean_

    def score(self, X: ArrayLike, y: object = None) -> float:
        """How sparse codes of X are: ``E |z|^3 / (E z^2)^(3/2)`` over that of a Gaussian, less 1; y is ignored.

        Zero where no basis would do better than any other; larger is sparser: about 0.8 of codes of which three in
        ten are not zero. Whatever the scale of X.
        """
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        Z = self._codes(X[~self._unknown(X)])
        largest = float(np.abs(Z).max(initial=0.0))
        if largest == 0.0:
            return 0.0
        Z = np.abs(Z) / largest
        square = float(np.mean(Z * Z))
        return float(np.mean(Z * Z * Z)) / square**1.5 / GAUSSIAN - 1.0

    def _codes(self, X: Matrix) -> Matrix:
        state = self.state_
        if self.missing == "fill" and np.isnan(X).any():
            X = self._completed(state, X)
        X = X - self.mean_ if self.center else X
        if self.whiten:
            X = np.ldexp(X, -state.unit()) @ state.unroot
        return X @ state.basis

    def _checked(self, X: ArrayLike, reset: bool) -> Matrix:
        finite = True if self.missing == "refuse" else "allow-nan"
        checked: Matrix = validate_data(
            self, X, dtype=np.float64, order="C", reset=reset, ensure_all_finite=finite
        )
        return checked

    def _unknown(self, X: Matrix) -> NDArray[np.bool_]:
        """Samples that are left out: with missing entries or, where these are filled, without any entry."""
        missing = np.isnan(X)
        return np.asarray(missing.all(1) if self.missing == "fill" else missing.any(1))

    def _advanced(self, state: Learned, batch: Matrix) -> Learned:
        """One step on a batch, its samples with missing entries left out or filled."""
        if self.missing != "refuse":
            incomplete = np.isnan(batch).any(1)
            count = int(incomplete.sum())
            if count:
                state = dataclasses.replace(state, incomplete=state.incomplete + count)
                batch = batch[~self._unknown(batch)]
                batch = self._completed(state, batch) if self.missing == "fill" else batch
            if not len(batch):
                return state
        return advanced(state, self._rule(), batch)

    def _completed(self, state: Learned, batch: Matrix) -> Matrix:
        """The batch with its missing entries filled, in the units of the data."""
        incomplete = np.isnan(batch).any(1)
        mean, unit = np.ldexp(state.mean, state.unit()), state.unit()
        rows = np.ldexp(batch[incomplete] - mean, -unit)
        basis = state.basis
        analysis, synthesis = (
            (state.unroot @ basis, (state.root @ basis).T) if self.whiten else (basis, basis.T)
        )
        done = batch.copy()
        done[incomplete] = np.ldexp(filled(rows, analysis, synthesis), unit) + mean
        return done

    def save(self, path: str | Path) -> None:
        """Write what was learned to ``path``, whole or not at all, for another learner to `load`."""
        save_tree(path, self.state_dict())

    def load(self, path: str | Path) -> Self:
        """Take over what a learner with the same settings has saved, and go on from there with the same bits.

        Raises:
            UnreadableFile: absent, damaged, or nothing that an OnlineDictionary saved.
            CheckpointMismatch: saved with other settings; says which.
        """
        with restoring(path, "what an OnlineDictionary saved"):
            self.load_state_dict(load_tree(path))
        return self

    def state_dict(self) -> dict[str, Any]:
        """What was learned, and the settings that it depends on, as plain data."""
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        columns = None if names is None else [str(name) for name in names]
        return {"settings": self.settings(), "names": columns, "state": fields_of(self.state_)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`; `CheckpointMismatch` where it was learned with other settings."""
        for name, mine in self.settings().items():
            saved = state["settings"][name]
            if saved != mine:
                raise CheckpointMismatch(
                    f"What was saved was learned with {name}={saved!r}; this OnlineDictionary has {name}={mine!r}. "
                    "Load it with the settings that it was saved with."
                )
        fresh = Learned.at(np.eye(len(state["state"]["D"])), self.whiten)
        for name, held in fields_of(fresh).items():
            require_alike(
                name, 0 if name == "power" else held, state["state"][name], optional=name == "power"
            )
            if isinstance(held, np.ndarray) and held.shape != state["state"][name].shape:
                raise UnreadableFile(f"The saved {name} has another shape than {held.shape}.")
        self.state_ = Learned(**state["state"])
        self.n_features_in_ = len(fresh.D)
        if state["names"] is not None:
            self.feature_names_in_ = np.array(state["names"], dtype=object)

    def settings(self) -> dict[str, object]:
        """What a saved state depends on."""
        return {"missing": self.missing, "batch_size": self.batch_size, **dataclasses.asdict(self._rule())}

    def _rule(self) -> Rule:
        return Rule(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Rule)})

    @property
    def components_(self) -> Matrix:
        """Atoms, shape (n, n), a row each; orthonormal, or with ``whiten`` the columns of A."""
        state: Learned = self.state_
        if self.whiten:
            return np.ldexp((state.root @ state.basis).T, state.unit())
        return np.ascontiguousarray(state.basis.T)

    @property
    def mean_(self) -> Matrix:
        """The running mean, shape (n,); zeros without ``center``."""
        state: Learned = self.state_
        return np.ldexp(state.mean, state.unit())

    @property
    def gap_(self) -> float:
        """Frank-Wolfe's gap over the gradient's nuclear norm, in [0, 2]; NaN before the first step."""
        state: Learned = self.state_
        return state.gap / state.nuclear if state.nuclear > 0 else math.nan

    @property
    def n_steps_(self) -> int:
        """Steps made."""
        state: Learned = self.state_
        return state.steps

    @property
    def n_samples_seen_(self) -> int:
        """Samples learned from."""
        state: Learned = self.state_
        return state.samples

    @property
    def n_zero_(self) -> int:
        """Samples of zeros, left out."""
        state: Learned = self.state_
        return state.zeros

    @property
    def n_incomplete_(self) -> int:
        """Samples with missing entries, left out or filled."""
        state: Learned = self.state_
        return state.incomplete

    @property
    def _n_features_out(self) -> int:
        count: int = self.n_features_in_
        return count

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != "refuse"
        return tags
