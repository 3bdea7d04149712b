"""13: hyper-gradients against torchopt, jaxopt and cvxpylayers; 26: self-tuned networks; 33: alignment."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import cvxpy as cp
import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import torch
import torchopt
from cvxpylayers.torch import CvxpyLayer
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.bilevel import alignment
from benchmarks.race import Row, race
from thalweg.bilevel import custom_fixed_point, custom_root, cvxpy_layer
from thalweg.bilevel.selftuning import HyperParameter, HyperSpace, self_tuning
from thalweg.numerics.projections import simplex
from thalweg.numerics.torch_krylov import LinearSolver

jax.config.update("jax_enable_x64", True)
warnings.filterwarnings("ignore", category=FutureWarning, module="torchopt")
TOLERANCE, MOST = 1e-8, 2000


def rows() -> Iterator[Row]:
    """All rows, the cheap ones first."""
    for parameters, examples in ((100, 500), (300, 1500), (1000, 2000), (10_000, 2000)):
        yield from ridge(parameters, examples)
    for examples in (10, 100, 1000):
        yield from machine(examples)
    for unknowns in (5, 20, 60):
        for batch in (1, 128):
            yield from program(unknowns, batch)
        yield from cone_program(unknowns)
    yield from program(20, 1, repeated=True)
    yield from self_tuned()
    yield from alignment.rows()


def ridge(parameters: int, examples: int) -> Iterator[Row]:
    """A penalty for each coefficient: the gradient of a held-out loss in their logarithms, at the solution."""
    rng = np.random.default_rng(0)
    X, V = (rng.standard_normal((n, parameters)) / np.sqrt(n) for n in (examples, 200))
    true = rng.standard_normal(parameters)
    y, v, log = X @ true, V @ true, np.zeros(parameters)
    w = _solution(X, y)
    Xt, yt, Vt, vt, wt = (torch.tensor(a) for a in (X, y, V, v, w))

    def gradient(x: Tensor, log: Tensor) -> Tensor:
        return Xt.T @ (Xt @ x - yt) + log.exp() * x

    ours = custom_root(gradient, solve=LinearSolver("cg", TOLERANCE, MOST))(lambda init, log: wt.clone())
    theirs = torchopt.diff.implicit.custom_root(
        gradient, argnums=1, solve=torchopt.linear_solve.solve_cg(rtol=TOLERANCE, atol=0.0, maxiter=MOST)
    )(lambda init, log: wt.clone())

    def slope(solver: Callable[..., Tensor]) -> Tensor:
        at = torch.zeros(parameters, dtype=torch.float64, requires_grad=True)
        loss = 0.5 * (Vt @ solver(torch.zeros_like(at), at) - vt).square().sum()
        return torch.autograd.grad(loss, at)[0]

    Xj, yj, Vj, vj, wj = (jnp.array(a) for a in (X, y, V, v, w))
    linear = _jax_solver(jaxopt.linear_solve.solve_cg)
    solved = jaxopt.implicit_diff.custom_root(
        lambda x, log: Xj.T @ (Xj @ x - yj) + jnp.exp(log) * x, solve=linear
    )(lambda init, log: wj)
    compiled = jax.jit(jax.grad(lambda log: 0.5 * jnp.sum((Vj @ solved(wj, log) - vj) ** 2)))
    adjoint = _adjoint(X, V.T @ (V @ w - v))
    exact = -w * adjoint
    yield from _rows(
        f"ridge, {parameters} hyper-parameters",
        exact,
        lambda: slope(ours).numpy(),
        ("torchopt", lambda: slope(theirs).numpy()),
        ("jaxopt, compiled", lambda: np.asarray(compiled(log).block_until_ready())),
    )


def _solution(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of ridge regression with all penalties one; through the smaller of the two Gram matrices."""
    n, d = X.shape
    if d <= n:
        return np.linalg.solve(X.T @ X + np.eye(d), X.T @ y)
    return X.T @ np.linalg.solve(X @ X.T + np.eye(n), y)


def _adjoint(X: np.ndarray, b: np.ndarray) -> np.ndarray:
    n, d = X.shape
    if d <= n:
        return np.linalg.solve(X.T @ X + np.eye(d), b)
    return b - X.T @ np.linalg.solve(X @ X.T + np.eye(n), X @ b)


def machine(examples: int) -> Iterator[Row]:
    """The multi-class support vector machine's dual, ten unknowns an example: projected gradients' fixed point."""
    rng = np.random.default_rng(1)
    X, V = rng.standard_normal((examples, 30)) / 5.0, rng.standard_normal((100, 30)) / 5.0
    Y, Z = np.eye(10)[rng.integers(10, size=examples)], np.eye(10)[rng.integers(10, size=100)]
    Xt, Yt, Vt, Zt = (torch.tensor(a) for a in (X, Y, V, Z))
    step = 1.0 / np.linalg.norm(X, 2) ** 2

    def weights(x: Tensor, log: Tensor) -> Tensor:
        return Xt.T @ (Yt - x) / log.exp()

    def moved(x: Tensor, log: Tensor) -> Tensor:
        slope = Yt - Xt @ weights(x, log)
        return simplex(x - step * log.exp() * slope)

    at0, x = torch.tensor(1.0, dtype=torch.float64), torch.full((examples, 10), 0.1, dtype=torch.float64)
    for _ in range(20_000):
        new = moved(x, at0)
        if float((new - x).abs().max()) < 1e-12:
            break
        x = new
    ours = custom_fixed_point(moved)(lambda init, log: x.clone())
    theirs = torchopt.diff.implicit.custom_root(
        lambda x, log: moved(x, log) - x,
        argnums=1,
        solve=torchopt.linear_solve.solve_normal_cg(rtol=TOLERANCE, atol=0.0, maxiter=MOST),
    )(lambda init, log: x.clone())

    def slope(solver: Callable[..., Tensor]) -> Tensor:
        at = at0.clone().requires_grad_()
        loss = 0.5 * (Vt @ weights(solver(torch.zeros_like(x), at), at) - Zt).square().sum()
        return torch.autograd.grad(loss, at)[0]

    Xj, Yj, Vj, Zj, xj = (jnp.array(a) for a in (X, Y, V, Z, x.numpy()))
    rows_to_simplex = jax.vmap(jaxopt.projection.projection_simplex)

    def weights_j(x: Any, log: Any) -> Any:
        return Xj.T @ (Yj - x) / jnp.exp(log)

    def moved_j(x: Any, log: Any) -> Any:
        return rows_to_simplex(x - step * jnp.exp(log) * (Yj - Xj @ weights_j(x, log)))

    solved = jaxopt.implicit_diff.custom_fixed_point(
        moved_j, solve=_jax_solver(jaxopt.linear_solve.solve_normal_cg)
    )(lambda init, log: xj)
    compiled = jax.jit(jax.grad(lambda log: 0.5 * jnp.sum((Vj @ weights_j(solved(xj, log), log) - Zj) ** 2)))
    tight = custom_fixed_point(moved, solve=LinearSolver("gmres", 1e-13, 20_000, restart=200))
    exact = slope(tight(lambda init, log: x.clone())).numpy()
    yield from _rows(
        f"SVM dual, {10 * examples} unknowns",
        exact,
        lambda: slope(ours).numpy(),
        ("torchopt", lambda: slope(theirs).numpy()),
        ("jaxopt, compiled", lambda: np.asarray(compiled(1.0).block_until_ready())),
    )


def program(unknowns: int, batch: int, repeated: bool = False) -> Iterator[Row]:
    """Quadratic programs with as many inequalities as unknowns: solved, and differentiated in their linear terms."""
    rng = np.random.default_rng(2)
    x, q = cp.Variable(unknowns), cp.Parameter(unknowns)
    G, h = rng.standard_normal((unknowns, unknowns)), np.abs(rng.standard_normal(unknowns))
    constraints = [h >= G @ x] * (2 if repeated else 1)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x) + q @ x), constraints)
    at, v = (torch.tensor(rng.standard_normal((batch, unknowns))) for _ in range(2))
    ours = cvxpy_layer(problem, [q], [x])

    def exact(at: Tensor, v: Tensor) -> Tensor:
        # on the active constraints' tangent space the solution moves as -q does
        active = torch.tensor(G)[(torch.tensor(h) - torch.tensor(G) @ ours(at)) < 1e-9]
        return -(v - active.T @ torch.linalg.lstsq(active.T, v[:, None], driver="gelsd").solution[:, 0])

    together = "" if batch == 1 else f", {batch} at once"
    twice = ", rows said twice" if repeated else ""
    yield from _layers(
        f"QP layer, {unknowns} unknowns{together}{twice}, solve and gradient",
        problem,
        ours,
        (q, x),
        (at[0], v[0]) if batch == 1 else (at, v),
        torch.stack([exact(*pair) for pair in zip(at, v, strict=True)]).numpy(),
    )


def cone_program(unknowns: int) -> Iterator[Row]:
    """A second-order cone program: a norm and a 1-norm to make small, in a ball, on a hyperplane."""
    rng = np.random.default_rng(0)
    x, t = cp.Variable(unknowns), cp.Parameter(unknowns)
    F = rng.standard_normal((unknowns, unknowns))
    objective = cp.norm(F @ x - t) + 0.1 * cp.norm(x, 1)
    problem = cp.Problem(cp.Minimize(objective), [cp.norm(x) <= 0.5, cp.sum(x) == 0.2])
    at, v = (torch.tensor(rng.standard_normal(unknowns)) for _ in range(2))
    dense = cvxpy_layer(problem, [t], [x], solve=LinearSolver("dense"))
    exact = _layer_slope(dense, at, v)  # the optimality conditions, differentiated by autograd
    yield from _layers(
        f"SOCP layer, {unknowns} unknowns, solve and gradient",
        problem,
        cvxpy_layer(problem, [t], [x]),
        (t, x),
        (at, v),
        exact,
    )


def _layers(
    workload: str,
    problem: cp.Problem,
    ours: Callable[..., Any],
    names: tuple[cp.Parameter, cp.Variable],
    at: tuple[Tensor, Tensor],
    exact: np.ndarray,
) -> Iterator[Row]:
    parameter, variable = names
    theirs = CvxpyLayer(problem, parameters=[parameter], variables=[variable])
    yield from _rows(
        workload,
        exact.reshape(at[0].shape),
        lambda: _layer_slope(ours, *at),
        ("cvxpylayers", lambda: _layer_slope(theirs, *at)),
    )


def _layer_slope(layer: Callable[..., Any], at: Tensor, v: Tensor) -> np.ndarray:
    there = at.clone().requires_grad_()
    found = layer(there)
    found = found[0] if isinstance(found, tuple) else found
    return torch.autograd.grad((found * v).sum(), there)[0].numpy()


def self_tuned() -> Iterator[Row]:
    """Forward and backward of a converted network against the plain one."""
    space = HyperSpace(HyperParameter("a", 0.2), HyperParameter("b", 0.2))
    convolutional = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128 * 256, 10),
    )
    dense = nn.Sequential(
        nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
    )
    networks = {
        "MLP": (dense, torch.randn(128, 784)),
        "CNN": (convolutional, torch.randn(32, 3, 32, 32)),
        "LSTM": (_Recurrent(), torch.randn(64, 24, 256)),
    }
    for name, (plain, x) in networks.items():
        targets, u = torch.randint(10, (len(x),)), space.u0 + 0.1 * torch.randn(len(x), 2)
        for label, delta in (("STN", False), ("Delta-STN", True)):
            tuned = self_tuning(plain, space, delta=delta)
            step = functools.partial(_trained, tuned, x, targets, at=u)
            (ours, _), (theirs, _) = race(step, functools.partial(_trained, plain, x, targets))
            yield Row("26", f"{label}, {name}: forward and backward", ours, "plain network", theirs)


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(256, 256, batch_first=True), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def _trained(network: nn.Module, x: Tensor, targets: Tensor, **options: Any) -> None:
    functional.cross_entropy(network(x, **options), targets).backward()
    for p in network.parameters():
        p.grad = None


def _jax_solver(solve: Callable[..., Any]) -> Callable[..., Any]:
    return lambda matvec, b: solve(matvec, b, tol=TOLERANCE, maxiter=MOST)


def _rows(
    workload: str,
    exact: np.ndarray,
    ours: Callable[[], np.ndarray],
    *peers: tuple[str, Callable[[], np.ndarray]],
) -> Iterator[Row]:
    (mine, found), *rest = race(ours, *(peer for _, peer in peers))

    def error(value: np.ndarray) -> float:
        return float(np.linalg.norm(value - exact) / np.linalg.norm(exact))

    for (name, _), (seconds, value) in zip(peers, rest, strict=True):
        yield Row("13", workload, mine, name, seconds, error(found), error(value))
