"""Sequence design as an estimator: fit a table, propose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from thalweg.blackbox.design.adaptive import AdaptiveEta, AdaptiveGamma
from thalweg.blackbox.design.bidirectional import BidirectionalDesign, Mode
from thalweg.blackbox.design.encoders import Encoder
from thalweg.blackbox.design.masked import MaskedLetters
from thalweg.blackbox.design.problem import SequenceTable
from thalweg.blackbox.design.proposals import Proposals, Visited, collect_proposals
from thalweg.blackbox.design.proxy import proxy_of
from thalweg.blackbox.design.space import SequenceSpace
from thalweg.core import Figure, InvalidProblem, Series, solve
from thalweg.core.validation import is_whole, require

Array = NDArray[np.float64]


class SequenceDesign(RegressorMixin, BaseEstimator):
    """Better sequences from a table of sequences and scores, without any further experiment.

    Use it for DNA, RNA and protein sequences of one length with measured scores, larger is better, when the next batch
    has to be chosen now. It is no loop: for several rounds of experiments, fit the longer table again. Scores that it
    predicts lie beyond the data and are mostly too high; look at ``doubt``, ``distance`` and the correlation on rows
    held out before you believe them.

    A scikit-learn estimator of lists of strings: clones, grid searches and `cross_val_score` work; ``score`` is the
    ridge's R^2.

    Args:
        space: a `SequenceSpace`, or an alphabet (``"dna"``, ``"rna"``, ``"protein"``, letters); the length is then
            the table's. Default ``"dna"``.
        encoder: an `Encoder`; default `MaskedLetters`, trained on the table's own sequences.
        mode, target, gamma, together, diversity, steps, step_size: see `BidirectionalDesign`.
        unscored: further sequences of that kind, without scores, for the encoder to learn from.
        random_state: a whole number >= 0, default 0. The same number gives the same proposals.

    Attributes:
        method_: the `BidirectionalDesign` in use.
        space_: the space in use.
        table_: the `SequenceTable`.
        correlation_: rank correlation of the auxiliary ensemble with a tenth of the rows, held out.

    >>> import numpy as np
    >>> from thalweg.blackbox.design import SequenceDesign
    >>> rng = np.random.default_rng(0)
    >>> texts = ["".join(rng.choice(list("ACGT"), 6)) for _ in range(300)]
    >>> scores = [text.count("G") + 2.0 * text.startswith("AC") for text in texts]
    >>> found = SequenceDesign().fit(texts, scores).propose(8)
    >>> len(found), bool(max(t.count("G") + 2 * t.startswith("AC") for t in found.sequences) >= max(scores))
    (8, True)
    """

    method_: BidirectionalDesign
    space_: SequenceSpace
    table_: SequenceTable

    def __init__(
        self,
        space: SequenceSpace | str = "dna",
        *,
        encoder: Encoder | None = None,
        mode: Mode = "bidirectional",
        target: float = 10.0,
        gamma: float | AdaptiveGamma | None = None,
        together: int = 4,
        diversity: float = 0.1,
        steps: int | None = None,
        step_size: float | AdaptiveEta = 0.1,
        unscored: Sequence[str] = (),
        random_state: int = 0,
    ) -> None:
        self.space, self.encoder, self.mode, self.target = space, encoder, mode, target
        self.gamma, self.together, self.diversity = gamma, together, diversity
        self.steps, self.step_size = steps, step_size
        self.unscored, self.random_state = unscored, random_state

    def fit(self, sequences: Sequence[str], scores: ArrayLike) -> Self:
        """Train encoder, ridge and auxiliary ensemble on a table.

        Raises:
            InvalidProblem, NotFinite: see `SequenceTable`; an encoder without soft input.
            InvalidParameter: a parameter out of its range.
        """
        whole = is_whole(self.random_state) and self.random_state >= 0
        require(whole, "SequenceDesign needs a random_state >= 0", got=self.random_state)
        method = self._method()
        texts = [str(text) for text in sequences]
        if isinstance(self.space, SequenceSpace):
            space = self.space
        elif texts:
            space = SequenceSpace(self.space, len(texts[0]))
        else:
            raise InvalidProblem("The table has no rows; expected two or more.")
        table = SequenceTable(space, texts, scores, unscored=self.unscored)
        self.correlation_ = proxy_of(table, method.encoder, self.random_state).ensemble.correlation
        self.method_, self.space_, self.table_ = method, space, table
        return self

    def propose(self, n: int = 128) -> Proposals:
        """The ``n`` best of what was found from the ``n`` best rows; fewer, with a note, if fewer were met.

        Raises:
            NotFittedError: before `fit`. InvalidParameter: n < 1.
        """
        return _found(self._fitted().asked(n), self.method_, self.random_state)

    def predict(self, sequences: Sequence[str]) -> Array:
        """The ridge's scores of sequences, of the table or not, shape (n,)."""
        table = self._fitted()
        proxy = proxy_of(table, self.method_.encoder, self.random_state)
        return proxy.predict(table.space.encode(list(sequences)))

    def sweep(self, targets: Sequence[float] = (1.0, 2.0, 5.0, 10.0, 20.0), n: int = 128) -> pd.DataFrame:
        """What the target does: a row for each, with medians over the proposals.

        Columns ``target``, ``predicted``, ``second``, ``doubt``, ``distance``, ``novelty``, ``diversity``. Take the
        largest whose doubt you can bear.
        """
        return target_sweep(self._fitted().asked(n), self.method_, targets, self.random_state)

    def _method(self) -> BidirectionalDesign:
        return BidirectionalDesign(
            encoder=MaskedLetters() if self.encoder is None else self.encoder,
            mode=self.mode,
            target=self.target,
            gamma=AdaptiveGamma() if self.gamma is None else self.gamma,
            together=self.together,
            diversity=self.diversity,
            steps=self.steps,
            step_size=self.step_size,
        )

    def _fitted(self) -> SequenceTable:
        check_is_fitted(self)
        return self.table_


def _found(table: SequenceTable, method: BidirectionalDesign, seed: int) -> Proposals:
    visited = Visited()
    return collect_proposals(
        table, solve(table, method, seed=seed, callbacks=[visited], progress=False), visited
    )


def target_sweep(
    table: SequenceTable, method: BidirectionalDesign, targets: Sequence[float], seed: int = 0
) -> pd.DataFrame:
    """`SequenceDesign.sweep` of a table and a method."""
    require(len(targets) > 0, "target_sweep needs a target")
    rows = []
    for target in targets:
        found = _found(table, replace(method, target=float(target)), seed)
        told = found.frame[["predicted", "second", "doubt", "distance", "novelty"]].median()
        rows.append({"target": float(target), **told, "diversity": found.diversity})
    return pd.DataFrame(rows)


def sweep_figure(table: pd.DataFrame) -> Figure:
    """`SequenceDesign.sweep` as a picture.

    >>> table = pd.DataFrame({"target": [1.0, 10.0], "predicted": [2.0, 5.0], "second": [2.0, 3.0], "doubt": [0.1, 1]})
    >>> [series.name for series in sweep_figure(table).series]
    ['predicted', 'second opinion', 'doubt']
    """
    names = {"predicted": "predicted", "second": "second opinion", "doubt": "doubt"}
    at = [float(v) for v in table["target"]]
    series = [Series(name, at, [float(v) for v in table[column]]) for column, name in names.items()]
    return Figure(
        "What the target does",
        "Medians over the proposals, in the table's unit.",
        "target, in deviations above the mean",
        "score",
        series,
    )


def proposal_figures(found: Proposals, problem: SequenceTable) -> list[Figure]:
    """Proposals as pictures: predictions over distance, how sure they are, and which letters stand where."""
    frame = found.frame
    away = [float(v) for v in frame["distance"]]
    first = Figure(
        "Predicted scores and distance to the table",
        f"Best row of the table: {problem.values.max():.4g}. Far designs are predicted with less ground.",
        "letters to the nearest row",
        "score",
        [
            Series(name, away, [float(v) for v in frame[column]], dots=True)
            for name, column in (("ridge", "predicted"), ("ensemble", "second"))
        ],
    )
    second = Figure(
        "Doubt",
        f"How far the ensemble's members are apart. Their rank correlation with rows held out is "
        f"{found.correlation:.2f}.",
        "the ensemble's score",
        "spread",
        [
            Series(
                "proposal", [float(v) for v in frame["second"]], [float(v) for v in frame["doubt"]], dots=True
            )
        ],
    )
    codes = found.space.encode(found.sequences)
    places = [float(i) for i in range(found.space.positions)]
    letters = Figure(
        "Letters of the proposals",
        "The share of the proposals that have a letter at a position.",
        "position, from 0",
        "share",
        [
            Series(letter, places, [float(v) for v in (codes == code).mean(0)], dots=True)
            for code, letter in enumerate(found.space.alphabet)
            if (codes == code).any()
        ],
    )
    return [first, second, letters]
