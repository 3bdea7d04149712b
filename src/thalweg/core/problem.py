"""What is given: a problem knows how to judge any answer, and not how it is solved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from thalweg.core.fingerprint import fingerprint
from thalweg.core.stop import Stop


class Problem(ABC):
    """Base of all problems: data, functions and sets, and the judge of an answer.

    ``objective`` names the non-negative metric that measures progress (``"residual"``, say). Where it is
    set, `solve` keeps the answer with the smallest value, ends as DIVERGED when it blows up, and
    ``Stop(patience=)`` watches it. Without one the last answer is the answer.
    """

    objective: ClassVar[str | None] = None

    @abstractmethod
    def metrics(self, x: Any) -> dict[str, float]:  # noqa: ANN401 -- every problem has its own answers
        """Judge the answer ``x``; every comparison uses these numbers."""

    def recommended_stop(self) -> Stop:
        """When `solve` ends a run whose caller gives no stopping rule.

        A problem that measures being solved says so here (``Stop(below={"residual": 1e-8})``); one with a length of
        its own says that (``Stop(steps=20_000)``).
        """
        return Stop()

    def objection(self, x: Any) -> str:  # noqa: ANN401
        """Why x, whose metrics are as small as asked, is no answer all the same; "" where there is nothing to say.

        Asked once, at the end: a saddle that passes for a minimum, say. A run with an objection ends as STALLED.
        """
        return ""

    def fingerprint(self) -> str:
        """SHA-256 of everything that makes this problem what it is; checkpoints are tied to it."""
        return fingerprint(self)
