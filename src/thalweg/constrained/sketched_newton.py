"""Newton's method whose systems are solved only as far as needed, by random projections (AdaSketch-Newton)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp

from thalweg.constrained._arrays import Vector
from thalweg.constrained._merit import (
    ADJUSTMENTS,
    Direction,
    MeritNewton,
    MeritState,
    Weights,
    check_merit,
    downhill,
)
from thalweg.constrained._newton import NewtonSystem
from thalweg.constrained.curvature import spectral_norm
from thalweg.constrained.problem import EqualityConstrained, Point
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.numerics.operators import as_csr, equilibration
from thalweg.numerics.sketch import Kaczmarz, Sketch, sketch_and_project


@dataclass(kw_only=True)
class SketchedState(MeritState):
    """As `MeritState`, with the accuracy asked of the projections, and how many there were."""

    delta: float
    projections: int = 0

    def spent(self) -> dict[str, float]:
        """What the steps so far have cost, for the metrics."""
        return {"projections": float(self.projections), "flops": self.flops}


@dataclass(frozen=True)
class SketchedNewton(MeritNewton[SketchedState]):
    """Sequential quadratic programming with randomized inexact steps and an exact augmented Lagrangian.

    Each step projects z on random combinations of the equations of ``[[B, G'], [G, 0]] z = -(grad_x L, c)`` until
    ``kappa |r| <= theta delta |b|`` with ``kappa = |A| psi``, and then until z descends on
    ``L + eta1/2 |c|^2 + eta2/2 |grad_x L|^2`` by at least ``eta2/2 |b|^2``; where it does not, eta1 grows by nu^2,
    eta2 shrinks by nu, delta by nu^4, and the projections go on. Then x and lambda move together, by a length of
    Armijo's rule.

    Take it where the Newton system is large and sparse and no factorization of it is at hand, or the KKT matrix can
    only be seen in pieces; for small dense problems, and where a sparse factorization is cheap, `NewtonSQP` and
    Ipopt are quicker.

    Args:
        sketch: how equations are combined: `Kaczmarz` (single rows), `Gaussian`, `CountSketch`, `SRHT`,
            `BlockKaczmarz`.
        theta: the forcing term, a number or a function of the step's number, from 0. A constant gives linear
            convergence; one that goes to zero, superlinear.
        eta1, eta2, delta: where the merit's weights and the accuracy start.
        xi: what a Hessian without curvature along the constraints is lifted by, with its norm.
        beta: share of the predicted descent that a step must bring.
        nu: by what the weights change.
        conditioning: kappa. By default the paper's bound, ``psi = 20 max(|B|^2, 1) / (min(xi_G, 1) min(xi, 1))``
            with xi_G the smallest squared singular value of G: sure, and far too careful where the matrix is large
            or ill-conditioned. 1 asks for a relative residual of theta delta and leaves the rest to the test of
            descent.
        equilibrate: scale unknowns and equations alike so that the largest coefficient of each is 1: projections of
            badly scaled systems need far fewer. The paper does not; False gives its method.
        limit: most equations met in one go, repeats counted; by default a million, or 2000 times all where that is
            more. Equations that contradict each other are given up earlier.

    Raises:
        InvalidParameter: a parameter outside its range.

    Warns:
        RankDeficient: dependent constraints. A step that then cannot descend is replaced by the merit's steepest
        descent.

    Ends as DIVERGED where f falls without bound, as STALLED where no step descends: there the message tells whether
    rounding or constraints that cannot be met are the cause.

    Cost per step: a Hessian, a Jacobian, and the projections (``projections`` and ``flops`` of the metrics).

    Source: Hong, Na, Mahoney and Kolar (2023), "Constrained optimization via exact augmented Lagrangian and randomized
    iterative sketching", arXiv 2305.18379, algorithm 1. Their published code puts the Hessian of f in the merit's
    gradient where that of the Lagrangian belongs; here it is the latter.

    >>> from thalweg import Stop, solve
    >>> from thalweg.constrained import EqualityConstrained, SketchedNewton
    >>> circle = EqualityConstrained.from_formulas("x1 + x2", ["x1**2 + x2**2 - 2"], [-1.5, -0.5])
    >>> solve(circle, SketchedNewton(), stop=Stop(below={"kkt": 1e-8})).x.round(6)
    array([-1., -1.])
    """

    sketch: Sketch = field(default_factory=Kaczmarz)
    theta: float | Callable[[int], float] = 1.0
    eta1: float = 1.0
    eta2: float = 0.1
    delta: float = 0.1
    xi: float = 0.1
    beta: float = 0.1
    nu: float = 1.5
    conditioning: float | None = None
    equilibrate: bool = True
    limit: int | None = None

    def __post_init__(self) -> None:
        check_merit("SketchedNewton", eta1=self.eta1, eta2=self.eta2, xi=self.xi, beta=self.beta, nu=self.nu)
        delta, limit, kappa = self.delta, self.limit, self.conditioning
        require(
            isinstance(self.sketch, Sketch),
            "SketchedNewton needs a sketch such as Kaczmarz()",
            got=self.sketch,
        )
        require(is_real(delta) and 0 < delta < math.inf, "SketchedNewton needs delta > 0", got=delta)
        require(
            limit is None or (is_whole(limit) and limit >= 1), "SketchedNewton needs limit >= 1", got=limit
        )
        if not callable(self.theta):
            check_theta(self.theta)
        fits = kappa is None or (is_real(kappa) and 1 <= kappa < math.inf)
        require(fits, "SketchedNewton needs conditioning >= 1", got=kappa)

    def init(self, problem: EqualityConstrained, seed: int) -> SketchedState:
        begun = vars(self._begin(problem, seed))
        return SketchedState(**begun, eta1=self.eta1, eta2=self.eta2, delta=self.delta)

    def _direction(
        self, system: NewtonSystem, point: Point, state: SketchedState
    ) -> tuple[Direction, SketchedState]:
        inner = _Inner(self, system, state)
        found = inner.direction(point)
        after = replace(
            state,
            delta=state.delta if found.steepest else inner.delta,
            flops=state.flops + inner.flops,
            projections=state.projections + inner.projections,
        )
        return found, after


def check_theta(theta: object) -> float:
    """The forcing term, or `InvalidParameter`."""
    require(is_real(theta) and 0 < theta <= 1, "SketchedNewton needs 0 < theta <= 1", got=theta)
    return float(theta)  # type: ignore[arg-type]


class _Inner:
    """The search for one direction."""

    def __init__(self, method: SketchedNewton, system: NewtonSystem, state: SketchedState) -> None:
        self.method, self.system, self.state, self.delta = method, system, state, state.delta
        A = as_csr(system.A)
        self.scale = equilibration(A) if method.equilibrate else np.ones(len(system.b))
        d = sp.diags_array(self.scale)
        self.A, self.b = as_csr(d @ A @ d), self.scale * system.b
        self.prepared = method.sketch.prepare(self.A)
        self.limit = max(1_000_000, 2000 * len(self.b)) if method.limit is None else method.limit
        self.random = generator(state.seed, state.step, 0x04)
        self.flops, self.projections = self.prepared.setup, 0

    def direction(self, point: Point) -> Direction:
        """Projections until they descend, or steepest descent where they do not."""
        method, system, state = self.method, self.system, self.state
        kappa, allowed = self._constants(point)
        weights = state.weights
        self.delta = max(min(state.delta, allowed(weights)), 1e-6)
        theta = check_theta(method.theta(state.step)) if callable(method.theta) else method.theta
        size = float(np.linalg.norm(system.b))
        z = np.zeros(len(system.b))
        for _ in range(ADJUSTMENTS):
            z, met = self._project(z, theta * self.delta * size / kappa)
            slope = float(weights.gradient(point, state.multipliers, system.H) @ z)
            if slope <= -0.5 * weights.eta2 * size**2:
                return Direction(z, slope, weights)
            hopeless = system.deficient and not met
            if hopeless or weights.eta1 > 1e8 or weights.eta2 < 1e-8:
                break
            weights = Weights(weights.eta1 * method.nu**2, weights.eta2 / method.nu)
            self.delta = max(min(self.delta / method.nu**4, allowed(weights)), 1e-6)
        return downhill(system, point, state)

    def _constants(self, point: Point) -> tuple[float, Callable[[Weights], float]]:
        """kappa, and what bounds delta for given weights."""
        method, system = self.method, self.system
        if method.conditioning is not None:
            return method.conditioning, lambda weights: method.delta
        hessian = spectral_norm(system.H)
        psi = 20.0 * max((hessian + system.shift) ** 2, 1.0)
        psi /= min(max(system.smallest, 1e-16), 1.0) * min(method.xi, 1.0)
        upsilon = max(spectral_norm(point.G), hessian, 1.0)

        def allowed(weights: Weights) -> float:
            return (0.5 - method.beta) * weights.eta2 / ((1.0 + sum(weights)) * (upsilon * psi) ** 2)

        return spectral_norm(system.A) * psi, allowed

    def _project(self, z: Vector, below: float) -> tuple[Vector, bool]:
        """z projected until ``|A z - b| <= below``, and whether that was reached."""
        d = self.scale
        found = sketch_and_project(
            self.A,
            self.b,
            self.method.sketch,
            below=below * float(d.min()),
            z=z / d,
            limit=self.limit,
            random=self.random,
            prepared=self.prepared,
        )
        self.flops += found.flops
        self.projections += found.projections
        return d * found.z, found.converged
