"""Batches of a loader that can be gone through again from a mark, and a place in them that can be saved."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from thalweg.core import InvalidProblem
from thalweg.core.validation import require
from thalweg.training.snapshot import random_states, set_random_states

#: Batches drawn at once: to take up and put down NumPy's random state costs a tenth of a millisecond.
AHEAD = 16
#: A batch.
B = TypeVar("B")


class Replay(Generic[B]):
    """The batches of a loader, epoch after epoch, with a mark to come back to.

    What is drawn after a mark is kept, until the next mark, and given again after `rewind`. The loader has global
    random states of its own: drawing batches and drawing for the model, dropout say, do not disturb each other.

    Args:
        loader: a `DataLoader` or any other iterable that starts afresh each time it is iterated over.
        keep: how many batches after the mark may be kept; later ones are given and forgotten.

    Raises:
        InvalidProblem: the loader gives no batch, or cannot start again.

    Memory: up to ``keep`` batches, and those ahead.

    >>> replay = Replay([1, 2, 3], keep=5)
    >>> replay.mark(); [replay.next() for _ in range(4)]
    [1, 2, 3, 1]
    >>> replay.rewind(); [replay.next() for _ in range(5)]
    [1, 2, 3, 1, 2]
    """

    def __init__(self, loader: Iterable[B], keep: int) -> None:
        if isinstance(loader, Iterator):
            raise InvalidProblem(
                "The loader is an iterator that can be gone through once only. Give the DataLoader itself, or a list."
            )
        self.loader, self.keep = loader, keep
        self._random = random_states()
        self._iterator: Iterator[B] | None = None
        self._epoch_start: dict[str, Any] = self._random
        self._index = 0  # batches drawn of this epoch
        self._ahead: deque[tuple[B, dict[str, Any]]] = (
            deque()
        )  # drawn and not given, each with the place after it
        self._place: dict[str, Any] = {"random": self._random, "index": 0}  # after what was given
        self._kept: list[B] = []
        self._cursor = 0  # batches given since the mark
        self._mark: dict[str, Any] = {}

    def mark(self) -> None:
        """Remember this place, and forget what was kept before it, all of which has to have been given again."""
        require(
            self._cursor >= len(self._kept), "mark: batches after the last mark are still to be given again"
        )
        self._kept, self._cursor = [], 0
        self._mark = self._place

    def rewind(self) -> None:
        """Go back to the mark."""
        require(self._cursor <= self.keep, f"rewind: only {self.keep} batches are kept", got=self._cursor)
        self._cursor = 0

    def next(self) -> B:
        """The next batch."""
        if self._cursor < len(self._kept):
            batch = self._kept[self._cursor]
        else:
            batch = self._fresh()
            if self._cursor < self.keep:
                self._kept.append(batch)
        self._cursor += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The place of the mark, and how many batches were given since."""
        return {**self._mark, "given": self._cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the place of a `state_dict`: its epoch is started again, and what came before is drawn and dropped."""
        self._iterator, self._random, self._kept = None, state["random"], []
        self._index = self._cursor = 0
        self._ahead.clear()
        self._place = {"random": self._random, "index": 0}
        for _ in range(state["index"]):
            self._fresh()
        self.mark()
        for _ in range(state["given"]):
            self.next()

    def _fresh(self) -> B:
        if not self._ahead:
            self._draw(min(AHEAD, max(self.keep, 1)))
        batch, self._place = self._ahead.popleft()
        return batch

    def _draw(self, count: int) -> None:
        outside = random_states()
        set_random_states(self._random)
        try:
            for _ in range(count):
                batch = self._drawn()
                self._ahead.append((batch, {"random": self._epoch_start, "index": self._index}))
        finally:
            self._random = random_states()
            set_random_states(outside)

    def _drawn(self) -> B:
        for _ in range(2):
            if self._iterator is None:
                self._epoch_start, self._index = random_states(), 0
                self._iterator = iter(self.loader)
            try:
                batch = next(self._iterator)
            except StopIteration:
                self._iterator = None
            else:
                self._index += 1
                return batch
        raise InvalidProblem("The loader gives no batch. Is its dataset empty, or smaller than a batch?")
