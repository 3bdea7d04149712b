"""Mixed-integer linear programs: columns, rows, and a solver behind one call.

HiGHS through highspy, through SciPy where that is not installed, or SCIP.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from thalweg.core import InvalidProblem, MissingExtra, NotFinite, UnknownName

Array = NDArray[np.float64]
Columns = NDArray[np.intp]
Solver = Literal["auto", "highs", "scipy", "scip"]
Found = Literal["optimal", "limit", "infeasible", "unbounded"]
_SAID: list[bool] = []


@dataclass(frozen=True)
class Outcome:
    """What a solver found.

    ``x`` is None where there is no feasible point yet; ``bound`` is below every feasible value. ``limit`` says that
    the time was up.
    """

    status: Found
    x: Array | None
    value: float
    bound: float


class Model:
    """A program to minimise, built column by column and row by row.

    >>> model = Model()
    >>> take = model.columns(3, 0.0, 1.0, integer=True, cost=[-5.0, -4.0, -3.0])
    >>> model.rows([(take, [[2.0, 3.0, 1.0]])], upper=4.0)
    >>> model.minimize().value
    -8.0
    """

    def __init__(self) -> None:
        self._cost: list[Array] = []
        self._lower: list[Array] = []
        self._upper: list[Array] = []
        self._integer: list[NDArray[np.bool_]] = []
        self._entries: list[tuple[NDArray[np.intp], NDArray[np.intp], Array]] = []
        self._row_lower: list[Array] = []
        self._row_upper: list[Array] = []
        self.n_columns = self.n_rows = 0

    def columns(
        self,
        count: int,
        lower: ArrayLike = 0.0,
        upper: ArrayLike = math.inf,
        *,
        integer: ArrayLike = False,
        cost: ArrayLike = 0.0,
    ) -> Columns:
        """Add ``count`` columns and return their numbers; each argument is one value for all, or one for each."""
        for kept, given in ((self._lower, lower), (self._upper, upper), (self._cost, cost)):
            kept.append(np.broadcast_to(np.asarray(given, dtype=np.float64), (count,)))
        self._integer.append(np.broadcast_to(np.asarray(integer, dtype=np.bool_), (count,)))
        self.n_columns += count
        return np.arange(self.n_columns - count, self.n_columns)

    def rows(
        self,
        blocks: Sequence[tuple[Columns, ArrayLike]],
        lower: ArrayLike = -math.inf,
        upper: ArrayLike = math.inf,
    ) -> None:
        """Add rows ``lower <= sum of matrix @ columns <= upper``; a block is columns and a matrix."""
        count = 0
        for columns, matrix in blocks:
            values = np.atleast_2d(np.asarray(matrix, dtype=np.float64))
            count = len(values)
            i, j = np.nonzero(values)
            self._entries.append((i + self.n_rows, columns[j], values[i, j]))
        self._row_lower.append(np.broadcast_to(np.asarray(lower, dtype=np.float64), (count,)))
        self._row_upper.append(np.broadcast_to(np.asarray(upper, dtype=np.float64), (count,)))
        self.n_rows += count

    def minimize(
        self,
        solver: Solver = "auto",
        *,
        seconds: float = math.inf,
        gap: float = 1e-6,
        patience: float = math.inf,
        integrality: float = 1e-6,
    ) -> Outcome:
        """Solve.

        Args:
            solver: ``"highs"`` (highspy), ``"scipy"`` (the HiGHS inside SciPy, without ``patience`` and
                ``integrality``), ``"scip"`` (without ``patience``), or ``"auto"``: the first of highs and scipy that is
                installed.
            seconds: most time; at its end the best point so far is returned with the bound.
            gap: relative gap of value and bound at which a point is optimal.
            patience: seconds without a new best point after which the solver gives up.
            integrality: how far an integer column may be from a whole number.

        Units do not matter: rows, columns that are no whole numbers, and the cost are brought to sizes around 1 first.

        Raises:
            MissingExtra: highspy or pyscipopt is not installed.
            NotFinite: a cost or a coefficient is NaN or infinite, a limit is NaN.
            InvalidProblem: the solver failed.
        """
        if solver not in get_args(Solver):
            raise UnknownName("solver", solver, get_args(Solver))
        if solver == "auto":
            solver = "scipy" if importlib.util.find_spec("highspy") is None else "highs"
        data = self._data()
        scaled, widths, unit = _balanced(data)
        if solver == "scipy":
            found = _scipy(scaled, seconds, gap)
        elif solver == "scip":
            found = _scip(scaled, seconds, gap, integrality)
        else:
            found = _highs(scaled, seconds, gap, patience, integrality)
        x = None if found.x is None else found.x * widths
        return _outcome(found.status, x, data.cost, found.bound / unit)

    def _data(self) -> _Data:
        def joined(parts: list[Array]) -> Array:
            return np.concatenate(parts) if parts else np.empty(0)

        i, j, v = (
            (np.concatenate([e[k] for e in self._entries]) for k in range(3))
            if self._entries
            else (np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0))
        )
        A = csr_array((v, (i, j)), shape=(self.n_rows, self.n_columns))
        integer = np.concatenate(self._integer) if self._integer else np.empty(0, np.bool_)
        parts = (self._cost, self._lower, self._upper, self._row_lower, self._row_upper)
        data = _Data(A, integer, *(joined(part) for part in parts))
        ends = (data.lower, data.upper, data.row_lower, data.row_upper)
        if not (
            np.isfinite(A.data).all()
            and np.isfinite(data.cost).all()
            and not any(np.isnan(e).any() for e in ends)
        ):
            raise NotFinite(
                "A program holds a coefficient that is NaN or infinite: look for very large numbers."
            )
        return data


@dataclass(frozen=True)
class _Data:
    A: csr_array
    integer: NDArray[np.bool_]
    cost: Array
    lower: Array
    upper: Array
    row_lower: Array
    row_upper: Array


def power_unit(size: Array) -> Array:
    """The power of two that brings each of these to [1, 2); 1 for 0."""
    return np.where(size > 0, np.ldexp(1.0, 1 - np.frexp(size)[1]), 1.0)


def _balanced(data: _Data) -> tuple[_Data, Array, float]:
    """The same program in units of its own, the widths of its columns, and the unit of its cost.

    Solvers' tolerances are absolute: they drop coefficients below 1e-9 and refuse those above 1e15. Columns of whole
    numbers keep their unit, those within [-1, 1] get their limits'; rows are divided by their largest entry in such
    columns, the other columns by the geometric mean of theirs, and rows again. Powers of two round nothing.
    """
    A = data.A
    i, j, size = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr)), A.indices, np.abs(A.data)
    most = np.maximum(np.abs(data.lower), np.abs(data.upper))
    known = data.integer | (most <= 1.0)
    columns = np.where(data.integer | ~known, 1.0, 1.0 / power_unit(np.where(known, most, 0.0)))

    def largest(entries: Array, at: Columns, kept: NDArray[np.bool_]) -> Array:
        found = np.zeros(A.shape[0])
        np.maximum.at(found, at[kept], entries[kept])
        return found

    size, in_known = size * columns[j], known[j]
    by_known = largest(size, i, in_known)
    rows = power_unit(np.where(by_known > 0, by_known, largest(size, i, ~in_known)))
    entries = np.maximum(np.bincount(j, minlength=len(columns)), 1)
    middle = np.exp2(np.bincount(j, np.log2(size * rows[i]), minlength=len(columns)) / entries)
    columns = np.where(known, columns, power_unit(middle))
    rows *= power_unit(largest(np.abs(A.data) * columns[j] * rows[i], i, np.ones(len(i), dtype=np.bool_)))
    cost = data.cost * columns
    unit = float(power_unit(np.abs(cost).max(initial=0.0)))
    matrix = csr_array((A.data * rows[i] * columns[j], A.indices, A.indptr), shape=A.shape)
    ends = (data.lower / columns, data.upper / columns, data.row_lower * rows, data.row_upper * rows)
    return _Data(matrix, data.integer, cost * unit, *ends), columns, unit


def _outcome(status: Found, x: Array | None, cost: Array, bound: float) -> Outcome:
    value = math.inf if x is None else float(cost @ x)
    return Outcome(status, x, value, min(bound, value) if math.isfinite(bound) else bound)


def _scipy(data: _Data, seconds: float, gap: float) -> Outcome:
    limit = min(seconds, 1e7)  # a third of a year
    rows = LinearConstraint(data.A, data.row_lower, data.row_upper) if data.A.shape[0] else ()
    found = milp(
        data.cost,
        integrality=data.integer.astype(int),
        bounds=Bounds(data.lower, data.upper),
        constraints=rows,
        options={"mip_rel_gap": gap, "time_limit": limit},
    )
    if found.status not in (0, 1, 2, 3):
        raise InvalidProblem(f"HiGHS could not solve the program: {found.message}")
    status: Found = ("optimal", "limit", "infeasible", "unbounded")[found.status]
    bound = found.mip_dual_bound if data.integer.any() else found.fun
    x = None if found.x is None else np.asarray(found.x, dtype=np.float64)
    return _outcome(status, x, data.cost, -math.inf if bound is None else float(bound))


def _highs(data: _Data, seconds: float, gap: float, patience: float, integrality: float) -> Outcome:
    try:
        highspy = importlib.import_module("highspy")
    except ImportError:
        raise MissingExtra("highspy", "milp") from None
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = data.A.shape[1], data.A.shape[0]
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = data.cost, data.lower, data.upper
    lp.row_lower_, lp.row_upper_ = data.row_lower, data.row_upper
    matrix = lp.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kRowwise
    matrix.start_, matrix.index_, matrix.value_ = data.A.indptr, data.A.indices, data.A.data
    whole = bool(data.integer.any())
    if whole:
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[int(i)] for i in data.integer]
    highs = quiet_highs(highspy)
    options = {
        "mip_rel_gap": gap,
        "mip_feasibility_tolerance": integrality,
    }
    if math.isfinite(seconds):
        options["time_limit"] = max(seconds, 0.0)
    for name, value in options.items():
        highs.setOptionValue(name, value)
    if highs.passModel(lp) == highspy.HighsStatus.kError:
        raise InvalidProblem(
            "HiGHS refuses the program: its numbers differ too much in size. Use other units."
        )
    if math.isfinite(patience) and whole:
        _give_up(highs, patience)
    highs.run()
    kind, info = highs.getModelStatus(), highs.getInfo()
    known = highspy.HighsModelStatus
    status: Found
    if kind in (known.kOptimal, known.kModelEmpty):
        status = "optimal"
    elif kind == known.kInfeasible:
        status = "infeasible"
    elif kind in (known.kUnbounded, known.kUnboundedOrInfeasible):
        status = "unbounded"
    elif kind in (known.kTimeLimit, known.kInterrupt, known.kIterationLimit, known.kSolutionLimit):
        status = "limit"
    else:
        raise InvalidProblem(f"HiGHS could not solve the program: {highs.modelStatusToString(kind)}.")
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    x = np.array(highs.getSolution().col_value) if status in ("optimal", "limit") and feasible else None
    if not whole:
        bound = info.objective_function_value if status == "optimal" else -math.inf
    else:
        bound = info.mip_dual_bound
    return _outcome(status, x, data.cost, float(bound))


def quiet_highs(highspy: Any) -> Any:  # noqa: ANN401 -- a module without types
    """A HiGHS of one thread that prints nothing."""
    with _quiet():
        highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", 1)
    return highs


@contextmanager
def _quiet() -> Iterator[None]:
    """HiGHS prints its name once a process, from C, before it can be told not to; standard output is for answers."""
    if _SAID:
        yield
        return
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
        _SAID.append(True)


def _give_up(highs: object, patience: float) -> None:
    """Interrupt HiGHS once so many seconds have passed without a better point."""
    seen = [math.inf, time.perf_counter()]

    def look(event: object) -> None:
        data = event.data_out  # type: ignore[attr-defined]
        if data.mip_primal_bound < seen[0]:
            seen[:] = [data.mip_primal_bound, time.perf_counter()]
        elif time.perf_counter() - seen[1] > patience and math.isfinite(seen[0]):
            event.interrupt()  # type: ignore[attr-defined]

    highs.cbMipInterrupt.subscribe(look)  # type: ignore[attr-defined]


def _scip(data: _Data, seconds: float, gap: float, integrality: float) -> Outcome:
    try:
        scip = importlib.import_module("pyscipopt")
    except ImportError:
        raise MissingExtra("pyscipopt", "scip") from None
    model = scip.Model()
    model.hideOutput()
    model.setParams(
        {"limits/gap": gap, "numerics/feastol": max(integrality, 1e-9), "parallel/maxnthreads": 1}
    )
    if math.isfinite(seconds):
        model.setParam("limits/time", seconds)
    ends = [[None if math.isinf(v) else float(v) for v in side] for side in (data.lower, data.upper)]
    kinds = ["I" if i else "C" for i in data.integer]
    x = [
        model.addVar(lb=low, ub=high, vtype=kind, obj=float(c))
        for low, high, kind, c in zip(*ends, kinds, data.cost, strict=True)
    ]
    for i in range(data.A.shape[0]):
        part = slice(data.A.indptr[i], data.A.indptr[i + 1])
        row = scip.quicksum(
            float(v) * x[j] for j, v in zip(data.A.indices[part], data.A.data[part], strict=True)
        )
        if math.isfinite(data.row_lower[i]):
            model.addCons(row >= float(data.row_lower[i]))
        if math.isfinite(data.row_upper[i]):
            model.addCons(row <= float(data.row_upper[i]))
    model.optimize()
    said = model.getStatus()
    status: Found = "limit"
    if said in ("optimal", "gaplimit"):
        status = "optimal"
    elif said == "infeasible":
        status = "infeasible"
    elif said in ("unbounded", "inforunbd"):
        status = "unbounded"
    answer = None
    if status in ("optimal", "limit") and model.getNSols() > 0:
        answer = np.array([model.getVal(v) for v in x])
    bound = float(model.getDualbound())
    infinite = abs(bound) >= model.infinity()  # its own word for "none yet" is 1e20
    return _outcome(status, answer, data.cost, math.copysign(math.inf, bound) if infinite else bound)
