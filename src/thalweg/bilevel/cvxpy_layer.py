"""A cvxpy problem as a function of its parameters that torch differentiates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import torch
from scipy.sparse import csc_array
from torch import Tensor

from thalweg.bilevel._trees import Tree, TreeFunction
from thalweg.bilevel.implicit import custom_root
from thalweg.core import InvalidProblem, MissingExtra
from thalweg.numerics.projections import psd_cone, second_order_cone
from thalweg.numerics.torch_krylov import LinearSolver

if TYPE_CHECKING:
    import cvxpy as cp
    from scipy.sparse import csc_matrix

#: Clarabel's: a derivative is as exact as the solution.
TOLERANCES = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}

REFINEMENTS = 3

#: u and v, shapes (n,) and (m,).
Pair: TypeAlias = tuple[Tensor, Tensor]


class Dims(Protocol):
    """How many rows of the conic form are in which cone, as cvxpy has it."""

    zero: int
    nonneg: int
    soc: list[int]
    psd: list[int]


def cvxpy_layer(
    problem: cp.Problem,
    parameters: Sequence[cp.Parameter],
    variables: Sequence[cp.Variable],
    *,
    solve: LinearSolver | None = None,
) -> TreeFunction:
    """``layer(*values) -> solutions`` of a parametrised cvxpy problem, differentiable in the values.

    cvxpy brings the problem into conic form, whose data are affine in the parameters, and Clarabel solves it. The
    derivative is that of its optimality conditions in u = x and v = y - s, ``A'y + c = 0, b - A u + v - y = 0``, y the
    projection of v on the dual cone: the map of `optimality.conic_program` at scale one.

    Args:
        problem: a ``cvxpy.Problem`` that follows the rules of disciplined parametrised programming (``is_dpp``).
        parameters: all of its parameters, in the order of the layer's arguments.
        variables: whose solutions are returned, as one tensor or a tuple.
        solve: of the derivative's linear system; by default dense.

    Raises:
        MissingExtra: cvxpy is not installed.
        InvalidProblem: no DPP, parameters left out, variables with attributes that make them smaller (``symmetric``,
            ``diag``: say it by constraints), exponential and power cones, an infeasible or unbounded problem.

    Cost: the solve, and a dense factorisation in as many unknowns as the conic form has variables and constraints.

    >>> import cvxpy as cp
    >>> x, t = cp.Variable(2), cp.Parameter(2)
    >>> layer = cvxpy_layer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(x) == 1]), [t], [x])
    >>> torch.func.jacrev(layer)(torch.tensor([1.0, 2.0], dtype=torch.float64)).round(decimals=3)
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000]], dtype=torch.float64)
    """
    conic = _ConicForm(problem, parameters, variables)

    @custom_root(conic.residual, solve=solve if solve is not None else LinearSolver("dense"))
    def solution(_: None, A: Tensor, b: Tensor, c: Tensor) -> Pair:
        return _refined(conic.residual, conic.solved(A, b, c), (A, b, c))

    def layer(*values: Tensor) -> Tree:
        x, _ = solution(None, *conic.data(values))
        solutions = tuple(conic.variable(x, v) for v in variables)
        return solutions[0] if len(solutions) == 1 else solutions

    return layer


class _ConicForm:
    """``min c'x, A x + s = b, s in K`` with A, b and c affine in the parameters."""

    def __init__(
        self, problem: cp.Problem, parameters: Sequence[cp.Parameter], variables: Sequence[cp.Variable]
    ) -> None:
        try:
            import cvxpy as cp
        except ImportError:
            raise MissingExtra("cvxpy", "cvxpy") from None
        _check(problem, parameters, variables)
        for parameter in parameters:  # cvxpy wants values to bring the problem into its form
            if parameter.value is None:
                parameter.value = parameter.project(np.ones(parameter.shape))
        self.given, self.chain, _ = problem.get_problem_data(cp.CLARABEL, solver_opts={"use_quad_obj": False})
        self.form, self.dims, self.parameters = self.given["param_prob"], self.given["dims"], parameters
        if self.dims.exp or self.dims.p3d or getattr(self.dims, "pnd", None):
            raise InvalidProblem(
                "cvxpy_layer takes linear, second-order and semidefinite cones, no exponential or power."
            )
        self.m, self.n = self.given["A"].shape
        self.matrix, self.cost = _Affine(self.form.reduced_A.matrix_data), _Affine(self.form.q)
        self.order = np.argsort([self.form.param_id_to_col[p.id] for p in parameters])

    def data(self, values: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """``A, b, c`` at the parameters' values."""
        if len(values) != len(self.parameters):
            raise InvalidProblem(
                f"The layer has {len(self.parameters)} parameters; got {len(values)} values."
            )
        parts = []
        for value, parameter in zip(values, self.parameters, strict=True):
            if tuple(value.shape) != parameter.shape:
                raise InvalidProblem(
                    f"Parameter {parameter.name()} has shape {parameter.shape}; got {tuple(value.shape)}."
                )
            parts.append(_reversed(value).reshape(-1))  # by columns, as cvxpy has it
        flat = torch.cat([*(parts[i] for i in self.order), values[0].new_ones(1)])
        both = self.matrix(flat).reshape(self.n + 1, self.m).T
        return -both[:, : self.n], both[:, self.n], self.cost(flat)[: self.n]

    def residual(self, x: Pair, A: Tensor, b: Tensor, c: Tensor) -> Pair:
        """Optimality in ``u = x`` and ``v = y - s``."""
        u, v = x
        y = _project_dual(v, self.dims)
        return A.T @ y + c, b - A @ u + v - y

    def solved(self, A: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Clarabel's u and v."""
        numbers = {"A": csc_array(A.cpu().double().numpy()), "b": b.cpu().double().numpy()}
        numbers["c"] = c.cpu().double().numpy()
        found = self.chain.solver.solve_via_data({**self.given, **numbers}, False, False, TOLERANCES)
        if "Solved" not in str(found.status):
            raise InvalidProblem(
                f"cvxpy_layer: Clarabel says {found.status}: the problem may be infeasible or unbounded."
            )
        x, z, s = (
            torch.tensor(np.asarray(v), dtype=c.dtype, device=c.device) for v in (found.x, found.z, found.s)
        )
        return x, z - s

    def variable(self, x: Tensor, variable: cp.Variable) -> Tensor:
        """A variable's part of x, in its shape."""
        start = self.form.var_id_to_col[variable.id]
        part = x[start : start + int(np.prod(variable.shape))]
        return _reversed(part.reshape(tuple(reversed(variable.shape))))


def _reversed(t: Tensor) -> Tensor:
    """The axes the other way round."""
    return t.permute(*range(t.ndim - 1, -1, -1)) if t.ndim else t


def _refined(residual: Callable[..., Pair], point: Pair, theta: Sequence[Tensor]) -> Pair:
    """Newton steps on the residual, while they help: a solver's 1e-6 becomes 1e-12 where it is smooth.

    Busseti, Moursi and Boyd (2019).
    """
    n = len(point[0])

    def at(flat: Tensor) -> Tensor:
        return torch.cat(residual((flat[:n], flat[n:]), *theta))

    flat = torch.cat(point)
    size = float(torch.linalg.vector_norm(at(flat)))
    enough = 1e4 * torch.finfo(flat.dtype).eps * (1.0 + float(torch.linalg.vector_norm(flat)))
    for _ in range(REFINEMENTS):
        if size <= enough:
            break
        jacobian, right = torch.func.jacrev(at)(flat), -at(flat)
        step, info = torch.linalg.solve_ex(jacobian, right)
        smaller = float(torch.linalg.vector_norm(at(flat + step)))
        if int(info) != 0 or not smaller < size:  # singular where constraints repeat one another
            step = torch.linalg.pinv(jacobian, rtol=1e-10) @ right
            smaller = float(torch.linalg.vector_norm(at(flat + step)))
        if not smaller < size:
            break
        flat, size = flat + step, smaller
    return flat[:n], flat[n:]


class _Affine:
    """A sparse matrix times a vector, in operations that torch differentiates every way."""

    def __init__(self, matrix: csc_matrix) -> None:
        coo = matrix.tocoo()
        self.rows, self.columns = (
            torch.tensor(coo.row, dtype=torch.int64),
            torch.tensor(coo.col, dtype=torch.int64),
        )
        self.values, self.length = torch.tensor(coo.data), coo.shape[0]

    def __call__(self, vector: Tensor) -> Tensor:
        products = self.values.to(vector) * vector[self.columns]
        return vector.new_zeros(self.length).index_add(0, self.rows, products)


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
    known = {v.id for v in problem.variables()}
    for v in variables:
        if v.id not in known:
            raise InvalidProblem(f"{v.name()} is no variable of the problem.")
    for thing in (*problem.variables(), *parameters):
        smaller = [
            a for a in ("symmetric", "diag", "PSD", "NSD", "hermitian", "sparsity") if thing.attributes.get(a)
        ]
        if smaller:
            raise InvalidProblem(
                f"cvxpy_layer: {thing.name()} has the attribute {smaller[0]}; say it by constraints."
            )


def _project_dual(v: Tensor, dims: Dims) -> Tensor:
    """Projection on the dual cone: free, nonnegative, second-order cones, positive semidefinite ones."""
    at, parts = (
        dims.zero + dims.nonneg,
        [v[: dims.zero], v[dims.zero : dims.zero + dims.nonneg].clamp_min(0.0)],
    )
    for size in dims.soc:
        # cvxpy has the bound first, numerics last
        parts.append(second_order_cone(v[at : at + size].roll(-1)).roll(1))
        at += size
    for side in dims.psd:
        size = side * (side + 1) // 2
        parts.append(_semidefinite(v[at : at + size], side))
        at += size
    return torch.cat(parts)


def _semidefinite(v: Tensor, side: int) -> Tensor:
    """Clarabel's vector of an upper triangle by columns, off the diagonal times the root of 2."""
    columns, rows = torch.tril_indices(
        side, side, device=v.device
    )  # (column, row): an upper triangle by columns
    scale = torch.where(rows == columns, 1.0, 0.5**0.5).to(v)
    upper = v.new_zeros(side, side).index_put((rows, columns), v * scale)
    X = psd_cone(upper + upper.triu(1).T)
    return X[rows, columns] / scale
