"""Derivatives of a solution from the conditions that it satisfies, whatever found it.

Blondel, Berthet, Cuturi, Frostig, Hoyer, Llinares-Lopez, Pedregosa and Vert (2022), "Efficient and modular implicit
differentiation", NeurIPS, arXiv 2105.15183: where ``F(x*, theta) = 0``, ``A J = B`` with ``A = -d1 F``, ``B = d2 F``.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

from thalweg.core import InvalidProblem
from thalweg.numerics.torch_krylov import LinearSolver

#: Takes x, a pytree, and theta; gives a pytree like x, zero at the solution.
Condition = Callable[..., Any]


class NotARoot(UserWarning):
    """What the solver returned does not satisfy the condition well: derivatives are off by about as much."""


class SolveInaccurate(UserWarning):
    """The linear system of a derivative was not solved to its tolerance: it may be singular; a ridge helps."""


def custom_root(
    F: Condition,
    *,
    solve: LinearSolver | None = None,
    has_aux: bool = False,
    tolerance: float = 1e-3,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make ``solver(init, *theta)`` differentiable in theta by ``F(x, *theta) = 0``, which its solution satisfies.

    Works under autograd and `torch.func` (grad, vjp, jvp, jacrev, jacfwd, vmap), in reverse and forward mode, to any
    order; forward mode within forward mode is refused, since torch has it wrong for custom functions. The solver runs
    without a graph, whatever it is made of, once a sample under vmap; a derivative costs one linear solve with products
    of F's derivative, and no memory of the solver's iterations.

    Args:
        F: the condition; x and its value are pytrees of tensors of the same structure.
        solve: of the linear systems; by default a factorisation up to 256 unknowns, GMRES above.
        has_aux: the solver returns ``(x, aux)``; aux is handed through without derivatives.
        tolerance: of ``max |F(x*, theta)|``, above which a `NotARoot` warning says so.

    Raises:
        InvalidProblem: F's value is not like x; forward mode within forward mode.

    >>> def F(x, a):
    ...     return x * x - a
    >>> @custom_root(F)
    ... def square_root(init, a):
    ...     for _ in range(50):
    ...         init = 0.5 * (init + a / init)
    ...     return init
    >>> a = torch.tensor([4.0, 9.0], dtype=torch.float64, requires_grad=True)
    >>> torch.autograd.grad(square_root(torch.ones_like(a), a).sum(), a)  # 1/(2 sqrt a)
    (tensor([0.2500, 0.1667], dtype=torch.float64),)
    """
    solver_of = solve if solve is not None else LinearSolver()

    def decorate(solver: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(solver)
        def solved(init: Any, *theta: Any) -> Any:
            leaves, structure = pytree.tree_flatten((init, theta))
            tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            _refuse_nested_forward_mode()
            call = _Call(F, solver, solver_of, leaves, structure, has_aux, tolerance)
            x = _Root.apply(call, *tensors)
            found = pytree.tree_unflatten(list(x), call.x_structure)
            return (found, call.aux) if has_aux else found

        return solved

    return decorate


def custom_fixed_point(T: Condition, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`custom_root` for a solver whose solution satisfies ``x = T(x, *theta)``.

    >>> @custom_fixed_point(lambda x, a: torch.cos(a * x))
    ... def dottie(init, a):
    ...     for _ in range(200):
    ...         init = torch.cos(a * init)
    ...     return init
    >>> a = torch.tensor(1.0, dtype=torch.float64)
    >>> torch.func.grad(lambda a: dottie(a, a))(a)  # -x sin x / (1 + sin x)
    tensor(-0.2975, dtype=torch.float64)
    """

    def gap(x: Any, *theta: Any) -> Any:
        return pytree.tree_map(torch.sub, T(x, *theta), x)

    return custom_root(gap, **options)


def root_vjp(
    F: Condition, x: Any, theta: Sequence[Any], cotangent: Any, *, solve: LinearSolver | None = None
) -> tuple[Any, ...]:
    """``cotangent' dx/dtheta`` for each of theta's tensors, at a root x of ``F(x, *theta)``.

    >>> a, v = torch.tensor([4.0]), torch.ones(1)
    >>> root_vjp(lambda x, a: x * x - a, torch.tensor([2.0]), (a,), v)
    (tensor([0.2500]),)
    """
    call, tensors, x_leaves = _at_root(F, x, theta, solve)
    v = _ravel(pytree.tree_leaves(cotangent))
    return tuple(_vjp(call, tensors, x_leaves, v, [True] * len(tensors)))


def root_jvp(
    F: Condition, x: Any, theta: Sequence[Any], tangents: Sequence[Any], *, solve: LinearSolver | None = None
) -> Any:
    """``dx/dtheta tangents``, a pytree like x, at a root x of ``F(x, *theta)``.

    >>> a = torch.tensor([4.0])
    >>> root_jvp(lambda x, a: x * x - a, torch.tensor([2.0]), (a,), (torch.ones(1),))
    tensor([0.2500])
    """
    call, tensors, x_leaves = _at_root(F, x, theta, solve)
    moves = [leaf for leaf in pytree.tree_leaves(tuple(tangents)) if isinstance(leaf, Tensor)]
    return pytree.tree_unflatten(_jvp(call, tensors, x_leaves, moves), call.x_structure)


@dataclass
class _Call:
    """One call of a decorated solver: what is not a tensor, and how the tensors go together."""

    F: Condition
    solver: Callable[..., Any]
    linear: LinearSolver
    leaves: list[Any]
    structure: Any
    has_aux: bool
    tolerance: float
    x_structure: Any = None
    aux: Any = None
    extra: dict[str, Any] = field(default_factory=dict)

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[Any, tuple[Any, ...]]:
        """Init and theta with these tensors in their places."""
        rest = iter(tensors)
        leaves = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        init, theta = pytree.tree_unflatten(leaves, self.structure)
        return init, tuple(theta)

    def value(self, tensors: Sequence[Tensor], x: Sequence[Tensor]) -> list[Tensor]:
        """F at x, flat."""
        _, theta = self.arguments(tensors)
        told = pytree.tree_leaves(self.F(pytree.tree_unflatten(list(x), self.x_structure), *theta))
        if [t.shape for t in told] != [leaf.shape for leaf in x]:
            raise InvalidProblem(
                f"The condition's value has shapes {[tuple(t.shape) for t in told]}; expected those of x, "
                f"{[tuple(leaf.shape) for leaf in x]}."
            )
        return told


class _Root(torch.autograd.Function):
    """The solver's solution, with the implicit function theorem's derivatives."""

    @staticmethod
    def forward(call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        init, theta = call.arguments([t.detach() for t in tensors])
        with torch.no_grad():
            x = call.solver(init, *theta)
            if call.has_aux:
                x, call.aux = x
            leaves, call.x_structure = pytree.tree_flatten(x)
            given = [t.data_ptr() for t in tensors]
            leaves = [leaf.clone() if leaf.data_ptr() in given else leaf for leaf in leaves]
            worst = max((float(r.abs().max()) for r in call.value(tensors, leaves) if r.numel()), default=0.0)
        if not worst <= call.tolerance:
            warnings.warn(
                f"The solver's solution leaves a residual of {worst:.3g} in the condition (tolerance "
                f"{call.tolerance:.3g}): derivatives will be off. Solve more accurately, or check F.",
                NotARoot,
                stacklevel=2,
            )
        return tuple(leaves)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        call, *tensors = inputs
        ctx.call, ctx.count = call, len(tensors)
        ctx.save_for_backward(*tensors, *output)
        ctx.save_for_forward(*tensors, *output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        tensors, x = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        v = _ravel(
            [c if c is not None else torch.zeros_like(leaf) for c, leaf in zip(cotangents, x, strict=True)]
        )
        return None, *_vjp(ctx.call, tensors, x, v, list(ctx.needs_input_grad[1:]))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        tensors, x = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        return tuple(_jvp(ctx.call, tensors, x, list(tangents)))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], call: _Call, *tensors: Tensor) -> tuple[Any, Any]:
        samples = []
        for i in range(info.batch_size):
            one = [t if d is None else t.select(d, i) for t, d in zip(tensors, in_dims[1:], strict=True)]
            samples.append(_Root.apply(call, *one))
        stacked = tuple(torch.stack(leaves) for leaves in zip(*samples, strict=True))
        return stacked, (0,) * len(stacked)


class _Solve(torch.autograd.Function):
    """``(d1 F)^-1 b``, or with the transpose, differentiable in x, theta and b: second derivatives need it."""

    @staticmethod
    def forward(call: _Call, transposed: bool, count: int, *tensors: Tensor) -> Tensor:
        theta, x, b = tensors[:count], tensors[count:-1], tensors[-1]
        forward, backward = _products(call, theta, x)
        ways = (backward, forward) if transposed else (forward, backward)
        solution = call.linear(ways[0], b, ways[1])
        if not solution.residual <= max(100.0 * call.linear.tolerance, 1e3 * torch.finfo(b.dtype).eps):
            warnings.warn(
                f"The linear system of a derivative was solved to a relative residual of {solution.residual:.3g} only. "
                "The condition's Jacobian may be singular: LinearSolver(ridge=...) regularises it.",
                SolveInaccurate,
                stacklevel=2,
            )
        return solution.x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.call, ctx.transposed, ctx.count, *tensors = inputs
        ctx.save_for_backward(*tensors, output)
        ctx.save_for_forward(*tensors, output)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        *tensors, y = ctx.saved_tensors
        places = tensors[:-1]
        w = _Solve.apply(ctx.call, not ctx.transposed, ctx.count, *places, cotangent)
        left, right = (y, w) if ctx.transposed else (w, y)

        def pairing(*places: Tensor) -> Tensor:  # -left' (d1 F) right, whose gradient is that of the solution
            return -_bilinear(ctx.call, places[: ctx.count], places[ctx.count :], left, right)

        wanted = ctx.needs_input_grad[3:-1]
        gradients = _gradients(pairing, places, wanted)
        return None, None, None, *gradients, w

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        *tensors, y = ctx.saved_tensors
        places, moves, b_move = tensors[:-1], tangents[3:-1], tangents[-1]
        right = torch.zeros_like(y) if b_move is None else b_move
        moves = tuple(torch.zeros_like(p) if m is None else m for p, m in zip(places, moves, strict=True))

        def product(*places: Tensor) -> Tensor:
            forward, backward = _products(ctx.call, places[: ctx.count], places[ctx.count :])
            return backward(y) if ctx.transposed else forward(y)

        change = _pushed(product, places, moves)
        moved: Tensor = _Solve.apply(ctx.call, ctx.transposed, ctx.count, *places, right - change)
        return moved

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], call: _Call, transposed: bool, count: int, *tensors: Tensor
    ) -> Any:
        rows = []
        for i in range(info.batch_size):
            one = [t if d is None else t.select(d, i) for t, d in zip(tensors, in_dims[3:], strict=True)]
            rows.append(_Solve.apply(call, transposed, count, *one))
        return torch.stack(rows), 0


def _at_root(
    F: Condition, x: Any, theta: Sequence[Any], solve: LinearSolver | None
) -> tuple[_Call, list[Tensor], list[Tensor]]:
    leaves, structure = pytree.tree_flatten((None, tuple(theta)))
    linear = solve if solve is not None else LinearSolver()
    call = _Call(F, lambda *_: None, linear, leaves, structure, False, 0.0)
    x_leaves, call.x_structure = pytree.tree_flatten(x)
    return call, [leaf for leaf in leaves if isinstance(leaf, Tensor)], x_leaves


def _vjp(
    call: _Call, tensors: Sequence[Tensor], x: Sequence[Tensor], v: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """``v' J = -v' (d1 F)^-1 d2 F`` for every tensor of init and theta; init's are zero."""
    u = -_Solve.apply(call, True, len(tensors), *tensors, *x, v)

    def pairing(*tensors: Tensor) -> Tensor:
        return torch.dot(_ravel(call.value(tensors, x)), u)

    return _gradients(pairing, tensors, wanted)


def _jvp(
    call: _Call, tensors: Sequence[Tensor], x: Sequence[Tensor], tangents: Sequence[Tensor | None]
) -> list[Tensor]:
    moves = tuple(torch.zeros_like(t) if m is None else m for t, m in zip(tensors, tangents, strict=True))
    change = _pushed(lambda *t: _ravel(call.value(t, x)), tensors, moves)
    return _unravel(-_Solve.apply(call, False, len(tensors), *tensors, *x, change), x)


def _gradients(
    scalar: Callable[..., Tensor], at: Sequence[Tensor], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients in the wanted places, themselves differentiable."""
    places = [i for i, (t, w) in enumerate(zip(at, wanted, strict=True)) if w and t.is_floating_point()]

    def of_some(*some: Tensor) -> Tensor:
        everything = list(at)
        for i, t in zip(places, some, strict=True):
            everything[i] = t
        return scalar(*everything)

    found: list[Tensor | None] = [None] * len(at)
    if places:
        some = tuple(at[i] for i in places)
        for i, g in zip(
            places, torch.func.grad(of_some, argnums=tuple(range(len(some))))(*some), strict=True
        ):
            found[i] = g
    return found


def _products(
    call: _Call, tensors: Sequence[Tensor], x: Sequence[Tensor]
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Products with ``d1 F`` and with its transpose, on flat vectors."""

    def at(*x: Tensor) -> Tensor:
        return _ravel(call.value(tensors, x))

    def forward(v: Tensor) -> Tensor:
        return _pushed(at, x, _unravel(v, x))

    def backward(v: Tensor) -> Tensor:
        return _ravel(torch.func.vjp(at, *x)[1](v))

    return forward, backward


def _refuse_nested_forward_mode() -> None:
    """Torch gives zero for the forward derivative of a custom function's forward derivative, without a word."""
    stack = torch._C._functorch.get_interpreter_stack() or []
    if sum(level.key() == torch._C._functorch.TransformType.Jvp for level in stack) > 1:
        raise InvalidProblem(
            "Forward mode inside forward mode is wrong in torch for custom functions. Use jacfwd(jacrev(f)), "
            "jacrev(jacfwd(f)) or hessian(f) instead of jacfwd(jacfwd(f))."
        )


def _pushed(f: Callable[..., Tensor], at: Sequence[Tensor], moves: Sequence[Tensor]) -> Tensor:
    """The derivative of f in the direction of ``moves``."""
    if forward_ad._current_level < 0 or torch._C._functorch.peek_interpreter_stack() is not None:
        pushed: Tensor = torch.func.jvp(f, tuple(at), tuple(moves))[1]
        return pushed
    # Forward mode within autograd's own forward mode is not to be had: the transpose of the transpose is the same.
    told: Any = torch.func.vjp(f, *at)
    value, back = told
    pushed = torch.func.vjp(back, torch.zeros_like(value))[1](tuple(moves))[0]
    return pushed


def _bilinear(
    call: _Call, tensors: Sequence[Tensor], x: Sequence[Tensor], left: Tensor, right: Tensor
) -> Tensor:
    forward, _ = _products(call, tensors, x)
    return torch.dot(left, forward(right))


def _ravel(leaves: Sequence[Tensor]) -> Tensor:
    return torch.cat([leaf.reshape(-1) for leaf in leaves])


def _unravel(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = flat.split([leaf.numel() for leaf in like])
    return [part.reshape(leaf.shape) for part, leaf in zip(parts, like, strict=True)]
