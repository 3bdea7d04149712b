"""Solvers of the inner problem as functions that can be differentiated."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.bilevel._call import Condition
from thalweg.bilevel._trees import Tree, TreeFunction
from thalweg.bilevel.composite import Composite, InnerMethod, S, no_prox
from thalweg.bilevel.implicit import custom_root
from thalweg.bilevel.newton import Newton
from thalweg.bilevel.optimality import newton as newton_map
from thalweg.bilevel.optimality import proximal_gradient
from thalweg.core import Stop, solve
from thalweg.numerics.torch_krylov import LinearSolver


def differentiable(
    method: InnerMethod[S],
    f: Callable[..., Tensor],
    prox: TreeFunction | None = None,
    *,
    stop: Stop | None = None,
    unroll: bool = False,
    condition: Condition | None = None,
    linear: LinearSolver | None = None,
) -> TreeFunction:
    """``solver(x0, theta_f, theta_g=None)`` of ``f + g`` by this method, differentiable in both thetas.

    Args:
        method: `ProximalGradient`, `MirrorDescent`, `Newton`, `Anderson`.
        f, prox: as for `Composite`.
        stop: when the solver ends; by default at a residual of 1e-8 or after 10 000 steps.
        unroll: differentiate through the iterations instead: memory grows with them, and a stopped solver's derivative
            is that of what it did. For a fixed number of steps, ``stop=Stop(steps=n)``.
        condition: a fixed-point map ``T(x, theta_f, theta_g)``; by default proximal gradient's, and Newton's for
            `Newton`.
        linear: of the derivative's linear system.

    >>> from thalweg.bilevel import ProximalGradient
    >>> from thalweg.numerics import prox
    >>> y = torch.tensor([3.0, -0.5], dtype=torch.float64)
    >>> lasso = differentiable(ProximalGradient(), lambda x, y: 0.5 * (x - y).square().sum(), prox.lasso)
    >>> torch.func.jacrev(lasso, argnums=2)(torch.zeros_like(y), y, torch.tensor(1.0, dtype=torch.float64))
    tensor([-1.,  0.], dtype=torch.float64)
    """
    operator = no_prox if prox is None else prox
    ends = stop if stop is not None else Stop(below={"residual": 1e-8})

    def run(x0: Tree, theta_f: Tree = None, theta_g: Tree = None) -> Tree:
        return solve(Composite(f, x0, theta_f, operator, theta_g), method, stop=ends, progress=False).x

    if unroll:
        return run
    if condition is None and isinstance(method, Newton):
        moved = newton_map(torch.func.grad(f))

        def condition(x: Tree, theta_f: Tree, theta_g: Tree) -> Tree:
            return moved(x, theta_f)

    T = condition if condition is not None else proximal_gradient(f, operator)

    def gap(x: Tree, theta_f: Tree = None, theta_g: Tree = None) -> Tree:
        return pytree.tree_map(torch.sub, T(x, theta_f, theta_g), x)

    return custom_root(gap, solve=linear)(run)
