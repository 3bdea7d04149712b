"""The estimator: scikit-learn's habits, what it keeps, warm fits, choices by held-out loss."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from thalweg.core import InvalidParameter, InvalidProblem, UnreadableFile
from thalweg.transport import LightBridge, eps_path


@pytest.fixture
def clouds(rng):
    return rng.standard_normal((300, 2)), 4.0 + 0.5 * rng.standard_normal((250, 2))


@pytest.fixture
def model(clouds):
    return LightBridge(eps=0.2, n_components=3, steps=200).fit(*clouds)


def test_shapes_and_repeatability(model, clouds):
    x = clouds[0][:6]
    assert model.transform(x).shape == (6, 2)
    assert model.sample(x, n=4).shape == (4, 6, 2)
    assert model.trajectory(x, steps=3, how="bridge").shape == (4, 6, 2)
    assert model.log_density(x, clouds[1][:6]).shape == (6,)
    np.testing.assert_array_equal(model.interpolate(x, 0.0), x)
    np.testing.assert_array_equal(model.sample(x), model.sample(x))
    assert not np.array_equal(model.sample(x), model.sample(x, random_state=1))


def test_it_lives_as_scikit_learns_estimators_do(model, clouds):
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "bridge_")
    np.testing.assert_array_equal(copy.fit(*clouds).transform(clouds[0]), model.transform(clouds[0]))
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(model)).transform(clouds[0]), model.transform(clouds[0])
    )
    frame = pd.DataFrame(clouds[0], columns=["a", "b"])
    named = (
        LightBridge(eps=0.2, n_components=3, steps=10).set_output(transform="pandas").fit(frame, clouds[1])
    )
    assert list(named.get_feature_names_out()) == ["a", "b"]
    assert list(named.transform(frame).columns) == ["a", "b"]
    with pytest.raises(ValueError, match="3 features, but LightBridge is expecting 2"):
        model.transform(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="'eps' parameter"):
        LightBridge(eps=-1.0).fit(*clouds)


def test_it_ends_a_pipeline(clouds):
    wide = np.c_[clouds[0], clouds[0] @ [[1.0], [1.0]]]
    pipe = make_pipeline(PCA(2), LightBridge(eps=0.2, n_components=3, steps=100)).fit(wide, clouds[1])
    np.testing.assert_allclose(pipe.transform(wide).mean(0), clouds[1].mean(0), atol=0.1)


@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_what_is_saved_is_loaded(clouds, covariance, tmp_path):
    model = LightBridge(eps=0.2, n_components=2, covariance=covariance, steps=20).fit(*clouds)
    model.save(tmp_path / "bridge.safetensors")
    again = LightBridge.load(tmp_path / "bridge.safetensors")
    np.testing.assert_array_equal(again.trajectory(clouds[0], 3), model.trajectory(clouds[0], 3))
    assert again.get_params() == model.get_params()
    with pytest.raises(InvalidProblem, match="cannot be fitted further"):
        again.partial_fit(*clouds)
    (tmp_path / "other.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UnreadableFile, match=r"no file that LightBridge\.save wrote"):
        LightBridge.load(tmp_path / "other.safetensors")


def test_partial_fits_go_on_from_the_fit_and_follow_the_data(model, clouds):
    before = model.transform(clouds[0]).mean()
    for _ in range(60):
        model.partial_fit(clouds[0], clouds[1] + 0.5)
    assert model.transform(clouds[0]).mean() == pytest.approx(before + 0.5, abs=0.15)
    assert model.n_iter_ == 260


def test_weights_move_the_target(clouds):
    weights = (clouds[1][:, 0] > 4.0).astype(float)
    model = LightBridge(eps=0.2, n_components=3).fit(*clouds, weights1=weights)
    kept = clouds[1][weights > 0].mean(0)
    np.testing.assert_allclose(model.transform(clouds[0]).mean(0), kept, atol=0.08)


def test_components_are_chosen_by_held_out_loss(rng):
    x0, corners = rng.standard_normal((1500, 2)), 6.0 * rng.standard_normal((30, 2))
    many = corners[rng.integers(30, size=1500)] + 0.1 * rng.standard_normal((1500, 2))
    few = 3.0 + rng.standard_normal((1500, 2))
    chosen = [LightBridge(n_components="auto", steps=200).fit(x0, x1).n_components_ for x1 in (few, many)]
    assert chosen[0] == 5
    assert chosen[1] >= 20


def test_noise_and_cost_fall_with_eps(clouds):
    table = eps_path(*clouds, values=(0.03, 0.3, 3.0), n_components=3, steps=200)
    assert table.noise.is_monotonic_increasing
    assert table.cost[0] < table.cost[2]
    assert table.target.max() < 0.02


def test_more_components_than_samples_are_refused(clouds):
    with pytest.raises(InvalidParameter, match="n_components <= 5"):
        LightBridge(eps=0.2, n_components=6).fit(clouds[0], clouds[1][:5])


def test_tensors_are_taken_as_targets(clouds):
    one = LightBridge(eps=0.2, n_components=3, steps=10).fit(clouds[0], torch.tensor(clouds[1]))
    two = LightBridge(eps=0.2, n_components=3, steps=10).fit(*clouds)
    np.testing.assert_array_equal(one.transform(clouds[0]), two.transform(clouds[0]))


def test_a_path_takes_arrays_and_clouds_without_squares_are_told():
    rng = np.random.default_rng(0)
    x0, x1 = rng.standard_normal((2, 80, 1))
    assert len(eps_path(x0, x1, np.array([0.2, 1.0]), n_components=2, steps=5)) == 2
    with pytest.raises(InvalidProblem, match="no values"):
        eps_path(x0, x1, ())
    with pytest.raises(InvalidProblem, match=r"reach .*e\+200"):
        eps_path(1e200 * x0, x1)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_default_eps_follows_the_unit_of_the_data(clouds, unit):
    x0, x1 = clouds
    here, there = (LightBridge(n_components=2, steps=20).fit(u * x0, u * x1) for u in (1.0, unit))
    assert there.eps_ == pytest.approx(unit**2 * here.eps_, rel=1e-9)
    np.testing.assert_allclose(there.transform(unit * x0), unit * here.transform(x0), rtol=1e-6)
    path = [eps_path(u * x0, u * x1, (0.1,), n_components=2, steps=20) for u in (1.0, unit)]
    assert path[1].cost[0] == pytest.approx(unit**2 * path[0].cost[0], rel=1e-6)


def test_what_cannot_be_drawn_is_refused(model, clouds):
    x0, _ = clouds
    for n in (0, -1, 1.5, None):
        with pytest.raises(InvalidParameter, match="n >= 1"):
            model.sample(x0, n)
    with pytest.raises(InvalidParameter, match="random_state >= 0"):
        model.sample(x0, random_state=None)
    for ask in (model.transform, model.sample, model.trajectory, lambda x: model.log_density(x0[:1], x)):
        with pytest.raises(InvalidProblem, match="whose squares"):
            ask(np.full((1, x0.shape[1]), 1e200))
