"""A cvxpy problem as a function of its parameters that torch differentiates."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from thalweg.bilevel._call import NotARoot
from thalweg.bilevel._cone_newton import EXACT, Jacobian, Point, Program, refined
from thalweg.bilevel._conic_form import ConicForm, Numbers
from thalweg.bilevel._conic_units import Units
from thalweg.bilevel._first_order import outside_transforms
from thalweg.bilevel._trees import Tree, TreeFunction, given_tensor
from thalweg.bilevel.implicit import custom_root
from thalweg.core import InvalidProblem, MissingExtra
from thalweg.numerics.torch_krylov import LinearSolver

if TYPE_CHECKING:
    import cvxpy as cp

#: A residual relative to what cancels in it that is no solution's: derivatives are off by as much.
INEXACT = 1e-6

#: Attributes of variables and parameters that are not taken, and what to do about it.
REFUSED = {
    **dict.fromkeys(("symmetric", "diag", "PSD", "NSD", "sparsity"), "; say it by constraints."),
    **dict.fromkeys(("integer", "boolean"), ": its solution jumps, and has no derivative."),
    **dict.fromkeys(("complex", "imag", "hermitian"), "; pass real and imaginary parts as two."),
}

#: u and v, shapes (n,) and (m,).
Pair: TypeAlias = tuple[Tensor, Tensor]


def cvxpy_layer(
    problem: cp.Problem,
    parameters: Sequence[cp.Parameter],
    variables: Sequence[cp.Variable],
    *,
    solve: LinearSolver | None = None,
) -> TreeFunction:
    """``layer(*values) -> solutions`` of a parametrised cvxpy problem, differentiable in the values.

    cvxpy brings the problem into conic form, whose data are affine in the parameters, and Clarabel solves it; Newton
    steps bring its solution to the last digits. The derivative is that of the optimality conditions in u = x and
    v = y - s, ``P u + A'y + c = 0, b - A u + v - y = 0``, y the projection of v on the dual cone: the map of
    `optimality.conic_program` at scale one. Values may have one axis more, in front, than their parameters: a batch,
    whose problems share the linear algebra and those values that have no such axis.

    Works under autograd and `torch.func`, to any order, like `custom_root`. A first derivative by autograd, outside
    of `torch.func`, is the fast one: it takes the factorisation of the last Newton step.

    Args:
        problem: a ``cvxpy.Problem`` that follows the rules of disciplined parametrised programming (``is_dpp``).
        parameters: all of its parameters, in the order of the layer's arguments.
        variables: whose solutions are returned, as one tensor or a tuple.
        solve: of the derivative's linear system; by default dense. Another one forgoes the fast derivative.

    Raises:
        MissingExtra: cvxpy is not installed.
        InvalidProblem: no DPP, parameters left out, variables or parameters that are integer, boolean, complex, or have
            attributes that make them smaller (``symmetric``, ``diag``: say it by constraints), exponential and power
            cones, an infeasible or unbounded problem, complex values, a value against its parameter's sign or bounds.
        NotFinite: a value is NaN or infinite.

    Rows, unknowns and objective may be in any units: where sizes are beyond 1e3 or below 1e-3 it works in others.

    Computes in float64 on the CPU; solutions have the values' dtype and device. Cost: the solve, and two or so dense
    factorisations in as many unknowns as the conic form has variables, active linear constraints, and rows of other
    cones; one such matrix is kept for each problem of a batch until the derivative is taken.

    >>> import cvxpy as cp
    >>> x, t = cp.Variable(2), cp.Parameter(2)
    >>> layer = cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(x) == 1]), [t], [x])
    >>> torch.func.jacrev(layer)(torch.tensor([1.0, 2.0], dtype=torch.float64)).round(decimals=3)
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000]], dtype=torch.float64)
    """
    try:
        import cvxpy  # noqa: F401 -- only whether it is there
    except ImportError:
        raise MissingExtra("cvxpy", "cvxpy") from None
    _check(problem, parameters, variables)
    plain, standing = _by_constraints(problem)
    conic = ConicForm(plain, parameters)
    inside = [standing.get(v.id, v) for v in variables]
    reference = _reference(conic, solve if solve is not None else LinearSolver("dense"))

    def layer(*given: Tensor) -> Tree:
        values = [given_tensor(v, f"Value {i} of the layer") for i, v in enumerate(given)]
        flat, batched = conic.flat(values)
        if solve is None and outside_transforms():
            u = _First.apply(conic, reference, flat)
        else:
            u = torch.stack([reference(row) for row in flat])
        u = (u if batched else u[0]).to(values[0].device, torch.promote_types(torch.float32, values[0].dtype))
        solutions = tuple(conic.variable(u, v) for v in inside)
        return solutions[0] if len(solutions) == 1 else solutions

    return layer


def _reference(conic: ConicForm, linear: LinearSolver) -> TreeFunction:
    """u of one problem's parameters, differentiable every way and to any order."""

    def residual(x: Pair, P: Tensor, A: Tensor, b: Tensor, c: Tensor) -> Pair:
        """Optimality in u and v, in `Units`."""
        u, v = x
        y = conic.cones.project(v)
        return P @ u + A.T @ y + c, b - A @ u + v - y

    @custom_root(residual, solve=linear)
    def solution(flat: Tensor, *_: Tensor) -> Pair:
        found = Solved.of(conic, flat[None]).point
        return torch.tensor(found.u[0]), torch.tensor(found.v[0])  # forward mode takes no views

    def of(flat: Tensor) -> Tensor:
        P, A, b, c = conic.matrices(flat)
        unknowns, rows, x, force = _Scales.apply(conic, flat)
        P, A = P * torch.outer(unknowns, unknowns) * (x / force), A * torch.outer(rows, unknowns)
        u, _ = solution(flat, P, A, b * rows / x, c * unknowns / force)
        return x * unknowns * u

    return of


class _Scales(torch.autograd.Function):
    """`Units` of one problem's parameters, under every transform; they are chosen, and have no derivative."""

    @staticmethod
    def forward(conic: ConicForm, flat: Tensor) -> tuple[Tensor, ...]:
        units = Units.of(conic, conic.numbers(flat.detach()[None])) or Units.own(conic, 1)
        return tuple(torch.tensor(part[0]) for part in vars(units).values())

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[object, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: FunctionCtx, *_: Tensor) -> tuple[None, None]:
        return None, None

    @staticmethod
    def jvp(ctx: FunctionCtx, *_: Tensor) -> tuple[None, ...]:
        return None, None, None, None

    @staticmethod
    def vmap(
        info: object,
        in_dims: tuple[None, int],
        conic: ConicForm,
        flat: Tensor,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        found = zip(*(_Scales.apply(conic, row) for row in flat.movedim(in_dims[1], 0)), strict=True)
        stacked = tuple(torch.stack(parts) for parts in found)
        return stacked, (0,) * len(stacked)


class _First(torch.autograd.Function):
    """The solutions of a batch, and their first derivative by the factorisation that is there."""

    @staticmethod
    def forward(ctx: Any, conic: ConicForm, reference: TreeFunction, flat: Tensor) -> Tensor:  # noqa: ANN401
        ctx.conic, ctx.reference = conic, reference
        ctx.found = Solved.of(conic, flat)
        ctx.save_for_backward(flat)
        return torch.tensor(ctx.found.u)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, None, Tensor]:  # noqa: ANN401
        if torch.is_grad_enabled() or not outside_transforms():
            (flat,) = ctx.saved_tensors
            pull = torch.func.vjp(lambda rows: torch.stack([ctx.reference(row) for row in rows]), flat)[1]
            return None, None, pull(g)[0]
        found: Solved = ctx.found
        return None, None, ctx.conic.pulled(found.u, found.y, *found.adjoint((-g).contiguous().numpy()))


@dataclass(frozen=True)
class Solved:
    """The solutions of a batch of parameters to the last digits, and what their first derivative is made of."""

    point: Point
    jacobian: Jacobian
    units: Units | None

    @classmethod
    def of(cls, conic: ConicForm, flat: Tensor) -> Solved:
        """Solve for each of a batch of parameters."""
        numbers = conic.numbers(flat.detach())
        units = Units.of(conic, numbers)
        if units is not None:
            numbers = units.numbers(conic, numbers)
        return cls(*_refined(conic, numbers, conic.dense(numbers, are_own=units is None)), units)

    @cached_property
    def _pair(self) -> tuple[Numbers, Numbers]:
        u, y = self.point.u, self.point.y
        return (u, y) if self.units is None else self.units.solution(u, y)

    @property
    def u(self) -> Numbers:
        """Shape (k, n)."""
        return self._pair[0]

    @property
    def y(self) -> Numbers:
        """Shape (k, m)."""
        return self._pair[1]

    def adjoint(self, g: Numbers) -> tuple[Numbers, Numbers]:
        """w of ``J'w = (g, 0)``, in two parts."""
        if self.units is None:
            return self.jacobian.adjoint_at(self.point, g)
        return self.units.adjoint(*self.jacobian.adjoint_at(self.point, self.units.slope(g)))


def _refined(conic: ConicForm, numbers: Sequence[Numbers], program: Program) -> tuple[Point, Jacobian]:
    found, jacobian = refined(program, conic.cones, *conic.solver.solved(numbers))
    if not (found.gap <= EXACT).all():
        rough = np.flatnonzero(~(found.gap <= EXACT))
        u, v = conic.solver.solved([part[rough] for part in numbers], tight=True)
        again, _ = refined(program.part(rough), conic.cones, u, v)
        better = again.gap < found.gap[rough]
        if better.any():
            places = rough[better]
            start_u, start_v = found.u.copy(), found.v.copy()
            start_u[places], start_v[places] = again.u[better], again.v[better]
            found, jacobian = refined(program, conic.cones, start_u, start_v)
    worst = float(found.gap.max())
    if not worst <= INEXACT:
        warnings.warn(
            f"cvxpy_layer: the solution leaves a relative residual of {worst:.3g} in the optimality conditions: "
            "derivatives are off. Scale the problem's data, or look whether the solution is unique.",
            NotARoot,
            stacklevel=3,
        )
    return found, jacobian


def _check(problem: cp.Problem, parameters: Sequence[cp.Parameter], variables: Sequence[cp.Variable]) -> None:
    if not problem.is_dcp(dpp=True):  # type: ignore[call-arg]
        raise InvalidProblem(
            "cvxpy_layer needs a problem that follows the DPP rules: problem.is_dcp(dpp=True)."
        )
    if {p.id for p in parameters} != {p.id for p in problem.parameters()}:
        raise InvalidProblem(
            f"cvxpy_layer needs all parameters of the problem: {[p.name() for p in problem.parameters()]}; got "
            f"{[p.name() for p in parameters]}."
        )
    if not parameters:
        raise InvalidProblem("cvxpy_layer needs a problem with parameters; this one has none.")
    known = {v.id for v in problem.variables()}
    for v in variables:
        if v.id not in known:
            raise InvalidProblem(f"{v.name()} is no variable of the problem.")
    for thing in (*problem.variables(), *parameters):
        refused = [a for a in REFUSED if thing.attributes.get(a)]
        if refused:
            raise InvalidProblem(
                f"cvxpy_layer: {thing.name()} has the attribute {refused[0]}{REFUSED[refused[0]]}"
            )


def _by_constraints(problem: cp.Problem) -> tuple[cp.Problem, dict[int, cp.Variable]]:
    """The problem with its variables' signs and bounds as constraints, and what stands for a variable, by its id."""
    from cvxpy.reductions.cvx_attr2constr import CvxAttr2Constr

    reduced, inverse = CvxAttr2Constr(reduce_bounds=True).apply(problem)
    return reduced, inverse[0] if inverse else {}
