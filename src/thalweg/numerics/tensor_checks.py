"""Checks of tensors that also stand under `torch.func`, where values may be out of sight."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from thalweg.core.errors import InvalidProblem, ThalwegError


def seen(t: Tensor) -> Tensor | None:
    """The tensor without the wrappers of differentiation; None under vmap or compilation, where no value can be read.

    >>> seen(torch.ones(2))
    tensor([1., 1.])
    """
    while torch._C._functorch.is_gradtrackingtensor(t):
        t = torch._C._functorch.get_unwrapped(t)
    hidden = torch._C._functorch.is_functorch_wrapped_tensor(t) or torch.compiler.is_compiling()
    return None if hidden else t.detach()


def require_tensors(name: str, data: Iterable[object]) -> None:
    """`InvalidProblem` where something else stands among the tensors of ``data``, such as NumPy's arrays.

    >>> require_tensors("data", (torch.ones(2), [1.0, 2.0]))
    Traceback (most recent call last):
    ...
    thalweg.core.errors.InvalidProblem: data[1] is a list; expected a tensor. Make one by torch.as_tensor.
    """
    for i, part in enumerate(data):
        if not isinstance(part, Tensor):
            raise InvalidProblem(
                f"{name}[{i}] is a {type(part).__name__}; expected a tensor. Make one by torch.as_tensor."
            )


def real(x: Tensor) -> Tensor:
    """x as floating-point numbers: whole ones would cut a bound of 0.5 to 0.

    Raises:
        InvalidProblem: x is complex.

    >>> real(torch.tensor([1, 2]))
    tensor([1., 2.])
    """
    if x.is_complex():
        raise InvalidProblem("x is complex; projections and proximal operators take real numbers.")
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def length(x: Tensor) -> Tensor:
    """``|x|_2`` along the last axis, which is kept; no square overflows, and the derivative at 0 is 0.

    >>> length(torch.tensor([3e30, 4e30]))
    tensor([5.0000e+30])
    """
    if not x.shape[-1]:
        return x.sum(-1, keepdim=True)
    largest = x.detach().abs().amax(-1, keepdim=True)
    unit = torch.where(largest > 0, largest, torch.ones_like(largest))
    squares = (x / unit).square().sum(-1, keepdim=True)
    seen_squares = squares > 0
    return torch.where(seen_squares, squares, 1.0).sqrt() * unit * seen_squares


def divisor(t: Tensor) -> Tensor:
    """t >= 0 with a tiny number of its own type for zeros: float32 knows no 1e-300, and 0/0 would spread as NaN.

    >>> torch.zeros(1) / divisor(torch.zeros(1))
    tensor([0.])
    """
    limits = torch.finfo(t.dtype)
    return t.clamp_min(limits.tiny / limits.eps)


def checked(
    result: Tensor, holds: Tensor | bool, message: str, error: type[ThalwegError] = InvalidProblem
) -> Tensor:
    """``result``, where the condition holds; an error where it does not, NaN under vmap, which cannot raise for one.

    >>> checked(torch.ones(2), False, "simplex needs size >= 0")
    Traceback (most recent call last):
    ...
    thalweg.core.errors.InvalidProblem: simplex needs size >= 0.
    """
    if not isinstance(holds, Tensor):
        if not holds:
            raise error(f"{message}.")
        return result
    values = seen(holds)
    if values is None:
        return torch.where(holds, result, torch.nan)
    if not bool(values.all()):
        raise error(f"{message}.")
    return result


def found_by(find: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``find(*tensors)`` on plain tensors, a constant for every derivative; sample by sample under vmap.

    For what a derivative does not see, such as an active set, whose search reads values or leaves torch.
    """
    made: Tensor = _Found.apply(find, *tensors)  # type: ignore[no-untyped-call]
    return made


class _Found(torch.autograd.Function):
    @staticmethod
    def forward(find: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        with torch.no_grad():
            return find(*(t.detach() for t in tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401 -- torch's own
        ctx.mark_non_differentiable(output)
        ctx.count = len(inputs)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[None, ...]:  # noqa: ANN401 -- torch's own
        return (None,) * ctx.count

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> None:  # noqa: ANN401 -- torch's own
        return None

    @staticmethod
    def vmap(
        info: Any,  # noqa: ANN401 -- torch's own
        in_dims: tuple[int | None, ...],
        find: Callable[..., Tensor],
        *tensors: Tensor,
    ) -> tuple[Tensor, int]:
        samples = [
            _Found.apply(  # type: ignore[no-untyped-call]
                find, *(t if d is None else t.select(d, i) for t, d in zip(tensors, in_dims[1:], strict=True))
            )
            for i in range(info.batch_size)
        ]
        return torch.stack(samples), 0
