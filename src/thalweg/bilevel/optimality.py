"""Conditions that solutions satisfy, to hand to `custom_root` and `custom_fixed_point`.

Blondel et al. (2022), "Efficient and modular implicit differentiation", table 1 and appendix A. Each function makes a
condition from the parts of a problem; ``x`` is a pytree of tensors throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.bilevel._trees import Tree, TreeFunction, unravel, vector
from thalweg.core.validation import require
from thalweg.numerics.tensor_checks import divisor

#: A scalar function of x and its parameters.
Objective: TypeAlias = Callable[..., Tensor]


def stationary(f: Objective) -> TreeFunction:
    """A root: the gradient of ``f(x, *theta)`` in x.

    >>> F = stationary(lambda x, a: 0.5 * a * x.square().sum())
    >>> F(torch.tensor([2.0]), 3.0)
    tensor([6.])
    """
    return torch.func.grad(f)


def proximal_gradient(f: Objective, prox: TreeFunction, step_size: float = 1.0) -> TreeFunction:
    """A fixed point of ``prox(x - s grad f(x, theta_f), theta_g, s)``: minimisers of ``f + g``.

    Args:
        f: ``f(x, theta_f)``, smooth.
        prox: ``prox(y, theta_g, scale)``, e.g. those of `thalweg.numerics.prox`.
        step_size: s; any positive one has the same fixed points.
    """
    require(step_size > 0, "proximal_gradient needs step_size > 0", got=step_size)
    slope = torch.func.grad(f)

    def T(x: Tree, theta_f: Tree, theta_g: Tree) -> Tree:  # noqa: N802 -- the paper's symbol
        return prox(_moved(x, -step_size, slope(x, theta_f)), theta_g, step_size)

    return T


def projected_gradient(f: Objective, projection: TreeFunction, step_size: float = 1.0) -> TreeFunction:
    """A fixed point of ``projection(x - s grad f(x, theta_f), theta_set)``: minimisers of f over a set.

    Args:
        projection: ``projection(y, theta_set)``; theta_set is None where the set has no parameters.
    """
    return proximal_gradient(f, lambda y, theta, _: projection(y, theta), step_size)


def mirror_descent(
    f: Objective,
    projection: TreeFunction,
    mirror: Callable[[Tree], Tree] | None = None,
    step_size: float = 1.0,
) -> TreeFunction:
    """A fixed point of mirror descent; by default over simplices, in the Kullback-Leibler geometry.

    Args:
        projection: from the mirror's space to the set, ``projection(y, theta_set)``; for the default mirror that is
            ``softmax``, see `kl_projection`.
        mirror: the gradient of the distance-generating function; by default the logarithm.
    """
    require(step_size > 0, "mirror_descent needs step_size > 0", got=step_size)
    slope = torch.func.grad(f)
    image = mirror if mirror is not None else (lambda x: pytree.tree_map(lambda t: divisor(t).log(), x))

    def T(x: Tree, theta_f: Tree, theta_set: Tree) -> Tree:  # noqa: N802 -- the paper's symbol
        return projection(_moved(image(x), -step_size, slope(x, theta_f)), theta_set)

    return T


def kl_projection(y: Tree, size: Tree = None) -> Tree:
    """From the logarithms to the simplex of the last axis: ``size`` (default 1) times softmax."""
    return pytree.tree_map(lambda t: t.softmax(-1) * (1.0 if size is None else size), y)


def newton(F: TreeFunction) -> TreeFunction:
    """A fixed point of Newton's method, ``x - (d1 F)^-1 F(x, *theta)``; dense, for tens of unknowns."""

    def T(x: Tree, *theta: Tree) -> Tree:  # noqa: N802 -- the paper's symbol
        leaves, structure = pytree.tree_flatten(x)

        def flat(v: Tensor) -> Tensor:
            return vector(F(pytree.tree_unflatten(unravel(v, leaves), structure), *theta))

        at = vector(x)
        new = at - torch.linalg.solve(torch.func.jacrev(flat)(at), flat(at))
        return pytree.tree_unflatten(unravel(new, leaves), structure)

    return T


def block_proximal_gradient(
    f: Objective, proxes: Sequence[TreeFunction], step_sizes: Sequence[float]
) -> TreeFunction:
    """A fixed point over blocks: x is a sequence of blocks, each with a proximal operator and a step of its own.

    theta_g is a sequence with the parameters of each block's operator.
    """
    require(
        len(proxes) == len(step_sizes),
        "block_proximal_gradient needs a step for each block",
        got=(len(proxes), len(step_sizes)),
    )
    slope = torch.func.grad(f)

    def T(x: Tree, theta_f: Tree, theta_g: Tree) -> Tree:  # noqa: N802 -- the paper's symbol
        gradients = slope(x, theta_f)
        return type(x)(
            prox(_moved(block, -size, g), theta, size)
            for block, g, prox, size, theta in zip(x, gradients, proxes, step_sizes, theta_g, strict=True)
        )

    return T


def kkt(
    f: Objective,
    equality: TreeFunction | None = None,
    inequality: TreeFunction | None = None,
) -> TreeFunction:
    """A root: the Karush-Kuhn-Tucker conditions of ``min f(z, theta_f), equality(z, theta_e) = 0, inequality <= 0``.

    The variable is ``(z, nu, lam)``: the point and the multipliers of the two kinds of constraints (empty tuples where
    there are none); the parameters are ``(theta_f, theta_e, theta_i)``. Stationarity, primal feasibility, and
    complementary slackness, whose signs the solver has to see to.
    """

    def F(x: Tree, theta_f: Tree = None, theta_e: Tree = None, theta_i: Tree = None) -> Tree:  # noqa: N802
        z, nu, lam = x

        def lagrangian(z: Tree) -> Tensor:
            whole = f(z, theta_f)
            if equality is not None:
                whole = whole + _dot(nu, equality(z, theta_e))
            if inequality is not None:
                whole = whole + _dot(lam, inequality(z, theta_i))
            return whole

        stationarity = torch.func.grad(lagrangian)(z)
        primal = () if equality is None else equality(z, theta_e)
        slackness = () if inequality is None else pytree.tree_map(torch.mul, lam, inequality(z, theta_i))
        return stationarity, primal, slackness

    return F


def quadratic_program() -> TreeFunction:
    """`kkt` of ``min z'Qz/2 + c'z, E z = d, M z <= h``: parameters ``(Q, c), (E, d), (M, h)``, None for no constraints.

    >>> F = quadratic_program()
    >>> Q, c = torch.eye(1), torch.tensor([-1.0])
    >>> z, lam = torch.tensor([0.5]), torch.tensor([0.5])  # z <= 1/2 holds it back
    >>> F((z, (), lam), (Q, c), None, (torch.eye(1), torch.tensor([0.5])))
    (tensor([0.]), (), tensor([0.]))
    """

    def F(x: Tree, objective: Tree, equations: Tree = None, inequalities: Tree = None) -> Tree:  # noqa: N802
        with_equations = None if equations is None else (lambda z, p: p[0] @ z - p[1])
        with_inequalities = None if inequalities is None else (lambda z, p: p[0] @ z - p[1])
        made = kkt(lambda z, p: 0.5 * z @ (p[0] @ z) + p[1] @ z, with_equations, with_inequalities)
        return made(x, objective, equations, inequalities)

    return F


def conic_program(project_dual: Callable[[Tensor], Tensor]) -> TreeFunction:
    """A root: the residual map of the homogeneous self-dual embedding of ``min c'x, A x + s = b, s in K``.

    The variable is ``(u, v, w)``, shapes (n,), (m,), (): at a solution ``u = x``, ``v = y - s``, ``w = 1``, y the
    multipliers. It may be scaled, so its Jacobian is singular in that direction: solve by ``LinearSolver("dense")``,
    whose least-norm solution is as good as any, and use ``u / w``. The parameters are ``A, b, c``.

    Args:
        project_dual: projection of (m,) on the dual cone K*.

    Source: Busseti, Moursi and Boyd (2019), "Solution refinement at regular points of conic problems".
    """

    def F(x: Tree, A: Tensor, b: Tensor, c: Tensor) -> Tree:  # noqa: N802
        u, v, w = x
        y, t = project_dual(v), w.clamp_min(0.0)
        return A.T @ y + c * t, -(A @ u) + b * t + v - y, -(c @ u) - b @ y + w - t

    return F


def _moved(x: Tree, size: float, direction: Tree) -> Tree:
    return pytree.tree_map(lambda a, d: a + size * d, x, direction)


def _dot(left: Tree, right: Tree) -> Tensor:
    return torch.stack(
        [(a * b).sum() for a, b in zip(pytree.tree_leaves(left), pytree.tree_leaves(right), strict=True)]
    ).sum()
