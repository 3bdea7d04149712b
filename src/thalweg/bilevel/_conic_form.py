"""A cvxpy problem as numbers: its conic form, affine in the parameters, and Clarabel's solution of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array, vstack
from torch import Tensor

from thalweg.bilevel._cone_newton import Program
from thalweg.bilevel._cones import Cones
from thalweg.core import InvalidProblem, NotFinite

if TYPE_CHECKING:
    import cvxpy as cp

#: Clarabel's tolerances where Newton steps do not get from its own, 1e-8, to a solution.
TIGHT = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}

#: How far beyond its parameter's limits a value may be, as in cvxpy.
SLACK = 1e-10

Numbers: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Entries:
    """Places in a matrix, by columns, and the rows of the affine map that hold their values."""

    rows: NDArray[Any]
    columns: NDArray[Any]
    shape: tuple[int, int]

    def sparse(self, values: Numbers) -> csc_array:
        """The matrix with these values."""
        return csc_array((values, (self.rows, self.columns)), shape=self.shape)


class ConicForm:
    """``min u'Pu/2 + c'u, A u + s = b, s in K``: one sparse matrix times the parameters and 1 gives its numbers."""

    def __init__(self, problem: cp.Problem, parameters: Sequence[cp.Parameter]) -> None:
        import cvxpy as cp

        for parameter in parameters:  # cvxpy wants values to bring the problem into its form
            if parameter.value is None:
                parameter.value = parameter.project(np.ones(parameter.shape))
        given, _, _ = problem.get_problem_data(cp.CLARABEL, solver_opts={"use_quad_obj": True})
        form, dims = given["param_prob"], given["dims"]
        if dims.exp or dims.p3d or getattr(dims, "pnd", None):
            raise InvalidProblem(
                "cvxpy_layer takes linear, second-order and semidefinite cones, no exponential or power."
            )
        self.parameters, self.columns = parameters, form.var_id_to_col
        self.m, self.n = m, n = given["A"].shape
        self.cones = Cones(dims)
        quadratic, linear = (
            csr_array(form.P if form.P is not None else (0, form.q.shape[1])),
            csr_array(form.A),
        )
        at, there = _filled(quadratic), _filled(linear)
        in_b = there >= m * n  # by columns, b the last of them
        self.P = Entries(at % n, at // n, (n, n))
        self.A = Entries(there[~in_b] % max(m, 1), there[~in_b] // max(m, 1), (m, n))
        self.b_rows = there[in_b] - m * n
        parts = [
            quadratic[at],
            -linear[there[~in_b]],
            linear[there[in_b]],
            csr_array(form.q)[:n],
        ]  # cvxpy has -A
        whole = csr_array(vstack(parts))
        self.map, self.constant = whole[:, :-1].tocsr(), whole[:, -1:].toarray()[:, 0]
        ends = np.cumsum([0, *(part.shape[0] for part in parts)])
        self.spans = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        #: Gradients in the parameters from those in P, A, b and c; None for what no parameter is in.
        self.pullbacks = [self.map[span].T.tocsr() if self.map[span].nnz else None for span in self.spans]
        self.order = np.argsort([form.param_id_to_col[p.id] for p in parameters])
        self._limits = _limits([parameters[i] for i in self.order])
        self.solver = Clarabel(self, dims)
        self._places = [torch.from_numpy(e.columns + e.rows * n) for e in (self.P, self.A)]
        self._b_rows = torch.from_numpy(self.b_rows)
        coo = self.map.tocoo()
        rows, columns = (torch.from_numpy(t.astype(np.int64)) for t in (coo.row, coo.col))
        self._affine = rows, columns, torch.from_numpy(coo.data)
        fixed = self._matrices(torch.from_numpy(self.constant)[None])
        self._fixed = [part.numpy() for part in fixed[:2]]

    def flat(self, values: Sequence[Tensor]) -> tuple[Tensor, bool]:
        """The parameters as cvxpy orders them, (batch, all of them), and whether a batch was given."""
        if len(values) != len(self.parameters):
            raise InvalidProblem(
                f"The layer has {len(self.parameters)} parameters; got {len(values)} values."
            )
        leads = [self._lead(v, p) for v, p in zip(values, self.parameters, strict=True)]
        lengths = {n for n in leads if n is not None}
        if len(lengths) > 1:
            raise InvalidProblem(f"Values of a batch need one length; got {sorted(lengths)}.")
        count = lengths.pop() if lengths else 1
        rows = []
        for value, parameter in zip(values, self.parameters, strict=True):
            axes = range(value.ndim - 1, value.ndim - parameter.ndim - 1, -1)  # by columns, as cvxpy has it
            lead = range(value.ndim - parameter.ndim)
            row = value.permute(*lead, *axes) if parameter.ndim > 1 else value
            rows.append(row.reshape(-1, parameter.size).expand(count, -1))
        whole = torch.cat([rows[i] for i in self.order], 1)
        return whole.to("cpu", torch.float64), any(n is not None for n in leads)

    def _lead(self, value: Tensor, parameter: cp.Parameter) -> int | None:
        """The length of a value's leading axis, where it has one more than its parameter."""
        if value.is_complex():
            raise InvalidProblem(f"Parameter {parameter.name()} is complex; cvxpy_layer takes real values.")
        shape = tuple(value.shape)
        if shape == parameter.shape:
            return None
        if shape[1:] == parameter.shape and len(shape) == parameter.ndim + 1 and shape[0] > 0:
            return shape[0]
        raise InvalidProblem(
            f"Parameter {parameter.name()} has shape {parameter.shape}; got {shape}. One axis more, in front, makes a "
            "batch."
        )

    def numbers(self, flat: Tensor) -> list[Numbers]:
        """The entries of P, A, b and c at parameters (k, all of them), each (k, its length)."""
        given = flat.numpy()
        if not np.isfinite(given).all():
            raise NotFinite("cvxpy_layer: a parameter's value is NaN or infinite.")
        self._require_inside(given)
        whole = np.ascontiguousarray((self.map @ given.T).T) + self.constant
        return [whole[:, span] for span in self.spans]

    def _require_inside(self, given: Numbers) -> None:
        """Refuse values that a parameter says it cannot have: the problem may not be convex there."""
        if self._limits is None:
            return
        low, high = self._limits
        wrong = (given < low - SLACK) | (given > high + SLACK)
        if wrong.any():
            k, i = (int(v) for v in np.argwhere(wrong)[0])
            ends = np.cumsum([self.parameters[j].size for j in self.order])
            name = self.parameters[int(self.order[int(np.searchsorted(ends, i, side="right"))])].name()
            raise InvalidProblem(
                f"cvxpy_layer: parameter {name} is declared to lie in [{low[i]:g}, {high[i]:g}]; got {given[k, i]:g}."
            )

    def dense(self, numbers: Sequence[Numbers], are_own: bool = True) -> Program:
        """Matrices of entries; one for all of the batch where no parameter is in them and the units are their own."""
        P, A = self._fixed
        if self.pullbacks[0] is not None or not are_own:
            P = self._matrix(torch.from_numpy(numbers[0]), 0).numpy()
        if self.pullbacks[1] is not None or not are_own:
            A = self._matrix(torch.from_numpy(numbers[1]), 1).numpy()
        b = np.zeros((len(numbers[2]), self.m))
        b[:, self.b_rows] = numbers[2]
        return Program(P, A, b, np.ascontiguousarray(numbers[3]))

    def matrices(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """P, A, b and c at one problem's parameters, in operations that torch differentiates every way."""
        rows, columns, values = self._affine
        entries = torch.from_numpy(self.constant).index_add(0, rows, values * flat[columns])
        P, A, b, c = self._matrices(entries)
        return P.clone(), A.clone(), b, c.clone()  # forward mode takes no views

    def _matrices(self, entries: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        P, A, b, c = (entries[..., span] for span in self.spans)
        return self._matrix(P, 0), self._matrix(A, 1), self._vector(b), c

    def _matrix(self, values: Tensor, which: int) -> Tensor:
        shape = (*values.shape[:-1], (self.P, self.A)[which].shape[0], self.n)
        flat = values.new_zeros((*values.shape[:-1], shape[-2] * shape[-1]))
        return flat.index_copy(-1, self._places[which], values).reshape(shape)

    def _vector(self, values: Tensor) -> Tensor:
        return values.new_zeros((*values.shape[:-1], self.m)).index_copy(-1, self._b_rows, values)

    def pulled(self, u: Numbers, y: Numbers, w_u: Numbers, w_v: Numbers) -> Tensor:
        """Gradients in the parameters of ``w'R``, R the conditions ``P u + A'y + c, b - A u + v - y``."""
        in_entries = [
            lambda: w_u[:, self.P.rows] * u[:, self.P.columns],
            lambda: y[:, self.A.rows] * w_u[:, self.A.columns] - w_v[:, self.A.rows] * u[:, self.A.columns],
            lambda: w_v[:, self.b_rows],
            lambda: w_u,
        ]
        found = np.zeros((self.map.shape[1], u.shape[0]))
        for pullback, gradient in zip(self.pullbacks, in_entries, strict=True):
            if pullback is not None:
                found += pullback @ gradient().T
        return torch.from_numpy(found.T)

    def variable(self, u: Tensor, variable: cp.Variable) -> Tensor:
        """A variable's part of u, (..., n), in its shape."""
        start, lead = self.columns[variable.id], u.shape[:-1]
        part = u[..., start : start + variable.size].reshape((*lead, *reversed(variable.shape)))
        k = len(lead)
        return part.permute(*range(k), *range(part.ndim - 1, k - 1, -1)) if variable.ndim > 1 else part


def _limits(parameters: Sequence[cp.Parameter]) -> tuple[Numbers, Numbers] | None:
    """Least and largest values by the parameters' attributes, one after another; None where none has any."""
    lows, highs = [], []
    for p in parameters:
        low, high = np.full(p.size, -np.inf), np.full(p.size, np.inf)
        if p.attributes["nonneg"] or p.attributes["pos"]:
            low[:] = 0.0
        if p.attributes["nonpos"] or p.attributes["neg"]:
            high[:] = 0.0
        bounds: Any = p.attributes["bounds"]
        if bounds is not None:
            ends = [np.ravel(np.broadcast_to(end, p.shape), order="F") for end in bounds]
            low, high = np.maximum(low, ends[0]), np.minimum(high, ends[1])
        lows.append(low)
        highs.append(high)
    low, high = np.concatenate(lows), np.concatenate(highs)
    return (low, high) if np.isfinite(low).any() or np.isfinite(high).any() else None


class Clarabel:
    """Clarabel's solver of one problem, kept from call to call, so that only numbers change; one for each thread."""

    def __init__(self, form: ConicForm, dims: Any) -> None:  # noqa: ANN401 -- cvxpy's own
        import clarabel  # type: ignore[import-untyped]

        self.form, self.clarabel, self.kept = form, clarabel, threading.local()
        self.upper = form.P.rows <= form.P.columns
        flat = [(clarabel.ZeroConeT, [dims.zero]), (clarabel.NonnegativeConeT, [dims.nonneg])]
        curved = [(clarabel.SecondOrderConeT, dims.soc), (clarabel.PSDTriangleConeT, dims.psd)]
        self.cones = [cone(int(k)) for cone, sizes in [*flat, *curved] for k in sizes if k]

    def solved(self, numbers: Sequence[Numbers], tight: bool = False) -> tuple[Numbers, Numbers]:
        """u and v = y - s for each of the batch, (k, n) and (k, m); by a new solver with tight tolerances."""
        found = []
        for one in zip(*numbers, strict=True):
            result = self._tight(*one) if tight else self._result(*one)
            found.append((result.x, np.asarray(result.z) - np.asarray(result.s)))
        u, v = zip(*found, strict=True)
        return np.array(u), np.array(v)

    def _result(self, P: Numbers, A: Numbers, b: Numbers, c: Numbers) -> Any:  # noqa: ANN401
        if not hasattr(self.kept, "solver"):
            self.kept.solver = self._new(P, A, b, c, {})
        else:
            changed = {"q": c}
            for name, before, now in zip("PAb", self.kept.last, (P, A, b), strict=True):
                if before is not now and not np.array_equal(before, now):
                    changed[name] = {"P": P[self.upper], "A": A, "b": self._whole(b)}[name]
            self.kept.solver.update(**changed)
        self.kept.last = P, A, b
        result = self.kept.solver.solve()
        return result if str(result.status) == "Solved" else self._tight(P, A, b, c)

    def _tight(self, P: Numbers, A: Numbers, b: Numbers, c: Numbers) -> Any:  # noqa: ANN401
        result = self._new(P, A, b, c, TIGHT).solve()
        if "Solved" not in str(result.status):
            raise InvalidProblem(
                f"cvxpy_layer: Clarabel says {result.status}: the problem may be infeasible or unbounded."
            )
        return result

    def _whole(self, b: Numbers) -> Numbers:
        whole = np.zeros(self.form.m)
        whole[self.form.b_rows] = b
        return whole

    def _new(self, P: Numbers, A: Numbers, b: Numbers, c: Numbers, options: dict[str, float]) -> Any:  # noqa: ANN401
        settings = self.clarabel.DefaultSettings()
        settings.verbose = settings.presolve_enable = settings.chordal_decomposition_enable = False
        for name, value in options.items():
            setattr(settings, name, value)
        form = self.form
        upper = Entries(form.P.rows[self.upper], form.P.columns[self.upper], form.P.shape)
        return self.clarabel.DefaultSolver(
            upper.sparse(P[self.upper]), c, form.A.sparse(A), self._whole(b), self.cones, settings
        )


def _filled(matrix: csr_array) -> NDArray[Any]:
    """The rows that are not all zero."""
    return np.flatnonzero(np.diff(matrix.indptr))
