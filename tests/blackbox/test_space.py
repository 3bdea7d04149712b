"""Points as the user writes them and as the methods see them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.blackbox import Categorical, Integer, Real, Space
from thalweg.core import InvalidParameter, InvalidProblem, UnknownName, UnreadableFile

MIXED = Space(
    {
        "C": Real(1e-3, 1e3, log=True),
        "kernel": Categorical(["rbf", "poly", "linear"]),
        "degree": Integer(2, 5, when={"kernel": "poly"}),
        "gamma": Real(-1.0, 3.0, when={"kernel": ("rbf", "poly")}),
        "shrink": Categorical([True, False]),
        "size": Integer(1, 1000, log=True),
    }
)


@given(seed=st.integers(0, 10_000))
def test_what_is_decoded_is_encoded_to_itself(seed):
    u = torch.rand(MIXED.dimension, generator=torch.Generator().manual_seed(seed))
    point = MIXED.decode(u)
    encoded = MIXED.encode(point)
    again = MIXED.decode(encoded)
    assert again.keys() == point.keys()
    for name, value in point.items():
        assert again[name] == (pytest.approx(value) if isinstance(value, float) else value)
    assert all(0 <= v <= 1 for v in encoded)


@given(seed=st.integers(0, 1000))
def test_snapped_points_are_those_that_stand_for_something(seed):
    U = torch.rand(4, MIXED.dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    snapped = MIXED.snap(U)
    for u, v in zip(U, snapped, strict=True):
        assert v.tolist() == pytest.approx(MIXED.encode(MIXED.decode(u)))
    assert torch.allclose(MIXED.snap(snapped), snapped)


def test_parameters_that_do_not_matter_are_left_out():
    point = {"C": 1.0, "kernel": "linear", "shrink": True, "size": 10}
    assert MIXED.decode(MIXED.encode(point)) == pytest.approx(point)
    with pytest.raises(InvalidParameter, match="no 'degree'"):
        MIXED.encode({**point, "kernel": "poly", "gamma": 0.0})


def test_logarithmic_parameters_are_even_over_orders_of_magnitude():
    assert Real(1e-4, 1.0, log=True).encode(1e-2) == [pytest.approx(0.5)]
    values = [Integer(1, 1000, log=True).decode([u]) for u in torch.linspace(0, 1, 2000)]
    assert sum(v <= 31 for v in values) == pytest.approx(1000, rel=0.1)


def test_whole_numbers_have_equal_shares():
    counts = torch.bincount(torch.tensor([Integer(0, 3).decode([u]) for u in torch.linspace(0, 1, 4000)]))
    assert counts.tolist() == pytest.approx([1000] * 4, abs=2)


def test_neighbours_differ_by_one_step_of_one_discrete_parameter():
    u = torch.tensor(
        MIXED.encode({"C": 1.0, "kernel": "poly", "degree": 3, "gamma": 0.0, "shrink": True, "size": 10})
    )
    found = [MIXED.decode(v) for v in MIXED.neighbours(u.double())]
    assert {(p["kernel"], p.get("degree"), p["shrink"], p["size"]) for p in found} == {
        ("rbf", None, True, 10),
        ("linear", None, True, 10),
        ("poly", 2, True, 10),
        ("poly", 4, True, 10),
        ("poly", 3, False, 10),
        ("poly", 3, True, 9),
        ("poly", 3, True, 11),
    }


@pytest.mark.parametrize("kind", ["sobol", "lhs"])
def test_designs_are_spread_and_allowed(kind):
    space = Space({"x": Real(0, 1), "y": Real(0, 1)}, allowed=lambda p: p["x"] + p["y"] <= 1)
    U = space.design(64, 0, kind)
    assert U.shape == (64, 2)
    assert bool((U.sum(1) <= 1).all())
    assert float(U[:, 0].max()) > 0.8
    free = Space({"x": Real(0, 1)}).design(16, 0, kind)[:, 0].sort().values
    assert float((free[1:] - free[:-1]).max()) < 0.13


def test_a_file_describes_a_space(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(
        '[rate]\ntype = "real"\nlow = 1e-4\nhigh = 1.0\nlog = true\n'
        '[kind]\ntype = "categorical"\nchoices = ["a", "b"]\n'
        '[depth]\ntype = "integer"\nlow = 1\nhigh = 9\nwhen = {kind = "b"}\n'
    )
    space = Space.from_toml(path)
    assert space.parameters["rate"] == Real(1e-4, 1.0, log=True)
    assert space.decode(space.encode({"rate": 0.01, "kind": "a"})) == {
        "rate": pytest.approx(0.01),
        "kind": "a",
    }


class TestBadInputIsRefused:
    def test_bounds_the_wrong_way_round(self):
        with pytest.raises(InvalidParameter, match="low < high"):
            Real(1.0, 0.0)
        with pytest.raises(InvalidParameter, match="low > 0"):
            Real(0.0, 1.0, log=True)
        with pytest.raises(InvalidParameter, match="two or more"):
            Categorical(["a"])
        with pytest.raises(InvalidParameter, match="low < high"):
            Real(0.0, math.inf)

    def test_values_out_of_the_space(self):
        with pytest.raises(InvalidParameter, match=r"C: 5000.0 is not in \[0.001, 1000\]"):
            MIXED.encode({"C": 5000.0, "kernel": "linear", "shrink": True, "size": 10})
        with pytest.raises(UnknownName, match="Did you mean 'linear'"):
            MIXED.encode({"C": 1.0, "kernel": "linaer", "shrink": True, "size": 10})
        with pytest.raises(UnknownName, match="No parameter 'd'"):
            MIXED.encode({"d": 1.0})
        with pytest.raises(InvalidParameter, match="no whole number"):
            Integer(1, 5).encode(2.5)

    def test_spaces_that_are_none(self):
        with pytest.raises(InvalidProblem, match="at least one"):
            Space({})
        with pytest.raises(InvalidProblem, match="stands before it"):
            Space({"a": Real(0, 1, when={"b": "x"}), "b": Categorical(["x", "y"])})
        with pytest.raises(InvalidProblem, match="Draw its bounds tighter"):
            Space({"x": Real(0, 1)}, allowed=lambda p: False).design(4, 0)

    def test_files_that_are_none(self, tmp_path):
        with pytest.raises(UnreadableFile, match="No file"):
            Space.from_toml(tmp_path / "absent.toml")
        path = tmp_path / "space.toml"
        path.write_text("[x")
        with pytest.raises(UnreadableFile, match="no TOML"):
            Space.from_toml(path)
        path.write_text('[x]\ntype = "float"\n')
        with pytest.raises(InvalidProblem, match="one of real, integer, categorical"):
            Space.from_toml(path)
        path.write_text('[x]\ntype = "real"\nlow = 0.0\nhihg = 1.0\n')
        with pytest.raises(InvalidProblem, match="hihg"):
            Space.from_toml(path)
