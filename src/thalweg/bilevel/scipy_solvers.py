"""SciPy's `minimize` and `root` on torch functions, differentiable in the functions' parameters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.optimize
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.bilevel._call import Condition
from thalweg.bilevel._trees import Tree, TreeFunction, ravel, unravel
from thalweg.bilevel.implicit import custom_root
from thalweg.bilevel.optimality import projected_gradient, stationary
from thalweg.core import InvalidProblem, NotFinite
from thalweg.numerics.projections import box
from thalweg.numerics.torch_krylov import LinearSolver

Vector = NDArray[np.float64]


def scipy_minimize(
    f: Callable[..., Tensor],
    *,
    method: str | None = None,
    bounds: tuple[float, float] | None = None,
    tol: float = 1e-10,
    options: dict[str, object] | None = None,
    solve: LinearSolver | None = None,
) -> TreeFunction:
    """``minimiser(x0, *theta)`` of ``f(x, *theta)`` by `scipy.optimize.minimize`, differentiable in theta.

    Args:
        f: gives a scalar; x is a pytree of tensors, and so may theta be.
        method: SciPy's, gradients come from torch; by default BFGS, or L-BFGS-B with ``bounds``.
        bounds: of every entry of x; the derivative is then that of the entries inside.
        tol: handed to SciPy; a derivative is as exact as the solution.
        options: handed to SciPy.
        solve: of the derivative's linear system; ``LinearSolver("cg")`` suits minima.

    Raises:
        InvalidProblem: f gives no scalar, bounds that are none.
        NotFinite: f or its gradient is not finite on the way.

    >>> ridge = scipy_minimize(lambda w, y, lam: (w - y).square().sum() + lam * w.square().sum())
    >>> y, lam = torch.tensor([2.0, 4.0], dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    >>> torch.func.jacrev(ridge, argnums=2)(torch.zeros_like(y), y, lam)  # -y / (1 + lam)^2
    tensor([-0.5000, -1.0000], dtype=torch.float64)
    """
    if bounds is not None and not bounds[0] <= bounds[1]:
        raise InvalidProblem(f"scipy_minimize needs bounds (low, high) with low <= high; got {bounds}.")

    def minimiser(x0: Tree, *theta: Tree) -> Tree:
        leaves, structure = pytree.tree_flatten(x0)

        def value(flat: Vector) -> tuple[float, Vector]:
            x = _tensors(flat, leaves)
            with torch.enable_grad():
                for leaf in x:
                    leaf.requires_grad_(True)
                told = f(pytree.tree_unflatten(x, structure), *theta)
                if not isinstance(told, Tensor) or told.numel() != 1:
                    raise InvalidProblem("scipy_minimize: f has to give a scalar tensor.")
                gradients = torch.autograd.grad(told, x)
            slope = ravel([g.double().cpu() for g in gradients]).numpy()
            if not (np.isfinite(float(told.detach())) and np.isfinite(slope).all()):
                raise NotFinite(
                    f"scipy_minimize: the value is {float(told.detach())}, or its gradient not finite."
                )
            return float(told.detach()), slope

        box_of_all = None if bounds is None else [bounds] * sum(leaf.numel() for leaf in leaves)
        found = scipy.optimize.minimize(  # type: ignore[call-overload]
            value, _array(leaves), jac=True, method=method, bounds=box_of_all, tol=tol, options=options
        )
        return pytree.tree_unflatten(_tensors(found.x, leaves), structure)

    if bounds is None:
        condition: Condition = stationary(f)
    else:
        low, high = bounds
        moved = projected_gradient(lambda x, theta: f(x, *theta), lambda y, _: _boxed(y, low, high))

        def condition(x: Tree, *theta: Tree) -> Tree:
            return pytree.tree_map(torch.sub, moved(x, theta, None), x)

    return custom_root(condition, solve=solve)(minimiser)


def scipy_root(
    F: Condition,
    *,
    method: str = "hybr",
    tol: float = 1e-12,
    options: dict[str, object] | None = None,
    solve: LinearSolver | None = None,
) -> TreeFunction:
    """``root(x0, *theta)`` of ``F(x, *theta) = 0`` by `scipy.optimize.root`, differentiable in theta.

    Args:
        F: gives a pytree like x.
        method, tol, options: SciPy's; methods that take a Jacobian get torch's.
        solve: of the derivative's linear system.

    >>> cube_root = scipy_root(lambda x, a: x**3 - a)
    >>> a = torch.tensor([8.0], dtype=torch.float64)
    >>> torch.func.jacfwd(cube_root, argnums=1)(torch.ones_like(a), a)  # 1/(3 x^2)
    tensor([[0.0833]], dtype=torch.float64)
    """

    def root(x0: Tree, *theta: Tree) -> Tree:
        leaves, structure = pytree.tree_flatten(x0)

        def value(flat: Tensor) -> Tensor:
            x = [part.to(leaf) for part, leaf in zip(unravel(flat, leaves), leaves, strict=True)]
            told = pytree.tree_leaves(F(pytree.tree_unflatten(x, structure), *theta))
            return ravel([t.double().cpu() for t in told])

        def numbers(flat: Vector) -> Vector:
            out = value(torch.from_numpy(flat)).numpy()
            if not np.isfinite(out).all():
                raise NotFinite("scipy_root: the condition's value is not finite on the way.")
            return np.asarray(out)

        def jacobian(flat: Vector) -> Vector:
            return np.asarray(torch.func.jacrev(value)(torch.from_numpy(flat)).numpy())

        with_jacobian = jacobian if method in ("hybr", "lm") else None
        found = scipy.optimize.root(  # type: ignore[call-overload]
            numbers, _array(leaves), jac=with_jacobian, method=method, tol=tol, options=options
        )
        return pytree.tree_unflatten(_tensors(found.x, leaves), structure)

    return custom_root(F, solve=solve)(root)


def _array(leaves: list[Tensor]) -> Vector:
    return np.asarray(ravel([leaf.detach().double().cpu() for leaf in leaves]).numpy())


def _tensors(flat: Vector, like: list[Tensor]) -> list[Tensor]:
    parts = unravel(torch.from_numpy(np.array(flat, dtype=np.float64)), like)
    return [part.to(leaf) for part, leaf in zip(parts, like, strict=True)]


def _boxed(y: Tree, low: float, high: float) -> Tree:
    return pytree.tree_map(lambda t: box(t, low, high), y)
