"""What is said of one kind of problem."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thalweg.workbench.advice.sight import Sight

#: Words that the column of a target is called by.
TARGETS = ("y", "target", "label", "labels", "class", "outcome", "response", "price", "score", "output")


@dataclass(frozen=True)
class Advice:
    """One kind of problem that files may be, or are not.

    Args:
        systems: their numbers.
        what: the problem, in a few words.
        fits: whether the files can be that.
        why: what speaks for it, or against it.
        commands: ready to run; words in capitals are for the user to fill in.
        question: what decides, where the files alone do not.
        compared: the words of a comparison that races its methods, without options of its own; empty where there is
            none, or where the user has to say something first.
    """

    systems: tuple[str, ...]
    what: str
    fits: bool
    why: str
    commands: tuple[str, ...] = ()
    question: str = ""
    compared: tuple[str, ...] = ()


Rule = Callable[[list[Sight]], Advice | None]


def words_of(sights: Sequence[Sight]) -> str:
    """Paths as a shell takes them."""
    return " ".join(shlex.quote(str(sight.path)) for sight in sights)
