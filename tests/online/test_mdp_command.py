"""`thalweg solve online world.npz` and `compare`: episodes from a file of arrays."""

from __future__ import annotations

import json

import numpy as np
import pytest

from running import thalweg
from thalweg import solve
from thalweg.online.mdp import AdversarialMDP, LogBarrier, fixed_losses, random_linear_mdp, tabular


@pytest.fixture
def arrays():
    world = random_linear_mdp(5, 3, 3, 2, seed=1)
    losses = fixed_losses(world, 120, seed=1)
    return {"features": world.features, "transitions": world.transitions, "losses": losses}


@pytest.fixture
def world(tmp_path, arrays):
    np.savez(tmp_path / "world.npz", **arrays)
    return tmp_path / "world.npz"


class TestSolve:
    def test_it_is_the_solve_of_python(self, world, arrays):
        done = thalweg("solve", "online", world, "--method", "log-barrier:gamma=0.05", "--seed", 3, "--json")
        assert done.returncode == 0, done.stderr
        said, problem = json.loads(done.stdout), AdversarialMDP(**arrays)
        theirs = solve(problem, LogBarrier(gamma=0.05), seed=3)
        assert said["metrics"] == pytest.approx(theirs.metrics)
        assert said["curve"]["episodes"][-1] == 120
        assert said["curve"]["regret"][-1] == pytest.approx(theirs.metrics["regret"])
        assert said["features"] == {"dimension": 3, "rank": 3, "misfit": pytest.approx(0.0, abs=1e-12)}
        uniform = problem.metrics(np.full(problem.losses.shape, 1 / 3))["regret"]
        assert said["regret_of_uniform"] == pytest.approx(uniform)

    def test_words_page_and_policies(self, world, tmp_path):
        done = thalweg(
            "solve", "online", world, "--report", tmp_path / "page.html", "--out", tmp_path / "policies.npy"
        )
        assert (
            "120 episodes of 2 layers, 5 states, 3 actions; features of 3 dimensions, rank 3." in done.stdout
        )
        assert "with all actions alike it is" in done.stdout
        assert "Regret as episodes come" in (tmp_path / "page.html").read_text()
        np.testing.assert_allclose(np.load(tmp_path / "policies.npy").sum(-1), 1.0)

    def test_without_features_there_are_unit_vectors(self, tmp_path, arrays):
        moves = arrays["transitions"][0]
        np.savez(tmp_path / "t.npz", transitions=moves, losses=arrays["losses"], start=np.full(5, 0.2))
        said = json.loads(thalweg("solve", "online", tmp_path / "t.npz", "--json").stdout)
        assert said["features"]["dimension"] == 15
        world = tabular(moves, layers=2, start=np.full(5, 0.2))
        theirs = solve(AdversarialMDP(losses=arrays["losses"], dynamics=world)).metrics
        assert said["metrics"] == pytest.approx(theirs)

    def test_a_run_is_resumed(self, world, tmp_path):
        whole = json.loads(thalweg("solve", "online", world, "--json").stdout)
        thalweg("solve", "online", world, "--steps", 2, "--checkpoint", tmp_path / "run")
        rest = json.loads(thalweg("solve", "online", world, "--resume", tmp_path / "run", "--json").stdout)
        assert rest["metrics"] == whole["metrics"]

    def test_a_part_is_told_as_a_part(self, world):
        done = thalweg("solve", "online", world, "--steps", 2, "--json")
        assert done.returncode == 1
        said = json.loads(done.stdout)
        assert said["metrics"]["left"] == 80
        assert said["curve"]["episodes"][-1] == 40


class TestCompare:
    def test_it_runs_all_that_play_episodes(self, world):
        rows = json.loads(thalweg("compare", "online", world, "--json").stdout)
        names = {
            "log-barrier",
            "luo-wei-lee",
            "magnitude-reduced",
            "plain-entropy",
            "uniform-policy",
            "simulator-free",
        }
        assert {row["method"] for row in rows} == names
        assert all(row["status"] == "converged" for row in rows)


class TestSlips:
    @pytest.mark.parametrize(
        ("change", "words", "message"),
        [
            ({"losses": None}, (), "expected transitions and losses"),
            ({"rewards": np.zeros(3)}, (), "expected transitions and losses"),
            ({"losses": np.full((3, 2, 5, 3), 2.0)}, (), "outside [0, 1]. Shift and scale all losses."),
            ({"losses": np.zeros((3, 5))}, (), "expected (episodes, H, S, A)"),
            ({"start": np.array(9)}, (), "expected a state in 0 .. 4"),
            ({"transitions": np.zeros((5, 3, 5))}, (), "sum to 0"),
            ({}, ("--target", "a"), "are for tables, not .npz"),
            ({}, ("--method", "tsallis-inf"), "episodes magnitude-reduced or log-barrier"),
            ({}, ("--method", "groupwise"), "Groupwise solves a GroupedStream; got a AdversarialMDP"),
            ({}, ("--method", "log-barrier:constants=best"), "Known: practical, theory"),
            ({}, ("--method", "magnitude-reduced:gamma=-1"), "gamma >= 1e-12"),
        ],
    )
    def test_they_are_told_in_a_line(self, tmp_path, arrays, change, words, message):
        kept = {name: array for name, array in {**arrays, **change}.items() if array is not None}
        np.savez(tmp_path / "w.npz", **kept)
        done = thalweg("solve", "online", tmp_path / "w.npz", *words)
        assert done.returncode == 2, done.stdout
        assert message in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr

    def test_values_that_are_not_linear_are_warned_of(self, tmp_path, arrays, rng):
        np.savez(tmp_path / "w.npz", **{**arrays, "losses": rng.random((30, 2, 5, 3))})
        done = thalweg("solve", "online", tmp_path / "w.npz")
        assert done.returncode == 0
        assert "is not linear in the features" in done.stderr
