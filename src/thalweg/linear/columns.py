"""Several right-hand sides of one matrix: a state for each, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from thalweg.core import State, Status

if TYPE_CHECKING:
    from torch import Tensor

S = TypeVar("S", bound=State)

#: Of two endings the one that comes first here is told; of two alike, that with the larger residual.
WORST_FIRST = (Status.DIVERGED, Status.STALLED, Status.CONVERGED)


@dataclass(kw_only=True)
class Columns(State, Generic[S]):
    """The states of a method, one for each right-hand side; ``x`` holds their answers, shape (n, k)."""

    states: list[S]

    @classmethod
    def of(cls, states: Sequence[S]) -> Self:
        """Their answers side by side; the residual is the largest, the calls are the sum."""
        ended = [state.status for state in states]
        together = cls(
            x=np.stack([here(state.x) for state in states], axis=1),
            states=list(states),
            metrics={name: max(state.metrics[name] for state in states) for name in states[0].metrics},
            calls=sum(state.calls for state in states),
        )
        if all(ended):
            column = min(range(len(states)), key=lambda j: cls._quality(states[j]))
            together.status = ended[column]
            together.message = f"Right-hand side {column}: {states[column].message}"
        return together

    @staticmethod
    def _quality(state: State) -> tuple[int, float]:
        """What orders endings, the worst first."""
        return WORST_FIRST.index(state.status or Status.CONVERGED), -state.metrics["residual"]

    def stepped(self, step: Callable[[int, S], S]) -> Self:
        """One step of each that has not ended; ``step`` takes the column, from 0, and its state."""
        return type(self).of(
            [state if state.status else step(j, state) for j, state in enumerate(self.states)]
        )

    def tree(self) -> dict[str, Any]:
        ended = [state.status and state.status.value for state in self.states]
        return {**super().tree(), "states": [state.tree() for state in self.states], "ended": ended}

    def restored(self, tree: dict[str, Any]) -> Self:
        kept = zip(self.states, tree["states"], tree["ended"], strict=True)
        states = [replace(state.restored(own), status=ended and Status(ended)) for state, own, ended in kept]
        return type(self).of(states)


def here(x: NDArray[np.float64] | Tensor) -> NDArray[np.float64]:
    """The answer as an array, wherever the method holds it."""
    return x if isinstance(x, np.ndarray) else x.cpu().numpy()
