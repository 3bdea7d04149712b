"""Blocks that fall apart: their parts against a flood fill, symmetry, closed pools, and iterations that do not grow."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import minimum_spanning_tree

from thalweg import Stop, solve
from thalweg.linear import AIR, SOLID, ConjugateGradient, LinearSystem, MultigridCycle, PoissonGrid
from thalweg.linear.aggregation import AggregationCycle
from thalweg.linear.multigrid import Parts
from thalweg.linear.obstacles import box_of_fluid, bunny


def walls(shape, every=8):
    """Walls of one cell, with doors of one cell at alternate ends."""
    cells = box_of_fluid(shape)
    for i, row in enumerate(range(every - 2, shape[0] - 3, every)):
        cells[row] = SOLID
        cells[row, ..., 1 if i % 2 else shape[-1] - 2] = 0
    return PoissonGrid(cells)


def maze(side, seed, dimensions=2):
    """Channels one cell wide along a random spanning tree."""
    rng = np.random.default_rng(seed)
    half = (side // 2,) * dimensions
    number = np.arange(np.prod(half)).reshape(half)
    low = np.concatenate([np.moveaxis(number, a, 0)[:-1].ravel() for a in range(dimensions)])
    high = np.concatenate([np.moveaxis(number, a, 0)[1:].ravel() for a in range(dimensions)])
    edges = sp.csr_array((1.0 + rng.random(len(low)), (low, high)), shape=(number.size,) * 2)
    tree = minimum_spanning_tree(edges).tocoo()
    ends = np.array(np.unravel_index(tree.row, half)), np.array(np.unravel_index(tree.col, half))
    cells = np.full((side,) * dimensions, SOLID)
    cells[(slice(0, 2 * (side // 2), 2),) * dimensions] = 0
    cells[tuple(ends[0] + ends[1])] = 0
    cells[-1] = AIR
    return PoissonGrid(cells)


def porous(shape, solid, seed):
    cells = box_of_fluid(shape)
    cells[(np.random.default_rng(seed).random(shape) < solid) & (cells != AIR)] = SOLID
    return PoissonGrid(cells)


def steps(grid, seed=0, **options):
    b = grid.project(np.random.default_rng(seed).standard_normal(grid.cells.size) * grid.fluid.ravel())
    method = ConjugateGradient(MultigridCycle(grid, **options))
    result = solve(LinearSystem(grid, b), method, stop=Stop(below={"residual": 1e-8}, steps=2000))
    assert result.converged
    return result.steps


def flooded_parts(grid):
    """The part of each fluid cell, by flood fill within blocks of two cells a side: {cell: (block, first cell)}."""
    part = {}
    for start in map(tuple, np.argwhere(grid.fluid)):
        if start in part:
            continue
        block, waiting = tuple(c // 2 for c in start), [start]
        while waiting:
            cell = waiting.pop()
            if cell in part:
                continue
            part[cell] = (block, start)
            for axis, step in itertools.product(range(grid.cells.ndim), (1, -1)):
                other = tuple(c + step * (a == axis) for a, c in enumerate(cell))
                inside = all(0 <= c < side for c, side in zip(other, grid.cells.shape, strict=True))
                if inside and grid.fluid[other] and tuple(c // 2 for c in other) == block:
                    waiting.append(other)
    return part


class TestTheParts:
    @pytest.mark.parametrize(
        ("shape", "solid", "seed"), [((14, 16), 0.45, 2), ((15, 13), 0.45, 11), ((8, 7, 9), 0.66, 1)]
    )
    def test_the_hand_set_cycle_is_the_product_of_its_dense_matrices(self, shape, solid, seed):
        grid = porous(shape, solid, seed)
        M = MultigridCycle(grid, learned=False)
        assert isinstance(M._bottom, Parts)
        assert len(M._levels) == 1
        assert not M._bottom.cycle.levels  # factors of all the parts
        A, d, wet = grid.to_csr().toarray(), len(shape), grid.fluid.ravel()
        part = flooded_parts(grid)
        names = sorted(set(part.values()))
        P = np.zeros((grid.cells.size, len(names)))
        for cell, name in part.items():
            P[np.ravel_multi_index(cell, shape), names.index(name)] = 1.0
        faces = np.where(A < 0, -A, 0.0)
        air = np.where(wet, A.sum(axis=1), 0.0)
        W = P.T @ faces @ P / 2 ** (d - 1)
        np.fill_diagonal(W, 0.0)
        coarse = np.diag(W.sum(axis=1) + P.T @ (air / (1 + air / 2)) / 2 ** (d - 2)) - W
        parity = np.indices(shape).sum(axis=0).ravel() % 2
        over = wet / A.diagonal()
        red, black, one = np.diag(over * (1 - parity)), np.diag(over * parity), np.eye(len(A))
        smooth = (one - 0.25 * np.diag(1.0 * wet) @ A) @ P
        pre = red + black @ (one - A @ red)
        bottom = np.linalg.pinv(coarse, rcond=1e-12, hermitian=True) / 2.0 ** (d - 2)
        both = pre + smooth @ bottom @ smooth.T @ (one - A @ pre)
        off = np.eye(len(A))
        for pool in grid.closed:
            off[np.ix_(pool, pool)] -= 1.0 / len(pool)
        expected = off @ (both + pre.T @ (one - A @ both)) @ off * np.outer(wet, wet) + np.diag(~wet)
        np.testing.assert_allclose(M @ np.eye(len(A)), expected, atol=1e-5 * np.abs(expected).max())

    @pytest.mark.parametrize(
        "grid", [walls((40, 33)), maze(36, 0), porous((36, 40), 0.45, 1), porous((11,) * 3, 0.66, 0)]
    )
    @pytest.mark.parametrize("learned", [True, False])
    def test_it_is_symmetric_and_positive_definite(self, grid, learned):
        cycle = MultigridCycle(grid, learned)
        assert isinstance(cycle._bottom, Parts)
        assert cycle._bottom.cycle.levels
        M = cycle @ np.eye(grid.cells.size)
        np.testing.assert_allclose(M, M.T, atol=4e-6 * np.abs(M).max())
        assert np.sort(np.linalg.eigvalsh(0.5 * (M + M.T)))[len(grid.closed)] > 0.02
        for pool in grid.closed:
            assert np.abs(M[pool].sum(0)).max() < 1e-5 * np.abs(M).max()

    def test_where_no_wall_divides_blocks_nothing_is_different(self, rng):
        cells = box_of_fluid((64, 64))
        cells[bunny((64, 64)) & (cells != AIR)] = SOLID
        for grid in (PoissonGrid(cells), porous((64, 64), 0.2, 0)):
            r = rng.standard_normal(4096)
            np.testing.assert_array_equal(MultigridCycle(grid) @ r, MultigridCycle(grid, split=False) @ r)


class TestIterations:
    @pytest.mark.parametrize(("sides", "most"), [((48, 96, 192), 16)])
    def test_between_walls_they_do_not_grow(self, sides, most):
        found = [steps(walls((side, side))) for side in sides]
        assert max(found) <= min(1.3 * found[0], most)
        assert steps(walls((96, 96)), split=False) >= 4 * found[1]

    @pytest.mark.parametrize("seed", [5, 6])
    def test_in_mazes_of_channels_one_cell_wide_they_hardly_do(self, seed):
        found = [steps(maze(side, seed)) for side in (64, 200)]
        assert found[1] <= min(1.3 * found[0], 30)

    @pytest.mark.parametrize("solid", [0.38, 0.45])
    def test_in_dense_porous_media_they_do_not_grow(self, solid):
        found = [steps(porous((side, side), solid, 7)) for side in (64, 200)]
        assert found[1] <= min(1.3 * found[0], 22)

    def test_a_single_wall_of_one_cell_costs_nothing(self):
        cells = box_of_fluid((128, 128))
        cells[62], cells[62, 40] = SOLID, 0
        grid = PoissonGrid(cells)
        assert steps(grid) <= 12
        assert steps(grid, split=False) >= 18

    @pytest.mark.parametrize(
        ("grid", "most"), [(walls((32,) * 3), 18), (maze(28, 1, 3), 45), (porous((30,) * 3, 0.65, 2), 38)]
    )
    def test_in_three_dimensions_they_are_a_fraction(self, grid, most):
        found = steps(grid)
        assert found <= most
        assert steps(grid, split=False) >= 1.7 * found

    def test_right_hand_sides_and_columns_share_one_cycle(self, rng):
        grid = walls((40, 33))
        b = grid.project(rng.standard_normal((1320, 2)) * grid.fluid.ravel()[:, None])
        M = MultigridCycle(grid)
        np.testing.assert_allclose(M @ b, np.stack([M @ c for c in b.T], axis=1))
        found = solve(LinearSystem(grid, b), ConjugateGradient(M), stop=Stop(below={"residual": 1e-9}))
        np.testing.assert_allclose(np.stack([grid @ x for x in found.x.T], axis=1), b, atol=1e-7)


class TestTheGraph:
    def graph(self, rng, n=240):
        """A path with chords, and a closed triangle, in blocks along a line."""
        i = np.arange(n - 4)
        ends = np.concatenate([[i, i + 1], rng.integers(0, n - 3, (2, 60))], axis=1)
        ends = np.concatenate(
            [ends[:, ends[0] != ends[1]], [[n - 3, n - 2, n - 1], [n - 2, n - 1, n - 3]]], axis=1
        )
        w = rng.random(ends.shape[1]) + 0.1
        W = sp.coo_array((np.tile(w, 2), (ends.ravel(), ends[::-1].ravel())), shape=(n, n)).tocsr()
        air = np.zeros(n)
        air[0] = 0.5
        A = sp.csr_array(sp.diags_array(W.sum(axis=1) + air) - W)
        places = np.zeros((n, 3), np.int32)
        places[:, 2] = np.arange(n) // 2
        return A, air, places

    def test_a_cycle_is_near_the_inverse_and_symmetric(self, rng):
        A, air, places = self.graph(rng)
        cycle = AggregationCycle(A, air, places, 2)
        assert len(cycle.levels) >= 1
        M = np.empty(A.shape)
        for i in range(len(M)):
            cycle.b[:] = np.arange(len(M)) == i
            M[:, i] = cycle.solve()
        np.testing.assert_allclose(M, M.T, atol=1e-12 * np.abs(M).max())
        values = np.sort(np.linalg.eigvals(M @ A.toarray()).real)
        assert abs(values[0]) < 1e-10  # the closed triangle's constant
        assert values[1] > 0.1
        assert values[-1] < 1 + 1e-10

    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_transfers_keep_most_of_each_row_in_its_aggregate(self, dimensions):
        """So that their columns are independent: with a factor of 2/3 everywhere some mazes had a singular matrix."""
        for seed in range(4):
            grid = maze((90, 24)[dimensions - 2], seed, dimensions)
            levels = MultigridCycle(grid, learned=False)._bottom.cycle.levels
            assert levels
            for level in levels:
                P = sp.csr_array((level.values, level.columns, level.starts))
                joined = np.diff(level.starts) > 0  # a node without neighbours needs no transfer
                assert P.max(axis=1).toarray()[joined].min() > 0.5
                assert P.sum(axis=1).max() < 1 + 1e-12
