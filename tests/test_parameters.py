"""Numbers that constructors take: NaN, infinity, texts and truth values are refused in a line, before any work."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import numbers

import numpy as np
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


def given_data():
    """What needs data, or is not exported, with a number that has to be finite."""
    from thalweg.constrained import PoissonControl
    from thalweg.convex import GroupPenalized, LeastSquares, Penalized
    from thalweg.distributed.coding import DelayProfile
    from thalweg.distributed.federated.problem import dirichlet
    from thalweg.distributed.zeroth_order import quadratic
    from thalweg.equilibrium.games import adversarial_classification, linear_gan, robust_regression
    from thalweg.numerics.torch_krylov import LinearSolver
    from thalweg.online import TsallisINF
    from thalweg.training import profiles

    X, y = np.eye(4), np.array([1.0, -1.0, 1.0, -1.0])
    return {
        "l1": lambda v: Penalized(LeastSquares(X, y), v),
        "one l1": lambda v: Penalized(LeastSquares(X, y), [1.0, v, 1.0, 1.0]),
        "ridge": lambda v: LeastSquares(X, y, v),
        "group": lambda v: GroupPenalized(LeastSquares(X, y), groups=[0, 0, 1, 1], group_weight=v),
        "robust ridge": lambda v: robust_regression(X, y, ridge=v),
        "adversary's radius": lambda v: adversarial_classification(X, y, radius=v),
        "adversarial ridge": lambda v: adversarial_classification(X, y, ridge=v),
        "gan's radius": lambda v: linear_gan(X, X, radius=v),
        "control's weight": lambda v: PoissonControl(X, weight=v),
        "shares": lambda v: dirichlet([0, 1] * 5, 2, v),
        "departures": lambda v: quadratic(heterogeneity=v),
        "solver's ridge": lambda v: LinearSolver(ridge=v),
        "times' slope": lambda v: DelayProfile(np.ones((3, 2)), slope=v),
        "losses' scale": lambda v: TsallisINF(3, v),
        **{
            name: getattr(profiles, name)
            for name in ("Exponential", "InverseSqrt", "InverseTime", "Polynomial")
        },
    }


@pytest.mark.parametrize("value", [math.inf, math.nan, "1", -1.0])
@pytest.mark.parametrize("name", sorted(given_data()))
def test_numbers_beside_data_are_looked_at_too(name, value):
    made = given_data()[name]
    made(1.0)
    with pytest.raises(ThalwegError):
        made(value)
