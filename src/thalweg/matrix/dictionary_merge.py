"""Two learners that saw two parts of a stream, made one: no data travel, only matrices n x n."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
from sklearn.utils.validation import check_is_fitted

from thalweg.core.errors import InvalidProblem
from thalweg.matrix._dictionary_steps import DEGREE, Learned, Matrix, roots
from thalweg.matrix.dictionary import OnlineDictionary
from thalweg.matrix.dictionary_alignment import match_atoms


def merge_dictionaries(first: OnlineDictionary, second: OnlineDictionary) -> OnlineDictionary:
    """A new learner from two with the same settings, which are left as they are; it can go on with `partial_fit`.

    The second one's atoms are put into the order and the signs of the first one's. D and momentum are then means
    weighted by the samples that each has learned from; so are running means and moments; counts are added.

    Use it for several devices that each see a part of one stream. Learners of different streams have different
    bases, and their mean is none: look at `match_atoms` first.

    Raises:
        InvalidProblem: other settings, or another number of entries; says which.

    Cost: an assignment and two polar factors, about 50 n^3 operations; with ``whiten`` two eigenvalue decompositions.

    >>> from thalweg.matrix import SparseStream, recovery_error
    >>> stream = SparseStream(n=6, share=0.3, seed=0)
    >>> halves = [OnlineDictionary(random_state=k) for k in range(2)]
    >>> for k, batch in enumerate(stream.batches(16, count=400)):
    ...     _ = halves[k % 2].partial_fit(batch)
    >>> whole = merge_dictionaries(*halves)
    >>> whole.n_samples_seen_ + whole.n_zero_, recovery_error(whole.components_.T, stream.basis) < 0.01
    (6400, True)
    """
    for learner in (first, second):
        check_is_fitted(learner)
    mine, others = first.settings(), second.settings()
    for name, value in mine.items():
        if others[name] != value:
            raise InvalidProblem(
                f"merge_dictionaries: the learners have {name}={value!r} and {name}={others[name]!r}; "
                "expected the same."
            )
    a, b = first.state_, second.state_
    if a.D.shape != b.D.shape:
        raise InvalidProblem(
            f"merge_dictionaries: the learners are of {len(a.D)} and {len(b.D)} entries; expected as many."
        )
    merged = copy.deepcopy(first)
    merged.state_ = _merged(*_in_one_unit(a, b, DEGREE[first.loss]))
    return merged


def _in_one_unit(a: Learned, b: Learned, degree: int) -> tuple[Learned, Learned]:
    powers = [state.power for state in (a, b) if state.power is not None]
    if not powers:
        return a, b
    return a.scaled(max(powers), degree), b.scaled(max(powers), degree)


def _merged(a: Learned, b: Learned) -> Learned:
    total = a.samples + b.samples
    share = b.samples / total if total else 0.0
    weight = a.weight + b.weight
    moved = b.weight / weight if weight else 0.0
    mean = a.mean + moved * (b.mean - a.mean)
    moment, root, unroot = a.moment, a.root, a.unroot
    turns: list[Matrix | None] = [None, None]
    if a.root.size:
        moment = a.moment + moved * (b.moment - a.moment)
        root, unroot = roots(moment)
        turns = [
            unroot @ state.root for state in (a, b)
        ]  # from the one's whitened samples to the merged one's
    (Da, da), (Db, db) = (_turned(state, turn) for state, turn in zip((a, b), turns, strict=True))
    order, signs, _ = match_atoms(b.basis if turns[1] is None else Db, a.basis if turns[0] is None else Da)
    Db, db = Db[:, order] * signs, db[:, order] * signs
    D = Da + share * (Db - Da)
    top = float(np.linalg.norm(D, 2))
    return dataclasses.replace(
        a,
        D=D / max(top, 1.0),
        momentum=da + share * (db - da),
        root=root,
        unroot=unroot,
        moment=moment,
        mean=mean,
        weight=weight,
        steps=a.steps + b.steps,
        samples=total,
        zeros=a.zeros + b.zeros,
        incomplete=a.incomplete + b.incomplete,
        square=a.square + share * (b.square - a.square),
        level=a.level + share * (b.level - a.level),
    )


def _turned(state: Learned, turn: Matrix | None) -> tuple[Matrix, Matrix]:
    return (state.D, state.momentum) if turn is None else (turn @ state.D, turn @ state.momentum)
