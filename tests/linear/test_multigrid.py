"""The multigrid cycle: its dense construction, its torch form, symmetry for any weights, and iterations by grid."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg import Checkpoint, Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem, UnreadableFile, recommended
from thalweg.linear import (
    ConjugateGradient,
    CycleDirection,
    CycleWeights,
    LinearSystem,
    MultigridCycle,
    PoissonGrid,
    ResidualDirection,
    save_direction,
)
from thalweg.linear.obstacles import box_of_fluid, bunny, cross, random_cells
from thalweg.linear.poisson import AIR, FLUID, SOLID

SHAPES = [(16, 16), (13, 22), (5, 40), (3, 50), (2, 2), (16, 16, 16), (9, 12, 7), (20, 3, 3), (2, 3, 2)]


def random_weights(dimensions, seed, size=1.0):
    """Weights that no training would find."""
    rng = np.random.default_rng(seed)
    kept = CycleWeights.hand_set(dimensions).networks
    return CycleWeights(
        dimensions,
        tuple(tuple((size * rng.standard_normal(a.shape)).astype(np.float32) for a in net) for net in kept),
    )


def direction(weights):
    """The torch form of the same weights."""
    network = CycleDirection(weights.dimensions)
    with torch.no_grad():
        for name, arrays in zip(CycleWeights.names, weights.networks):
            for parameter, array in zip(getattr(network, name).parameters(), arrays):
                parameter.copy_(torch.from_numpy(array))
    return network


def random_grid(shape, seed, air=0.15, solid=0.2):
    """Cells at random, one by one: pools, islands and lonely cells included."""
    rng = np.random.default_rng(seed)
    cells = rng.choice([FLUID, SOLID, AIR], size=shape, p=[1 - air - solid, solid, air])
    cells.flat[:2] = FLUID
    cells[(0,) * (len(shape) - 1)][:2] = FLUID
    return PoissonGrid(cells)


def past(shape, solid, air="top"):
    cells = box_of_fluid(shape, air)
    cells[solid & (cells != AIR)] = SOLID
    return PoissonGrid(cells)


def steps(grid, learned, tol, seed=0):
    b = np.random.default_rng(seed).standard_normal(grid.cells.size) * grid.fluid.ravel()
    system = LinearSystem(grid, grid.project(b))
    method = ConjugateGradient(MultigridCycle(grid, learned))
    result = solve(system, method, stop=Stop(below={"residual": tol}, steps=100))
    assert result.converged
    return result.steps


def inside(grid):
    """The projector on what A can give: off the constants of closed pools."""
    P = np.eye(grid.cells.size)
    for pool in grid.closed:
        P[np.ix_(pool, pool)] -= 1.0 / len(pool)
    return P


class Dense:
    """The hand-set cycle written down with dense matrices and dictionaries of cells, apart from the library's."""

    def __init__(self, faces, air, shape):
        self.faces, self.air, self.shape = faces, air, shape
        self.cells = list(itertools.product(*map(range, shape)))
        number = {cell: n for n, cell in enumerate(self.cells)}
        self.A = np.diag([air.get(cell, 0.0) for cell in self.cells])
        for (p, q), w in faces.items():
            i, j = number[p], number[q]
            self.A[[i, j], [i, j]] += w
            self.A[i, j] -= w
            self.A[j, i] -= w

    def coarser(self):
        d = len(self.shape)
        shape = tuple(-(-side // 2) for side in self.shape)
        faces, air = {}, {}
        for (p, q), w in self.faces.items():
            pair = tuple(c // 2 for c in p), tuple(c // 2 for c in q)
            if pair[0] != pair[1]:
                faces[pair] = faces.get(pair, 0.0) + w / 2 ** (d - 1)
        for cell, a in self.air.items():
            block = tuple(c // 2 for c in cell)
            air[block] = air.get(block, 0.0) + a / (1 + a / 2) / 2 ** (d - 2)
        return Dense(faces, air, shape)

    def inverse(self):
        n, diagonal = len(self.cells), self.A.diagonal()
        live = np.diag((diagonal > 0).astype(float))
        if max(self.shape) <= 4:
            return np.linalg.pinv(self.A, rcond=1e-12, hermitian=True)
        over = np.where(diagonal > 0, 1 / np.where(diagonal > 0, diagonal, 1.0), 0.0)
        parity = np.array([sum(cell) % 2 for cell in self.cells])
        red, black, one = np.diag(over * (1 - parity)), np.diag(over * parity), np.eye(n)
        above = self.coarser()
        column = {cell: m for m, cell in enumerate(above.cells)}
        P = np.zeros((n, len(above.cells)))
        for i, cell in enumerate(self.cells):
            P[i, column[tuple(c // 2 for c in cell)]] = 1.0
        P = (one - 0.25 * live @ self.A) @ live @ P
        pre = red + black @ (one - self.A @ red)
        both = pre + P @ above.inverse() @ P.T @ (one - self.A @ pre) / 2.0 ** (len(self.shape) - 2)
        return both + pre.T @ (one - self.A @ both)

    @classmethod
    def of(cls, grid):
        faces, air, cells = {}, {}, grid.cells
        for cell in itertools.product(*map(range, cells.shape)):
            if cells[cell] != FLUID:
                continue
            for axis, step in itertools.product(range(cells.ndim), (1, -1)):
                other = tuple(c + step * (a == axis) for a, c in enumerate(cell))
                if not all(0 <= c < side for c, side in zip(other, cells.shape)):
                    continue
                if cells[other] == FLUID and step == 1:
                    faces[cell, other] = 1.0
                elif cells[other] == AIR:
                    air[cell] = air.get(cell, 0.0) + 1.0
        return cls(faces, air, cells.shape)


class TestTheCycle:
    @pytest.mark.parametrize("shape", [(9, 14), (16, 5), (7, 3, 6)])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_the_hand_set_one_is_the_product_of_its_dense_matrices(self, shape, seed):
        grid = random_grid(shape, seed)
        P, wet = inside(grid), grid.fluid.ravel()
        expected = P @ Dense.of(grid).inverse() @ P + np.diag(~wet)
        found = MultigridCycle(grid, learned=False, split=False) @ np.eye(grid.cells.size)
        np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())

    @pytest.mark.parametrize("shape", SHAPES)
    def test_compiled_loops_and_torch_give_the_same_numbers(self, shape):
        for seed in range(3):
            weights = random_weights(len(shape), seed, 0.5)
            grid = random_grid(shape, seed, air=0.15)
            r = np.random.default_rng(seed).standard_normal(grid.cells.size) * grid.fluid.ravel()
            grid.project(r)
            theirs = direction(weights).bind(grid)(torch.from_numpy(r)).double().numpy()
            theirs = grid.project(theirs) / np.sqrt(grid.fluid.sum())
            ours = MultigridCycle(grid, weights, split=False) @ r
            np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10_000), st.sampled_from([(13, 22), (3, 50), (9, 6, 7), (20, 3, 3)]))
    def test_it_is_symmetric_and_positive_definite_whatever_the_weights(self, seed, shape):
        grid = random_grid(shape, seed)
        network = direction(random_weights(len(shape), seed)).double()
        fluid, air = (torch.from_numpy(a).double()[None, None] for a in (grid.fluid, grid.cells == AIR))
        units = torch.eye(grid.cells.size, dtype=torch.float64).reshape(-1, 1, *shape)
        with torch.no_grad():
            M = (network(units * fluid, network.prepare(fluid, air)) * fluid).flatten(1).numpy()
        np.testing.assert_allclose(M, M.T, atol=1e-9 * np.abs(M).max())
        wet = grid.fluid.ravel()
        assert np.linalg.eigvalsh(0.5 * (M + M.T)[np.ix_(wet, wet)])[0] > 1e-9

    @pytest.mark.parametrize("shape", [(13, 22), (9, 6, 7)])
    def test_so_it_is_in_single_precision_as_shipped(self, shape):
        for seed in range(4):
            grid = random_grid(shape, seed)
            M = MultigridCycle(grid) @ np.eye(grid.cells.size)
            np.testing.assert_allclose(M, M.T, atol=2e-6 * np.abs(M).max())
            values = np.linalg.eigvalsh(0.5 * (M + M.T))
            assert np.sort(values)[len(grid.closed)] > 0.05
            for pool in grid.closed:
                assert np.abs(M[pool].sum(0)).max() < 1e-5 * np.abs(M).max()

    def test_it_is_the_identity_outside_the_fluid(self):
        grid = past((20, 20), bunny((20, 20)))
        r = np.where(grid.fluid.ravel(), 0.0, np.arange(400.0))
        np.testing.assert_array_equal(MultigridCycle(grid) @ r, r)

    @pytest.mark.parametrize("exponent", [-900, -130, 0, 140, 900])
    def test_units_do_not_matter(self, exponent):
        grid = past((20, 20), bunny((20, 20)))
        M, r = MultigridCycle(grid), np.random.default_rng(0).standard_normal(400)
        np.testing.assert_array_equal(M @ np.ldexp(r, exponent), np.ldexp(M @ r, exponent))
        np.testing.assert_array_equal(M @ np.zeros(400), np.zeros(400))

    @pytest.mark.parametrize("size", [5e-324, 1e-310, 1e300])
    def test_nor_do_the_smallest_and_largest_numbers(self, size):
        grid = past((20, 20), bunny((20, 20)))
        z = MultigridCycle(grid) @ np.full(400, size)
        assert np.isfinite(z).all()
        assert z.max() > 0

    def test_bound_once_it_serves_every_right_hand_side(self, rng):
        grid = past((24, 24), bunny((24, 24)), "none")
        b = grid.project(rng.standard_normal((576, 3)) * grid.fluid.ravel()[:, None])
        M = MultigridCycle(grid)
        found = solve(LinearSystem(grid, b), ConjugateGradient(M), stop=Stop(below={"residual": 1e-9}))
        assert found.converged
        np.testing.assert_allclose(np.stack([grid @ x for x in found.x.T], axis=1), b, atol=1e-7)
        np.testing.assert_allclose(M @ b, np.stack([M @ c for c in b.T], axis=1))
        np.testing.assert_array_equal(M.T @ b[:, 0], M @ b[:, 0])

    def test_a_resumed_solve_has_the_same_bits(self, tmp_path, rng):
        grid = past((33, 20), bunny((33, 20)))
        system = LinearSystem(grid, rng.standard_normal(660) * grid.fluid.ravel())
        method, stop = ConjugateGradient(MultigridCycle(grid)), Stop(steps=8)
        whole = solve(system, method, stop=stop)
        solve(system, method, stop=Stop(steps=3), callbacks=[Checkpoint(tmp_path / "run", every=3)])
        again = ConjugateGradient(MultigridCycle(PoissonGrid(grid.cells)))
        np.testing.assert_array_equal(solve(system, again, stop=stop, resume=tmp_path / "run").x, whole.x)


class TestIterations:
    @pytest.mark.parametrize(
        ("shape", "rough", "fine"),
        [
            ((64, 64), 7, 12),
            ((256, 256), 7, 12),
            ((16, 16, 16), 7, 12),
            ((48, 48, 48), 7, 12),
            ((100, 110), 7, 12),
            ((129, 257), 7, 12),
            ((32, 20, 40), 7, 12),
        ],
    )
    def test_they_are_few_past_unseen_obstacles_on_grids_of_any_size(self, shape, rough, fine):
        solids = [bunny(shape)] + ([cross(shape, 0.4)] if len(shape) == 2 else [])
        for grid in (past(shape, solid) for solid in solids):
            assert steps(grid, True, 1e-4) <= rough
            assert steps(grid, True, 1e-8) <= fine

    @pytest.mark.parametrize(
        "shape", [(16, 1024), (1024, 16), (300, 4), (1, 200), (200, 1), (64, 8, 8), (3, 90, 4)]
    )
    def test_elongated_grids_take_few_too(self, shape):
        assert steps(PoissonGrid(np.full(shape, FLUID)), True, 1e-8) <= 14

    @pytest.mark.parametrize(("dimensions", "share"), [(2, 0.9), (3, 0.95)])
    def test_learning_saves_some_of_the_hand_set_iterations(self, dimensions, share):
        rng = np.random.default_rng(77)
        grids = [
            PoissonGrid(random_cells(((64,) * 2, (20,) * 3)[dimensions - 2], rng, most=8)) for _ in range(8)
        ]
        learned, hand = (sum(steps(grid, kind, 1e-8) for grid in grids) for kind in (True, False))
        assert learned <= share * hand

    def test_closed_pools_are_solved_up_to_their_constants(self):
        cells = box_of_fluid((40, 40), "none")
        cells[13] = SOLID
        cells[:, 20] = SOLID
        grid = PoissonGrid(cells)
        assert len(grid.closed) == 4
        assert steps(grid, True, 1e-8) <= 14
        x = MultigridCycle(grid) @ np.random.default_rng(0).standard_normal(1600)
        assert all(abs(x[pool].mean()) < 1e-12 for pool in grid.closed)

    @pytest.mark.parametrize("shape", [(64, 64), (16, 16, 16)])
    def test_the_residual_falls_to_what_float64_holds(self, shape):
        assert steps(past(shape, bunny(shape)), True, 1e-13) <= 22

    def test_grids_are_recommended_it(self):
        grid = past((40, 40), bunny((40, 40)))
        system = LinearSystem(grid, grid.fluid.ravel().astype(float))
        assert isinstance(recommended(system).preconditioner, MultigridCycle)
        assert solve(system).steps <= 12


class TestBadInput:
    def test_what_is_no_grid_is_refused(self):
        grid = past((8, 8), np.zeros((8, 8), bool))
        for other in (np.eye(3), LinearSystem(grid, np.zeros(64)), grid.to_csr()):
            with pytest.raises(InvalidProblem, match="takes the grid, a PoissonGrid"):
                MultigridCycle(other)

    def test_weights_for_other_dimensions_are_refused(self):
        with pytest.raises(InvalidProblem, match=r"for 3-D grids; this grid has shape \(8, 8\)"):
            MultigridCycle(past((8, 8), np.zeros((8, 8), bool)), CycleWeights.hand_set(3))
        with pytest.raises(InvalidParameter, match=r"weights for \[2, 3\] dimensions"):
            CycleWeights.pretrained(4)

    def test_words_for_weights_and_for_truth_are_refused(self):
        grid = past((8, 8), np.zeros((8, 8), bool))
        with pytest.raises(InvalidParameter, match="learned is True, False, or CycleWeights"):
            MultigridCycle(grid, "no")
        with pytest.raises(InvalidParameter, match="split is True or False"):
            MultigridCycle(grid, split="no")

    def test_weights_of_other_shapes_or_not_finite_are_refused(self):
        good = CycleWeights.hand_set(2).networks
        with pytest.raises(InvalidProblem, match="networks of shapes"):
            CycleWeights(2, good[:2])
        bad = tuple(tuple(np.full_like(a, np.nan) for a in network) for network in good)
        with pytest.raises(InvalidProblem, match="NaN or infinite"):
            CycleWeights(2, bad)

    def test_a_file_of_a_cycle_brings_back_its_weights_and_another_is_refused(self, tmp_path):
        weights = random_weights(3, 0)
        save_direction(tmp_path / "own.safetensors", direction(weights))
        for ours, theirs in zip(CycleWeights.load(tmp_path / "own.safetensors").networks, weights.networks):
            for a, b in zip(ours, theirs):
                np.testing.assert_array_equal(a, b)
        save_direction(tmp_path / "other.safetensors", ResidualDirection(2, 4))
        with pytest.raises(UnreadableFile, match=r"no cycle.*holds a ResidualDirection"):
            CycleWeights.load(tmp_path / "other.safetensors")
        with pytest.raises(UnreadableFile, match="no cycle"):
            CycleWeights.load(tmp_path / "absent.safetensors")

    def test_a_vector_of_another_length_and_numbers_that_are_none_are_told(self):
        grid = past((8, 8), np.zeros((8, 8), bool))
        with pytest.raises(ValueError, match=r"(?i)dimension mismatch"):
            MultigridCycle(grid) @ np.ones(63)
        assert np.isnan(MultigridCycle(grid) @ np.full(64, np.nan)).any()
