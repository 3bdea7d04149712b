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
#: Coordinates of a group at most, and of a set where the whole Hessian is needed.
MOST = 4000
#: A model is solved to this share of its violation at the start, with a larger penalty to the root of it.
SHARE = 0.03
#: Halvings of the step that a model proposes.
HALVINGS = 30


@dataclass
class GroupSet:
    """The groups of the working set, in the order in which they came, and what is kept of their columns.

    Attributes:
        data: the columns of the data where the loss is one of a prediction a sample; else None.
        gram: dense columns and their Gram matrix, for sets of fewer coordinates than samples, where the loss is squares.
        units: the groups.
    """

    data: Columns | None
    gram: Gram | None
    units: Index = field(default_factory=lambda: np.empty(0, np.int64))
    blocks: Vector | None = None
    has_block: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))

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

    Where it pays: solutions of up to 4000 coordinates that are not zero, and all losses whose Hessian on them is cheap.
    Larger solutions are found by one set of 4000 after another, which is slow: take `AcceleratedProximalGradient`.

    The metric of a step is ``violation``, as the problem's.

    Cost per step: two passes over the data; on a set of m coordinates the Hessian's new columns (all of them where the
    loss is not quadratic), O(m^2) for a sweep and O(m^3) for a Newton step.

    Raises:
        InvalidProblem: a group of more than 4000 coordinates.

    >>> from thalweg import Stop, solve
    >>> loss = LeastSquares(np.eye(4), np.array([3.0, 4.0, 0.5, 0.5]))
    >>> solve(GroupPenalized(loss, groups=[0, 0, 1, 1]), GroupWorkingSets()).x.round(4)
    array([2.4, 3.2, 0. , 0. ])
    """

    in_place: ClassVar[bool] = True

    def init(self, problem: GroupPenalized, seed: int) -> GroupSetState:
        widest = int(np.argmax(problem.group_sizes))
        if problem.group_sizes[widest] > MOST:
            raise InvalidProblem(
                f"GroupWorkingSets takes groups of at most {MOST} coordinates; group "
                f"{np.unique(np.asarray(problem.groups))[widest]!s} has {problem.group_sizes[widest]}. Use "
                "AcceleratedProximalGradient."
            )
        loss, x = problem.loss, problem.start()
        data = gram = None
        if isinstance(loss, PointwiseLoss):
            data = Columns(cast(Vector, loss.A))
            if loss.datafit.is_quadratic and not data.is_sparse:
                gram = Gram(data, NOTHING, NOTHING, loss.ridge)
        z = loss.keep(x)
        g = loss.gradient(x, z)
        if problem.is_smooth:
            loss.require_minimum()
        return GroupSetState(x=x, z=z, g=g, working=GroupSet(data, gram), metrics=_metrics(problem, x, g))

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
    loss, working, x = problem.loss, state.working, state.x[columns]
    starts = np.append(0, np.cumsum(problem.group_sizes[working.units]))
    penalties = factor * problem.weight[columns], factor * np.asarray(problem.group_weight)[working.units]
    X = working.data
    if X is None or not isinstance(loss, PointwiseLoss):
        H = np.asfortranarray(loss.hessian(state.x, state.z, columns))
        return HessianModel(H, state.g[columns], x, starts, *penalties)
    slope, roots = loss.datafit.slope(state.z), NOTHING
    if not loss.datafit.is_quadratic:
        roots = np.sqrt(np.maximum(loss.datafit.curvature(state.z), 1e-12 * loss.datafit.heaviest))
    if not X.is_sparse and 2 * len(columns) <= min(X.rows, 2 * MOST):
        gram = working.gram or Gram(X, roots, NOTHING, loss.ridge)
        gram.take(columns)
        return HessianModel(gram.G, state.g[columns], x, starts, *penalties)
    if len(roots):
        X, columns = X.scaled(columns, roots), np.arange(len(columns))
        blocks = kernels.column_blocks(*X.parts, X.rows, columns, starts, loss.ridge)
        return ColumnModel(X, columns, -slope / roots, loss.ridge, x, starts, *penalties, blocks)
    return ColumnModel(X, columns, -slope, loss.ridge, x, starts, *penalties, _blocks(problem, working, X, loss.ridge))


def _blocks(problem: GroupPenalized, working: GroupSet, X: Columns, ridge: float) -> Vector:
    """Each group's block of the Hessian of squares, made when it enters the set for the first time."""
    sizes, units = problem.group_sizes, working.units
    if working.blocks is None:
        working.blocks, working.has_block = np.empty((X.n, sizes.max())).T, np.zeros(len(sizes), np.bool_)
    new = units[~working.has_block[units]]
    if len(new):
        columns = problem.members(new)
        made = kernels.column_blocks(*X.parts, X.rows, columns, np.append(0, np.cumsum(sizes[new])), ridge)
        working.blocks[: len(made), columns] = made
        working.has_block[new] = True
    return working.blocks[:, problem.members(units)]


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
    if working.data is None and int(sizes[units].sum()) > MOST:
        worst = np.argsort(-problem.unit_sums(np.square(problem.slopes(state.x, state.g))), kind="stable")
        chosen, factor = worst[np.cumsum(sizes[worst]) <= MOST], 1.0
        held = working.units[np.isin(working.units, chosen)]  # the Gram matrix keeps its order
        units = np.concatenate([held, chosen[~np.isin(chosen, held)]])
    working.units = units
    return factor


def _searched(
    problem: GroupPenalized, state: GroupSetState, new: Vector, factor: float
) -> tuple[Vector, Vector]:
    """The point on the way to ``new`` at which the objective, its penalty times ``factor``, is low enough, and its z."""
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
