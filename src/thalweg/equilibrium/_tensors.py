"""Data at the door: tensors of floating point, from whatever holds numbers, and the unit they are in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, check_finite


def as_tensor(name: str, values: object, *axes: str) -> Tensor:
    """``values`` as a finite tensor with one axis for each name in ``axes``.

    Floating-point tensors keep their type and device, half precision apart, which becomes float32: norms and
    factorizations have none. Arrays, lists, tables and whole numbers become float64.

    Raises:
        InvalidProblem: no numbers, another number of axes, no entries.
        NotFinite: NaN or infinity, with the first index.
    """
    if isinstance(values, Tensor) and values.is_floating_point() and values.layout is torch.strided:
        found = values.detach() if values.dtype.itemsize >= 4 else values.detach().float()
    else:
        found = torch.from_numpy(as_real(name, values).copy())
    if found.ndim != len(axes) or found.numel() == 0:
        raise InvalidProblem(
            f"{name} has shape {tuple(found.shape)}; expected ({', '.join(axes)}), none empty."
        )
    if not math.isfinite(float(found.sum())) and not bool(torch.isfinite(found).all()):
        check_finite(name, found.cpu().double().numpy())
    return found


def told(found: object) -> str:
    """What a user's function gave, for an error."""
    if isinstance(found, Tensor):
        return f"a tensor of shape {tuple(found.shape)} and type {found.dtype}"
    return f"a value of type {type(found).__name__}"


def unit_of(values: Tensor) -> float:
    """The smallest power of two that is no smaller than any entry in size; 1 where all are zero.

    >>> unit_of(torch.tensor([3.0, -5.0])), unit_of(torch.zeros(2))
    (8.0, 1.0)
    """
    largest = float(values.abs().max())
    if largest == 0.0:
        return 1.0
    mantissa, exponent = math.frexp(largest)
    return math.ldexp(1.0, min(exponent - (mantissa == 0.5), 1023))


def without_constant(games: Tensor) -> tuple[Tensor, Tensor]:
    """Each game, shape (..., rows, columns), without what all its payoffs share where that dominates their spread.

    A constant changes no equilibrium. Returns the games and their constants, shape (..., 1, 1).
    """
    low, high = games.amin((-2, -1), keepdim=True), games.amax((-2, -1), keepdim=True)
    shift = 0.5 * low + 0.5 * high
    shift = torch.where(shift.abs() > 2.0 * (0.5 * high - 0.5 * low), shift, 0.0)
    return games - shift, shift


def in_units(A: Tensor) -> tuple[Tensor, float, float]:
    """Payoffs with the same equilibria, the largest between 1/2 and 1; shift and unit: ``A = shift + unit * found``."""
    centred, shift = without_constant(A.reshape(1, -1))
    unit = unit_of(centred)
    return centred.view(A.shape) / unit, float(shift), unit


def doubly_centred(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """B, a and b with ``A_ij = B_ij + a_i + b_j``, the rows and columns of B summing to zero.

    Where all of B is rounding it is zero: a game without interaction is seen to have none.
    """
    a = A.mean(1)
    b = (A - a[:, None]).mean(0)
    B = A - a[:, None] - b
    rounding = 8.0 * torch.finfo(A.dtype).eps * A.abs().max()
    return (B if bool((B.abs() > rounding).any()) else torch.zeros_like(B)), a, b
