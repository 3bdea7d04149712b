"""The errors a user meets: what is wrong, where, what was expected, and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class ThalwegError(Exception):
    """Base of every error raised on purpose.

    An error met in the middle of a run carries the best answer so far in ``result``.
    """

    #: A `Result`.
    result: Any = None

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class InvalidProblem(ThalwegError, ValueError):
    """The problem cannot be solved as given: shape, symmetry, sign, emptiness."""


class InvalidParameter(ThalwegError, ValueError):
    """A hyper-parameter lies outside its range."""


class NotFinite(InvalidProblem):
    """Data hold NaN or infinity."""


class Unbounded(NotFinite):
    """A function to minimise falls for ever: raised by a step, it ends the run as DIVERGED with its message."""


class CheckpointMismatch(InvalidProblem):
    """A checkpoint belongs to another problem, method or seed."""


class UnreadableFile(ThalwegError, OSError):
    """A file is absent, damaged, or not in a format that is read here."""


class MissingExtra(ThalwegError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is not installed. pip install "thalweg[{extra}]"')


class UnknownName(ThalwegError, KeyError):
    """A name is not in the list it is looked up in.

    >>> print(UnknownName("method", "sorr", ["sor", "ssor", "cg"], see="`thalweg list linear` shows all."))
    No method 'sorr'. Did you mean 'sor'? `thalweg list linear` shows all.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], see: str = "") -> None:
        names = list(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(sorted(names))}."
        super().__init__(f"No {kind} '{name}'. {hint} {see}".rstrip())
