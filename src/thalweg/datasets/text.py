"""Text that comes with Python itself, for small language models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.core import UnknownName


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as numbers: ``codes`` index ``alphabet``, shape (characters,), uint8."""

    name: str
    alphabet: str
    codes: NDArray[np.uint8]

    def windows(self, length: int) -> NDArray[np.uint8]:
        """The text cut into pieces of ``length`` + 1 characters, shape (pieces, length + 1)."""
        pieces = (len(self.codes) - 1) // length
        starts = np.arange(pieces)[:, None] * length
        cut: NDArray[np.uint8] = self.codes[starts + np.arange(length + 1)]
        return cut


def _python_topics() -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


TEXTS: dict[str, Callable[[], str]] = {"python-topics": _python_topics}


def load_text(name: str = "python-topics", *, characters: int | None = None) -> Corpus:
    """A text by name; ``characters`` cuts it. ``python-topics`` is the language reference behind ``help()``.

    Letters are made small and rare characters become ``?``, which leaves an alphabet of about 70.

    >>> corpus = load_text(characters=10_000)
    >>> len(corpus.codes)
    10000
    """
    if name not in TEXTS:
        raise UnknownName("text", name, TEXTS)
    text = TEXTS[name]().lower()[:characters]
    keep = "".join(sorted({c for c in text if c.isascii() and (c.isprintable() or c == "\n")} | {"?"}))
    table = np.full(0x110000, keep.index("?"), dtype=np.uint8)
    table[[ord(c) for c in keep]] = np.arange(len(keep))
    return Corpus(name, keep, table[np.array([ord(c) for c in text])])
