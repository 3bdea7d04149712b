"""Tables that are complete: every sequence has a score, so that designs can be judged by the truth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from thalweg.blackbox.design.problem import SequenceTable
from thalweg.blackbox.design.space import Codes, SequenceSpace
from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import is_whole, require
from thalweg.datasets.networks import load_tensors, shipped

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LetterLandscape:
    """All sequences of a space, with their true scores between 0 and 1.

    Args:
        space: with few enough sequences to list. scores: of all of them, the last position's letters moving fastest.

    >>> truth = LetterLandscape(SequenceSpace("AC", 2), np.array([0.0, 0.5, 0.2, 1.0]))
    >>> truth(np.array([[1, 0], [1, 1]])).tolist()
    [0.2, 1.0]
    """

    space: SequenceSpace
    scores: Array

    def __post_init__(self) -> None:
        if self.scores.shape != (self.space.size,):
            raise InvalidProblem(
                f"scores has shape {self.scores.shape}; expected ({self.space.size},), one a sequence."
            )

    @property
    def codes(self) -> Codes:
        """All sequences, in the order of the scores."""
        return np.array(list(product(*(np.flatnonzero(row) for row in self.space.table))), np.int64)

    def __call__(self, codes: Codes) -> Array:
        """True scores of sequences that the space holds."""
        if not bool(self.space.holds(codes).all()):
            raise InvalidProblem("A sequence is not in the space.")
        place = np.zeros(len(codes), np.int64)
        for position, row in enumerate(self.space.table):
            place = place * int(row.sum()) + (row.cumsum() - 1)[codes[:, position]]
        found: Array = self.scores[place]
        return found

    def offline(self, rows: int = 2000, n: int = 128, seed: int = 0, lowest: float = 0.5) -> SequenceTable:
        """A table of ``rows`` drawn from the share ``lowest`` of all sequences: nothing good is shown."""
        order = np.argsort(self.scores, kind="stable")
        low = order[: int(lowest * len(order))]
        fits = is_whole(rows) and 2 <= rows <= len(low)
        require(fits, f"LetterLandscape.offline needs 2 <= rows <= {len(low)}", got=rows)
        chosen = generator(seed, 0x05, 10).choice(low, rows, replace=False)
        codes = self.codes[chosen]
        return SequenceTable(self.space, self.space.decode(codes), self.scores[chosen], n)


def planted_landscape(seed: int = 0, pairs: float = 0.5) -> LetterLandscape:
    """DNA of 8 letters with two sites of 4, each bound by a protein; good sequences bind both.

    The energy of a site is the sum of a number a letter and, with weight ``pairs``, one a pair of letters beside each
    other, all drawn from N(0, 1). Standardised to z, its occupancy is ``1 / (1 + exp(-2 (z - 1)))``. The score is the
    product of both plus 0.1 of their mean, scaled to 0 ... 1.
    """
    drawn = generator(seed, 0x05, 11)
    words = np.array(list(product(range(4), repeat=4)))
    occupancy = []
    for _ in range(2):
        single, double = drawn.standard_normal((4, 4)), drawn.standard_normal((3, 4, 4))
        energy = single[np.arange(4), words].sum(1)
        energy += pairs * double[np.arange(3), words[:, :-1], words[:, 1:]].sum(1)
        z = (energy - energy.mean()) / energy.std()
        occupancy.append(1 / (1 + np.exp(-2 * (z - 1))))
    first, second = occupancy[0][:, None], occupancy[1][None]
    scores = (first * second + 0.05 * (first + second)).ravel()
    return LetterLandscape(SequenceSpace("dna", 8), (scores - scores.min()) / np.ptp(scores))


@cache
def six6() -> LetterLandscape:
    """How strongly the transcription factor SIX6 binds each DNA sequence of 8 letters, measured; 0 ... 1.

    Both strands of a sequence have one score. Source: Barrera et al. (2016); see ``tables/NOTICE.txt``.
    """
    kept = _shipped("six6.safetensors", "dce00cb601130e50caec88c9e3717452422aa459ed869b2922dffec05f30aa59")
    codes = np.array(list(product(range(4), repeat=8)))
    place = codes @ 4 ** np.arange(7, -1, -1)
    other = (3 - codes[:, ::-1]) @ 4 ** np.arange(7, -1, -1)  # the other strand: A to T, C to G, and turned
    scores = np.empty(len(codes))
    first = place <= other
    scores[first] = (kept + 32768) / 65535
    return LetterLandscape(SequenceSpace("dna", 8), scores[np.minimum(place, other)])


@cache
def splice_sites() -> LetterLandscape:
    """How often each RNA sequence ``NNNGYNNNN`` is a 5' splice site of the human genome.

    The score is log2(1 + count), scaled to 0 ... 1.
    Most of the 32 768 are none and have 0. Source: GENCODE by way of logomaker; see ``tables/NOTICE.txt``.
    """
    counts = _shipped(
        "splice.safetensors", "8f8367c4dd06855ab48bdc337201bddccd189e912128b90c1545f66600ca10cd"
    )
    scores = np.log2(1 + counts)
    return LetterLandscape(SequenceSpace("rna", mask="...G.....", allowed={4: "CU"}), scores / scores.max())


def _shipped(name: str, checksum: str) -> Array:
    with shipped("thalweg.blackbox.design", name, checksum, "tables") as path:
        found: Array = load_tensors(
            path, lambda about, tensors: next(iter(tensors.values())).double().numpy(), "no table of scores"
        )
    return found
