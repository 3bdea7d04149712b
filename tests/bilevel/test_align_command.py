"""`thalweg align`: questions out, labels in, a reward and a policy back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from running import thalweg
from thalweg.bilevel.alignment import ScriptedTeacher, gridworld, load_preferences, save_preferences


@pytest.fixture
def folder(tmp_path):
    world = gridworld(3, traps=[4])
    np.savez(tmp_path / "world.npz", transitions=world.transitions, start=0, reward=world.reward)
    return tmp_path


def labelled(folder, name):
    """What a person with the true reward in mind says to the questions in a file."""
    world = gridworld(3, traps=[4])
    text = (folder / name).read_text().replace("skip", "first")
    (folder / name).write_text(text)
    pairs = load_preferences(folder / name)
    rewards = [world.reward[side.observations, side.actions] for side in (pairs.first, pairs.second)]
    targets = ScriptedTeacher(beta=0).answers(*rewards, np.random.default_rng(0))
    save_preferences(folder / name, pairs.first, pairs.second, targets)


@pytest.mark.filterwarnings("ignore:All")
def test_questions_are_asked_and_answers_make_a_policy(folder):
    done = thalweg("align", "world.npz", "--ask", "ask.csv", "--questions=60", "--length=12", cwd=folder)
    assert "60 pairs to label" in done.stdout, done
    labelled(folder, "ask.csv")
    done = thalweg("align", "world.npz", "ask.csv", "--out", "found.npz", "--json", cwd=folder)
    told = json.loads(done.stdout)
    assert told["metrics"]["agreement"] > 0.8
    assert told["metrics"]["share"] > 0.3
    told = json.loads(thalweg("align", "world.npz", "ask.csv", "--by-state", "--json", cwd=folder).stdout)
    assert told["metrics"]["share"] > 0.9
    with np.load(folder / "found.npz") as found:
        np.testing.assert_allclose(found["policy"].sum(1), 1.0)
        assert found["reward"].shape == (9, 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["world.npz"], "needs labelled pairs, or --ask"),
        (["absent.npz", "--ask", "a.csv"], "absent.npz"),
        (["other.npz", "--ask", "a.csv"], "expected transitions, and perhaps start and reward"),
        (["world.npz", "--ask", "a.csv", "--discount=1"], r"a discount in \[0, 1\)"),
        (["world.npz", "pairs.csv", "--entropy=0"], "entropy and ridge are both 0"),
        (["world.npz", "far.csv"], "the largest state is 77"),
    ],
)
def test_what_cannot_be_done_is_told(folder, words, message):
    np.savez(folder / "other.npz", P=np.eye(2))
    (folder / "pairs.csv").write_text("first,second,preferred\n0:1,1:1,first\n")
    (folder / "far.csv").write_text("first,second,preferred\n77:1,1:1,first\n")
    done = thalweg("align", *words, cwd=folder)
    assert done.returncode == 2
    import re

    assert re.search(message, done.stderr), done
