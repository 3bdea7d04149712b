"""The deep conjugate direction method: a network proposes the direction, A-orthogonality makes it safe.

Kaneda, Akar, Chen, Kala, Hyde and Teran (2023), "A deep conjugate direction method for iteratively solving linear
systems", ICML, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from thalweg.core import InvalidProblem, State
from thalweg.core.validation import is_whole, require
from thalweg.linear.direction_network import DirectionNetwork
from thalweg.linear.krylov import indefinite, moved, solved
from thalweg.linear.method import LinearMethod
from thalweg.linear.poisson import PoissonGrid
from thalweg.linear.poisson_tensors import poisson_product
from thalweg.linear.problem import LinearSystem
from thalweg.numerics import as_csr
from thalweg.numerics.lanczos import spectrum_ends
from thalweg.numerics.operators import Matrix

Vector = NDArray[np.float64]
Directions = DirectionNetwork | Callable[[Tensor], Tensor]


@dataclass(kw_only=True)
class DeepConjugateState(State):
    """``x`` is a NumPy array on the CPU, a tensor on other devices."""

    r: Tensor  # (n,) residual b - A x
    P: list[Tensor] = field(default_factory=list)  # directions kept, each (n,)
    Q: list[Tensor] = field(default_factory=list)  # A times them
    curvatures: list[float] = field(default_factory=list)  # p'Ap
    fallbacks: int = 0


@dataclass(frozen=True, eq=False)
class DeepConjugateDirection(LinearMethod[DeepConjugateState]):
    """DCDM: line searches along a network's directions, each made A-orthogonal to the last ones.

    For Poisson systems on grids (`PoissonGrid`) with many cells, where conjugate gradients' iterations grow with the
    side of the grid and these hardly do; on a GPU, and for networks that are no symmetric positive definite
    preconditioner. On a CPU `ConjugateGradient` with a `MultigridCycle` is many times faster.

    Args:
        network: a `DirectionNetwork`, e.g. ``pretrained_direction(2)``, on the device where the solve is to run; or any
            function from a unit residual to a direction, both tensors of shape (n,).
        keep: directions to stay orthogonal to; 2, the paper's, or None for all (memory grows by two vectors a step).

    Any function will do: where a direction is not finite, or its step would lower the error less than the residual's
    own is bound to (``|r|^2 / |A|``), the residual takes its place. So the energy error falls by a factor of at least
    1 - 1/cond(A) a step, whatever the network. The metric ``fallbacks`` counts those steps.

    Raises:
        InvalidProblem: A not symmetric, without a positive diagonal, or not positive definite in mid-run; a network
            and a matrix that is no grid, or a grid of other dimensions; b not consistent with a closed pool.

    Cost per step: the network, two products with A where it falls back and one otherwise, 6 ``keep`` + 6 vector
    operations; 2 ``keep`` + 3 vectors kept.

    >>> from thalweg import Stop, solve
    >>> from thalweg.linear import pretrained_direction
    >>> from thalweg.linear.obstacles import box_of_fluid
    >>> grid = PoissonGrid(box_of_fluid((64, 64)))
    >>> b = np.random.default_rng(0).standard_normal(64 * 64) * grid.fluid.ravel()
    >>> method = DeepConjugateDirection(pretrained_direction(2))
    >>> solve(LinearSystem(grid, b), method, stop=Stop(below={"residual": 1e-4})).steps < 8
    True
    """

    in_place: ClassVar[bool] = True

    network: Directions
    keep: int | None = 2

    def __post_init__(self) -> None:
        require(
            self.keep is None or (is_whole(self.keep) and self.keep >= 1),
            "DeepConjugateDirection needs a whole keep >= 1, or None",
            got=self.keep,
        )

    def begin(self, problem: LinearSystem, seed: int) -> DeepConjugateState:
        bound = _bound(self.network, problem)
        if sp.issparse(problem.A):
            problem.require_symmetric("DeepConjugateDirection")
            problem.require_positive_diagonal("DeepConjugateDirection")
        x = problem.start()
        r = torch.from_numpy(problem.b - problem.A @ x if problem.x0 is not None else problem.b.copy())
        held = x if bound.device.type == "cpu" else torch.from_numpy(x).to(bound.device)
        metrics = {"residual": float(r.norm()) / problem.scale, "fallbacks": 0.0}
        return DeepConjugateState(x=held, r=r.to(bound.device), metrics=metrics)

    def advance(self, problem: LinearSystem, state: DeepConjugateState) -> DeepConjugateState:
        bound, r = _bound(self.network, problem), state.r
        norm = float(r.norm())
        if norm == 0.0:
            return solved(state)
        d = self._orthogonal(bound.direction(r / norm), state)
        q = bound.product(d)
        slope, curvature = float(r @ d), float(d @ q)
        enough = curvature > 0 and slope * slope * bound.norm >= norm * norm * curvature
        if not (enough and math.isfinite(curvature)):
            state.fallbacks += 1
            d = self._orthogonal(bound.inside(r.clone()), state)
            q = bound.product(d)
            slope, curvature = float(r @ d), float(d @ q)
            if not curvature > 0:
                raise indefinite(curvature)
        alpha = slope / curvature
        x = torch.from_numpy(state.x) if isinstance(state.x, np.ndarray) else state.x
        x.add_(d, alpha=alpha)
        r.sub_(q, alpha=alpha)
        if self.keep is not None and len(state.P) == self.keep:
            for kept in (state.P, state.Q, state.curvatures):
                del kept[0]
        state.P.append(d)
        state.Q.append(q)
        state.curvatures.append(curvature)
        state = moved(problem, state, float(r.norm()))
        state.metrics["fallbacks"] = float(state.fallbacks)
        return state

    @staticmethod
    def _orthogonal(d: Tensor, state: DeepConjugateState) -> Tensor:
        """``d`` without its parts along the directions kept, in the inner product of A."""
        for _ in range(2):  # once leaves what rounding puts back
            for p, q, curvature in zip(state.P, state.Q, state.curvatures):
                d.sub_(p, alpha=float(d @ q) / curvature)
        return d


@dataclass(frozen=True)
class _Bound:
    """A direction function and A's product on one device, for one system."""

    device: torch.device
    direction: Callable[[Tensor], Tensor]
    product: Callable[[Tensor], Tensor]
    inside: Callable[[Tensor], Tensor]  # projects off A's null space
    norm: float  # an upper bound of A's largest eigenvalue


def _bound(network: Directions, problem: LinearSystem) -> _Bound:
    """What ``network`` and ``problem`` make together, made once and kept with the problem."""
    kept: dict[int, tuple[Directions, _Bound]] = vars(problem).setdefault("_directions", {})
    if id(network) not in kept:
        kept[id(network)] = (network, _bind(network, problem))
    return kept[id(network)][1]


def _bind(network: Directions, problem: LinearSystem) -> _Bound:
    A, device = problem.A, torch.device("cpu")
    if isinstance(network, DirectionNetwork):
        if not isinstance(A, PoissonGrid):
            raise _no_grid(A)
        device = next(network.parameters()).device
    inside = _projector(A, device)
    propose = (
        network.bind(A) if isinstance(network, DirectionNetwork) and isinstance(A, PoissonGrid) else network
    )
    dry = None
    if isinstance(A, PoissonGrid) and not A.fluid.all():
        dry = torch.from_numpy(np.flatnonzero(~A.fluid)).to(device)

    def direction(u: Tensor) -> Tensor:
        d = propose(u.clone()).to(torch.float64).reshape(-1)
        if len(d) != len(u):
            raise InvalidProblem(f"The network returned {len(d)} numbers for a residual of {len(u)}.")
        d = d.clone() if d.untyped_storage().data_ptr() == u.untyped_storage().data_ptr() else d
        if dry is not None and isinstance(network, DirectionNetwork):
            d[dry] = u[dry]
        return inside(d)

    return _Bound(device, direction, _product(A, device), inside, _norm(A))


def _no_grid(A: object) -> InvalidProblem:
    return InvalidProblem(
        f"A is a {type(A).__name__}; a direction network needs a PoissonGrid, to know which cells are neighbours. "
        "Build the system with one, or pass a function of the residual."
    )


def _projector(A: Matrix, device: torch.device) -> Callable[[Tensor], Tensor]:
    pools = [torch.from_numpy(pool).to(device) for pool in A.closed] if isinstance(A, PoissonGrid) else []

    def inside(v: Tensor) -> Tensor:
        for pool in pools:
            v[pool] -= v[pool].mean()
        return v

    return inside


def _product(A: Matrix, device: torch.device) -> Callable[[Tensor], Tensor]:
    if device.type == "cpu":
        return lambda v: torch.from_numpy(np.asarray(A @ v.numpy()))
    if not isinstance(A, PoissonGrid):
        raise InvalidProblem(f"On {device} A is a PoissonGrid; got a {type(A).__name__}.")
    fluid = torch.from_numpy(A.fluid.astype(np.float64)).to(device)
    counts = torch.from_numpy(A.counts.astype(np.float64)).to(device)
    shape = A.cells.shape
    return lambda v: poisson_product(v.reshape(shape), fluid, counts, len(shape)).reshape(-1)


def _norm(A: Matrix) -> float:
    """An upper bound of the largest eigenvalue: Gershgorin's, or ten per cent above a Lanczos estimate."""
    if isinstance(A, PoissonGrid):
        return max(1.0, 2.0 * float(A.counts.max()))
    if sp.issparse(A):
        rows = abs(as_csr(A))
        return float(rows.sum(axis=1).max())
    return 1.1 * spectrum_ends(A)[1]


def direction_preconditioner(network: DirectionNetwork, system: LinearSystem) -> LinearOperator:
    """A network as preconditioner of a system on a `PoissonGrid`, shape (n, n), for any Krylov method that takes one.

    A `CycleDirection` is symmetric positive definite and linear, as `ConjugateGradient` needs (`MultigridCycle` has the
    same numbers and is much faster on a CPU); other networks are neither: use `FlexibleCG`.

    Raises:
        InvalidProblem: A is no `PoissonGrid`, or one of other dimensions than the network's.

    >>> from thalweg.linear import CycleDirection
    >>> system = LinearSystem(PoissonGrid(np.zeros((8, 8), int)), np.zeros(64))
    >>> direction_preconditioner(CycleDirection(2), system).shape
    (64, 64)
    """
    if not isinstance(system, LinearSystem):
        raise InvalidProblem(
            f"direction_preconditioner takes the system, LinearSystem(grid, b), as its sisters do; got a "
            f"{type(system).__name__}."
        )
    grid = system.A
    if not isinstance(grid, PoissonGrid):
        raise _no_grid(grid)
    direction, n, dry = network.bind(grid), grid.cells.size, ~grid.fluid.ravel()

    def apply(r: Vector) -> Vector:
        r = np.asarray(r, dtype=np.float64).reshape(-1)
        norm = float(np.linalg.norm(r))
        if norm == 0.0:
            return np.zeros_like(r)
        d = norm * direction(torch.from_numpy(r / norm)).cpu().double().numpy()
        d[dry] = r[dry]
        return grid.project(d)

    return LinearOperator((n, n), matvec=apply, rmatvec=apply, dtype=np.float64)
