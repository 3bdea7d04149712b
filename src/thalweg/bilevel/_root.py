"""The implicit function theorem as functions that torch differentiates: the solution, and the linear solves in it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.bilevel._call import Call
from thalweg.bilevel._first_order import first_vjp, is_final, outside_transforms
from thalweg.bilevel._trees import TreeFunction, ravel, unravel


class RootContext(Protocol):
    """What torch hands to `Root`, and what it keeps there."""

    call: Call
    count: int
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Tensor) -> None:
        """For reverse mode."""

    def save_for_forward(self, *tensors: Tensor) -> None:
        """For forward mode."""


class SolveContext(RootContext, Protocol):
    """What torch hands to `Solve`."""

    transposed: bool


class Samples(Protocol):
    """What `torch.func.vmap` says of the batch."""

    batch_size: int


class Root(torch.autograd.Function):
    """The solver's solution, with the implicit function theorem's derivatives."""

    @staticmethod
    def forward(call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        x0, theta = call.arguments([t.detach() for t in tensors])
        with torch.no_grad():
            x = call.solver(x0, *theta)
            if call.has_aux:
                x, call.aux = x
            leaves, call.x_structure = pytree.tree_flatten(x)
            given = {t.data_ptr() for t in tensors if t.layout is torch.strided}
            leaves = [leaf.clone() if leaf.data_ptr() in given else leaf for leaf in leaves]
        return tuple(leaves)

    @staticmethod
    def setup_context(ctx: RootContext, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        call, *tensors = inputs
        ctx.call, ctx.count = call, len(tensors)
        ctx.save_for_backward(*tensors, *output)
        ctx.save_for_forward(*tensors, *output)

    @staticmethod
    def backward(ctx: RootContext, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        tensors, x = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        v = ravel(
            [c if c is not None else torch.zeros_like(leaf) for c, leaf in zip(cotangents, x, strict=True)]
        )
        return None, *vjp(ctx.call, tensors, x, v, list(ctx.needs_input_grad[1:]))

    @staticmethod
    def jvp(ctx: RootContext, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        tensors, x = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        return tuple(jvp(ctx.call, tensors, x, list(tangents)))

    @staticmethod
    def vmap(
        info: Samples, in_dims: tuple[int | None, ...], call: Call, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        samples = []
        for i in range(info.batch_size):
            one = [t if d is None else t.select(d, i) for t, d in zip(tensors, in_dims[1:], strict=True)]
            samples.append(Root.apply(call, *one))
        stacked = tuple(torch.stack(leaves) for leaves in zip(*samples, strict=True))
        return stacked, (0,) * len(stacked)


class PlainRoot(torch.autograd.Function):
    """`Root` outside of every transform: torch asks less of such a function, and takes less time for it."""

    @staticmethod
    def forward(ctx: RootContext, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        x = Root.forward(call, *tensors)
        Root.setup_context(ctx, (call, *tensors), x)
        return x

    backward = staticmethod(Root.backward)


def solution(call: Call, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The solver's solution as a function that torch differentiates in these tensors."""
    found: tuple[Tensor, ...] = (PlainRoot if outside_transforms() else Root).apply(call, *tensors)
    return found


class Solve(torch.autograd.Function):
    """``(d1 F)^-1 b``, or with the transpose, differentiable in x, theta and b: second derivatives need it."""

    @staticmethod
    def forward(call: Call, transposed: bool, count: int, *tensors: Tensor) -> Tensor:
        theta, x, b = tensors[:count], tensors[count:-1], tensors[-1]
        forward, backward, value = products(call, theta, x)
        ways = (backward, forward) if transposed else (forward, backward)
        call.check(value())
        return call.solved(ways[0], b, ways[1])

    @staticmethod
    def setup_context(ctx: SolveContext, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.call, ctx.transposed, ctx.count, *tensors = inputs
        ctx.save_for_backward(*tensors, output)
        ctx.save_for_forward(*tensors, output)

    @staticmethod
    def backward(ctx: SolveContext, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, y = ctx.saved_tensors
        places = tensors[:-1]
        w = Solve.apply(ctx.call, not ctx.transposed, ctx.count, *places, cotangent)
        left, right = (y, w) if ctx.transposed else (w, y)

        def pairing(*places: Tensor) -> Tensor:  # -left' (d1 F) right, whose gradient is that of the solution
            return -_bilinear(ctx.call, places[: ctx.count], places[ctx.count :], left, right)

        wanted = ctx.needs_input_grad[3:-1]
        gradients = _gradients(pairing, places, wanted)
        return None, None, None, *gradients, w

    @staticmethod
    def jvp(ctx: SolveContext, *tangents: Tensor | None) -> Tensor:
        *tensors, y = ctx.saved_tensors
        places, moves, b_move = tensors[:-1], tangents[3:-1], tangents[-1]
        right = torch.zeros_like(y) if b_move is None else b_move
        known = [torch.zeros_like(p) if m is None else m for p, m in zip(places, moves, strict=True)]

        def product(*places: Tensor) -> Tensor:
            forward, backward, _ = products(ctx.call, places[: ctx.count], places[ctx.count :])
            return backward(y) if ctx.transposed else forward(y)

        change = _pushed(product, places, known)
        moved: Tensor = Solve.apply(ctx.call, ctx.transposed, ctx.count, *places, right - change)
        return moved

    @staticmethod
    def vmap(
        info: Samples,
        in_dims: tuple[int | None, ...],
        call: Call,
        transposed: bool,
        count: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, int]:
        rows = []
        for i in range(info.batch_size):
            one = [t if d is None else t.select(d, i) for t, d in zip(tensors, in_dims[3:], strict=True)]
            rows.append(Solve.apply(call, transposed, count, *one))
        return torch.stack(rows), 0


def vjp(
    call: Call, tensors: Sequence[Tensor], x: Sequence[Tensor], v: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """``v' J = -v' (d1 F)^-1 d2 F`` for every tensor of x0 and theta; x0's are zero."""
    if is_final([*tensors, *x, v]):
        return first_vjp(call, tensors, x, v, wanted)
    u = -Solve.apply(call, True, len(tensors), *tensors, *x, v)

    def pairing(*tensors: Tensor) -> Tensor:
        return torch.dot(ravel(call.value(tensors, x)), u)

    return _gradients(pairing, tensors, wanted)


def jvp(
    call: Call, tensors: Sequence[Tensor], x: Sequence[Tensor], tangents: Sequence[Tensor | None]
) -> list[Tensor]:
    places = [
        i for i, t in enumerate(tensors) if t.is_floating_point()
    ]  # labels and counts have no derivative
    moves = tuple(torch.zeros_like(t) if m is None else m for t, m in zip(tensors, tangents, strict=True))

    def of_some(*some: Tensor) -> Tensor:
        everything = list(tensors)
        for i, t in zip(places, some, strict=True):
            everything[i] = t
        return ravel(call.value(everything, x))

    change = _pushed(of_some, [tensors[i] for i in places], [moves[i] for i in places])
    return unravel(-Solve.apply(call, False, len(tensors), *tensors, *x, change), x)


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


def products(
    call: Call, tensors: Sequence[Tensor], x: Sequence[Tensor]
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Callable[[], Tensor]]:
    """Products with ``d1 F`` and with its transpose, on flat vectors, and F itself."""

    def at(*x: Tensor) -> Tensor:
        return ravel(call.value(tensors, x))

    @functools.cache
    def pull() -> tuple[Tensor, TreeFunction]:
        told: Any = torch.func.vjp(at, *x)
        return told[0], told[1]

    @functools.cache
    def push() -> TreeFunction:
        # the transpose of the transpose: F is evaluated once for all products, which forward mode does not do
        value, back = pull()
        told: Any = torch.func.vjp(back, torch.zeros_like(value))
        pushed: TreeFunction = told[1]
        return pushed

    def forward(v: Tensor) -> Tensor:
        return push()(tuple(unravel(v, x)))[0]

    def backward(v: Tensor) -> Tensor:
        return ravel(pull()[1](v))

    return forward, backward, lambda: pull()[0]


def _pushed(f: Callable[..., Tensor], at: Sequence[Tensor], moves: Sequence[Tensor]) -> Tensor:
    """The derivative of f in the direction of ``moves``: the transpose of the transpose.

    No forward mode of its own: within the user's it would be the second, which torch has wrong for custom functions,
    such as a condition that contains another implicit function.
    """
    told: Any = torch.func.vjp(f, *at)
    value, back = told
    pushed: Tensor = torch.func.vjp(back, torch.zeros_like(value))[1](tuple(moves))[0]
    return pushed


def _bilinear(
    call: Call, tensors: Sequence[Tensor], x: Sequence[Tensor], left: Tensor, right: Tensor
) -> Tensor:
    forward, _, _ = products(call, tensors, x)
    return torch.dot(left, forward(right))
