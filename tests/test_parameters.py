"""Numbers that constructors take: NaN, infinity, texts and truth values are refused in a line, before any work."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import numbers

import pytest

from thalweg.core import ThalwegError

PACKAGES = [
    *("adaptation", "bilevel", "bilevel.alignment", "bilevel.selftuning", "blackbox", "blackbox.design"),
    *(
        "constrained",
        "convex",
        "convex.coordinate",
        "discovery",
        "distributed.coding",
        "distributed.federated",
    ),
    *("distributed.zeroth_order", "equilibrium", "inverse", "landscape", "landscape.permutation", "linear"),
    *("matrix", "numerics", "online", "online.mdp", "robust", "training", "transport", "workflow"),
    "workflow.optimizers",
]
#: Infinite is "without a limit" here, or "from the first step on".
UNLIMITED = {"clip", "radius", "rho", "seconds", "patience", "megabytes"}
#: Checked where the problem is known.
LATER = {("DeflatedCG", "vectors")}


def constructors():
    """Public classes that need no arguments, each once; scikit-learn's estimators look at theirs in ``fit``."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(f"thalweg.{package}")
        for name in module.__all__:
            made = getattr(module, name)
            if not inspect.isclass(made) or hasattr(made, "fit") or issubclass(made, BaseException | Warning):
                continue
            parameters = inspect.signature(made).parameters.values()
            needed = [
                p
                for p in parameters
                if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
            ]
            if needed or inspect.isabstract(made) or getattr(made, "_is_protocol", False):
                continue
            with contextlib.suppress(ThalwegError):  # one of several arguments is needed
                made()
                found[f"{made.__module__}.{made.__qualname__}"] = made
    return found


def numbers_of(made):
    """The parameters whose defaults are numbers, and the defaults."""
    for name, parameter in inspect.signature(made).parameters.items():
        default = parameter.default
        if isinstance(default, numbers.Real) and not isinstance(default, bool):
            yield name, default


CASES = [
    pytest.param(made, name, default, id=f"{made.__name__}-{name}")
    for made in constructors().values()
    for name, default in numbers_of(made)
    if (made.__name__, name) not in LATER
]


def test_there_are_many():
    assert len(CASES) > 200


@pytest.mark.parametrize(("made", "name", "default"), CASES)
def test_what_is_no_number_is_refused_by_name(made, name, default):
    wrong = [math.nan, "x", True]
    if not math.isinf(default) and name not in UNLIMITED:
        wrong.append(math.inf)
    for value in wrong:
        with pytest.raises(ThalwegError) as caught:
            made(**{name: value})
        assert name in str(caught.value) or "seed" in str(caught.value)
        assert "\n" not in str(caught.value)
