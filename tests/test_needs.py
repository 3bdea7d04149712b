"""What users have, and a search in their words."""

from __future__ import annotations

import pytest

from running import thalweg
from thalweg.catalogue import SYSTEMS
from thalweg.core import InvalidParameter
from thalweg.needs import NEEDS, near, search

#: Searches as people write them, and the system that they are about.
SEARCHES = {
    "unpaired samples before and after": "19",
    "sparse matrix too large to factor": "02",
    "my model overfits and I want to tune dropout while it trains": "26",
    "recommender system with missing ratings": "15",
    "slow machines in my cluster": "20",
    "phones that train at different speeds": "16",
    "which learning rate should I use?": "35",
    "decay the learning rate over 100 epochs": "11",
    "MRI reconstruction from undersampled k-space": "34",
    "merge two fine-tuned checkpoints": "29",
    "design proteins from a table of measured variants": "05",
    "hyperparameter optimization of an expensive simulation": "18",
    "zero-sum game payoffs": "22",
    "human feedback on pairs of trajectories": "33",
    "worst-case investment planning": "30",
    "differentiate through an optimization layer": "13",
    "improve the prompts of my LLM agent": "14",
    "labels only in the synthetic domain": "01",
    "fair predictions for subgroups": "24",
    "is my minimum flat": "32",
    "lasso with many features": "10",
    "minimise energy subject to equality constraints": "04",
    "fluid simulation pressure solve": "03",
    "learn weights of noisy training examples": "06",
    "optimizer using less memory than Adam": "27",
    "compress a sensor stream with a learned dictionary": "28",
    "test error goes up then down with width": "25",
    "function values only from private clients": "23",
    "find the best of many arms with linear features": "17",
    "adversarial rewards in an MDP": "09",
    "train a shallow ReLU network to global optimality": "21",
    "bilevel with an LSTM": "31",
    "gradient norms were logged": "07",
    "expensive simulator gradient": "08",
}


def test_every_system_is_described_in_a_line():
    assert sorted(NEEDS) == [system.number for system in SYSTEMS]
    assert all(0 < len(need.have) <= 60 for need in NEEDS.values())
    assert len({need.have for need in NEEDS.values()}) == len(NEEDS)


@pytest.mark.parametrize("text", SEARCHES)
def test_users_words_find_the_system(text):
    assert SEARCHES[text] in [match.system.number for match in search(text)[:2]]


def test_spelling_and_order_do_not_matter():
    first = [m.system.number for m in search("optimization of hyper-parameters")]
    assert [m.system.number for m in search("Hyper-Parameters OPTIMISATION")] == first


def test_what_nobody_has_finds_nothing_and_names_what_is_close():
    assert search("xylophone") == []
    assert near("tomografy") == ["tomography"]
    with pytest.raises(InvalidParameter, match="needs words of what you have"):
        search("the with of")


def test_the_command_shows_what_to_do_next():
    done = thalweg("find", "unpaired", "samples")
    assert done.returncode == 0
    assert "thalweg show 19" in " ".join(done.stdout.split())
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    lost = thalweg("find", "tomografy")
    assert lost.returncode == 2
    assert "Close: tomography." in lost.stderr
