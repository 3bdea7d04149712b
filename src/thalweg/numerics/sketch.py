"""Sketch and project: solve ``A z = b`` by projecting z on random combinations of its equations.

``z -= A' S (S' A A' S)^+ S' (A z - b)`` for a random S (Gower and Richtarik, 2015). From z = 0 the limit is the
solution of least norm, and ``E |z - z*|^2`` shrinks by ``1 - lambda_min(E[Z])`` a projection, with Z the projector
on the rows of ``S'A``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import reverse_cuthill_mckee

from thalweg.core.errors import InvalidProblem
from thalweg.core.validation import check_vector, require
from thalweg.numerics._sketch_kernels import gaussian, kaczmarz
from thalweg.numerics.operators import Matrix, as_csr, factor_flops, is_sparse

Vector = NDArray[np.float64]

#: Blocks of up to so many equations keep a dense pseudo-inverse, which dependent equations do not harm.
PSEUDO_INVERSE = 128


class Projector(ABC):
    """A matrix made ready for one kind of sketch."""

    #: Projections before the first look at the whole residual, and equations that one of them meets.
    every: int
    width: int = 1
    #: What making it ready has cost.
    setup: float = 0.0

    @abstractmethod
    def advance(self, z: Vector, r: Vector, b: Vector, count: int, random: np.random.Generator) -> float:
        """``count`` projections, in place; ``r`` is ``A z - b`` before and after. Returns the flops spent."""


class Sketch(ABC):
    """A distribution of S; `prepare` does what is done once for a matrix."""

    @abstractmethod
    def prepare(self, A: sp.csr_array) -> Projector:
        """A of shape (rows, columns) made ready for projections."""


@dataclass(frozen=True)
class Projection:
    """What `sketch_and_project` found.

    Args:
        z: shape (columns,).
        residual: ``|A z - b|``, computed afresh.
        projections, flops: what it took, with the preparation where it was made here.
        converged: whether the bound was reached, or rounding's own.
    """

    z: Vector
    residual: float
    projections: int
    flops: float
    converged: bool


def sketch_and_project(
    A: Matrix,
    b: ArrayLike,
    sketch: Sketch,
    *,
    below: float,
    z: ArrayLike | None = None,
    limit: int = 1_000_000,
    random: np.random.Generator,
    prepared: Projector | None = None,
) -> Projection:
    """Projections until ``|A z - b| <= below``.

    Args:
        A: dense or sparse, shape (rows, columns).
        b: shape (rows,).
        sketch: the distribution of S.
        below: bound on the residual; where rounding hides it, ``8 eps (|A|_F |z| + |b|)`` takes its place.
        z: where to start, shape (columns,); zero by default.
        limit: most equations met, counting repeats; from a 32nd of that on, an end comes where doubling the work has
            not lowered the residual by a tenth, as happens to equations that contradict each other.
        random: the stream S is drawn from.
        prepared: ``sketch.prepare(A)``, where it is at hand.

    >>> A = np.array([[4.0, 1.0], [1.0, 3.0]])
    >>> found = sketch_and_project(A, [1.0, 2.0], Kaczmarz(), below=1e-10, random=np.random.default_rng(0))
    >>> bool(np.allclose(A @ found.z, [1.0, 2.0]))
    True
    """
    A = as_csr(A)
    rows, columns = A.shape
    b = check_vector("b", b, rows)
    z = np.zeros(columns) if z is None else check_vector("z", z, columns).copy()
    require(below >= 0, "sketch_and_project needs below >= 0", got=below)
    projector = sketch.prepare(A) if prepared is None else prepared
    size, right = float(np.linalg.norm(A.data)), float(np.linalg.norm(b))
    r, done, flops = A @ z - b, 0, 2.0 * A.nnz + (projector.setup if prepared is None else 0.0)
    limit = max(limit // projector.width, 1)
    mark, at_mark = limit // 32, np.inf
    while True:
        residual = float(np.linalg.norm(r))
        rounding = 8.0 * np.finfo(float).eps * (size * float(np.linalg.norm(z)) + right)
        if residual <= max(below, rounding):
            r = A @ z - b  # kept by updates so far, which drift
            flops += 2.0 * A.nnz
            residual = float(np.linalg.norm(r))
            if residual <= max(below, rounding):
                return Projection(z, residual, done, flops, True)
        stalled = done >= mark and residual > 0.9 * at_mark
        if done >= mark:
            mark, at_mark = 2 * done, residual
        if done >= limit or stalled or not np.isfinite(residual):
            return Projection(z, residual, done, flops, False)
        # Looks at the residual grow rarer: at most an eighth more projections than needed, and few looks.
        count = min(max(projector.every, done // 8), 1_000_000)
        flops += projector.advance(z, r, b, count, random)
        done += count


@dataclass(frozen=True)
class Kaczmarz(Sketch):
    """S a unit vector: one row of A at a time, random (Strohmer and Vershynin, 2009).

    Args:
        by_norm: draw row i with probability ``|a_i|^2 / |A|_F^2``; otherwise all alike, which no scaling of rows
            changes.

    Cost: 4 flops for each stored entry of the row, and the whole residual once in as many projections as there are
    rows.
    """

    by_norm: bool = False

    def prepare(self, A: sp.csr_array) -> Projector:
        return _Rows(A, self.by_norm)


class _Rows(Projector):
    def __init__(self, A: sp.csr_array, by_norm: bool) -> None:
        self.A, self.every = A, A.shape[0]
        self.squares: Vector = np.asarray((A * A).sum(axis=1), dtype=np.float64).ravel()
        self.sums = np.cumsum(self.squares) if by_norm else None

    def advance(self, z: Vector, r: Vector, b: Vector, count: int, random: np.random.Generator) -> float:
        A = self.A
        if self.sums is None:
            rows = random.integers(self.every, size=count)
        else:
            drawn = random.random(count) * self.sums[-1]
            rows = np.minimum(np.searchsorted(self.sums, drawn, side="right"), self.every - 1)
        read = kaczmarz(A.indptr, A.indices, A.data, self.squares, b, z, rows)
        r[:] = A @ z - b
        return 4.0 * float(read) + 2.0 * A.nnz


@dataclass(frozen=True)
class Gaussian(Sketch):
    """S of ``size`` columns of independent normal numbers.

    Cost: ``4 nnz(A)`` flops a column and, for blocks, the Cholesky factor of a matrix of that size.
    """

    size: int = 1

    def __post_init__(self) -> None:
        require(self.size >= 1, "Gaussian needs size >= 1", got=self.size)

    def prepare(self, A: sp.csr_array) -> Projector:
        if self.size == 1:
            return _GaussianVectors(A)
        rows = A.shape[0]
        return _Drawn(A, lambda random: random.standard_normal((self.size, rows)), self.size)


class _GaussianVectors(Projector):
    def __init__(self, A: sp.csr_array) -> None:
        self.A, self.every = A, A.shape[0]

    def advance(self, z: Vector, r: Vector, b: Vector, count: int, random: np.random.Generator) -> float:
        A, rows = self.A, self.A.shape[0]
        most = max(1, 1_000_000 // rows)  # normal numbers at a time: 8 MB
        v, left = np.empty(A.shape[1]), count
        while left > 0:
            normals = random.standard_normal((min(left, most), rows))
            gaussian(A.indptr, A.indices, A.data, z, r, v, normals)
            left -= len(normals)
        return count * (4.0 * A.nnz + 4.0 * sum(A.shape))


@dataclass(frozen=True)
class CountSketch(Sketch):
    """Every equation goes, with a random sign, to one of ``size`` sums (Charikar, Chen and Farach-Colton, 2002).

    Cost: ``4 nnz(A)`` flops and a factor of size ``size``, whatever ``size`` is: cheaper than `Gaussian` in blocks.
    """

    size: int = 8

    def __post_init__(self) -> None:
        require(self.size >= 1, "CountSketch needs size >= 1", got=self.size)

    def prepare(self, A: sp.csr_array) -> Projector:
        rows = A.shape[0]

        def draw(random: np.random.Generator) -> sp.csr_array:
            signs = 2.0 * random.integers(2, size=rows) - 1.0
            buckets = random.integers(self.size, size=rows)
            return sp.csr_array((signs, (buckets, np.arange(rows))), shape=(self.size, rows))

        return _Drawn(A, draw, self.size)


@dataclass(frozen=True)
class SRHT(Sketch):
    """Subsampled randomized Hadamard transform (Ailon and Chazelle, 2006): ``size`` rows of ``H D``, D random signs.

    The rows of H are made as they are drawn, ``(-1)^(bits of i & j)``, so that nothing of size rows x rows is kept.
    """

    size: int = 8

    def __post_init__(self) -> None:
        require(self.size >= 1, "SRHT needs size >= 1", got=self.size)

    def prepare(self, A: sp.csr_array) -> Projector:
        rows = A.shape[0]
        order = 1 << max(rows - 1, 0).bit_length()
        columns = np.arange(rows, dtype=np.uint32)

        def draw(random: np.random.Generator) -> Vector:
            signs = 2.0 * random.integers(2, size=rows) - 1.0
            picked = random.choice(order, min(self.size, order), replace=False).astype(np.uint32)
            bits = picked[:, None] & columns
            for shift in (16, 8, 4, 2, 1):  # folds the word onto its lowest bit: the parity
                bits ^= bits >> shift
            return np.asarray((1.0 - 2.0 * (bits & 1)) * signs, dtype=np.float64)

        return _Drawn(A, draw, self.size)


class _Drawn(Projector):
    """A fresh block S' at every projection, dense or sparse."""

    every = 8

    def __init__(self, A: sp.csr_array, draw: Callable[[np.random.Generator], Any], size: int) -> None:
        self.A, self.draw, self.width = A, draw, size
        self.flops = 4.0 * A.nnz * size + size**2 * A.shape[1] + size**3 / 3.0

    def advance(self, z: Vector, r: Vector, b: Vector, count: int, random: np.random.Generator) -> float:
        A = self.A
        for _ in range(count):
            S = self.draw(random)
            V = S @ A
            V = V.toarray() if is_sparse(V) else V
            step = V.T @ _least_norm(V @ V.T, S @ r)
            z -= step
            r -= A @ step
        return count * self.flops


@dataclass(frozen=True, eq=False)
class BlockKaczmarz(Sketch):
    """Blocks of equations, in random order, each solved at once with a sparse factor made beforehand.

    Neighbouring equations belong together: patches of a grid, stages of a system. Blocks that overlap pass more
    between them. Rows of a badly scaled matrix that couple over the whole domain need many sweeps; scale variables
    and equations to comparable size first.

    Args:
        size: equations in a block, where ``blocks`` is not given: pieces of the reverse Cuthill-McKee order.
        overlap: equations that neighbouring pieces share on each side; a quarter of ``size`` by default.
        blocks: index vectors that cover all rows.

    Cost: per sweep, two solves with each block's factor. Memory: the factors, linear in the rows for a given block
    size.
    """

    size: int = 2000
    overlap: int | None = None
    blocks: Sequence[NDArray[np.int64]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require(self.size >= 1, "BlockKaczmarz needs size >= 1", got=self.size)
        require(
            self.overlap is None or self.overlap >= 0, "BlockKaczmarz needs overlap >= 0", got=self.overlap
        )

    def prepare(self, A: sp.csr_array) -> Projector:
        return _Blocks(A, self._pieces(A) if self.blocks is None else self.blocks)

    def _pieces(self, A: sp.csr_array) -> list[NDArray[np.int64]]:
        rows = A.shape[0]
        if rows == A.shape[1]:
            order: NDArray[Any] = reverse_cuthill_mckee(sp.csr_matrix(A), symmetric_mode=False)
        else:
            order = np.arange(rows)
        overlap = self.size // 4 if self.overlap is None else self.overlap
        starts = range(0, rows, self.size)
        return [
            np.asarray(order[max(s - overlap, 0) : s + self.size + overlap], dtype=np.int64) for s in starts
        ]


class _Block(NamedTuple):
    rows: NDArray[np.int64]
    columns: NDArray[Any]
    #: Equations with a coefficient in one of ``columns``, and their coefficients there.
    touched: NDArray[Any]
    beside: sp.csr_array
    #: From the residual of ``rows`` to the step in ``columns``.
    solve: Callable[[Vector], Vector]
    flops: float


class _Blocks(Projector):
    """Sweeps over all blocks, each in random order; only what a block touches is updated."""

    def __init__(self, A: sp.csr_array, blocks: Sequence[NDArray[np.int64]]) -> None:
        covered = np.zeros(A.shape[0], dtype=bool)
        #: Numbers kept for the blocks.
        self.stored = 0
        self.blocks: list[_Block] = []
        self.every = len(blocks)
        self.width = max(1, sum(map(len, blocks)) // len(blocks))
        by_column = sp.csc_array(A)
        for rows in blocks:
            covered[rows] = True
            V = A[rows]
            columns = np.unique(V.indices)
            touched = np.unique(by_column[:, columns].indices)
            beside = sp.csr_array(A[touched][:, columns])
            solve, kept, setup = _pseudo_inverse(sp.csr_array(V[:, columns]))
            self.setup += setup
            self.stored += kept + beside.nnz
            self.blocks.append(_Block(rows, columns, touched, beside, solve, 2.0 * (kept + beside.nnz)))
        if not covered.all():
            raise InvalidProblem(
                f"BlockKaczmarz: {int((~covered).sum())} of {len(covered)} equations are in no block "
                f"(the first is {int(np.argmin(covered))}). Give blocks that cover all rows."
            )

    def advance(self, z: Vector, r: Vector, b: Vector, count: int, random: np.random.Generator) -> float:
        n, flops = self.every, 0.0
        for k in range(count):
            if k % n == 0:
                order = random.permutation(n)
            block = self.blocks[order[k % n]]
            step = block.solve(r[block.rows])
            z[block.columns] -= step
            r[block.touched] -= block.beside @ step
            flops += block.flops
        return flops


def _pseudo_inverse(V: sp.csr_array) -> tuple[Callable[[Vector], Vector], int, float]:
    """What applies ``V^+``, the numbers kept and the flops: dense for small blocks, else a sparse factor of VV'."""
    if V.shape[0] <= PSEUDO_INVERSE:
        inverse: Vector = la.pinv(V.toarray(), rtol=1e-13)
        return inverse.__matmul__, inverse.size, 20.0 * V.shape[0] ** 2 * V.shape[1]
    gram, back, options = sp.csc_matrix(V @ V.T), sp.csr_array(V.T), {"SymmetricMode": True}
    try:
        factor = spla.splu(gram, permc_spec="MMD_AT_PLUS_A", options=options)
    except RuntimeError:  # equations that depend on each other
        little = 1e-12 * (float(gram.diagonal().max()) or 1.0)
        lifted = sp.csc_matrix(gram + little * sp.eye_array(gram.shape[0], format="csc"))
        factor = spla.splu(lifted, permc_spec="MMD_AT_PLUS_A", options=options)
    kept = factor.L.nnz + factor.U.nnz + V.nnz
    return lambda right: back @ factor.solve(right), kept, factor_flops(factor)


def _least_norm(gram: Vector, right: Vector) -> Vector:
    try:
        factor = la.cho_factor(gram, check_finite=False)
        return np.asarray(la.cho_solve(factor, right, check_finite=False), dtype=np.float64)
    except la.LinAlgError:
        return np.asarray(la.lstsq(gram, right, check_finite=False)[0], dtype=np.float64)


#: By the names that the command uses.
SKETCHES: dict[str, type[Sketch]] = {
    "blocks": BlockKaczmarz,
    "count": CountSketch,
    "gaussian": Gaussian,
    "hadamard": SRHT,
    "rows": Kaczmarz,
}
