"""What may be told of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thalweg.blackbox.parameters import Real
from thalweg.blackbox.space import Space
from thalweg.blackbox.trial import LARGEST
from thalweg.core import InvalidParameter, NotFinite


@dataclass(frozen=True)
class Outcome:
    """What came out of a trial, in Python's own numbers, as files keep them."""

    value: float
    noise: float | None
    gradient: dict[str, float] | None
    constraints: tuple[float, ...]


def as_number(what: str, given: object) -> float:
    """``given`` as a float: numbers of Python, NumPy and torch, arrays without axes; ``what`` names it in the error.

    Whole numbers that no float holds become infinite.
    """
    if not isinstance(given, str | bytes | None):
        held = given.item() if getattr(given, "ndim", None) == 0 and hasattr(given, "item") else given
        try:
            return float(held)  # type: ignore[arg-type]
        except OverflowError:
            return math.inf
        except (TypeError, ValueError):
            pass
    raise InvalidParameter(f"{what} is no number; got {given!r}, a {type(given).__name__}.")


def checked_outcome(
    number: int,
    space: Space,
    expected: int,
    value: object,
    noise: object,
    gradient: object,
    constraints: object,
) -> Outcome:
    """The outcome of trial ``number``, or an error where it is none; ``expected`` is the number of constraints.

    Raises:
        NotFinite: a value that is NaN, infinite or absent.
        InvalidParameter: what is no number, a value, noise or constraint beyond its range, another number of
            constraints, a truth value for a constraint, a gradient of what is not real.
    """
    where = f"Trial {number}"
    told = math.nan if value is None else as_number(f"{where}: its value", value)
    if not math.isfinite(told):
        raise NotFinite(f"{where} has the value {value}. Tell what is no finite number with failed=True.")
    if abs(told) > LARGEST:
        raise InvalidParameter(f"{where} has the value {told:g}; at most 1e300 is taken. Use another unit.")
    spread = None if noise is None else as_number(f"{where}: the noise", noise)
    if spread is not None and not 0 <= spread <= LARGEST:
        raise InvalidParameter(f"{where}: noise is a standard deviation from 0 to 1e300; got {noise}.")
    slopes = None if gradient is None else _slopes(where, space, gradient)
    return Outcome(told, spread, slopes, _bounds(where, expected, constraints))


def _bounds(where: str, expected: int, constraints: object) -> tuple[float, ...]:
    told = f"{where}: the study has {expected} constraints, finite numbers up to 1e300"
    listed = isinstance(constraints, Sequence) or getattr(constraints, "ndim", None) == 1
    if not listed or isinstance(constraints, str):
        raise InvalidParameter(f"{told}; got {constraints!r}.")
    given = list(constraints)  # type: ignore[call-overload]
    if any(isinstance(c, bool | np.bool_) for c in given):
        raise InvalidParameter(
            f"{told}, at most zero where feasible. A truth value tells neither how far a point is from the border nor "
            f"which side is which; got {given}."
        )
    if len(given) == expected and all(np.ndim(c) == 0 for c in given):
        found = tuple(as_number(f"{where}: constraint {i}", c) for i, c in enumerate(given))
        if all(abs(c) <= LARGEST for c in found):
            return found
    raise InvalidParameter(f"{told}; got {given}.")


def _slopes(where: str, space: Space, gradient: object) -> dict[str, float]:
    if not isinstance(gradient, Mapping):
        raise InvalidParameter(
            f"{where}: gradients are told by parameter, such as {{'x': 1.0}}; got {gradient!r}."
        )
    found: dict[str, float] = {}
    for name, given in gradient.items():
        if not isinstance(space.parameters.get(name), Real) or not space.continuous:
            raise InvalidParameter(f"{where}: gradients are for spaces of real parameters; {name!r} is none.")
        slope = as_number(f"{where}: the derivative by {name!r}", given)
        if not abs(slope) <= LARGEST:
            raise InvalidParameter(f"{where}: the derivative by {name!r} is {given}; leave it out.")
        found[name] = slope
    return found
