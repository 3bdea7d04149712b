"""A search as it goes: what it has made, and the best program so far as source."""

from __future__ import annotations

import time

from thalweg.core import Callback, Run, Status
from thalweg.core.validation import require_positive


class ProgramWatch(Callback):
    """A live table on standard error: evaluations, shares saved, the best loss, and the best program as source.

    Args:
        every: seconds between two drawings.
    """

    def __init__(self, every: float = 0.5) -> None:
        self.every, self._next = every, 0.0
        require_positive(self, "every", zero=True)

    def start(self, run: Run) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False)
        self._live.start()

    def __call__(self, run: Run) -> None:
        now = time.perf_counter()
        if now >= self._next:
            self._next = now + self.every
            self._draw(run)

    def finish(self, run: Run, status: Status | None) -> None:
        self._draw(run)
        self._live.stop()

    def _draw(self, run: Run) -> None:
        from rich.console import Group
        from rich.syntax import Syntax
        from rich.table import Table

        table = Table("step", *run.state.metrics)
        table.add_row(str(run.steps), *(f"{value:.4g}" for value in run.state.metrics.values()))
        self._live.update(Group(table, Syntax(str(run.state.x), "python")), refresh=True)
