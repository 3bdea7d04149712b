"""Online dictionary learning against finite differences, theorems, and bases that are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.matrix import OnlineDictionary, SparseStream, match_atoms, recovery_error
from thalweg.matrix._dictionary_steps import DEGREE, Learned, Rule, advanced, slope
from thalweg.matrix.dictionary_alignment import random_orthogonal
from thalweg.matrix.dictionary_codes import filled, largest

LOSSES = sorted(DEGREE)


def learned(stream, steps, size=16, edit=lambda Y, rng: Y, **options):
    model, rng = OnlineDictionary(batch_size=size, random_state=1, **options), np.random.default_rng(5)
    for Y in stream.batches(size, steps):
        model.partial_fit(edit(Y, rng))
    return model


def error(model, stream):
    return recovery_error(model.components_.T, stream.basis)


@pytest.fixture(scope="module")
def recovered():
    return learned(SparseStream(12, 0.2, seed=3), 700)


class TestStep:
    @pytest.mark.parametrize("loss", LOSSES)
    def test_the_gradient_is_that_of_differences(self, rng, loss):
        Y, D, rule, square = rng.standard_normal((7, 4)), random_orthogonal(4, rng), Rule(loss), 0.7
        mu = rule.smoothing * np.sqrt(square)

        def value(D):
            Z = Y @ D
            of = {
                "l3": np.abs(Z) ** 3 / 3,
                "l4": Z**4 / 4,
                "smooth-l1": Z**2 / (2 * mu) - np.sqrt(Z**2 + mu**2),
            }
            return of[loss].sum()

        direction = rng.standard_normal((4, 4))
        slopes = (value(D + 1e-6 * direction) - value(D - 1e-6 * direction)) / 2e-6
        assert np.vdot(Y.T @ slope(Y @ D, rule, square), direction) == pytest.approx(slopes, rel=1e-7)

    @pytest.mark.parametrize("loss", LOSSES)
    def test_what_is_maximised_is_convex(self, loss):
        z = np.linspace(-5, 5, 2001)
        assert (np.diff(slope(z, Rule(loss, smoothing=0.3), 1.0)) >= -1e-12).all()

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("size", [1, 9])
    def test_every_gap_is_non_negative_and_every_iterate_in_the_ball(self, loss, size):
        stream = SparseStream(6, 0.3, seed=1)
        state = Learned.at(np.eye(6), whiten=False)
        for Y in stream.batches(size, 150):
            state = advanced(state, Rule(loss), Y)
            assert np.linalg.norm(state.D, 2) <= 1 + 1e-10
            assert state.steps == 0 or state.gap >= -1e-12 * state.nuclear

    @pytest.mark.parametrize("size", [1, 3, 20])
    def test_turning_data_and_start_turns_the_iterates(self, rng, size):
        Q, start = random_orthogonal(5, rng), random_orthogonal(5, rng)
        plain, turned = (Learned.at(D, whiten=False) for D in (start, Q @ start))
        for Y in SparseStream(5, 0.4, seed=2).batches(size, 40):
            plain, turned = advanced(plain, Rule(), Y), advanced(turned, Rule(), Y @ Q.T)
        np.testing.assert_allclose(turned.D, Q @ plain.D, atol=1e-9)

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("power", [-900, -100, 90, 230])
    def test_the_unit_of_the_data_changes_no_basis(self, loss, power):
        def run(power, **options):
            model = OnlineDictionary(loss, random_state=0, clip=0.9, **options)
            for Y in SparseStream(5, 0.4, seed=2).batches(16, 30):
                model.partial_fit(np.ldexp(Y, power))
            return model

        for options in ({}, {"whiten": True, "center": True}):
            one, other = run(0, **options), run(power, **options)
            unit = power if "whiten" in options else 0
            np.testing.assert_allclose(other.components_, np.ldexp(one.components_, unit), rtol=1e-6)
            assert other.gap_ == pytest.approx(one.gap_, rel=1e-6)

    def test_data_that_grow_by_hundreds_of_powers_are_followed(self):
        model = OnlineDictionary(random_state=0)
        for k, Y in enumerate(SparseStream(5, 0.4, seed=4).batches(64, 60)):
            model.partial_fit(np.ldexp(Y, 0 if k < 30 else 700))
        assert error(model, SparseStream(5, 0.4, seed=4)) < 0.01

    def test_an_interrupted_step_leaves_the_state_before_it(self, monkeypatch):
        model = learned(SparseStream(5, 0.4), 3)
        before = model.state_
        monkeypatch.setattr("thalweg.matrix._dictionary_steps._extreme_point", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.partial_fit(np.eye(5))
        assert model.state_ is before


def _interrupt(*_):
    raise KeyboardInterrupt


class TestRecovery:
    def test_the_basis_of_sparse_codes_is_found(self, recovered):
        assert error(recovered, SparseStream(12, 0.2, seed=3)) < 2e-3

    @pytest.mark.parametrize(
        ("options", "bound"),
        [
            ({"loss": "l4"}, 0.02),
            ({"loss": "smooth-l1"}, 2e-3),
            ({"update": "polar"}, 0.05),
            ({"lmo": "newton-schulz"}, 2e-3),
            ({"start": "pca"}, 2e-3),
            ({"start": "dct"}, 2e-3),
            ({"momentum_floor": 0.1, "step_floor": 0.02}, 0.01),
        ],
    )
    def test_every_variant_finds_it(self, options, bound):
        stream = SparseStream(8, 0.2, seed=3)
        assert error(learned(stream, 600, **options), stream) < bound

    def test_dense_gaussian_codes_prefer_no_basis(self):
        stream = SparseStream(12, 1.0, seed=3)
        model = learned(stream, 500)
        assert error(model, stream) > 0.3
        assert abs(model.score(next(stream.batches(4000)))) < 0.02

    def test_a_sparse_stream_scores_what_theory_says(self, recovered):
        Y = next(SparseStream(12, 0.2, seed=3).batches(20_000))
        # E|z|^3 / (E z^2)^(3/2) over a Gaussian's is theta^(-1/2) for Bernoulli-Gaussian codes.
        assert recovered.score(Y) == pytest.approx(0.2**-0.5 - 1, rel=0.05)

    def test_whitening_finds_a_complete_basis_that_is_not_orthogonal(self):
        stream = SparseStream(8, 0.2, condition=3.0, seed=4)
        cosines = {
            w: match_atoms(learned(stream, 600, whiten=w).components_.T, stream.basis)[2].mean()
            for w in (True, False)
        }
        assert cosines[True] > 0.995
        assert cosines[True] > cosines[False] + 0.02

    def test_floors_follow_a_basis_that_changes(self):
        before, after = SparseStream(8, 0.2, seed=5), SparseStream(8, 0.2, seed=6)
        found = {}
        for floors in ((0.0, 0.0), (0.1, 0.02)):
            model = OnlineDictionary(momentum_floor=floors[0], step_floor=floors[1], random_state=0)
            for Y in itertools.chain(before.batches(16, 600), after.batches(16, 300)):
                model.partial_fit(Y)
            found[floors] = error(model, after)
        assert found[0.1, 0.02] < 0.02
        assert found[0.1, 0.02] < 0.3 * found[0.0, 0.0]

    def test_filled_samples_teach_more_than_zeros_in_their_place(self):
        stream = SparseStream(12, 0.2, seed=3)

        def holes(Y, rng):
            return np.where(rng.random(Y.shape) < 0.2, np.nan, Y)

        fill = error(learned(stream, 700, edit=holes, missing="fill"), stream)
        zero = error(learned(stream, 700, edit=lambda Y, rng: np.nan_to_num(holes(Y, rng))), stream)
        assert fill < 2e-3
        assert fill < 0.5 * zero

    def test_clipping_bears_a_few_wild_samples(self):
        stream = SparseStream(12, 0.2, seed=3)

        def wild(Y, rng):
            rows = rng.random(len(Y)) < 0.02
            return np.where(rows[:, None], 3 * rng.standard_cauchy(Y.shape), Y)

        clipped, plain = (error(learned(stream, 700, edit=wild, clip=c), stream) for c in (0.9, None))
        assert clipped < 0.1
        assert plain > 0.3

    def test_a_mean_is_subtracted_while_it_is_learned(self):
        stream = SparseStream(8, 0.2, seed=3)
        level = np.linspace(-5, 5, 8)
        model = learned(stream, 600, edit=lambda Y, rng: Y + level, center=True)
        assert error(model, stream) < 2e-3
        np.testing.assert_allclose(model.mean_, level, atol=0.05)  # 10^4 samples of deviation 0.45

    def test_forgetting_follows_a_mean_that_moves(self):
        stream = SparseStream(4, 0.5, seed=3)
        model = OnlineDictionary(center=True, forgetting=0.99, random_state=0)
        for k, Y in enumerate(stream.batches(16, 200)):
            model.partial_fit(Y + (10.0 if k >= 100 else 0.0))
        np.testing.assert_allclose(model.mean_, 10.0, atol=0.5)

    def test_one_entry_has_the_basis_of_one(self):
        model = OnlineDictionary(random_state=0).fit(np.array([[1.0], [-2.0], [0.0]]))
        assert abs(model.components_[0, 0]) == 1.0
        assert model.n_zero_ == 10  # one an epoch

    def test_a_rank_deficient_stream_is_learned_and_repeatable(self, rng):
        Y = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 6))
        one, other = (OnlineDictionary(random_state=0).fit(Y) for _ in range(2))
        np.testing.assert_array_equal(one.components_, other.components_)
        np.testing.assert_allclose(one.components_ @ one.components_.T, np.eye(6), atol=1e-10)


class TestCodes:
    @given(seed=st.integers(0, 10**6), k=st.integers(1, 4))
    def test_the_k_largest_are_the_best_of_all_codes_of_k_terms(self, seed, k):
        rng = np.random.default_rng(seed)
        D, y = random_orthogonal(4, rng), rng.standard_normal(4)
        best = min(
            np.linalg.norm(y - D[:, list(chosen)] @ (D[:, list(chosen)].T @ y))
            for chosen in itertools.combinations(range(4), k)
        )
        assert np.linalg.norm(y - D @ largest((y @ D)[None], k)[0]) == pytest.approx(best, abs=1e-12)

    def test_ties_keep_exactly_k(self):
        assert np.count_nonzero(largest(np.ones((3, 5)), 2), axis=1).tolist() == [2, 2, 2]

    def test_missing_entries_of_sparse_samples_are_found(self):
        stream = SparseStream(16, 0.1, seed=0)
        Y = next(stream.batches(300))
        hidden = np.random.default_rng(1).random(Y.shape) < 0.15
        found = filled(np.where(hidden, np.nan, Y), stream.basis, stream.basis.T)
        np.testing.assert_array_equal(found[~hidden], Y[~hidden])
        assert np.linalg.norm((found - Y)[hidden]) < 0.25 * np.linalg.norm(Y[hidden])
