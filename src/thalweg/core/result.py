"""The answer, why it stopped, what it cost, and its history."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypeVar

from thalweg.core.stop import Status

if TYPE_CHECKING:
    import pandas as pd

X = TypeVar("X", default=Any)


@dataclass
class History:
    """The metrics of every step, with the step's number and the seconds since the start.

    Past ``limit`` rows every second one is dropped, and from then on every second step is left out; then every fourth,
    and so on. The first and the last step are always there. None keeps all: about 300 bytes a step, which every
    checkpoint writes again.

    >>> history = History()
    >>> history.record(1, 0.1, {"residual": 0.5}); history.record(2, 0.2, {"residual": 0.25})
    >>> history["residual"]
    array([0.5 , 0.25])
    """

    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    limit: int | None = None
    every: int = 1

    def record(self, step: int, seconds: float, metrics: dict[str, float]) -> None:
        """Append one step; ``metrics`` is kept, not copied."""
        if self.every > 1 and len(self.steps) > 1 and (self.steps[-1] - self.steps[0]) % self.every:
            # The last step was there because it was the last.
            self.steps[-1], self.seconds[-1], self.metrics[-1] = step, seconds, metrics
            return
        self.steps.append(step)
        self.seconds.append(seconds)
        self.metrics.append(metrics)
        if self.limit is not None and len(self.steps) > self.limit:
            self._thin()

    def _thin(self) -> None:
        self.every *= 2
        first, last = self.steps[0], len(self.steps) - 1
        left = [i for i, step in enumerate(self.steps) if i == last or (step - first) % self.every == 0]
        self.steps = [self.steps[i] for i in left]
        self.seconds = [self.seconds[i] for i in left]
        self.metrics = [self.metrics[i] for i in left]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """The metric ``name`` as a vector, NaN where a step did not report it."""
        return np.array([row.get(name, np.nan) for row in self.metrics], dtype=np.float64)

    @property
    def names(self) -> list[str]:
        """Metrics reported by any step, in order of appearance."""
        return list(dict.fromkeys(name for row in self.metrics for name in row))

    def to_frame(self) -> pd.DataFrame:
        """One row a step: ``step``, ``seconds`` and a column for each metric."""
        import pandas as pd

        columns: dict[str, Any] = {"step": self.steps, "seconds": self.seconds}
        return pd.DataFrame(columns | {name: self[name] for name in self.names})

    def tree(self) -> dict[str, Any]:
        """The history as plain arrays, for a checkpoint."""
        columns = {name: self[name] for name in self.names}
        kept = {"steps": np.array(self.steps), "seconds": np.array(self.seconds), "every": self.every}
        return {**kept, "metrics": columns}

    @classmethod
    def from_tree(cls, tree: dict[str, Any], limit: int | None = None) -> History:
        """Inverse of `tree`, with the limit of the run that goes on."""
        columns = {name: values.tolist() for name, values in tree["metrics"].items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        rows = [{k: v for k, v in row.items() if v == v} for row in rows] or [{} for _ in tree["steps"]]
        return cls(tree["steps"].tolist(), tree["seconds"].tolist(), rows, limit, tree["every"])


@dataclass(frozen=True)
class Result(Generic[X]):
    """What `solve` returns.

    Args:
        x: the answer; when the run did not converge and the problem has an objective, the best one seen.
        status: why the run ended.
        metrics: the problem's own judgement of ``x``.
        steps: iterations done, earlier parts of a resumed run included.
        seconds: wall-clock time, likewise.
        calls: evaluations of the problem, where the method counts them.
        history: metrics of every step.
        message: a line on why it ended.
    """

    x: X
    status: Status
    metrics: dict[str, float]
    steps: int
    seconds: float
    calls: int
    history: History
    message: str

    @property
    def converged(self) -> bool:
        """Whether the stopping rule's accuracy was reached."""
        return self.status is Status.CONVERGED

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={value:.3g}" for name, value in self.metrics.items())
        return f"Result({self.status.value} after {self.steps} steps, {self.seconds:.3g} s: {numbers})"
