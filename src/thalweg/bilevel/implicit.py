"""Derivatives of a solution from the conditions that it satisfies, whatever found it.

Blondel, Berthet, Cuturi, Frostig, Hoyer, Llinares-Lopez, Pedregosa and Vert (2022), "Efficient and modular implicit
differentiation", NeurIPS, arXiv 2105.15183: where ``F(x*, theta) = 0``, ``A J = B`` with ``A = -d1 F``, ``B = d2 F``.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.bilevel._call import Call, Condition
from thalweg.bilevel._forward_twice import by_chord_steps, is_twice_forward
from thalweg.bilevel._root import Solve, jvp, solution, vjp
from thalweg.bilevel._trees import Tree, TreeFunction, ravel, tensors_of, unravel, vector
from thalweg.core import InvalidProblem
from thalweg.numerics.torch_krylov import LinearSolver


def custom_root(
    F: Condition,
    *,
    solve: LinearSolver | None = None,
    has_aux: bool = False,
    tol: float = 1e-3,
) -> Callable[[TreeFunction], TreeFunction]:
    """Make ``solver(x0, *theta)`` differentiable in theta by ``F(x, *theta) = 0``, which its solution satisfies.

    Works under autograd and `torch.func` (grad, vjp, jvp, jacrev, jacfwd, vmap), in reverse and forward mode, to any
    order; forward mode within forward mode, which makes the dense Jacobian, not with vmap over theta or autograd
    around it. The solver runs without a graph, whatever it is made of, once a sample under vmap; a derivative costs one
    linear solve with products of F's derivative, and no memory of the solver's iterations. One by autograd, outside of
    `torch.func` and not differentiated again, evaluates F once. Arguments may be named. Theta may hold modules:
    derivatives flow to their parameters, and F and the solver get a stand-in to call, with the module's attributes.

    Args:
        F: the condition; x and its value are pytrees of tensors of the same structure. All that it depends on and
            that has a gradient stands in theta.
        solve: of the linear systems; by default ``LinearSolver()``, which looks at their size and symmetry.
        has_aux: the solver returns ``(x, aux)``; aux is handed through without derivatives.
        tol: of ``max |F(x*, theta)|``, above which a `NotARoot` warning says so.

    Raises:
        InvalidProblem: F's value is not like x; complex tensors; a tensor with a gradient on which F depends and that
            is not in theta; forward mode within forward mode where it does not go.
        NotFinite: with the derivative, where the solution or F there is not finite.

    >>> import torch
    >>> from thalweg.bilevel import custom_root
    >>> def F(x, a):
    ...     return x * x - a
    >>> @custom_root(F)
    ... def square_root(x, a):
    ...     for _ in range(50):
    ...         x = 0.5 * (x + a / x)
    ...     return x
    >>> a = torch.tensor([4.0, 9.0], dtype=torch.float64, requires_grad=True)
    >>> torch.autograd.grad(square_root(torch.ones_like(a), a).sum(), a)  # 1/(2 sqrt a)
    (tensor([0.2500, 0.1667], dtype=torch.float64),)
    """
    solver_of = solve if solve is not None else LinearSolver()

    def decorate(solver: TreeFunction) -> TreeFunction:
        looked = False  # once: the condition's code says what it captures

        @functools.wraps(solver)
        def solved(x0: Tree, *theta: Tree, **named: Tree) -> Tree:
            nonlocal looked
            if named:
                x0, *theta = inspect.signature(solver).bind(x0, *theta, **named).args  # type: ignore[assignment]
            leaves, structure = pytree.tree_flatten((x0, tuple(theta)))
            tensors = tensors_of(leaves)
            _refuse_complex(tensors)
            call = Call(F, solver, solver_of, leaves, structure, has_aux, tol)
            x = by_chord_steps(call, tensors) if is_twice_forward() else solution(call, tensors)
            _refuse_complex(x)
            if not looked and torch.is_grad_enabled() and not torch._C._functorch.get_interpreter_stack():
                _refuse_captured(call, tensors, x)
                looked = True
            found = pytree.tree_unflatten(list(x), call.x_structure)
            return (found, call.aux) if has_aux else found

        return solved

    return decorate


def _refuse_complex(tensors: Sequence[Tensor]) -> None:
    for t in tensors:
        if t.is_complex():
            raise InvalidProblem(
                f"A tensor of shape {tuple(t.shape)} is complex; derivatives of solutions are real here. Pass its real "
                "and imaginary parts, torch.view_as_real(t)."
            )


def _refuse_captured(call: Call, tensors: Sequence[Tensor], x: Sequence[Tensor]) -> None:
    """Refuse a condition that depends on a tensor with a gradient that it was not handed: it would get none."""
    own = [t.detach().requires_grad_(t.is_floating_point()) for t in (*tensors, *x)]
    value = ravel(call.value(own[: len(tensors)], own[len(tensors) :]))
    handed, waiting, seen = {id(t) for t in own}, [value.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        captured = getattr(node, "variable", None)
        if captured is not None and id(captured) not in handed:
            raise InvalidProblem(
                f"The condition depends on a tensor of shape {tuple(captured.shape)} that has a gradient and is not "
                "among its arguments, so it would get none. Pass it, or its module, as part of theta; or detach it."
            )
        waiting.extend(before for before, _ in node.next_functions)


def custom_fixed_point(
    T: Condition, *, solve: LinearSolver | None = None, has_aux: bool = False, tol: float = 1e-3
) -> Callable[[TreeFunction], TreeFunction]:
    """`custom_root` for a solver whose solution satisfies ``x = T(x, *theta)``.

    >>> @custom_fixed_point(lambda x, a: torch.cos(a * x))
    ... def dottie(x, a):
    ...     for _ in range(200):
    ...         x = torch.cos(a * x)
    ...     return x
    >>> a = torch.tensor(1.0, dtype=torch.float64)
    >>> torch.func.grad(lambda a: dottie(a, a))(a)  # -x sin x / (1 + sin x)
    tensor(-0.2975, dtype=torch.float64)
    """

    def gap(x: Tree, *theta: Tree) -> Tree:
        return pytree.tree_map(torch.sub, T(x, *theta), x)

    return custom_root(gap, solve=solve, has_aux=has_aux, tol=tol)


def root_vjp(
    F: Condition, x: Tree, theta: Sequence[Tree], cotangent: Tree, *, solve: LinearSolver | None = None
) -> tuple[Tree, ...]:
    """``cotangent' dx/dtheta`` for each of theta's tensors, at a root x of ``F(x, *theta)``.

    >>> a, v = torch.tensor([4.0]), torch.ones(1)
    >>> root_vjp(lambda x, a: x * x - a, torch.tensor([2.0]), (a,), v)
    (tensor([0.2500]),)
    """
    call, tensors, x_leaves = _at_root(F, x, theta, solve)
    v = vector(cotangent)
    return tuple(vjp(call, tensors, x_leaves, v, [True] * len(tensors)))


def root_jvp(
    F: Condition,
    x: Tree,
    theta: Sequence[Tree],
    tangents: Sequence[Tree],
    *,
    solve: LinearSolver | None = None,
) -> Tree:
    """``dx/dtheta tangents``, a pytree like x, at a root x of ``F(x, *theta)``.

    >>> a = torch.tensor([4.0])
    >>> root_jvp(lambda x, a: x * x - a, torch.tensor([2.0]), (a,), (torch.ones(1),))
    tensor([0.2500])
    """
    call, tensors, x_leaves = _at_root(F, x, theta, solve)
    moves = [leaf for leaf in pytree.tree_leaves(tuple(tangents)) if isinstance(leaf, Tensor)]
    return pytree.tree_unflatten(jvp(call, tensors, x_leaves, moves), call.x_structure)


@dataclass(frozen=True)
class Precision:
    """How far off an approximate solution is, and a derivative of it.

    Args:
        solution: distance to the solution that a Newton step promises.
        derivative: change of the derivative over that step.
    """

    solution: float
    derivative: float

    @property
    def slope(self) -> float:
        """An estimate of C in theorem 1, ``|J_hat - J| <= C |x_hat - x*|``; zero where there is no error."""
        return self.derivative / self.solution if self.solution > 0.0 else 0.0


def precision(
    F: Condition,
    x: Tree,
    theta: Sequence[Tree],
    tangents: Sequence[Tree],
    *,
    solve: LinearSolver | None = None,
) -> Precision:
    """Errors of an approximate root and of its derivative in the direction ``tangents``, by one Newton step.

    A stopped solver's iterate has some error; its implicit derivative has one of the same size (theorem 1), whatever
    the solver was. Cost: three linear solves.

    >>> a = torch.tensor([4.0], dtype=torch.float64)
    >>> rough = precision(lambda x, a: x * x - a, torch.tensor([2.01]).double(), (a,), (torch.ones_like(a),))
    >>> round(rough.solution, 3), round(rough.derivative, 4)  # 1/(2 * 2.01) instead of 1/4
    (0.01, 0.0012)
    """
    call, tensors, leaves = _at_root(F, x, theta, solve)
    step = Solve.apply(call, False, len(tensors), *tensors, *leaves, ravel(call.value(tensors, leaves)))
    moves = [leaf for leaf in pytree.tree_leaves(tuple(tangents)) if isinstance(leaf, Tensor)]
    better = [a - b for a, b in zip(leaves, unravel(step, leaves), strict=True)]
    change = ravel(jvp(call, tensors, leaves, moves)) - ravel(jvp(call, tensors, better, moves))
    return Precision(float(torch.linalg.vector_norm(step)), float(torch.linalg.vector_norm(change)))


def _at_root(
    F: Condition, x: Tree, theta: Sequence[Tree], solve: LinearSolver | None
) -> tuple[Call, list[Tensor], list[Tensor]]:
    leaves, structure = pytree.tree_flatten((None, tuple(theta)))
    linear = solve if solve is not None else LinearSolver()
    call = Call(F, lambda *_: None, linear, leaves, structure, False, math.inf)
    x_leaves, call.x_structure = pytree.tree_flatten(x)
    return call, tensors_of(leaves), x_leaves
