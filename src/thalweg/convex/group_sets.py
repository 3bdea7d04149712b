"""Group Lasso problems by working sets of groups: sweeps over them, and Newton steps on the groups that are not zero.

Massias, Gramfort and Salmon (2018), "Celer: a fast solver for the lasso with dual extrapolation", for the working sets;
Roth and Fischer (2008), "The group-Lasso for generalized linear models", for active sets of groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from thalweg.convex import _group_kernels as kernels
from thalweg.convex.columns import Columns
from thalweg.convex.datafits import NOTHING, Index, Vector
from thalweg.convex.group_models import ColumnModel, GroupModel, HessianModel
from thalweg.convex.groups import GroupPenalized
from thalweg.convex.losses import PointwiseLoss
from thalweg.convex.sets import Gram
from thalweg.core import InvalidProblem, Method, State, Status

#: Coordinates that enter a set at least, and as a share of those not zero.
FIRST, GROWTH = 500, 3.0
#: The penalty falls to no less than these shares of what would keep all groups zero that are, and the worst of those
#: that are left out.
FALL, AHEAD = 0.3, 0.6
#: A zero group stays in the set while this share of the penalty would not keep it zero; others leave once the set is
#: this much larger than it needs to be.
NEAR, PRUNE = 0.95, 1.2
#: Coordinates of a group at most, and of a set whose Hessian is kept.
MOST = 4000
#: A Hessian is kept where there are so many samples for each coordinate of the set.
TALL = 8
#: A model is solved to this share of its violation at the start, with a larger penalty to the root of it.
SHARE = 0.03
#: Halvings of the step that a model proposes.
HALVINGS = 30


@dataclass
class GroupSet:
    """The groups of the working set, in the order in which they came, and what is kept of their columns.

    Attributes:
        data: the columns of the data.
        gram: of sets of few dense columns and their products, where the loss is squares.
        blocks, has_block: of squares' Hessian, (sum of the groups' sizes squared,), and whether a group's is made.
        units: the groups.
    """

    data: Columns
    gram: Gram | None
    blocks: Vector
    has_block: NDArray[np.bool_]
    units: Index = field(default_factory=lambda: np.empty(0, np.int64))

    def state_dict(self) -> dict[str, object]:
        """The groups, and the matrix: sums made in another order have other last digits."""
        m = 0 if self.gram is None else len(self.gram.columns)
        kept = {} if self.gram is None else {"columns": self.gram.columns, "G": self.gram.G[:m, :m]}
        return {"units": self.units, **kept}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take over what `state_dict` said."""
        self.units = np.asarray(state["units"])
        if self.gram is not None:
            self.gram.restore(np.asarray(state["columns"]), np.asarray(state["G"]))


@dataclass(kw_only=True)
class GroupSetState(State):
    """After each working set: x, and what the next one is chosen by; the set itself is overwritten."""

    x: Vector  # (n,)
    z: Vector  # the loss's own of x
    g: Vector  # (n,) the loss's gradient
    working: GroupSet = field(repr=False)


@dataclass(frozen=True)
class GroupWorkingSets(Method[GroupPenalized, GroupSetState]):
    """The loss's quadratic model on a growing set of groups, minimised by sweeps and Newton steps, then a line search.

    Groups that violate optimality enter the set, the worst first; while others are left out the penalty is larger, and
    falls to the true one from set to set. For squares the model is exact.

    Where it pays: losses of one prediction a sample (`LeastSquares`, `Logistic`), dense or sparse data, few samples or
    many. For other losses take `AcceleratedProximalGradient`.

    The metric of a step is ``violation``, as the problem's.

    Cost per step: two passes over the data. On a set of m coordinates a sweep costs two passes over its columns, or
    O(m^2) where there are 8 samples for each; a Newton step, where sweeps are slow, a Cholesky factorisation of
    order m or of the samples, whichever are fewer.

    Raises:
        InvalidProblem: another loss; a group of more than 4000 coordinates.

    >>> from thalweg import solve
    >>> from thalweg.convex.losses import LeastSquares
    >>> loss = LeastSquares(np.eye(4), np.array([3.0, 4.0, 0.5, 0.5]))
    >>> solve(GroupPenalized(loss, groups=[0, 0, 1, 1]), GroupWorkingSets()).x.round(4)
    array([2.4, 3.2, 0. , 0. ])
    """

    in_place: ClassVar[bool] = True

    @staticmethod
    def fits(problem: GroupPenalized) -> bool:
        """Whether it takes the problem's loss and groups."""
        return isinstance(problem.loss, PointwiseLoss) and problem.group_sizes.max() <= MOST

    def init(self, problem: GroupPenalized, seed: int) -> GroupSetState:
        loss, sizes, x = problem.loss, problem.group_sizes, problem.start()
        if not isinstance(loss, PointwiseLoss) or not self.fits(problem):
            raise InvalidProblem(
                "GroupWorkingSets takes LeastSquares, Logistic and other losses of one prediction a sample, and "
                f"groups of at most {MOST} coordinates; this is {type(loss).__name__} with groups of up to "
                f"{sizes.max()}. Use AcceleratedProximalGradient."
            )
        data, gram = Columns(cast(Vector, loss.A)), None
        if loss.datafit.is_quadratic and not data.is_sparse:
            gram = Gram(data, NOTHING, NOTHING, loss.ridge)
        size = int(np.square(sizes).sum()) if loss.datafit.is_quadratic else 0
        working = GroupSet(data, gram, np.empty(size), np.zeros(problem.units, np.bool_))
        z = loss.keep(x)
        g = loss.gradient(x, z)
        if problem.is_smooth:
            loss.require_minimum()
        return GroupSetState(x=x, z=z, g=g, working=working, metrics=_metrics(problem, x, g))

    def step(self, problem: GroupPenalized, state: GroupSetState) -> GroupSetState:
        loss, x, z, working = problem.loss, state.x, state.z, state.working
        factor = _grow(problem, state)
        if not len(working.units):
            return replace(state, status=Status.CONVERGED, message="Every subdifferential holds zero.")
        columns = problem.members(working.units)
        model = _model(problem, state, columns, factor)
        model.minimise(SHARE if factor == 1.0 else SHARE**0.5)
        new = x.copy()
        new[columns] = model.x
        x, z = _searched(problem, state, new, factor)
        g = loss.gradient(x, z)
        metrics = _metrics(problem, x, g)
        is_solved = metrics["violation"] == 0.0
        return replace(
            state,
            x=x,
            z=z,
            g=g,
            calls=state.calls + 1,
            metrics=metrics,
            status=Status.CONVERGED if is_solved else None,
            message="Every subdifferential holds zero." if is_solved else "",
        )


def _metrics(problem: GroupPenalized, x: Vector, g: Vector) -> dict[str, float]:
    return {"violation": float(np.abs(problem.slopes(x, g)).max())}


def _model(problem: GroupPenalized, state: GroupSetState, columns: Index, factor: float) -> GroupModel:
    """The loss's quadratic model at x on the set's columns, the penalty times ``factor``."""
    loss, working = cast(PointwiseLoss, problem.loss), state.working
    datafit, X, x, sizes = loss.datafit, working.data, state.x[columns], problem.group_sizes[working.units]
    starts = np.append(0, np.cumsum(sizes))
    penalties = factor * problem.weight[columns], factor * np.asarray(problem.group_weight)[working.units]
    residual, roots = -datafit.slope(state.z), NOTHING
    if not datafit.is_quadratic:
        roots = np.sqrt(np.maximum(datafit.curvature(state.z), 1e-12 * datafit.heaviest))
    if not X.is_sparse and len(columns) <= min(X.rows // TALL, MOST):
        gram = working.gram or Gram(X, roots, NOTHING, loss.ridge)
        gram.take(columns)
        return HessianModel(gram.G, state.g[columns], x, starts, *penalties)
    if not len(roots):
        blocks = _blocks(problem, working, loss.ridge)
        return ColumnModel(X, columns, residual, loss.ridge, x, starts, *penalties, *blocks)
    X, columns = X.scaled(columns, roots), np.arange(len(columns))
    ends = np.cumsum(np.square(sizes))
    made, places = np.empty(ends[-1]), np.append(0, ends[:-1])
    kernels.column_blocks(*X.parts, X.rows, columns, starts, loss.ridge, places, made)
    return ColumnModel(X, columns, residual / roots, loss.ridge, x, starts, *penalties, made, places)


def _blocks(problem: GroupPenalized, working: GroupSet, ridge: float) -> tuple[Vector, Index]:
    """Blocks of squares' Hessian, each made when its group enters the set for the first time; where the set's begin."""
    X, sizes, units = working.data, problem.group_sizes, working.units
    ends = np.cumsum(np.square(sizes))
    new = units[~working.has_block[units]]
    if len(new):
        starts, places = np.append(0, np.cumsum(sizes[new])), (ends - np.square(sizes))[new]
        kernels.column_blocks(*X.parts, X.rows, problem.members(new), starts, ridge, places, working.blocks)
        working.has_block[new] = True
    return working.blocks, (ends - np.square(sizes))[units]


def _grow(problem: GroupPenalized, state: GroupSetState) -> float:
    """Take in the groups that violate optimality most; what the penalty is multiplied by for the set."""
    working, sizes = state.working, problem.group_sizes
    ordered, starts = problem.ordered
    l1, weight = problem.weight[ordered], np.asarray(problem.group_weight)
    strength = kernels.group_strengths(state.g[ordered], starts, l1, weight)
    is_zero = problem.unit_sums(np.abs(state.x)) == 0.0
    nonzeros = int(sizes[~is_zero].sum())
    inside = np.zeros(problem.units, np.bool_)
    inside[working.units] = True
    missing = np.flatnonzero(~is_zero & ~inside)
    new = np.flatnonzero(is_zero & ~inside & (strength > 1.0 - 1e-9))
    new = new[np.argsort(-strength[new], kind="stable")]
    room = int(max(FIRST, GROWTH * nonzeros))
    entering = np.cumsum(sizes[new]) - sizes[new] < room
    entering |= np.isinf(strength[new])
    bounded = strength[is_zero & np.isfinite(strength)]
    factor = max(1.0, FALL * float(bounded.max(initial=0.0)))
    if not entering.all():
        factor = max(factor, AHEAD * float(strength[new[~entering]].max()))
    new = new[entering & (strength[new] > factor * (1.0 - 1e-9))]
    units = working.units
    if int(sizes[units].sum()) > PRUNE * nonzeros + FIRST:
        units = units[~is_zero[units] | (strength[units] > NEAR * factor)]
    units = np.concatenate([units, missing, new])
    working.units = units
    return factor


def _searched(
    problem: GroupPenalized, state: GroupSetState, new: Vector, factor: float
) -> tuple[Vector, Vector]:
    """The point on the way to ``new`` where the objective, its penalty times ``factor``, is low enough, and its z."""
    loss, x, z = problem.loss, state.x, state.z
    d, along = new - x, loss.keep(new) - z
    before = loss.value(x, z)
    promised = float(state.g @ d) + factor * float(problem.penalty_change(x, new).sum())
    size = 1.0
    for _ in range(HALVINGS):
        there, at = x + size * d, z + size * along
        change = loss.value(there, at) - before + factor * float(problem.penalty_change(x, there).sum())
        if change <= 0.01 * size * min(promised, 0.0) + 1e-14 * abs(before):
            return there, at
        size *= 0.5
    return x, z
