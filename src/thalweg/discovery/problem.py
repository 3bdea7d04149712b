"""What a search is given: a proxy that judges programs, their signature, and the program to start from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from thalweg.core import InvalidProblem, Problem, Stop
from thalweg.core.validation import is_real, require
from thalweg.discovery.abstract import check, without_dead
from thalweg.discovery.interpreter import Rule, TooSlow
from thalweg.discovery.program import ADAMW, Program, parse
from thalweg.discovery.proxies import Proxy


@dataclass(frozen=True)
class ProgramSearch(Problem):
    """Find the program with the smallest loss on a proxy task.

    Args:
        proxy: called with a `Rule`; returns a loss, or yields several, the last of which counts. It has to give the
            same numbers each time: its randomness comes from seeds of its own.
        start: where searches begin, and by its signature what programs are given and return. AdamW by default.
        seconds: that a candidate may take; later calls of it end the trial, which counts as the worst. By default
            none: with a limit, what is found hangs on the machine's speed.

    The answer is a program's source; its metric is ``loss``, infinite where training broke down.

    Raises:
        InvalidProblem: a start that does not run, or is not finite on the proxy; a proxy that gives two losses for
            one program, or no number at all. All told when a search begins.

    >>> from thalweg.discovery import DigitsMLP
    >>> task = ProgramSearch(DigitsMLP(steps=30))
    >>> task.metrics(task.start.source)["loss"] < 2.3
    True
    """

    objective: ClassVar[str] = "loss"

    proxy: Proxy
    start: Program = ADAMW
    seconds: float | None = None

    def __post_init__(self) -> None:
        is_one = callable(self.proxy) and not isinstance(self.proxy, type)
        require(
            is_one,
            "ProgramSearch needs a function for a proxy, or an object such as DigitsMLP()",
            got=self.proxy,
        )
        require(
            isinstance(self.start, Program),
            "ProgramSearch needs a Program to start from: parse(text)",
            got=self.start,
        )
        fits = self.seconds is None or (is_real(self.seconds) and self.seconds > 0)
        require(fits, "ProgramSearch needs seconds > 0 or None", got=self.seconds)
        rejection = check(self.start)
        if rejection is not None:
            raise InvalidProblem(f"The start of the search does not run: {rejection.words}.")

    def metrics(self, x: str) -> dict[str, float]:
        """The loss of the program with source ``x``, by a run of its own."""
        return {"loss": self.losses(parse(x, self.start.signature))[-1]}

    def recommended_stop(self) -> Stop:
        """A thousand steps."""
        return Stop(steps=1000)

    def losses(self, program: Program, bounds: Sequence[float] = ()) -> list[float]:
        """The proxy's losses of a program's live statements, until one is above its bound.

        NaN, infinity and what takes too long are infinity.
        """
        found: list[float] = []
        try:
            for loss in _told(self.proxy(Rule(without_dead(program), self.seconds))):
                found.append(loss if math.isfinite(loss) else math.inf)
                if found[-1] == math.inf or is_above(found, bounds):
                    break
        except TooSlow:
            found.append(math.inf)
        if not found:
            raise InvalidProblem("The proxy yields no loss. It returns a number, or yields at least one.")
        return found

    def check_proxy(self) -> list[float]:
        """The start's losses, after a look at whether the proxy keeps its promises."""
        first, again = self.losses(self.start), self.losses(self.start)
        if first[-1] == math.inf:
            raise InvalidProblem(
                "The proxy's loss of the starting program is not finite. Lower the program's rate, or mend the proxy."
            )
        if first != again:
            raise InvalidProblem(
                f"The proxy is not deterministic: it gives {first[-1]!r} and {again[-1]!r} for one program. Draw its "
                "data and weights from fixed seeds."
            )
        return first


def is_above(losses: Sequence[float], bounds: Sequence[float]) -> bool:
    """Whether the last of the losses so far is above its bound, where there is one."""
    k = len(losses) - 1
    return k < len(bounds) and losses[k] > bounds[k]


def _told(answer: object) -> Iterator[float]:
    for loss in answer if isinstance(answer, Iterator) else (answer,):
        if getattr(loss, "ndim", None) == 0 and hasattr(loss, "item"):
            loss = loss.item()  # a tensor of one number
        if not is_real(loss):
            raise InvalidProblem(f"The proxy gives {loss!r} for a loss; expected a number.")
        yield float(loss)
