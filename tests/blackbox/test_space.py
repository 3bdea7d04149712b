"""Points as the user writes them and as the methods see them."""

from __future__ import annotations

import math

import numpy as np
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

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Categorical([1, True, 0, False]), r"equal, as 1 and True are; got \(1, True\)"),
            (lambda: Categorical([0, 0.0]), "two of these are equal"),
            (lambda: Categorical([[1], [2], [1]]), "two of these are equal"),
            (lambda: Categorical([math.nan, 1.0]), r"choice 0 \(from 0\) is NaN"),
            (lambda: Categorical("abc"), "list of choices; got 'abc'"),
            (lambda: Real("0", "1"), "low is a finite number, low < high; got '0'"),
            (lambda: Real(False, True), "low is a finite number"),
            (lambda: Real(0.1, 1.0, log="false"), "log is True or False; got 'false'"),
            (lambda: Integer(0.0, 3), "low is none; got 0.0"),
            (lambda: Integer(0, 10**17), "at most 2.44"),
            (lambda: Integer(1, 10**15, log=True), "at most 2.44"),
        ],
    )
    def test_parameters_that_are_none(self, make, message):
        with pytest.raises(InvalidParameter, match=message):
            make()

    @pytest.mark.parametrize(
        ("parameters", "error", "message"),
        [
            ({"a": (0, 1)}, InvalidProblem, "'a' is \\(0, 1\\); expected a Real"),
            ({"a": Categorical(["x", "y"]), "b": Real(0, 1, when="x")}, InvalidProblem, "write when="),
            (
                {"a": Categorical(["x", "y"]), "b": Real(0, 1, when={"a": "z"})},
                UnknownName,
                "No choice of 'a' 'z'",
            ),
        ],
    )
    def test_spaces_of_what_is_no_parameter(self, parameters, error, message):
        with pytest.raises(error, match=message):
            Space(parameters)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('low = 0.0\nhigh = 1.0\nlog = "false"', r"\[x\]: Real: log is True or False; got 'false'"),
            ("min = 0.0\nhigh = 1.0", r"\[x\]: No setting of a real parameter 'min'"),
            ("high = 1.0", r"\[x\] needs low"),
            ('low = "0"\nhigh = 1.0', r"\[x\]: Real: low is a finite number"),
        ],
    )
    def test_tables_that_are_no_parameter(self, text, message, tmp_path):
        path = tmp_path / "space.toml"
        path.write_text(f'[x]\ntype = "real"\n{text}\n')
        with pytest.raises(InvalidProblem, match=message):
            Space.from_toml(path)


class TestExtremeRanges:
    @pytest.mark.parametrize(
        ("parameter", "middle"),
        [
            (Real(-1e308, 1e308), 0.0),
            (Real(-1.7e308, 0.0), -0.85e308),
            (Real(1e-320, 1e300, log=True), 1e-10),
            (Real(5e-324, 1e-300), 5e-301),
        ],
    )
    def test_the_middle_of_a_range_is_its_middle(self, parameter, middle):
        assert parameter.decode([0.5]) == pytest.approx(middle, rel=0.02)
        for u in (0.0, 0.25, 0.5, 1.0):
            assert parameter.encode(parameter.decode([u]))[0] == pytest.approx(u, abs=1e-9)

    def test_what_lies_just_outside_a_logarithmic_range_is_refused(self):
        with pytest.raises(InvalidParameter, match="is not in"):
            Real(1e-12, 1.0, log=True).encode(-5e-10)

    @pytest.mark.parametrize(
        "whole",
        [
            Integer(0, 2**44 - 1),
            Integer(10**17, 10**17 + 5),
            Integer(1, 2**43, log=True),
            Integer(-(2**43), 2),
        ],
    )
    def test_every_whole_number_comes_back(self, whole):
        middle = (whole.low + whole.high) // 2
        for n in (whole.low, whole.low + 1, middle - 1, middle, middle + 1, whole.high - 1, whole.high):
            assert whole.decode(whole.encode(n)) == n

    def test_bounds_of_numpy_are_taken(self):
        whole = Integer(np.int64(0), np.int64(3))
        assert whole == Integer(0, 3)
        assert type(whole.decode([0.9])) is int
        assert type(Real(np.float32(0), 1).low) is float
