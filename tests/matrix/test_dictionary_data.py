"""Streams, patches, offline bases, and bases compared."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dctn

from thalweg import Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.matrix import (
    KTermBasis,
    MatchingStretchingProjection,
    OrthogonalMOD,
    SparsestBasis,
    SparseStream,
    compression_ratio,
    cosines,
    denoise,
    from_patches,
    grey_photographs,
    match_atoms,
    minibatches,
    patch_stream,
    patches,
    psnr,
    recovery_error,
)
from thalweg.matrix.dictionary_alignment import random_orthogonal


class TestOffline:
    @pytest.mark.parametrize("loss", ["l3", "l4", "smooth-l1"])
    def test_a_fixed_point_is_the_basis_of_the_samples(self, loss):
        stream = SparseStream(6, 0.2, seed=1)
        result = solve(SparsestBasis(next(stream.batches(3000)), loss), progress=False)
        assert result.converged
        assert recovery_error(result.x, stream.basis) < 5e-3

    def test_the_l4_norm_never_falls(self):
        Y = next(SparseStream(6, 0.3, seed=2).batches(500))
        values = []
        solve(
            SparsestBasis(Y),
            stop=Stop(steps=15),
            callbacks=[lambda run: values.append(((Y @ run.state.x) ** 4).sum())],
            progress=False,
        )
        assert (np.diff(values) >= -1e-9 * values[-1]).all()

    def test_the_residual_of_optimal_directions_never_rises_and_ends_at_a_fixed_point(self, rng):
        problem = KTermBasis(rng.standard_normal((200, 6)), 2)
        values = []
        result = solve(
            problem,
            callbacks=[lambda run: values.append(problem.metrics(run.state.x)["residual"])],
            progress=False,
        )
        assert (np.diff(values) <= 1e-12).all()
        assert result.converged

    @pytest.mark.parametrize("scale", [1e-120, 1e120])
    def test_the_scale_of_the_samples_changes_nothing(self, scale):
        Y = next(SparseStream(4, 0.3, seed=2).batches(300))
        for problem in (SparsestBasis, lambda Y: KTermBasis(Y, 1)):
            one, other = (solve(problem(s * Y), progress=False).x for s in (1.0, scale))
            np.testing.assert_allclose(one, other, atol=1e-6)

    def test_what_cannot_be_solved_is_refused(self):
        for make, error, message in (
            (lambda: SparsestBasis(np.zeros((3, 2))), InvalidProblem, "Y is zeros"),
            (lambda: SparsestBasis(np.ones(3)), InvalidProblem, r"Y has shape \(3,\)"),
            (lambda: SparsestBasis(np.ones((3, 2), complex)), InvalidProblem, "is complex"),
            (lambda: SparsestBasis(np.full((3, 2), np.nan)), NotFinite, "NaN"),
            (lambda: SparsestBasis(np.ones((3, 2)), "l5"), InvalidParameter, "l3, l4 or smooth-l1"),
            (lambda: KTermBasis(np.ones((3, 2)), 3), InvalidParameter, "1 <= n_nonzero <= 2"),
            (lambda: MatchingStretchingProjection("pca"), InvalidParameter, "random or identity"),
            (lambda: OrthogonalMOD("pca"), InvalidParameter, "random or identity"),
            (lambda: SparsestBasis(np.ones((3, 2))).metrics(np.ones(2)), InvalidProblem, "x has shape"),
        ):
            with pytest.raises(error, match=message):
                make()


class TestAlignment:
    @given(seed=st.integers(0, 10**6), n=st.integers(1, 6))
    def test_order_and_signs_are_found_and_do_not_count(self, seed, n):
        rng = np.random.default_rng(seed)
        D, order, signs = random_orthogonal(n, rng), rng.permutation(n), rng.choice([-1.0, 1.0], n)
        mixed = D[:, order] * signs
        found, turned, found_cosines = match_atoms(mixed, D)
        np.testing.assert_allclose(mixed[:, found] * turned, D, atol=1e-12)
        np.testing.assert_allclose(found_cosines, 1.0, atol=1e-12)
        assert recovery_error(mixed, D) < 1e-12

    def test_what_is_no_pair_of_bases_is_refused(self):
        with pytest.raises(InvalidProblem, match=r"expected \(n, n\) both"):
            recovery_error(np.eye(2), np.eye(3))
        with pytest.raises(InvalidProblem, match="an atom is zero"):
            match_atoms(np.zeros((2, 2)), np.eye(2))
        with pytest.raises(NotFinite):
            recovery_error(np.full((2, 2), np.nan), np.eye(2))


class TestStreams:
    def test_codes_of_the_stream_are_bernoulli_gaussian(self):
        stream = SparseStream(10, 0.3, seed=5)
        X = np.vstack(list(stream.batches(500, 8))) @ stream.basis
        kept = np.abs(X) > 1e-12
        assert kept.mean() == pytest.approx(0.3, abs=0.012)  # 40 000 draws: five deviations of 0.0023
        assert X[kept].std() == pytest.approx(1.0, abs=0.03)

    def test_a_stream_is_the_same_each_time(self):
        stream = SparseStream(3, 0.5, seed=5)
        first, again = (list(itertools.islice(stream.batches(4), 3)) for _ in range(2))
        np.testing.assert_array_equal(first, again)

    def test_a_condition_is_that_of_the_basis(self):
        assert np.linalg.cond(SparseStream(6, 0.5, condition=7.0).basis) == pytest.approx(7.0)

    def test_minibatches_hold_every_row_once_an_epoch(self):
        X = np.arange(14.0).reshape(7, 2)
        for seed in (None, 3):
            parts = list(minibatches(X, 3, epochs=2, seed=seed))
            assert [len(p) for p in parts] == [3, 3, 1] * 2
            assert sorted(np.vstack(parts)[:, 0].tolist()) == sorted([*X[:, 0], *X[:, 0]])

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: SparseStream(0, 0.5), "n >= 1"),
            (lambda: SparseStream(3, 0.0), "0 < share <= 1"),
            (lambda: SparseStream(3, 0.5, condition=0.5), "condition >= 1"),
            (lambda: next(SparseStream(3, 0.5).batches(0)), "size >= 1"),
            (lambda: minibatches(np.ones(3), 2), "X has shape"),
            (lambda: minibatches(np.ones((3, 1)), 0), "size >= 1"),
            (lambda: minibatches(np.ones((3, 1)), 1, epochs=0), "epochs >= 1"),
        ],
    )
    def test_arguments_outside_their_range_are_refused(self, make, message):
        with pytest.raises((InvalidParameter, InvalidProblem), match=message):
            make()


class TestPatches:
    @given(
        height=st.integers(3, 11), width=st.integers(3, 11), side=st.integers(1, 3), stride=st.integers(1, 4)
    )
    def test_patches_put_together_are_the_image_where_they_cover_it(self, height, width, side, stride):
        image = np.random.default_rng(0).standard_normal((height, width)) + 10.0
        back = from_patches(patches(image, side, stride), image.shape, side, stride)
        covered = back != 0
        np.testing.assert_allclose(back[covered], image[covered])
        assert covered.all() or stride > side

    def test_cosines_are_the_transform_of_scipy(self, rng):
        patch = rng.standard_normal((4, 4))
        np.testing.assert_allclose(patch.ravel() @ cosines(4), dctn(patch, norm="ortho").ravel(), atol=1e-12)

    def test_a_stream_of_patches_is_of_the_image_and_without_means(self):
        images = grey_photographs("left")
        batch = next(patch_stream(images, 5, 1, side=4, seed=1))
        np.testing.assert_allclose(batch.mean(1), 0.0, atol=1e-10)
        whole = np.vstack([patches(i, 4) for i in images])
        whole -= whole.mean(1, keepdims=True)
        assert np.abs(whole - batch[0]).max(1).min() < 1e-10

    def test_less_noise_is_left(self, rng):
        truth = grey_photographs()[0][:96, :96]
        noisy = truth + 20.0 * rng.standard_normal(truth.shape)
        assert psnr(denoise(noisy, cosines(8), 20.0, stride=2), truth) > psnr(noisy, truth) + 4.0

    def test_psnr_is_that_of_its_formula(self):
        assert psnr([[2.0]], [[1.0]], peak=10.0) == pytest.approx(20.0)
        assert psnr([[2.0]], [[2.0]]) == np.inf

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: patches(np.ones((3, 3)), 4), r"expected \(height, width\), 4 or more"),
            (lambda: patches(np.ones((3, 3)), 0), "side >= 1"),
            (lambda: patches(np.ones((3, 3)), 2, 0), "stride >= 1"),
            (lambda: from_patches(np.ones((3, 4)), (3, 3), 2), r"expected \(4, 4\)"),
            (lambda: patch_stream(np.ones(5), 1, 1), "images have shape"),
            (lambda: denoise(np.ones((9, 9)), np.eye(5), 1.0), "the basis has shape"),
            (lambda: denoise(np.ones((9, 9)), np.eye(4), 0.0), "noise > 0"),
            (lambda: psnr(np.ones(2), np.ones(3)), "expected the same"),
            (lambda: grey_photographs("top"), "all, left or right"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, make, message):
        with pytest.raises((InvalidParameter, InvalidProblem), match=message):
            make()


class TestCompression:
    def test_bits_are_counted_by_hand(self):
        codes = np.zeros((3, 16))
        codes[0, :2] = codes[1, 5] = 1.0
        assert compression_ratio(codes, bits=8) == pytest.approx(3 * 16 * 8 / (3 * (8 + 4) + 3 * 5))

    def test_what_is_no_code_is_refused(self):
        with pytest.raises(InvalidProblem, match="Codes have shape"):
            compression_ratio(np.ones(3))
        with pytest.raises(InvalidProblem, match="Codes have shape"):
            compression_ratio(8, 3)
        with pytest.raises(InvalidParameter, match="bits >= 1"):
            compression_ratio(np.ones((1, 1)), bits=0)
