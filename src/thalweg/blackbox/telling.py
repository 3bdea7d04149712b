"""What may be told of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from thalweg.blackbox.parameters import Real
from thalweg.blackbox.space import Space
from thalweg.blackbox.trial import LARGEST
from thalweg.core import InvalidParameter, NotFinite


def check_outcome(
    number: int,
    space: Space,
    expected: int,
    value: float | None,
    noise: float | None,
    gradient: Mapping[str, float] | None,
    constraints: Sequence[float],
) -> None:
    """Refuse an outcome of trial ``number`` that is none; ``expected`` is the number of constraints.

    Raises:
        NotFinite: a value that is NaN, infinite or absent.
        InvalidParameter: a value, noise or constraint beyond its range, another number of constraints, a gradient of
            what is not real.
    """
    where = f"Trial {number}"
    if value is None or not math.isfinite(value):
        raise NotFinite(f"{where} has the value {value}. Tell what is no finite number with failed=True.")
    if abs(value) > LARGEST:
        raise InvalidParameter(f"{where} has the value {value:g}; at most 1e300 is taken. Use another unit.")
    if noise is not None and not 0 <= noise <= LARGEST:
        raise InvalidParameter(f"{where}: noise is a standard deviation from 0 to 1e300; got {noise}.")
    if len(constraints) != expected or not all(abs(c) <= LARGEST for c in constraints):
        raise InvalidParameter(
            f"{where}: the study has {expected} constraints, finite numbers up to 1e300; got {list(constraints)}."
        )
    for name, slope in (gradient or {}).items():
        if not isinstance(space.parameters.get(name), Real) or not space.continuous:
            raise InvalidParameter(f"{where}: gradients are for spaces of real parameters; {name!r} is none.")
        if not abs(slope) <= LARGEST:
            raise InvalidParameter(f"{where}: the derivative by {name!r} is {slope}; leave it out.")
