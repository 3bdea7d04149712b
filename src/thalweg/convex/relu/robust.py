"""Adversarial training of two-layer ReLU networks as a convex program, against perturbations of bounded size.

Bai, Gautam and Sojoudi (2021), "Practical convex formulations of one-hidden-layer neural network adversarial training"
(arXiv 2105.12237); Bai, Gautam and Sojoudi (2023), section 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog
from scipy.special import xlogy

from thalweg.convex.datafits import Vector
from thalweg.convex.relu import _kernels as kernels
from thalweg.convex.relu.network import TwoLayerNetwork, recovered
from thalweg.convex.relu.problem import SOLVED, ConvexReLU, relative_gap
from thalweg.convex.relu.splitting import shrunk
from thalweg.core import InvalidProblem, Method, Problem, State, Stop
from thalweg.core.validation import as_real, is_real, is_whole, require

#: Worst-case losses, in the kernel's order.
KINDS = ("squares", "logistic", "hinge")


def pattern_margins(X: ArrayLike, patterns: NDArray[np.bool_], mask: ArrayLike | None = None) -> Vector:
    """For each pattern the largest perturbation under which some neuron keeps it on all rows; infinite where all do.

    ``max_v min_j (E X v)_j`` subject to ``|mask v|_1 <= 1``, a linear program for each.

    Args:
        X: shape (n, d).
        patterns: shape (P, n).
        mask: which columns are perturbed, shape (d,). Default: all. A column of ones is not.

    >>> pattern_margins([[1.0], [-3.0]], np.array([[True, False]]))
    array([1.])
    """
    rows = as_real("X", X)
    n, d = rows.shape
    free = _mask(mask, d)
    found = np.empty(len(patterns))
    # v = p - q with p, q >= 0, and the margin t, maximised
    cost = np.r_[np.zeros(2 * d), -1.0]
    sizes = np.r_[free, free, 0.0]
    for i, pattern in enumerate(patterns):
        signed = np.where(pattern, 1.0, -1.0)[:, None] * rows
        A = np.vstack([np.hstack([-signed, signed, np.ones((n, 1))]), sizes])
        b = np.r_[np.zeros(n), 1.0]
        result = linprog(cost, A, b, bounds=[(0, None)] * (2 * d) + [(0, None)], method="highs")
        best = 0.0 if result.x is None else max(float(result.x[-1]), 0.0)
        found[i] = math.inf if result.status == 3 else best
    return found


@dataclass(frozen=True, eq=False)
class RobustConvexReLU(Problem):
    """``min sum_j max_{|delta| <= radius} loss(f(x_j + delta), y_j) + beta sum (|v_i| + |w_i|)``.

    Args:
        X, y, patterns, beta: as of `ConvexReLU`, one output. Sample patterns with the same ``radius``.
        radius: eps, of each entry of a row, > 0.
        mask: which columns are perturbed, shape (d,). Default: all but columns that are constant.
        loss: ``hinge`` (default), ``logistic``, or ``squares``.
        exact: hold the cones ``E_i X v_i >= radius |v_i|_1``: no perturbation flips a neuron, and the objective bounds
            every attack on the rows. It needs patterns whose `pattern_margins` reach the radius; others are dropped.
            ``False``, the relaxed program, holds the plain cones and guarantees nothing; where margins are small, as
            they are on most data, it is the useful one.

    Metrics: ``objective``, of the program with patterns as they are held: with exact cones no attack does worse;
    ``violation`` of the cones, as a share of the largest pre-activation. The method's ``gap`` is to its certified
    bound.

    Raises:
        InvalidProblem: no pattern has the margin; says which radius the best one has.

    >>> from thalweg import solve
    >>> X = np.array([[-2.0, 1.0], [-1.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    >>> patterns = np.array([[False, False, True, True], [True, True, False, False]])
    >>> problem = RobustConvexReLU(X, [-1, -1, 1, 1], patterns, beta=0.1, radius=0.3)
    >>> solve(problem).converged
    True
    """

    X: ArrayLike
    y: ArrayLike
    patterns: NDArray[np.bool_]
    beta: float
    radius: float
    mask: ArrayLike | None = None
    loss: str = "hinge"
    exact: bool = True

    def __post_init__(self) -> None:
        require(
            is_real(self.radius) and 0 < self.radius < math.inf,
            "RobustConvexReLU needs radius > 0",
            got=self.radius,
        )
        require(self.loss in KINDS, f"RobustConvexReLU takes {', '.join(KINDS)}", got=self.loss)
        rows = as_real("X", self.X)
        if rows.ndim != 2:
            raise InvalidProblem(
                f"RobustConvexReLU: X has shape {rows.shape}; expected (n, d), without patches."
            )
        plain = ConvexReLU(rows, self.y, self.patterns, self.beta, self.loss)
        if len(plain.targets) != 1:
            raise InvalidProblem(f"RobustConvexReLU takes one output; y has {len(plain.targets)}.")
        free = (
            _mask(self.mask, rows.shape[1])
            if self.mask is not None
            else (np.ptp(rows, axis=0) > 0).astype(float)
        )
        object.__setattr__(self, "mask", free)
        if self.exact:
            reached = pattern_margins(rows, plain.patterns, free)
            kept = reached >= self.radius
            if not kept.any():
                raise InvalidProblem(
                    f"No pattern has margin {self.radius:g}: the best of {len(reached)} has {reached.max():.3g}; "
                    "only the network without neurons would remain. Take a smaller radius, or exact=False."
                )
            plain = replace(plain, patterns=plain.patterns[kept])
        object.__setattr__(self, "X", rows)
        object.__setattr__(self, "patterns", plain.patterns)
        vars(self)["plain"] = plain

    @cached_property
    def plain(self) -> ConvexReLU:
        """The same program without an adversary."""
        return ConvexReLU(self.X, self.y, self.patterns, self.beta, self.loss)

    @property
    def free(self) -> Vector:
        """The mask as numbers, shape (d,)."""
        return np.asarray(self.mask)

    def split(self, x: Vector) -> Vector:
        """Blocks (2, P, d) of an answer."""
        shape = (2, len(self.patterns), np.asarray(self.X).shape[1])
        if x.size != math.prod(shape):
            raise InvalidProblem(
                f"An answer has {math.prod(shape)} entries, blocks {shape}; got shape {x.shape}."
            )
        return np.asarray(x).reshape(shape)

    def network(self, x: Vector) -> TwoLayerNetwork:
        """The recovered network."""
        return recovered(self.split(x)[:, :, None], np.zeros(1))

    def recommended_stop(self) -> Stop:
        """A relative gap and a violation of 1e-3."""
        return Stop(below={"gap": SOLVED, "violation": SOLVED}, steps=250)

    def metrics(self, x: Vector) -> dict[str, float]:
        program = self.plain.program
        blocks = np.ldexp(self.split(x), program.x_power - program.y_power)
        radius = float(np.ldexp(self.radius, -program.x_power))
        value, violation = _judged(self, blocks, radius)
        return {"objective": float(np.ldexp(value, 2 * program.y_power)), "violation": violation}


def _judged(problem: RobustConvexReLU, blocks: Vector, radius: float) -> tuple[float, float]:
    """Objective and violation of blocks (2, P, d), in the program's units."""
    program, mask = problem.plain.program, problem.free
    gates = program.D.astype(np.float64)
    g = gates.T @ (blocks[0] - blocks[1])
    f, size = (program.X * g).sum(1), radius * np.abs(mask * g).sum(1)
    y = program.loss.y[0]
    if problem.loss == "squares":
        loss = 0.5 * float(np.square(np.abs(f - y) + size).sum())
    elif problem.loss == "logistic":
        loss = float(np.logaddexp(0.0, size - y * f).sum())
    else:
        loss = float(np.maximum(1.0 - y * f + size, 0.0).sum())
    H = blocks @ program.X.T
    moved = radius * np.abs(mask * blocks).sum(-1, keepdims=True) if problem.exact else 0.0
    worst = float(np.max(moved - H * program.signs[:, 0], initial=0.0))
    largest = float(np.abs(H).max())
    value = loss + program.beta * float(np.linalg.norm(blocks, axis=-1).sum())
    return value, worst / largest if largest > 0 else 0.0


@dataclass(kw_only=True)
class RobustState(State):
    """Copies and scaled multipliers, in the program's units."""

    short: Vector  # (2, P, d) penalised copy and multiplier
    z: Vector
    cone: Vector  # (2, P, d) the cones' copy of the blocks
    cone_multiplier: Vector
    slack: Vector  # (2, P, n)
    slack_multiplier: Vector
    g: Vector  # (n, d) the local linear models
    g_multiplier: Vector
    rho: float


@dataclass(frozen=True)
class RobustADMM(Method[RobustConvexReLU, RobustState]):
    """ADMM on `RobustConvexReLU`: worst-case losses and robust cones each take a step of their own, by bisection.

    Args:
        rho: penalty of the splitting, in the program's units. Default 0.3.
        relaxation: default 1.6.
        iterations: in a step. Default 20.

    Cost per step: ``iterations`` times ``O(P n d + n^2 d)`` and bisections of 60 passes; two factorisations once.

    >>> RobustADMM(rho=2.5).name
    'RobustADMM(rho=2.5)'
    """

    rho: float = 0.3
    relaxation: float = 1.6
    iterations: int = 20

    def __post_init__(self) -> None:
        require(is_real(self.rho) and 0 < self.rho < math.inf, "RobustADMM needs rho > 0", got=self.rho)
        require(
            is_real(self.relaxation) and 0 < self.relaxation < 2,
            "RobustADMM needs 0 < relaxation < 2",
            got=self.relaxation,
        )
        require(
            is_whole(self.iterations) and self.iterations >= 1,
            "RobustADMM needs iterations >= 1",
            got=self.iterations,
        )

    def init(self, problem: RobustConvexReLU, seed: int) -> RobustState:
        program = problem.plain.program
        n, d = program.X.shape
        shape, rows = (2, len(program.D), d), (2, len(program.D), n)
        return RobustState(
            x=np.zeros(math.prod(shape)),
            short=np.zeros(shape),
            z=np.zeros(shape),
            cone=np.zeros(shape),
            cone_multiplier=np.zeros(shape),
            slack=np.zeros(rows),
            slack_multiplier=np.zeros(rows),
            g=np.zeros((n, d)),
            g_multiplier=np.zeros((n, d)),
            rho=self.rho,
        )

    def step(self, problem: RobustConvexReLU, state: RobustState) -> RobustState:
        program, mask = problem.plain.program, problem.free
        radius = float(np.ldexp(problem.radius, -program.x_power))
        held = radius if problem.exact else 0.0
        signs, gates = program.signs[:, 0], program.D.astype(np.float64)
        factors = _factors(problem)
        s, o, rho = replace(state), self.relaxation, state.rho
        n = len(program.X)
        lam, side = np.zeros(n), np.zeros(n)
        kind = KINDS.index(problem.loss)
        for _ in range(self.iterations):
            u = _least(program.X, gates, signs, factors, s)
            E = (u @ program.X.T) * signs
            multiplier = s.short - s.z
            s.short = o * u + (1.0 - o) * s.z + multiplier
            s.z = shrunk(s.short, program.beta / rho)
            w0 = o * u + (1.0 - o) * s.cone + s.cone_multiplier
            slack0 = o * E + (1.0 - o) * s.slack + s.slack_multiplier
            w, slack = w0.copy(), slack0.copy()
            kernels.robust_cones(w.reshape(-1, w.shape[-1]), slack.reshape(-1, n), mask, held)
            s.cone, s.cone_multiplier, s.slack, s.slack_multiplier = w, w0 - w, slack, slack0 - slack
            g0 = o * (gates.T @ (u[0] - u[1])) + (1.0 - o) * s.g + s.g_multiplier
            g = g0.copy()
            kernels.robust_prox(g, program.X, program.loss.y[0], rho, radius, mask, kind, lam, side)
            s.g, s.g_multiplier = g, g0 - g
        value, violation = _judged(problem, s.z, radius)
        lower = _bound(problem, s, lam, side, held)
        s.x = np.ldexp(s.z, program.y_power - program.x_power).ravel()
        s.calls = state.calls + self.iterations
        s.metrics = {
            "objective": float(np.ldexp(value, 2 * program.y_power)),
            "gap": relative_gap(value, lower),
            "violation": violation,
        }
        _balance(s, s.calls // self.iterations)
        return s


def _balance(s: RobustState, done: int) -> None:
    """Lower rho where cones hold long before the bound is near, raise it the other way round; ever more rarely."""
    gap, violation = s.metrics["gap"], s.metrics["violation"]
    if done & (done - 1):
        return
    if 0.0 < violation <= 0.1 * SOLVED < gap:
        factor = 0.4
    elif gap <= SOLVED < violation:
        factor = 2.5
    else:
        return
    s.rho *= factor
    s.short = s.z + (s.short - s.z) / factor
    s.cone_multiplier = s.cone_multiplier / factor
    s.slack_multiplier = s.slack_multiplier / factor
    s.g_multiplier = s.g_multiplier / factor


def _factors(problem: RobustConvexReLU) -> tuple[Vector, Vector, Vector, Vector]:
    """Eigenvectors and what is divided by: of D'D, of B^-1, B = 2 I + X'X, and the inverse itself."""
    program = problem.plain.program
    if "robust" not in program.kept:
        bend = 2.0 * np.eye(program.X.shape[1]) + program.X.T @ program.X
        inverse = np.asarray(np.linalg.inv(bend), np.float64)
        gates = program.D.astype(np.float64)
        sizes, Q = np.linalg.eigh(gates.T @ gates)
        bends, R = np.linalg.eigh(inverse)
        program.kept.update(
            robust=inverse, Q=Q, R=R, divisor=1.0 + 2.0 * np.maximum(sizes, 0.0)[:, None] * bends
        )
    return program.kept["robust"], program.kept["Q"], program.kept["R"], program.kept["divisor"]


def _least(
    X: Vector, gates: Vector, signs: Vector, factors: tuple[Vector, Vector, Vector, Vector], s: RobustState
) -> Vector:
    """The smooth step: block-diagonal plus ``K'K``, K u the local linear models; ``K B^-1 K' = 2 D'D (x) B^-1``."""
    inverse, Q, R, divisor = factors
    right = (
        (2.0 * s.z - s.short) + (s.cone - s.cone_multiplier) + ((s.slack - s.slack_multiplier) * signs) @ X
    )
    pull = gates @ (s.g - s.g_multiplier)
    right[0] += pull
    right[1] -= pull
    t = right @ inverse
    h = gates.T @ (t[0] - t[1])
    h = Q @ ((Q.T @ h @ R) / divisor) @ R.T
    back = (gates @ h) @ inverse
    t[0] -= back
    t[1] += back
    return np.asarray(t)


def _bound(problem: RobustConvexReLU, s: RobustState, lam: Vector, side: Vector, held: float) -> float:
    """The dual objective at the multipliers, scaled until ``|soft(h, radius sum a)| <= beta`` for each block."""
    program, mask = problem.plain.program, problem.free
    y, gates = program.loss.y[0], program.D.astype(np.float64)
    theta, a = s.rho * s.g_multiplier, s.rho * np.maximum(-s.slack_multiplier, 0.0)
    half = gates @ theta
    h = np.stack([half, -half]) - (a * program.signs[:, 0]) @ program.X
    threshold = held * mask * a.sum(-1, keepdims=True)
    sizes = np.linalg.norm(np.sign(h) * np.maximum(np.abs(h) - threshold, 0.0), axis=-1)
    largest = float(sizes.max())
    c = min(1.0, program.beta / largest) if largest > 0 else 1.0
    if problem.loss == "hinge":
        return c * float(lam.sum())
    if problem.loss == "logistic":
        p = np.clip(c * lam, 0.0, 1.0)
        return -float((xlogy(p, p) + xlogy(1.0 - p, 1.0 - p)).sum())
    along, squares = -float((lam * side * y).sum()), float((lam * lam).sum())
    c = min(max(along / squares, 0.0), c) if squares > 0 else 0.0
    return max(c * along - 0.5 * c * c * squares, 0.0)


def _mask(mask: ArrayLike | None, d: int) -> Vector:
    free = np.ones(d) if mask is None else as_real("mask", mask)
    if free.shape != (d,) or not np.isin(free, (0.0, 1.0)).all():
        raise InvalidProblem(f"mask needs {d} truth values, one for each column; got shape {free.shape}.")
    return free
