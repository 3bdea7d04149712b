"""The sequences that may be proposed: alphabet, length, letters that are fixed or allowed, distance to a parent."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidProblem, UnknownName
from thalweg.core.validation import is_whole, require

Codes = NDArray[np.int64]

#: Alphabets by name.
ALPHABETS = {"dna": "ACGT", "rna": "ACGU", "protein": "ACDEFGHIKLMNPQRSTVWY"}
#: In a mask: any letter.
FREE = "."
#: Sequences compared at once: bounds the memory of distances.
BLOCK = 4096


@dataclass(frozen=True)
class SequenceSpace:
    """All sequences of one length over an alphabet, less what is fixed or forbidden.

    Use it for sequences that are aligned, position by position: a binding site, a promoter, variants of one protein.
    Insertions and deletions are not moves of it.

    Args:
        alphabet: ``"dna"``, ``"rna"``, ``"protein"``, or the letters themselves, 2 or more.
        length: letters of a sequence; may be left out beside ``mask``.
        mask: a text of that length: a letter is fixed, ``"."`` is free. Default: all free.
        allowed: position, from 0, to the letters that may stand there. Default: all.
        edits: most positions in which a proposal may differ from its parent. Default: any number.

    Raises:
        UnknownName: almost the name of an alphabet.
        InvalidProblem: letters twice, no length, a mask of another length, a position outside, nothing left free.

    >>> space = SequenceSpace("dna", mask="..GT", allowed={0: "AC"}, edits=1)
    >>> space.length, space.size, space.decode(space.encode(["AAGT"]))
    (4, 8, ['AAGT'])
    """

    alphabet: str
    length: int | None = None
    mask: str = ""
    allowed: Mapping[int, str] = field(default_factory=dict)
    edits: int | None = None

    def __post_init__(self) -> None:
        named = ALPHABETS.get(self.alphabet.lower())
        if named is None and difflib.get_close_matches(self.alphabet.lower(), ALPHABETS, cutoff=0.6):
            raise UnknownName("alphabet", self.alphabet, ALPHABETS, see="Or give the letters themselves.")
        letters = named or self.alphabet
        require(
            len(letters) >= 2 and len(set(letters)) == len(letters) and FREE not in letters,
            f"SequenceSpace: the alphabet is one of {', '.join(ALPHABETS)}, or two different letters or more",
            got=self.alphabet,
            error=InvalidProblem,
        )
        length = len(self.mask) if self.length is None else self.length
        require(
            is_whole(length) and length >= 1,
            "SequenceSpace needs a length >= 1, or a mask",
            got=self.length,
            error=InvalidProblem,
        )
        require(
            self.mask == "" or len(self.mask) == length,
            f"SequenceSpace: the mask has {len(self.mask)} letters; expected the length",
            got=length,
            error=InvalidProblem,
        )
        require(
            self.edits is None or (is_whole(self.edits) and self.edits >= 1),
            "SequenceSpace needs edits >= 1",
            got=self.edits,
            error=InvalidProblem,
        )
        object.__setattr__(self, "alphabet", letters)
        object.__setattr__(self, "length", int(length))
        object.__setattr__(self, "allowed", dict(self.allowed))
        self._check_letters()

    def _check_letters(self) -> None:
        for position, letters in self.allowed.items():
            require(
                is_whole(position) and 0 <= position < self.positions,
                f"SequenceSpace: allowed names a position outside 0 ... {self.positions - 1}",
                got=position,
                error=InvalidProblem,
            )
            require(
                len(letters) > 0,
                f"SequenceSpace: no letter is allowed at position {position}",
                error=InvalidProblem,
            )
        unknown = sorted((set(self.mask) | set("".join(self.allowed.values()))) - set(self.alphabet) - {FREE})
        require(
            not unknown,
            f"SequenceSpace: letters that the alphabet {self.alphabet} has not",
            got="".join(unknown),
            error=InvalidProblem,
        )
        empty = np.flatnonzero(~self.table.any(1))
        if empty.size:
            raise InvalidProblem(
                f"SequenceSpace: the mask has {self.mask[empty[0]]!r} at position {empty[0]}, where only "
                f"{self.allowed[int(empty[0])]!r} is allowed."
            )
        require(
            bool((self.table.sum(1) > 1).any()),
            "SequenceSpace: mask and allowed letters leave nothing free; free a position",
            error=InvalidProblem,
        )

    @property
    def positions(self) -> int:
        """The length, as a number."""
        return cast(int, self.length)

    @property
    def letters(self) -> int:
        """How many letters the alphabet has."""
        return len(self.alphabet)

    @property
    def size(self) -> int:
        """How many sequences there are, ``edits`` aside."""
        found = 1
        for count in self.table.sum(1):
            found *= int(count)
        return found

    @cached_property
    def table(self) -> NDArray[np.bool_]:
        """Which letter may stand where, shape (length, letters)."""
        found = np.ones((self.positions, self.letters), bool)
        for position, letters in self.allowed.items():
            found[position] = [letter in letters for letter in self.alphabet]
        for position, letter in enumerate(self.mask):
            if letter != FREE:
                found[position] &= np.array([letter == other for other in self.alphabet])
        return found

    def encode(self, sequences: Sequence[str]) -> Codes:
        """Numbers of letters, shape (n, length).

        Small letters are taken for large ones where the alphabet has only those.

        Raises:
            InvalidProblem: a sequence of another length, or a letter that the alphabet has not; says which.
        """
        texts = [str(s) for s in sequences]
        if self.alphabet.isupper():
            texts = [text.upper() for text in texts]
        for row, text in enumerate(texts):
            if len(text) != self.positions:
                raise InvalidProblem(
                    f"Sequence {row} has {len(text)} letters; expected {self.positions}. Align or cut them to one "
                    "length."
                )
        places = {letter: code for code, letter in enumerate(self.alphabet)}
        codes = np.array([[places.get(c, -1) for c in text] for text in texts], np.int64)
        codes = codes.reshape(len(texts), self.positions)
        for row, position in np.argwhere(codes < 0)[:1]:
            raise InvalidProblem(
                f"Sequence {row} has {texts[row][position]!r} at position {position}; the alphabet is {self.alphabet}."
                " Drop such rows, or name another alphabet."
            )
        return codes

    def decode(self, codes: Codes) -> list[str]:
        """Inverse of `encode`."""
        letters = np.array(list(self.alphabet))
        return ["".join(row) for row in letters[codes]]

    def holds(self, codes: Codes) -> NDArray[np.bool_]:
        """Which rows have only letters that may stand where they stand."""
        return np.asarray(self.table[np.arange(self.positions), codes].all(axis=1))

    def mended(self, codes: Codes) -> Codes:
        """Rows with each forbidden letter replaced by the first that is allowed there."""
        bad = ~self.table[np.arange(self.positions), codes]
        return np.where(bad, self.table.argmax(1)[None], codes)

    def within(self, codes: Codes, parents: Codes) -> Codes:
        """Rows brought into the space: forbidden letters replaced, and no more than ``edits`` changes of the parents.

        Where there are more, the first ones stay.
        """
        mended = self.mended(codes)
        if self.edits is None:
            return mended
        changed = mended != parents
        return np.where(changed & (changed.cumsum(1) <= self.edits), mended, parents)


def one_hot(codes: Codes, letters: int) -> NDArray[np.float64]:
    """Shape (n, length, letters)."""
    return np.eye(letters)[codes]


def distances(codes: Codes, others: Codes) -> NDArray[np.int64]:
    """In how many positions two rows differ, shape (n, m). Cost: ``O(n m length)`` comparisons of bytes."""
    left, right = codes.astype(np.uint8), others.astype(np.uint8)
    found = np.zeros((len(left), len(right)), np.int64)
    for position in range(left.shape[1]):
        found += left[:, position, None] != right[None, :, position]
    return found


def nearest(codes: Codes, others: Codes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distance of each row to the nearest of ``others``, and which that is."""
    best = np.full(len(codes), np.iinfo(np.int64).max)
    which = np.zeros(len(codes), np.int64)
    for start in range(0, len(others), BLOCK):
        block = distances(codes, others[start : start + BLOCK])
        at = block.argmin(1)
        near = block[np.arange(len(codes)), at]
        closer = near < best
        best, which = np.where(closer, near, best), np.where(closer, at + start, which)
    return best, which
