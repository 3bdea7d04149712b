"""Other losses, stages of eps, snapshots, and clouds from files."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from typer.testing import CliRunner

from thalweg.cli import app
from thalweg.core import (
    Checkpoint,
    InvalidParameter,
    InvalidProblem,
    MissingExtra,
    NotFinite,
    Stop,
    UnreadableFile,
    solve,
)
from thalweg.core.seeding import torch_generator
from thalweg.datasets.points import load_points
from thalweg.transport import (
    BridgeMatching,
    EntropicTransport,
    FullBatch,
    LightSB,
    annealed,
    conditional_bw2_uvp,
    earth_mover,
    eot_pair,
    eps_figure,
    eps_path,
    leave_one_time_out,
)


@pytest.fixture
def clouds(rng):
    return rng.standard_normal((300, 2)), rng.choice([-3.0, 3.0], (250, 2)) + 0.5 * rng.standard_normal(
        (250, 2)
    )


@pytest.fixture(scope="module")
def pair():
    """A plan that is known, and samples that nothing pairs."""
    exact = eot_pair(2, 1.0, seed=3)
    x0, before = torch.randn(2, 4000, 2, dtype=torch.float64, generator=torch_generator(3))
    return exact, x0, exact.sample(before, torch_generator(4))


class TestFullBatch:
    @pytest.mark.parametrize("covariance", ["diag", "full"])
    def test_one_gaussian_is_fitted_to_the_moments_of_the_samples(self, rng, covariance):
        """With one component the minimum is known: S solves a quadratic equation in the two sample variances."""
        x0, x1 = rng.standard_normal((400, 1)), 2.0 + 0.7 * rng.standard_normal((300, 1))
        problem, eps = EntropicTransport(x0, x1, 0.6, 1, covariance), 0.6
        result = solve(problem, FullBatch(tol=1e-10), progress=False)
        assert result.converged
        a, c = x0.var(), x1.var()
        root = float(problem.bridge(result.x).S.ravel()[0])
        np.testing.assert_allclose(root, (np.sqrt(4 * a * c + eps**2) - eps) / (2 * a), rtol=1e-6)

    def test_it_ends_where_no_slope_is_left_and_below_mini_batches(self, clouds):
        problem = EntropicTransport(*clouds, 0.5, 4)
        rough = solve(problem, LightSB(steps=300), progress=False)
        fine = solve(problem, FullBatch(x0=rough.x), progress=False)
        assert fine.converged
        assert fine.metrics["loss"] < rough.metrics["loss"]
        assert fine.metrics["imbalance"] < 1e-6
        losses = fine.history["loss"]
        assert (np.diff(losses[np.isfinite(losses)]) <= 1e-12).all()

    def test_a_resumed_run_has_the_same_bits(self, clouds, tmp_path):
        problem, path = EntropicTransport(*clouds, 0.5, 4), tmp_path / "c.npz"
        whole = solve(problem, FullBatch(), stop=Stop(steps=20), progress=False)
        solve(problem, FullBatch(), stop=Stop(steps=9), callbacks=[Checkpoint(path)], progress=False)
        again = solve(problem, FullBatch(), stop=Stop(steps=20), resume=path, progress=False)
        assert torch.equal(whole.x, again.x)

    def test_options_out_of_range_are_refused(self):
        with pytest.raises(InvalidParameter, match=r"needs tol > 0"):
            FullBatch(tol=0.0)
        with pytest.raises(InvalidParameter, match=r"needs memory >= 1"):
            FullBatch(memory=0)


class TestMatching:
    @pytest.mark.parametrize("covariance", ["diag", "full"])
    def test_its_minimum_is_the_exact_plan(self, pair, covariance):
        exact, x0, x1 = pair
        problem = EntropicTransport(x0, x1, 1.0, 8, covariance)
        result = solve(problem, BridgeMatching(steps=100), progress=False)
        error = conditional_bw2_uvp(exact, problem.bridge(result.x), x0[:100], float(x1.var(0).sum()))
        assert error < 1.5  # an independent plan has 90

    def test_its_gradient_is_that_of_half_the_drifts_square_over_eps_in_the_mean(self, pair):
        """KL of two diffusions with one start is half the squared difference of their drifts over eps: the mean of the
        gradient is that of L, up to the weight of the last hundredth of time."""
        _, x0, x1 = pair
        problem, method = EntropicTransport(x0, x1, 1.0, 3), BridgeMatching(batch_size=4000)
        x = method.first_answer(problem, 0)
        draws = np.random.default_rng(0)
        clouds = problem.parts[:2]
        found = torch.stack([method.gradient(problem, x, *clouds, draws).gradient for _ in range(60)])
        exact = problem.gradient(x).gradient
        noise = found.std(0) / len(found) ** 0.5
        cosine = float((found.mean(0) * exact).sum() / (found.mean(0).norm() * exact.norm()))
        assert cosine > 0.97
        assert float(((found.mean(0) - exact).abs() / (noise + 0.1 * exact.abs() + 0.02)).max()) < 5


class TestStages:
    def test_one_stage_is_the_plain_run(self, clouds):
        problem = EntropicTransport(*clouds, 0.5, 4)
        one = annealed(problem, LightSB(steps=50), stages=1, seed=2)
        assert torch.equal(one.x, solve(problem, LightSB(steps=50), seed=2, progress=False).x)

    def test_an_answer_of_another_eps_keeps_eps_log_a(self, clouds):
        problem = EntropicTransport(*clouds, 0.5, 4)
        x = LightSB().first_answer(problem, 0) + 1.0
        moved = problem.answer_at(1.5, x)
        torch.testing.assert_close(moved[:, 0], 3.0 * x[:, 0])
        assert torch.equal(moved[:, 1:], x[:, 1:])

    def test_in_many_dimensions_stages_lower_the_error(self):
        exact, errors = eot_pair(16, 0.1, seed=7), []
        x0, before = torch.randn(2, 4000, 16, dtype=torch.float64, generator=torch_generator(7))
        x1 = exact.sample(before, torch_generator(8))
        problem = EntropicTransport(x0, x1, 0.1, 20)
        for stages in (1, 2):
            found = annealed(problem, LightSB(steps=300), stages=stages, seed=1)
            bridge, variance = problem.bridge(found.x), float(x1.var(0).sum())
            errors.append(conditional_bw2_uvp(exact, bridge, x0[:50], variance))
        assert errors[1] < 0.8 * errors[0]

    def test_numbers_out_of_range_are_refused(self, clouds):
        problem = EntropicTransport(*clouds, 0.5, 4)
        with pytest.raises(InvalidParameter, match=r"stages >= 1"):
            annealed(problem, stages=0)
        with pytest.raises(InvalidParameter, match=r"factor > 1"):
            annealed(problem, factor=1.0)


@pytest.mark.parametrize("method", [LightSB, FullBatch])
def test_a_start_of_other_components_is_refused(clouds, method):
    problem = EntropicTransport(*clouds, 0.5, 4)
    with pytest.raises(InvalidProblem, match="x0 has 3 components; the problem has 4"):
        solve(problem, method(x0=torch.zeros(3, 5, dtype=torch.float64)), progress=False)


class TestSnapshots:
    def test_the_distance_is_the_best_of_all_assignments(self, rng):
        x, y = rng.standard_normal((2, 5, 3))
        from itertools import permutations

        best = min(
            np.mean([np.linalg.norm(x[i] - y[j]) for i, j in enumerate(p)]) for p in permutations(range(5))
        )
        np.testing.assert_allclose(earth_mover(x, y), best)
        np.testing.assert_allclose(earth_mover(x, x + np.array([3.0, 0.0, 4.0])), 5.0)

    def test_a_population_that_parts_is_passed_nearer_than_by_random_lines(self, rng):
        """Two heaps move apart: random pairs cross the gap between them, the bridge does not."""
        series = [
            np.stack([2.0 * t + 0 * s, s * (1.0 + t)], 1) + 0.2 * rng.standard_normal((300, 2))
            for t in (0.0, 1.0, 2.0)
            for s in [rng.choice([-1.0, 1.0], 300)]
        ]
        table = leave_one_time_out(series, [0.0, 1.0, 2.0], eps=0.05, n_components=6, steps=300)
        row = table.iloc[0]
        assert row.time == 1.0
        assert row.bridge < 0.5 * row.line
        assert row.bridge < 0.5 * min(row.before, row.after)
        assert row.bridge < row["same"] + 0.3

    def test_series_that_are_none_are_refused(self, rng):
        cloud = rng.standard_normal((20, 2))
        with pytest.raises(InvalidProblem, match=r"three snapshots or more; got 2"):
            leave_one_time_out([cloud, cloud])
        with pytest.raises(InvalidProblem, match=r"expected 3 rising numbers"):
            leave_one_time_out([cloud] * 3, [0.0, 1.0, 1.0])
        with pytest.raises(InvalidProblem, match=r"Snapshots have 1 and 2 columns"):
            leave_one_time_out([cloud, cloud[:, :1], cloud])
        with pytest.raises(InvalidProblem, match=r"two or more"):
            earth_mover(cloud[0], cloud)


def test_what_eps_does_is_drawn(clouds):
    figure = eps_figure(eps_path(*clouds, values=(0.1, 1.0), n_components=2, steps=50))
    assert [len(series.x) for series in figure.series] == [2, 2, 2]
    assert figure.log_x


class TestFiles:
    def test_numpy_files_and_tables_give_the_same_points(self, tmp_path, rng):
        cloud = rng.standard_normal((6, 2))
        np.save(tmp_path / "a.npy", cloud)
        np.savez(tmp_path / "a.npz", X=cloud, other=np.zeros(3))
        np.savez(tmp_path / "one.npz", codes=cloud)
        np.savetxt(tmp_path / "a.csv", cloud, delimiter=",", header="u,v", comments="", fmt="%.18g")
        for name in ("a.npy", "a.npz", "one.npz", "a.csv"):
            np.testing.assert_array_equal(load_points(tmp_path / name).values, cloud)
        assert load_points(tmp_path / "a.csv").names == ("u", "v")

    def test_what_holds_no_points_is_refused(self, tmp_path):
        np.savez(tmp_path / "two.npz", a=np.zeros((3, 2)), b=np.zeros((3, 2)))
        np.save(tmp_path / "flat.npy", np.zeros(3))
        np.save(tmp_path / "nan.npy", np.array([[1.0, np.nan]]))
        np.save(tmp_path / "complex.npy", np.array([[1.0 + 2j]]))
        for name, error, words in (
            ("two.npz", UnreadableFile, "several arrays and none named 'X'"),
            ("flat.npy", InvalidProblem, "expected points one a row"),
            ("nan.npy", NotFinite, "nan"),
            ("complex.npy", InvalidProblem, "complex"),
            ("none.npz", UnreadableFile, "No file"),
        ):
            with pytest.raises(error, match=words):
                load_points(tmp_path / name)
        with pytest.raises(UnreadableFile, match=r"no array 'c'; there are a, b"):
            load_points(tmp_path / "two.npz", key="c")
        with pytest.raises(InvalidProblem, match=r"flat\.npy holds one table, and key= \(--key\) names none"):
            load_points(tmp_path / "flat.npy", key="a")

    def test_annotated_data_are_read_where_the_package_is(self, tmp_path, monkeypatch):
        (tmp_path / "cells.h5ad").write_bytes(b"\x89HDF")
        monkeypatch.setitem(sys.modules, "anndata", None)
        with pytest.raises(MissingExtra, match=r"thalweg\[cells\]"):
            load_points(tmp_path / "cells.h5ad")
        held = types.SimpleNamespace(
            X=sp.csr_matrix([[1.0, 0.0], [0.0, 2.0]]), var_names=["u", "v"], obsm={"X_pca": np.ones((2, 3))}
        )
        monkeypatch.setitem(sys.modules, "anndata", types.SimpleNamespace(read_h5ad=lambda path: held))
        found = load_points(tmp_path / "cells.h5ad")
        np.testing.assert_array_equal(found.values, [[1.0, 0.0], [0.0, 2.0]])
        assert found.names == ("u", "v")
        assert load_points(tmp_path / "cells.h5ad", key="X_pca").values.shape == (2, 3)
        with pytest.raises(UnreadableFile, match=r"no obsm 'X_umap'; there are X_pca"):
            load_points(tmp_path / "cells.h5ad", key="X_umap")

    def test_the_command_takes_them_and_draws_what_eps_does(self, tmp_path, clouds):
        for name, cloud in zip(("before", "after"), clouds, strict=True):
            np.savez(tmp_path / f"{name}.npz", X=cloud)
        where = [str(tmp_path / f"{name}.npz") for name in ("before", "after")]
        more = ["--components", "3", "--method", "light-sb:steps=200", "--eps-path", "0.1,1"]
        page = tmp_path / "page.html"
        done = CliRunner().invoke(app, ["solve", "transport", *where, *more, "--report", str(page)])
        assert done.exit_code == 0, done.output
        assert "What eps does" in page.read_text()
        wrong = CliRunner().invoke(app, ["solve", "transport", *where, "--eps-path", "a,b"])
        assert "numbers by commas" in str(wrong.exception)
