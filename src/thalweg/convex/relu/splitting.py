"""Splittings for the convex program of a ReLU network: ADMM with a factored, a linearised, or a blockwise inner step.

Bai, Gautam and Sojoudi (2023), "Efficient global optimization of two-layer ReLU networks: quadratic-time algorithms and
adversarial training", algorithms 3.1 and 3.2; Boyd et al. (2011) for over-relaxation.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from thalweg.convex.datafits import Index, Vector
from thalweg.convex.relu import _kernels as kernels
from thalweg.convex.relu.losses import Squares
from thalweg.convex.relu.problem import SOLVED, ConvexReLU, relative_gap
from thalweg.convex.relu.program import Program
from thalweg.core import InvalidProblem, Method, State
from thalweg.core.validation import is_real, is_whole, require, require_counts, require_positive

#: Balancing keeps rho within this factor of its first value.
RANGE = 100.0


@dataclass(kw_only=True)
class SplitState(State):
    """Copies and multipliers, scaled, in the program's units."""

    u: Vector  # (2, P, k, d) the smooth step's answer
    H: Vector  # (2, P, k, N) X u
    short: Vector  # (2, P, k, d) what was shrunk: the penalised copy z and its multiplier in one
    z: Vector  # (2, P, k, d) the penalised copy
    rows: Vector  # (2, P, k, N) slack plus multiplier of the cones: its positive and its negative part
    signed: Vector  # (2, P, k, N) E (slack - multiplier)
    q: Vector  # (k, n) copy of the outputs, where the loss is split off
    kappa: Vector  # (k, n) its multiplier
    bias: Vector  # (k,)
    rho: float  # as balancing has left it
    step_size: float  # of the inner step, where it has one
    generator: np.random.Generator
    iterations: int = 0


@dataclass(frozen=True)
class _Splitting(Method[ConvexReLU, SplitState]):
    """Common part of the splittings: they differ in the step on the smooth part."""

    in_place: ClassVar[bool] = True

    rho: float = 1.0
    relaxation: float = 1.6
    iterations: int = 20
    balancing: bool = True

    def __post_init__(self) -> None:
        name = type(self).__name__
        require(is_real(self.rho) and 0 < self.rho < np.inf, f"{name} needs rho > 0", got=self.rho)
        require(
            is_real(self.relaxation) and 0 < self.relaxation < 2,
            f"{name} needs 0 < relaxation < 2",
            got=self.relaxation,
        )
        require(
            is_whole(self.iterations) and self.iterations >= 1,
            f"{name} needs iterations >= 1",
            got=self.iterations,
        )

    def init(self, problem: ConvexReLU, seed: int) -> SplitState:
        program = problem.program
        self.check(program)
        u = np.ldexp(problem.start(), program.x_power - program.y_power)
        H = program.products(u)
        slack = np.maximum(H * program.signs, 0.0)
        f = program.gated(H)
        bias = program.bias_of(f)
        return SplitState(
            x=problem.packed(np.ldexp(u, program.y_power - program.x_power)),
            u=u,
            H=H,
            short=u.copy(),
            z=u.copy(),
            rows=slack,
            signed=slack * program.signs,
            q=f + bias[:, None],
            kappa=np.zeros_like(f),
            bias=bias,
            rho=self.rho,
            step_size=self.first_step(program),
            generator=np.random.default_rng(seed),
        )

    def check(self, program: Program) -> None:
        """Refuse what the inner step does not take."""

    def first_step(self, program: Program) -> float:
        """The inner step's size at the start."""
        return 1.0

    @abstractmethod
    def smooth_step(self, program: Program, state: SplitState) -> None:
        """New u, H and bias, in place."""

    def splits_loss(self, program: Program) -> bool:
        """Whether outputs have a copy that the loss's proximal step is taken on."""
        return not isinstance(program.loss, Squares)

    def step(self, problem: ConvexReLU, state: SplitState) -> SplitState:
        program, o = problem.program, self.relaxation
        threshold = program.beta / state.rho
        for t in range(self.iterations):
            before = (state.z, np.maximum(state.rows, 0.0), state.q) if t == self.iterations - 1 else None
            self.smooth_step(program, state)
            # the penalised copy: shrink, multiplier = what was shrunk away
            multiplier = state.short - state.z
            state.short = o * state.u + (1.0 - o) * state.z + multiplier
            state.z = shrunk(state.short, threshold)
            kernels.cone_step(state.H, program.D, state.rows, o, state.signed)
            if self.splits_loss(program):
                f = o * (program.gated(state.H) + state.bias[:, None]) + (1.0 - o) * state.q + state.kappa
                state.q = program.loss.prox(f, state.rho)
                state.kappa = f - state.q
        state = self.looked(problem, replace(state, iterations=state.iterations + self.iterations))
        if self.balancing and before is not None:
            self._balance(program, state, before)
        return state

    def _balance(self, program: Program, state: SplitState, before: tuple[Vector, Vector, Vector]) -> None:
        """Move rho where the relative residuals of the copies and of the multipliers are far apart, ever more rarely.

        Wohlberg (2017), "ADMM penalty parameter selection by residual balancing": relative residuals do not depend on
        the units of either side.
        """
        done = state.iterations // self.iterations
        if done & (done - 1):  # at powers of two, so that rho comes to rest
            return
        apart = state.metrics["violation"]
        if self.splits_loss(program):
            f = program.gated(state.H) + state.bias[:, None]
            apart = max(apart, float(np.abs(f - state.q).max()) / (float(np.abs(state.q).max()) or 1.0))
        if 0.0 < apart <= 0.1 * SOLVED < state.metrics["gap"]:
            factor = 0.4
        else:
            factor = _imbalance(program, state, before)
            if not factor > 2.0:
                return
        factor = float(np.clip(state.rho * factor, self.rho / RANGE, self.rho * RANGE)) / state.rho
        state.rho *= factor
        state.short = state.z + (state.short - state.z) / factor
        state.rows = np.where(state.rows < 0.0, state.rows / factor, state.rows)
        state.signed = np.abs(state.rows) * program.signs
        state.kappa = state.kappa / factor

    def looked(self, problem: ConvexReLU, state: SplitState) -> SplitState:
        """The state with its answer, the penalised copy, and a cheap certificate by the cones' multipliers."""
        program = problem.program
        H = program.products(state.z)
        upper, bias = program.upper_bound(state.z, H)
        if program.loss.is_smooth:
            f = program.gated(H)
            theta = -program.loss.slope(f + program.bias_of(f)[:, None])
        else:
            theta = -state.rho * program.loss.weights * state.kappa
        theta = program.loss.feasible(theta, program.has_bias)
        rows = np.empty_like(state.H)
        kernels.multiplied(
            theta, program.D, state.rows, state.rho, program.row_weights, program.patches, rows
        )
        lower = program.lower_bound(theta, rows)
        worst, largest = kernels.worst_violation(H, program.D)
        state.x = problem.packed(
            np.ldexp(state.z, program.y_power - program.x_power),
            np.ldexp(bias, program.y_power),
            np.ldexp(theta, program.y_power),
        )
        state.calls = state.iterations
        state.metrics = {
            "objective": float(np.ldexp(upper, 2 * program.y_power)),
            "gap": relative_gap(upper, lower),
            "violation": worst / largest if largest > 0 else 0.0,
        }
        return state


@dataclass(frozen=True)
class ReLUADMM(_Splitting):
    """ADMM on `ConvexReLU`: the smooth step is exact, by one factored n x n matrix.

    The default. With squares the loss is part of the smooth step; other losses are split off and take proximal steps.

    Args:
        rho: penalty of the splitting, in the program's units (rows and targets of size one). Default 1.
        relaxation: in (0, 2). Default 1.6: about a third fewer iterations than 1.
        iterations: of the paper in a step; the certificate is looked at after each step. Default 20.

    When not: more than some 10 000 samples, whose n x n matrix does not fit: `ReLULinearizedADMM`.

    The metric ``gap`` of a step is from the multipliers at hand, and never smaller than the problem's.

    Cost per step: ``iterations`` times ``O(P k n d + k n^2)``; n^3/3 and P n^2 once. Never the (2 P d)^2 matrix: by
    Woodbury's identity ``2 (X B^-1 X') o (D D')`` is left, B = I + X'X, for every rho.

    Source: Bai, Gautam and Sojoudi (2023), algorithm 3.1.

    >>> from thalweg import solve
    >>> from thalweg.convex.relu.patterns import sample_patterns
    >>> X = np.random.default_rng(0).standard_normal((30, 3))
    >>> problem = ConvexReLU(X, np.abs(X[:, 0]), sample_patterns(X, 20), beta=0.1)
    >>> solve(problem, ReLUADMM()).status
    <Status.CONVERGED: 'converged'>
    """

    def smooth_step(self, program: Program, state: SplitState) -> None:
        split = self.splits_loss(program)
        goal = state.q - state.kappa if split else program.loss.y
        scale = 1.0 if split else 1.0 / state.rho
        roots = np.sqrt(program.loss.weights)
        pull = program.gathered(program.centred_back(roots, program.centred(roots, goal)) * scale, program.X)
        right = 2.0 * state.z - state.short  # z - multiplier
        right += (state.signed.reshape(-1, state.signed.shape[-1]) @ program.weighted).reshape(right.shape)
        right[0] += pull
        right[1] -= pull
        t = right @ program.inverse
        v = program.solve(1.0 if split else state.rho, program.gated(program.products(t)))
        back = program.gathered(v, program.X @ program.inverse)
        t[0] -= back
        t[1] += back
        state.u, state.H = t, program.products(t)
        state.bias = mean_bias(program, goal - program.gated(state.H))


@dataclass(frozen=True)
class ReLULinearizedADMM(_Splitting):
    """ADMM on `ConvexReLU` whose smooth step is one gradient step: no matrix of size n x n, more iterations.

    For many samples, where `ReLUADMM` cannot keep its factor. All losses.

    Args:
        rho: as in `ReLUADMM`.
        relaxation: default 1.
        iterations: in a step. Default 50: an iteration makes less way.

    Cost per step: ``iterations`` times ``O(P k n d)``; no factor.

    Source: Bai, Gautam and Sojoudi (2023), section 3; Parikh and Boyd (2014), section 4.4.2, for the linearisation.
    """

    relaxation: float = 1.0
    iterations: int = 50

    def splits_loss(self, program: Program) -> bool:
        return True

    def first_step(self, program: Program) -> float:
        """One over a bound of the quadratic's largest eigenvalue, by power iteration on ``G'G + F'F``."""
        u = np.random.default_rng(0).standard_normal(program.shape)
        size = 1.0
        for _ in range(50):
            u /= np.linalg.norm(u)
            H = program.products(u)
            u = (H.reshape(-1, H.shape[-1]) @ program.weighted).reshape(program.shape)
            half = program.gathered(program.loss.weights * program.gated(H), program.X)
            u[0] += half
            u[1] -= half
            size = float(np.linalg.norm(u))
            if size == 0:
                break
        return 1.0 / (1.0 + 1.05 * size)

    def smooth_step(self, program: Program, state: SplitState) -> None:
        goal = state.q - state.kappa
        f = program.gated(state.H)
        state.bias = mean_bias(program, goal - f)
        half = program.gathered(program.loss.weights * (f + state.bias[:, None] - goal), program.X)
        away = state.H - state.signed
        g = state.u - (2.0 * state.z - state.short)
        g += (away.reshape(-1, away.shape[-1]) @ program.weighted).reshape(g.shape)
        g[0] += half
        g[1] -= half
        state.u = state.u - state.step_size * g
        state.H = program.products(state.u)


@dataclass(frozen=True)
class ReLURBCD(_Splitting):
    """ADMM on `ConvexReLU` whose smooth step is randomised block coordinate descent; smooth losses.

    The paper's way with losses whose smooth step has no closed form. Here `ReLUADMM` splits such a loss off, and is
    faster where its n x n factor fits; this one needs no factor.

    Args:
        rho: as in `ReLUADMM`.
        relaxation: default 1.
        iterations: in a step. Default 5.
        patterns: in a block. Default 8.
        passes: most passes over all blocks in an iteration. Default 3.
        enough: an iteration ends when the mean decrease of the last blocks is below that share of its first. Default
            0.01.
        shrink, grow, back: of the line search: a step too long is divided by ``shrink``, and the next one starts from
            ``grow`` times one that was right, or 1/``back`` of one that was not. Defaults 2.5, 1.05, 1.5.

    Cost per step: ``iterations * passes`` times ``O(P k n d)``.

    Source: Bai, Gautam and Sojoudi (2023), algorithm 3.2, with Armijo's rule.
    """

    relaxation: float = 1.0
    iterations: int = 5
    patterns: int = 8
    passes: int = 3
    enough: float = 0.01
    shrink: float = 2.5
    grow: float = 1.05
    back: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "patterns", "passes")
        require_positive(self, "enough", "shrink", "grow", "back")
        require(self.enough < 1, "ReLURBCD needs 0 < enough < 1", got=self.enough)
        for name in ("shrink", "grow", "back"):
            require(getattr(self, name) > 1, f"ReLURBCD needs {name} > 1", got=getattr(self, name))

    def check(self, program: Program) -> None:
        if not program.loss.is_smooth:
            raise InvalidProblem("ReLURBCD takes gradients; the hinge has none everywhere. Use ReLUADMM.")

    def splits_loss(self, program: Program) -> bool:
        return False

    def smooth_step(self, program: Program, state: SplitState) -> None:
        count, first = len(program.D), 0.0
        f = program.gated(state.H)
        state.bias = program.bias_of(f)
        f += state.bias[:, None]
        near = 2.0 * state.z - state.short
        size = min(self.patterns, count)
        blocks = -(-count // size)
        decreases = np.full(blocks, np.nan)
        for t in range(self.passes * blocks):
            chosen = state.generator.choice(count, size, replace=False)
            decreases[t % blocks] = self._block(program, state, f, near, chosen)
            if t == blocks - 1:
                first = float(decreases.mean())
            elif t >= blocks and decreases.mean() <= self.enough * first:
                break
        state.bias += program.bias_of(f) if program.has_bias else 0.0

    def _block(self, program: Program, state: SplitState, f: Vector, near: Vector, chosen: Index) -> float:
        """A gradient step on some patterns, its length by Armijo's rule; the decrease."""
        loss, rho, gates = program.loss, state.rho, program.D[chosen].astype(np.float64)
        u, H, signed = state.u[:, chosen], state.H[:, chosen], state.signed[:, chosen]
        spread = np.repeat(loss.slope(f), program.patches, axis=1) / program.patches
        half = (gates[:, None] * spread) @ program.X
        g = rho * (u - near[:, chosen]) + rho * ((H - signed) @ program.weighted)
        g[0] += half
        g[1] -= half
        Hg = g @ program.X.T
        df = (gates[:, None] * (Hg[0] - Hg[1])).sum(0).reshape(len(f), -1, program.patches).mean(-1)
        square = float((g * g).sum())
        linear = rho * float((g * (u - near[:, chosen])).sum())
        linear += rho * float((Hg * (H - signed) * program.row_weights).sum())
        bend = rho * (square + float((Hg * Hg * program.row_weights).sum()))
        before, step, tries = loss.value(f), state.step_size, 0
        while True:
            change = loss.value(f - step * df) - before - step * linear + 0.5 * step * step * bend
            if change <= -0.5 * step * square + 1e-14 * before or tries >= 60:
                break
            step, tries = step / self.shrink, tries + 1
        if tries >= 60:
            return 0.0
        state.u[:, chosen] = u - step * g
        state.H[:, chosen] = H - step * Hg
        f -= step * df
        state.step_size = step * self.grow if tries == 0 else step * self.shrink / self.back
        return -change


def _imbalance(program: Program, state: SplitState, before: tuple[Vector, Vector, Vector]) -> float:
    """The root of the relative primal residual over the relative dual one, within [0.1, 10]; 1 where one is zero."""
    slack = np.maximum(state.rows, 0.0)
    apart = [state.u - state.z, state.H * program.signs - slack]
    moved = [state.z - before[0], slack - before[1]]
    copies, multipliers = [state.z, slack], [state.short - state.z, np.minimum(state.rows, 0.0)]
    if state.kappa.any():
        apart.append(program.gated(state.H) + state.bias[:, None] - state.q)
        moved.append(state.q - before[2])
        copies.append(state.q)
        multipliers.append(state.kappa)
    primal, dual = _length(apart) / (_length(copies) or 1.0), _length(moved) / (_length(multipliers) or 1.0)
    return float(np.clip(np.sqrt(primal / dual), 0.1, 10.0)) if primal > 0 and dual > 0 else 1.0


def shrunk(blocks: Vector, threshold: float) -> Vector:
    """Each vector of the last axis shortened by ``threshold``, to zero at least."""
    sizes = np.sqrt(np.square(blocks).sum(-1, keepdims=True))
    return np.asarray(blocks * np.maximum(1.0 - threshold / np.where(sizes > 0, sizes, 1.0), 0.0))


def _length(parts: list[Vector]) -> float:
    return float(np.sqrt(sum(float(np.square(part).sum()) for part in parts)))


def mean_bias(program: Program, off: Vector) -> Vector:
    """The bias of each output that its quadratic asks for: the weighted mean of what is off."""
    if not program.has_bias:
        return np.zeros(len(off))
    return np.asarray(off @ program.loss.weights / program.loss.weights.sum())
