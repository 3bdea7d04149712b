"""The learners of all groups, and how their proposals become one prediction: what estimator and method share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from thalweg.core import CheckpointMismatch
from thalweg.core.tree import require_alike
from thalweg.core.validation import is_real, require
from thalweg.online import _group_kernels as kernels
from thalweg.online.bases import Learner, compiled, fresh
from thalweg.online.experts import hedge_bound
from thalweg.online.groups import Mask

Vector = NDArray[np.float64]
Combine = Literal["mean", "draw", "mixable", "smallest"]
COMBINE: dict[str, int] = {
    "mean": kernels.MEAN,
    "draw": kernels.DRAW,
    "mixable": kernels.MIXABLE,
    "smallest": kernels.SMALLEST,
}


@dataclass
class Round:
    """What was made of some rows.

    ``played`` and ``losses`` have shape (rows,), ``proposed`` (rows, groups), NaN where a group sleeps.
    """

    played: Vector
    proposed: NDArray[np.float64]
    losses: Vector


class GroupLearners:
    """Linear learners, one a group, and the experts that combine them; labels lie in [0, 1].

    Args:
        columns: d, of the rows.
        base: a name of `bases.BASES`.
        combine: how proposals become a prediction.
        alpha: of the ridge.
        radius: of the ball that gradient steps stay in.

    Kept for each group: d^2 + d numbers for least squares, d for gradients.
    """

    def __init__(self, columns: int, base: object, combine: str, alpha: float, radius: float) -> None:
        require(combine in COMBINE, f"combine is one of {', '.join(COMBINE)}", got=combine)
        for name, value in (("alpha", alpha), ("radius", radius)):
            require(is_real(value) and 0 < value < np.inf, f"Learners of groups need {name} > 0", got=value)
        found = compiled(base)
        self.kind = kernels.GRADIENT if found is None else found
        self.combine, self.alpha, self.radius = COMBINE[combine], float(alpha), float(radius)
        keeps = columns if self.kind in (kernels.RIDGE, kernels.VAW) else 0
        self.rows = 0
        self.log_prior: Vector = np.zeros(0)
        self.periods: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.theta: Vector = np.zeros((0, columns))
        self.inverse: Vector = np.zeros((0, keeps, keeps))
        self.lengths: Vector = np.zeros(0)
        self.hedge: Vector = np.zeros((2, 0))  # regrets and their magnitudes
        self.log_weights: Vector = np.zeros(0)
        self.counts: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def grow(self, log_prior: Vector, periods: NDArray[np.int64]) -> None:
        """Make room for groups that are new; ``log_prior`` and ``periods`` are of all."""
        before, more = len(self.counts), len(log_prior) - len(self.counts)
        self.log_prior, self.periods = log_prior, periods
        if more == 0:
            return
        columns, keeps = self.theta.shape[1], self.inverse.shape[1]
        start = np.broadcast_to(np.eye(columns)[:keeps, :keeps] / self.alpha, (more, keeps, keeps))
        self.theta = np.vstack([self.theta, np.zeros((more, columns))])
        self.inverse = np.concatenate([self.inverse, start])
        self.lengths = np.append(self.lengths, np.zeros(more))
        self.hedge = np.hstack([self.hedge, np.zeros((2, more))])
        self.log_weights = np.append(self.log_weights, log_prior[before:])
        self.counts = np.append(self.counts, np.zeros(more, dtype=np.int64))

    def widen(self, columns: int) -> None:
        """Make room for columns that are new, zero in all rows before: least squares are what they would have been."""
        more, keeps = columns - self.theta.shape[1], self.inverse.shape[1]
        self.theta = np.pad(self.theta, ((0, 0), (0, more)))
        if keeps:
            self.inverse = np.pad(self.inverse, ((0, 0), (0, more), (0, more)))
            new = np.arange(keeps, keeps + more)
            self.inverse[:, new, new] = 1.0 / self.alpha

    def run(
        self, rows: NDArray[np.float64], y: Vector, mask: Mask, rng: np.random.Generator, *, learns: bool
    ) -> Round:
        """Predict rows in order and, if it ``learns``, take in each label before the next row."""
        found, uniforms = self._round(rows, mask), self.uniforms(rng, len(rows))
        if not learns:
            kernels.predict_rows(
                rows, mask, self.combine, self.kind, self.log_prior, uniforms, self.theta, self.inverse, self.hedge,
                self.log_weights, self.counts, found.played, found.proposed,
            )  # fmt: skip
            return found
        kernels.play_rows(
            rows, y, mask, self.rows, self.combine, self.kind, self.alpha, self.radius, self.periods,
            self.log_prior, uniforms, self.theta, self.inverse, self.lengths, self.hedge, self.log_weights,
            self.counts, found.played, found.proposed, found.losses,
        )  # fmt: skip
        self.rows += len(rows)
        return found

    def _round(self, rows: NDArray[np.float64], mask: Mask) -> Round:
        return Round(np.empty(len(rows)), np.full(mask.shape, np.nan), np.zeros(len(rows)))

    def uniforms(self, rng: np.random.Generator, rows: int) -> Vector:
        """A number to draw by for each row; zeros where nothing is drawn."""
        return rng.random(rows) if self.combine == kernels.DRAW else np.zeros(rows)

    def mixed(self, mask: Mask, proposed: Vector, uniform: float) -> tuple[Vector, float]:
        """Weights of the active groups, and the prediction; of all alike where none is active."""
        active = np.flatnonzero(mask)
        if len(active) == 0:
            everybody = np.arange(len(mask))
            weights = np.full(len(mask), 1.0 / len(mask))
            return weights, kernels.combined(self.combine, weights, proposed, self.counts, everybody, uniform)
        found: tuple[Vector, float] = kernels.mixed(
            self.combine, active, proposed[active], self.hedge, self.log_weights, self.log_prior, self.counts, uniform
        )  # fmt: skip
        return found

    def learn(self, x: Vector, y: float, mask: Mask, played: float, proposed: Vector) -> float:
        """Learn from the label of one row that was predicted before; its loss."""
        self.restart()
        self.rows += 1
        weights, _ = self.mixed(mask, proposed, 0.0)
        active = np.flatnonzero(mask)
        if len(active) == 0:
            return float(kernels.scored(self.combine, weights, proposed, played, y))
        loss = float(kernels.scored(self.combine, weights, proposed[active], played, y))
        kernels.learn_weights(
            self.combine, active, weights, proposed[active], y, loss, self.hedge, self.log_weights
        )
        for g in active:
            self._learn_one(int(g), x, y)
            self.counts[g] += 1
        return loss

    def _learn_one(self, g: int, x: Vector, y: float) -> None:
        if self.kind >= kernels.GRADIENT:
            kernels.descend(self.kind, x, y, self.theta[g], self.lengths, g, self.counts[g], self.radius)
        else:
            kernels.learn_squares(x, y, self.theta[g], self.inverse[g], np.empty(len(x)))

    def restart(self) -> None:
        """Learners of time intervals begin anew where theirs ends."""
        kernels.restart(
            self.rows, self.periods, self.alpha, self.theta, self.inverse, self.lengths, self.hedge, self.counts
        )  # fmt: skip

    @property
    def bounds(self) -> Vector:
        """What the regrets to the learners cannot exceed, shape (groups,)."""
        mixes = self.combine == kernels.MIXABLE
        return -self.log_prior / 2.0 if mixes else hedge_bound(self.hedge[1], self.log_prior)

    def state_dict(self) -> dict[str, Any]:
        """All that was learned, as plain data."""
        return {name: np.copy(v) if isinstance(v, np.ndarray) else v for name, v in vars(self).items()}

    def load_state_dict(self, state: dict[str, Any]) -> Self:
        """Go on from ``state``.

        Raises:
            CheckpointMismatch: it is of other settings, or of rows of another width.
        """
        mine = vars(self)
        if set(state) != set(mine):
            raise CheckpointMismatch("The saved learners are not learners of groups.")
        for name, held in mine.items():
            require_alike(name, held, state[name], optional=False)
        settings = ("kind", "combine", "alpha", "radius")
        for name in settings:
            if state[name] != mine[name]:
                raise CheckpointMismatch(
                    f"The saved learners have {name}={state[name]}; expected {mine[name]}."
                )
        if state["theta"].shape[1] != self.theta.shape[1]:
            raise CheckpointMismatch(
                f"The saved learners have {state['theta'].shape[1]} columns; expected {self.theta.shape[1]}."
            )
        for name in mine:
            setattr(self, name, np.copy(state[name]) if isinstance(mine[name], np.ndarray) else state[name])
        return self


class ObjectLearners(GroupLearners):
    """The same for learners that are objects of the user's; they are asked one row at a time."""

    def __init__(self, columns: int, base: object, combine: str, alpha: float, radius: float) -> None:
        super().__init__(columns, base, combine, alpha, radius)
        self.base = base
        self.learners: list[Learner] = []

    def grow(self, log_prior: Vector, periods: NDArray[np.int64]) -> None:
        super().grow(log_prior, periods)
        self.learners += [fresh(self.base) for _ in range(len(self.counts) - len(self.learners))]

    def run(
        self, rows: NDArray[np.float64], y: Vector, mask: Mask, rng: np.random.Generator, *, learns: bool
    ) -> Round:
        found, uniforms = self._round(rows, mask), self.uniforms(rng, len(rows))
        for t, x in enumerate(rows):
            if learns:
                self.restart()
            active = np.flatnonzero(mask[t]) if mask[t].any() else np.arange(mask.shape[1])
            for g in active:
                found.proposed[t, g] = min(max(self.learners[g].predict_one(x), 0.0), 1.0)
            found.played[t] = self.mixed(mask[t], found.proposed[t], uniforms[t])[1]
            if learns:
                found.losses[t] = self.learn(x, float(y[t]), mask[t], found.played[t], found.proposed[t])
        return found

    def _learn_one(self, g: int, x: Vector, y: float) -> None:
        self.learners[g].learn_one(x, y)

    def restart(self) -> None:
        ended = [g for g, p in enumerate(self.periods) if p and self.rows % p == 0 and self.counts[g] > 0]
        super().restart()
        for g in ended:
            self.learners[g] = fresh(self.base)


def learners(columns: int, base: object, combine: str, alpha: float, radius: float) -> GroupLearners:
    """Compiled learners where ``base`` is a name, objects otherwise."""
    kind = GroupLearners if isinstance(base, str) else ObjectLearners
    return kind(columns, base, combine, alpha, radius)
