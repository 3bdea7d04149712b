"""``thalweg solve blackbox --method``: the options of the study's method."""

import json
import sys

import pytest

from running import thalweg

PARABOLA = (sys.executable, "-c", "import sys; print((float(sys.argv[1]) - 0.3) ** 2)", "{x}")


@pytest.fixture(autouse=True)
def space(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.toml").write_text('[x]\ntype = "real"\nlow = 0\nhigh = 1\n')


def solve(*options):
    return thalweg("solve", "blackbox", "--space", "space.toml", "--trials", "4", *options, "--", *PARABOLA)


def test_options_of_the_method_are_those_of_the_study(tmp_path):
    done = solve("--method", "bayesian-optimization:initial=3,noise=none", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"] == 4
    other = solve("--method", "bayesian-optimization:noise=learn", "--trials", "5")
    assert other.returncode == 2
    assert "blackbox.study" in other.stderr  # kept with other settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "space-filling"), "runs in `thalweg compare blackbox`"),
        (("--method", "bayesian-optimization", "--exact"), "options of its own"),
        (("--method", "bayesian-optimization:q=2"), "--parallel"),
        (("--method", "bayesian"), "bayesian-optimization"),
        (("--method", "bayesian-optimization:initials=3"), "initial"),
    ],
)
def test_what_does_not_fit_is_one_line(options, message):
    done = solve(*options)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") <= 2
