"""Estimators of convex ReLU networks: scikit-learn's contract, several outputs, certificates, modules."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from thalweg.convex import ConvexReLUClassifier, ConvexReLURegressor
from thalweg.core import InvalidParameter, InvalidProblem


@parametrize_with_checks(
    [ConvexReLURegressor(patterns=8, max_iter=200), ConvexReLUClassifier(patterns=8, max_iter=200)]
)
def test_networks_keep_scikit_learns_contract(estimator, check):
    check(estimator)


@pytest.fixture
def table():
    X = np.random.default_rng(0).standard_normal((40, 2))
    return X, np.abs(X[:, 0]) - 0.5 * X[:, 1]


def test_all_patterns_make_the_fit_global(table):
    X, y = table[0][:14], table[1][:14]
    model = ConvexReLURegressor(patterns="all", beta=0.5).fit(X, y)
    assert model.certificate_.is_global
    assert not ConvexReLURegressor(patterns=20, beta=0.5, random_state=0).fit(X, y).certificate_.is_global
    assert (
        model.certificate_.lower
        <= ConvexReLURegressor(patterns=20, beta=0.5, random_state=0).fit(X, y).certificate_.upper
    )


def test_several_targets_are_so_many_fits(table):
    X, y = table
    both = ConvexReLURegressor(patterns=15, beta=0.5, random_state=0, tol=1e-5, max_iter=20_000).fit(
        X, np.c_[y, -2 * y]
    )
    one = ConvexReLURegressor(patterns=15, beta=0.5, random_state=0, tol=1e-5, max_iter=20_000).fit(X, y)
    np.testing.assert_allclose(both.predict(X)[:, 0], one.predict(X), atol=2e-2)


@pytest.mark.parametrize("options", [{}, {"multi_class": "joint"}, {"loss": "hinge"}, {"loss": "squares"}])
def test_three_classes_are_learned(options):
    X = np.random.default_rng(0).standard_normal((60, 2))
    labels = np.array(["a", "b", "c"])[(X[:, 0] > 0).astype(int) + (np.abs(X[:, 1]) > 1)]
    model = ConvexReLUClassifier(beta=0.1, random_state=0, tol=1e-2, **options).fit(X, labels)
    assert model.score(X, labels) > 0.85
    if hasattr(model, "predict_proba"):
        np.testing.assert_allclose(model.predict_proba(X).sum(1), 1.0)
    assert hasattr(model, "predict_proba") == (options.get("loss", "logistic") == "logistic")


def test_a_module_has_the_models_outputs(table):
    import torch

    X, y = table
    for hidden_bias in (True, False):
        model = ConvexReLURegressor(hidden_bias=hidden_bias, random_state=0).fit(X, y)
        found = model.to_module()(torch.tensor(X)).detach().numpy()[:, 0]
        np.testing.assert_allclose(found, model.predict(X), atol=1e-10)


def test_refinement_and_sampled_neurons_come_below_few_patterns(table):
    X, y = table
    plain = ConvexReLURegressor(patterns=5, beta=0.3, random_state=0).fit(X, y).certificate_.upper
    assert (
        ConvexReLURegressor(patterns=5, beta=0.3, refinements=3, random_state=0).fit(X, y).certificate_.upper
        < plain
    )
    scp = ConvexReLURegressor(patterns=2000, solver="scp", beta=0.3, random_state=0).fit(X, y)
    assert scp.certificate_.upper < plain
    assert not scp.certificate_.complete


def test_a_fit_that_did_not_converge_says_so(table):
    with pytest.warns(ConvergenceWarning, match="Raise max_iter"):
        ConvexReLURegressor(max_iter=20, tol=1e-6, random_state=0).fit(*table)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ConvexReLURegressor(solver="scp", patterns="all"), "patterns says how many"),
        (ConvexReLURegressor(solver="scp", refinements=1), "no patterns to refine"),
        (ConvexReLUClassifier(loss="hinge", multi_class="joint"), "for the logistic loss"),
        (ConvexReLUClassifier(loss="hinge", solver="scp"), "smooth losses"),
        (ConvexReLURegressor(beta=0.0), "'beta' parameter"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(model, message, table):
    with pytest.raises(ValueError, match=message):
        model.fit(table[0], (table[1] > 0).astype(int))


def test_samples_without_weight_do_not_count(table):
    X, y = table
    weights = np.r_[np.ones(30), np.zeros(10)]
    wild = np.r_[y[:30], np.full(10, 1e6)]
    a = ConvexReLURegressor(random_state=0).fit(X, wild, sample_weight=weights)
    np.testing.assert_allclose(
        a.predict(X), ConvexReLURegressor(random_state=0).fit(X[:30], y[:30]).predict(X), rtol=1e-9
    )
    with pytest.raises(ValueError, match="zero"):
        a.fit(X, y, sample_weight=np.zeros(40))


def under_attack(model, X, y, radius, steps=20):
    """Accuracy on classes 0 and 1 after projected gradient ascent within the radius."""
    network, sign = model.network_, np.where(y == 1, 1.0, -1.0)
    W, a = network.hidden, network.output[:, 0]
    moved, right = X.copy(), np.ones(len(X), bool)
    for _ in range(steps):
        rows = np.column_stack([moved, np.ones(len(X))])
        gradient = (((rows @ W.T > 0) * a) @ W)[:, :-1]
        step = 2.5 * radius / steps * sign[:, None] * np.sign(gradient)
        moved = np.clip(moved - step, X - radius, X + radius)
        right &= model.predict(moved) == y
    return right.mean()


def test_a_radius_defends_against_attacks():
    data = load_digits()
    kept = np.isin(data.target, (3, 8))
    X, y = data.data[kept] / 16.0, (data.target[kept] == 8).astype(int)
    fit, rest = slice(0, 80), slice(80, None)
    settings = {
        "beta": 1e-2,
        "tol": 0.1,
        "loss": "hinge",
        "patterns": 6,
        "output_bias": False,
        "random_state": 0,
    }
    plain = ConvexReLUClassifier(**settings).fit(X[fit], y[fit])
    robust = ConvexReLUClassifier(**settings, radius=0.1).fit(X[fit], y[fit])
    assert robust.score(X[rest], y[rest]) > 0.9
    gain = under_attack(robust, X[rest], y[rest], 0.1) - under_attack(plain, X[rest], y[rest], 0.1)
    assert gain > 0.1


def test_exact_cones_bound_every_attack(table):
    X, y = table
    labels = (y > np.median(y)).astype(int)
    model = ConvexReLUClassifier(
        0.05, loss="hinge", patterns=60, radius=0.02, robust="exact", output_bias=False, random_state=0
    ).fit(X, labels)
    sign, worst = np.where(labels == 1, 1.0, -1.0), np.zeros(len(X))
    rng = np.random.default_rng(1)
    for _ in range(200):  # corners of the cube are where linear losses are worst
        moved = X + 0.02 * rng.choice([-1.0, 1.0], X.shape)
        worst = np.maximum(worst, np.maximum(1.0 - sign * model.decision_function(moved), 0.0))
    clean = np.maximum(1.0 - sign * model.decision_function(X), 0.0).sum()
    assert clean < worst.sum() <= model.certificate_.upper


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_bias": True}, "set output_bias=False"),
        ({"output_bias": False, "refinements": 1}, "set refinements=0"),
        ({"output_bias": False, "solver": "scp"}, 'Use solver="admm"'),
        (
            {"output_bias": False, "hidden_bias": False, "robust": "exact", "radius": 50.0},
            "No pattern has margin 50",
        ),
    ],
)
def test_what_a_radius_does_not_go_with_is_refused(options, message, table):
    X, y = table
    model = ConvexReLURegressor(**{"radius": 0.1, "patterns": 10, "random_state": 0, **options})
    with pytest.raises(InvalidProblem if "margin" in message else InvalidParameter, match=message):
        model.fit(X, y)


def test_a_radius_takes_two_classes_and_no_weights(table):
    X, _ = table
    model = ConvexReLUClassifier(radius=0.1, output_bias=False)
    with pytest.raises(InvalidParameter, match="two classes"):
        model.fit(X, np.arange(len(X)) % 3)
    with pytest.raises(InvalidParameter, match="no sample_weight"):
        model.fit(X, np.arange(len(X)) % 2, sample_weight=np.ones(len(X)))
