"""The Poisson equation on a grid of cells with obstacles and free surfaces: the pressure equation of fluids.

Bridson (2015), "Fluid simulation for computer graphics", chapter 5, for the discretisation.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import scipy.ndimage as ndimage
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

from thalweg.core import InvalidProblem
from thalweg.linear import _grid_kernels as kernels
from thalweg.numerics import as_csr

#: What a cell is: its pressure is unknown; nothing flows through it (Neumann); its pressure is zero (Dirichlet).
FLUID, SOLID, AIR = 0, 1, 2


class PoissonGrid(LinearOperator):
    """Matrix-free Poisson operator on cells of a 2-D or 3-D grid; outside the grid all is solid.

    In a fluid cell ``(A p)_i = d_i p_i - sum of p over the fluid neighbours``, with d_i the number of neighbours that
    are not solid (so a neighbour of air has pressure zero, and through a solid one nothing flows). Every cell is an
    unknown, which keeps vectors in the grid's order: in cells without fluid, or walled in alone, ``(A p)_i = p_i``.
    Symmetric, and positive definite unless there are `closed` pools, where pressure is known up to a constant.

    Args:
        cells: FLUID (0), SOLID (1) or AIR (2), shape (rows, columns) or (layers, rows, columns).

    Raises:
        InvalidProblem: not two- or three-dimensional, no real numbers, another code, or no fluid at all.

    Cost of a product: 18 bytes moved a cell (CSR: 12 bytes an entry).

    >>> cells = np.zeros((8, 8), int)
    >>> cells[0] = AIR
    >>> grid = PoissonGrid(cells)
    >>> bool(np.allclose(grid @ np.ones(64), grid.to_csr() @ np.ones(64)))
    True
    """

    def __init__(self, cells: ArrayLike) -> None:
        given = np.asarray(cells)
        if given.ndim not in (2, 3):
            raise InvalidProblem(f"PoissonGrid: cells have shape {given.shape}; a 2-D or 3-D grid is needed.")
        if given.dtype.kind == "b":
            raise InvalidProblem(
                "PoissonGrid: cells are truth values, which do not say what True is. Pass codes, FLUID (0), SOLID (1) "
                "or AIR (2): np.where(is_fluid, FLUID, SOLID)."
            )
        if given.dtype.kind not in "iuf":
            raise InvalidProblem(
                f"PoissonGrid: cells are of type {given.dtype}; a cell is a number, FLUID (0), SOLID (1) or AIR (2)."
            )
        other = ~np.isin(given, (FLUID, SOLID, AIR))
        if other.any():
            at = tuple(map(int, np.argwhere(other)[0]))
            raise InvalidProblem(
                f"PoissonGrid: a cell is FLUID (0), SOLID (1) or AIR (2); there are other codes (first: {given[at]} in "
                f"cell {at})."
            )
        self.cells = np.ascontiguousarray(given, dtype=np.int8)
        padded = np.pad((self.cells != SOLID).astype(np.uint8), 1)
        around = np.zeros_like(padded)
        for axis in range(padded.ndim):
            around += np.roll(padded, 1, axis) + np.roll(padded, -1, axis)
        inner = tuple(slice(1, -1) for _ in self.cells.shape)
        self.fluid = (self.cells == FLUID) & (around[inner] > 0)
        if not self.fluid.any():
            raise InvalidProblem(
                "PoissonGrid: no cell holds fluid that can flow, so there is nothing to solve."
            )
        self.counts = np.ascontiguousarray(np.where(self.fluid, around[inner], 0).astype(np.uint8))
        n = self.cells.size
        super().__init__(np.dtype(np.float64), (n, n))  # type: ignore[call-arg]

    def _matvec(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        p = np.ascontiguousarray(x, dtype=np.float64).reshape(self._volume)
        out = np.empty_like(p)
        kernels.poisson_product(p, self._mask, self.counts.reshape(self._volume), out)
        return out.reshape(np.shape(x))

    def _adjoint(self) -> PoissonGrid:
        return self

    @property
    def _volume(self) -> tuple[int, ...]:
        """Shape with three axes."""
        return (1,) * (3 - self.cells.ndim) + self.cells.shape

    @cached_property
    def _mask(self) -> NDArray[np.uint8]:
        return self.fluid.astype(np.uint8).reshape(self._volume)

    def to_csr(self) -> sp.csr_array:
        """The same operator as a CSR array."""
        number = np.arange(self.cells.size).reshape(self.cells.shape)
        diagonal = np.where(self.fluid, self.counts, 1).ravel().astype(float)
        parts: list[Any] = [sp.diags_array(diagonal)]
        for axis in range(self.cells.ndim):
            low, high = (np.moveaxis(self.fluid, axis, 0)[s] for s in (slice(None, -1), slice(1, None)))
            first, second = (np.moveaxis(number, axis, 0)[s] for s in (slice(None, -1), slice(1, None)))
            i, j = first[low & high], second[low & high]
            off = sp.coo_array((-np.ones(len(i)), (i, j)), shape=self.shape)
            parts += [off, off.T]
        return as_csr(sum(parts[1:], parts[0]))

    @cached_property
    def closed(self) -> tuple[NDArray[np.int64], ...]:
        """Cells, flat, of each pool that touches no air; there A is singular, with the constants as null space."""
        labels, count = ndimage.label(self.fluid)
        if not count:
            return ()
        beside_air = ndimage.binary_dilation(self.cells == AIR) & self.fluid
        open_ones = set(np.unique(labels[beside_air]).tolist())
        flat = labels.ravel()
        order = np.argsort(flat, kind="stable")
        starts = np.searchsorted(flat[order], np.arange(1, count + 2))
        pools = (order[starts[k - 1] : starts[k]] for k in range(1, count + 1) if k not in open_ones)
        return tuple(pools)

    def project(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """``v`` less its mean in each closed pool, in place: what A p = v can be solved for; columns each alone."""
        if self.closed:
            for column in v.T if v.ndim == 2 else [v]:
                kernels.remove_means(column, *self._pools)
        return v

    @cached_property
    def _pools(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The closed pools one after the other, and where each begins and ends."""
        ends = np.cumsum([0] + [len(pool) for pool in self.closed])
        return np.concatenate(self.closed), ends

    def require_consistent(self, b: NDArray[np.float64]) -> None:
        """Refuse a right-hand side that does not sum to zero over a closed pool."""
        scale = float(np.linalg.norm(b)) or 1.0
        for pool in self.closed:
            excess = abs(float(b[pool].sum())) / np.sqrt(len(pool))
            if excess > CONSISTENT * scale:
                raise InvalidProblem(
                    f"b sums to {b[pool].sum():.3g} over a closed pool of {len(pool)} cells (first: {pool[0]}), where "
                    "A p = b has a solution only for a sum of zero. Pass b = grid.project(b), or open the pool to air."
                )

    def tree(self) -> tuple[Any, ...]:
        """What makes this operator."""
        return (self.cells,)


#: Share of b that rounding may leave in the null space.
CONSISTENT = 1e-8
