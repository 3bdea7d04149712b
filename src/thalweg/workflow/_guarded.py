"""Marks of values that can change in place, so that a change is seen."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterable, Mapping

import numpy as np

from thalweg.core import InvalidProblem

#: Kinds that are their own marks.
PLAIN = frozenset((int, float, str, bytes, bool, type(None)))


def marks(values: Iterable[object]) -> list[object]:
    """Something for each value that is another once the value has changed in place.

    Lists, dictionaries, sets, byte arrays and NumPy arrays are looked into; other objects are taken as they are.

    Cost: a pass over what the containers hold.
    """
    try:
        return [value if type(value) in PLAIN else _mark(value) for value in values]
    except RecursionError:
        raise too_deep() from None


def too_deep() -> InvalidProblem:
    """Of a container that cannot be walked through to its end."""
    return InvalidProblem("A container holds itself, or is nested too deeply to be recorded. Pass its parts.")


def _mark(value: object) -> object:
    if isinstance(value, list | tuple):
        return type(value), tuple([_mark(v) for v in value])
    if isinstance(value, Mapping):
        return dict, tuple([(id(k), _mark(v)) for k, v in value.items()])
    if isinstance(value, set | frozenset):
        return set, frozenset(value)
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, np.ndarray):
        return value.shape, zlib.crc32(np.ascontiguousarray(value).tobytes()) if value.dtype != object else 0
    return value if isinstance(value, int | float | str | bytes | bool | None) else id(value)


def copied(value: object) -> object:
    """A copy, or `InvalidProblem` where there can be none."""
    try:
        return copy.deepcopy(value)
    except Exception as error:
        raise InvalidProblem(
            f"A value of type {type(value).__name__} cannot be copied: {error}. Use the node as it is."
        ) from error
