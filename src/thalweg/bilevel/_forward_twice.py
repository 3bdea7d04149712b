"""Forward mode within forward mode, of which torch makes zero, without a word, for every custom function.

Newton steps with a frozen Jacobian need no custom function: begun at the plain solution, each makes derivatives of one
order more exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad

from thalweg.bilevel._call import Call
from thalweg.bilevel._root import Root, products
from thalweg.bilevel._trees import ravel, unravel
from thalweg.core import InvalidProblem


def is_twice_forward() -> bool:
    """More than one forward mode is at work."""
    inside = torch._C._functorch.peek_interpreter_stack() is not None  # far quicker than the whole stack
    return inside and _levels(torch._C._functorch.TransformType.Jvp) > 1


def by_chord_steps(call: Call, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The solution, with the derivatives that the transforms at work ask for.

    Cost: the Jacobian of F and its factorisation, and one evaluation of F for each transform.

    Raises:
        InvalidProblem: values are not to be seen, under vmap, or autograd outside of `torch.func` watches as well: the
            steps would not know how many derivatives are wanted. The Jacobian is singular.
    """
    plain = [_plain(t) for t in tensors]
    with temporarily_clear_interpreter_stack():
        numbers = [t.detach() for t in plain]
        at = Root.forward(call, *numbers)
        _, pulled, value = products(call, numbers, at)
        call.check(value())
        basis = torch.eye(len(value()), dtype=value().dtype, device=value().device)
        jacobian = (
            torch.func.vmap(pulled)(basis) + call.linear.ridge * basis
        )  # a row is the derivative of an entry
        factors = torch.linalg.lu_factor_ex(jacobian)
        if int(factors.info) != 0:
            raise InvalidProblem(
                "The condition's Jacobian is singular at the solution; forward mode inside forward mode needs its "
                "inverse. LinearSolver(ridge=...) regularises it."
            )
    x: Sequence[Tensor] = at
    for _ in range(sum(_levels(kind) for kind in _DIFFERENTIATING)):
        step = torch.linalg.lu_solve(factors.LU, factors.pivots, ravel(call.value(tensors, x))[:, None])[:, 0]
        x = [a - b for a, b in zip(x, unravel(step, x), strict=True)]
    return tuple(x)


_DIFFERENTIATING = (torch._C._functorch.TransformType.Jvp, torch._C._functorch.TransformType.Grad)


def _levels(kind: torch._C._functorch.TransformType) -> int:
    stack = torch._C._functorch.get_interpreter_stack() or []
    return sum(level.key() == kind for level in stack)


def _plain(t: Tensor) -> Tensor:
    """The numbers under the wrappers of differentiation."""
    while torch._C._functorch.is_gradtrackingtensor(t):
        t = torch._C._functorch.get_unwrapped(t)
    hidden = torch._C._functorch.is_functorch_wrapped_tensor(t)
    if (
        hidden
        or (torch.is_grad_enabled() and t.requires_grad)
        or forward_ad.unpack_dual(t).tangent is not None
    ):
        raise InvalidProblem(
            "Forward mode inside forward mode of an implicit function goes neither with vmap over its arguments nor "
            "with autograd outside of torch.func. Use jacfwd(jacrev(f)), jacrev(jacfwd(f)) or hessian(f) instead of "
            "jacfwd(jacfwd(f))."
        )
    return t
