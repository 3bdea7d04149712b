"""Units in which a conic program's numbers are of size one: tolerances then mean the same in any unit of the data.

Curtis and Reid (1972), "On the automatic scaling of matrices for Gaussian elimination".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

if TYPE_CHECKING:
    from thalweg.bilevel._conic_form import ConicForm

#: Sizes within 1 / WIDE and WIDE keep their unit.
WIDE = 2.0**10
#: Limits smaller than this share of where the objective alone has its minimum say nothing of the solution's size.
SMALL = 1e-12

Numbers: TypeAlias = NDArray[np.float64]
Pairs: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Units:
    """Of each program of a batch, ``u = x unknowns u'``, ``s = x s' / rows``, ``y = force rows y'``; powers of 2.

    Attributes:
        unknowns, rows: shapes (k, n) and (k, m); rows of one cone are alike.
        x, force: shape (k, 1).
    """

    unknowns: Numbers
    rows: Numbers
    x: Numbers
    force: Numbers

    @classmethod
    def own(cls, form: ConicForm, k: int) -> Units:
        """The data's own."""
        return cls(np.ones((k, form.n)), np.ones((k, form.m)), np.ones((k, 1)), np.ones((k, 1)))

    @classmethod
    def of(cls, form: ConicForm, numbers: Sequence[Numbers]) -> Units | None:
        """Units of the entries of P, A, b and c; None where their own are good."""
        sizes = [np.abs(part) for part in numbers]
        units = cls.own(form, len(sizes[0]))
        if not _are_even(form, *sizes[:2]):
            units = units._evened(form, sizes)
            sizes = units.numbers(form, sizes)
        curvature, _, limit, slope = (part.max(1, keepdims=True, initial=0.0) for part in sizes)
        if not all(map(_are_common, (curvature, limit, slope))):
            alone = np.divide(slope, curvature, out=np.zeros_like(slope), where=curvature > 0.0)
            x = _unit(np.where(limit > SMALL * alone, limit, alone))
            units = replace(units, x=x, force=_unit(np.maximum(slope, curvature * x)))
        return units if any((part != 1.0).any() for part in vars(units).values()) else None

    def _evened(self, form: ConicForm, sizes: Sequence[Numbers]) -> Units:
        """With units of rows and unknowns in which entries of A, and of P but for a factor, are near one."""
        firsts = form.cones.firsts
        cone = np.repeat(np.arange(len(firsts)), np.diff(np.append(firsts, form.m)))
        in_A = cone[form.A.rows], len(firsts) + form.A.columns
        in_P = len(firsts) + form.P.rows, len(firsts) + form.P.columns
        count = 1 if form.pullbacks[0] is None and form.pullbacks[1] is None else len(self.rows)
        units = np.ones((len(self.rows), len(firsts) + form.n))
        units[:count] = [
            _unit(np.exp2(_balance(in_A, A, in_P, P, units.shape[1])))
            for P, A in zip(sizes[0][:count], sizes[1][:count], strict=True)
        ]
        units[count:] = units[:1]
        return replace(self, rows=units[:, cone], unknowns=units[:, len(firsts) :])

    def numbers(self, form: ConicForm, numbers: Sequence[Numbers]) -> list[Numbers]:
        """Entries of P, A, b and c in these units."""
        P, A, b, c = numbers
        D, E = self.unknowns, self.rows
        return [
            P * D[:, form.P.rows] * D[:, form.P.columns] * (self.x / self.force),
            A * E[:, form.A.rows] * D[:, form.A.columns],
            b * E[:, form.b_rows] / self.x,
            c * D / self.force,
        ]

    def solution(self, u: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        """u and y in the data's own units."""
        return self.x * self.unknowns * u, self.force * self.rows * y

    def slope(self, g: Numbers) -> Numbers:
        """A gradient in u as one in these units' u."""
        return self.x * self.unknowns * g

    def adjoint(self, w_u: Numbers, w_v: Numbers) -> tuple[Numbers, Numbers]:
        """The adjoint in the data's own units."""
        return self.unknowns / self.force * w_u, self.rows / self.x * w_v


def _are_even(form: ConicForm, P: Numbers, A: Numbers) -> bool:
    """Whether the largest entries of rows and columns are within the limits, those of P but for a factor."""
    if not _are_common(A):
        for places, count in ((form.A.rows, form.m), (form.A.columns, form.n)):
            if not _are_common(_largest(count, places, A)):
                return False
    if _are_common(P):
        return True
    columns = _largest(form.n, form.P.columns, P)
    most = columns.max(1, keepdims=True, initial=0.0)
    return _are_common(columns / np.where(most > 0.0, most, 1.0))


def _largest(count: int, places: NDArray[np.int64], values: Numbers) -> Numbers:
    """The largest of the values at each place, (k, count); zero where there is none."""
    found = np.zeros((len(values), count))
    for row, given in zip(found, values, strict=True):
        np.maximum.at(row, places, given)
    return found


def _balance(in_A: Pairs, A: Numbers, in_P: Pairs, P: Numbers, count: int) -> Numbers:
    """Exponents e of least length with ``e_i + e_j + log2 A`` as small as can be, and ``e_i + e_j + log2 P + t``."""
    first, second = (np.concatenate([a[A > 0.0], p[P > 0.0]]) for a, p in zip(in_A, in_P, strict=True))
    sizes, entries = np.concatenate([A[A > 0.0], P[P > 0.0]]), np.arange(len(first))
    of_P = entries[entries >= np.count_nonzero(A)]
    places = np.concatenate([first, second, np.full(len(of_P), count)])
    rows = np.concatenate([entries, entries, of_P])
    M = csr_array((np.ones(len(rows)), (rows, places)), shape=(len(first), count + 1))
    found: Numbers = np.linalg.lstsq((M.T @ M).toarray(), -(M.T @ np.log2(sizes)), rcond=1e-10)[0]
    return found[:-1]


def _are_common(sizes: Numbers) -> bool:
    """Whether all that are not zero are within the limits."""
    return bool(((sizes <= WIDE) & ((sizes >= 1.0 / WIDE) | (sizes == 0.0))).all())


def _unit(sizes: Numbers) -> Numbers:
    """A power of two near each size, one for those within the limits."""
    is_plain = ((sizes <= WIDE) & (sizes >= 1.0 / WIDE)) | (sizes == 0.0)
    return np.asarray(np.exp2(np.round(np.log2(np.where(is_plain, 1.0, sizes)))), np.float64)
