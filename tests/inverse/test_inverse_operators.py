"""Operators: exact adjoints, norms, pseudo-inverses; scikit-image's sinograms; bad input."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg as spla
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.inverse import (
    Blur,
    FanBeam,
    Inpainting,
    MaskedFFT,
    Operator,
    Radon,
    Rays,
    Sense,
    SliceStack,
    SuperResolution,
    batched_cg,
    estimate_maps,
    gaussian_kernel,
    normalised_maps,
    transmission_noise,
)
from thalweg.inverse.masks import MASKS, middle, uniform1d, uniform2d
from thalweg.inverse.phantoms import birdcage, ellipses, shepp_logan
from thalweg.numerics.krylov import cg

MASK = uniform2d((12, 12), 2.0)
ROWS, COLUMNS = np.outer(np.arange(11) % 3 == 0, np.ones(12)), np.outer(np.ones(12), np.arange(11) % 4 < 2)
OPERATORS = {
    "fft": lambda: MaskedFFT(MASK),
    "fft real": lambda: MaskedFFT(MASK, real=True),
    "sense": lambda: Sense(birdcage(3, 12), MASK),
    "sense real": lambda: Sense(birdcage(3, 12), MASK, real=True),
    "fft, whole columns": lambda: MaskedFFT(COLUMNS),
    "fft, everything, real": lambda: MaskedFFT(np.ones((12, 11)), real=True),
    "sense, whole rows": lambda: Sense(birdcage(3, 12)[:, :11], ROWS),
    "sense, whole columns, real": lambda: Sense(birdcage(3, 12)[:, :, :11], COLUMNS, real=True),
    "radon": lambda: Radon(12, 5),
    "radon, limited": lambda: Radon(12, 7, span=100.0),
    "radon, wide": lambda: Radon(12, [3.0, 50.0], detectors=19),
    "radon, rays": lambda: Radon(12, 5, matrix=False),
    "fan": lambda: FanBeam(12, 5),
    "fan, rays": lambda: FanBeam(12, 5, matrix=False),
    "blur": lambda: Blur((12, 10), gaussian_kernel(0.8)),
    "blur, askew": lambda: Blur((3, 12, 10), [[0.1, 0.5, 0.4], [0.0, -0.2, 0.2], [0.3, 0.0, 0.0]]),
    "super": lambda: SuperResolution((12, 9), 3),
    "super, colour": lambda: SuperResolution((3, 4, 6), 2),
    "inpainting": lambda: Inpainting(MASK),
    "slices": lambda: SliceStack(Radon(12, 3), 4),
    "slices, complex": lambda: SliceStack(MaskedFFT(MASK), 2),
}


def drawn(shape, is_complex, rng):
    x = torch.from_numpy(rng.standard_normal(shape))
    return torch.complex(x, torch.from_numpy(rng.standard_normal(shape))) if is_complex else x


def inner(u, v):
    return complex(torch.vdot(u.reshape(-1).to(torch.complex128), v.reshape(-1).to(torch.complex128)))


@pytest.fixture(params=OPERATORS, name="A")
def _operator(request):
    return OPERATORS[request.param]()


def test_the_adjoint_is_exact_in_the_complex_inner_product(A, rng):
    x, y = drawn(A.image_shape, A.complex_image, rng), drawn(A.data_shape, A.complex_data, rng)
    left, right = inner(A.A(x), y), inner(x, A.AH(y))
    if not A.complex_image:  # a map of real vector spaces
        left, right = left.real, right.real
    assert left == pytest.approx(right, rel=1e-10, abs=1e-10)
    assert A.mismatch(7) < 1e-12


def test_scipy_sees_the_matrix_of_the_operator(A, rng):
    matrix = A.matmat(np.eye(A.shape[1]))
    np.testing.assert_allclose(A.rmatmat(np.eye(A.shape[0])), matrix.conj().T, atol=1e-12)
    assert A.norm() == pytest.approx(np.linalg.norm(matrix, 2), rel=2e-3)
    assert isinstance(A, spla.LinearOperator)


def test_a_norm_takes_few_products_where_the_largest_values_lie_close():
    operator = Sense(birdcage(4, 48), uniform2d((48, 48), 3.0))
    products, plain = 0, operator.gram

    def counted(x):
        nonlocal products
        products += 1
        return plain(x)

    operator.gram = counted
    found = operator.norm()
    assert products <= 80  # powers of the operator take 300
    flat = spla.LinearOperator(
        (48 * 48, 48 * 48),
        dtype=complex,
        matvec=lambda v: plain(torch.from_numpy(v).reshape(1, 48, 48)).numpy().ravel(),
    )
    largest = spla.eigsh(flat, k=1, tol=1e-10, return_eigenvectors=False)[0]
    assert found == pytest.approx(largest**0.5, rel=1e-3)


def test_batches_are_images_one_by_one_and_arrays_come_back_as_arrays(A, rng):
    x = drawn((3, *A.image_shape), A.complex_image, rng)
    found = A.A(x.numpy())
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, torch.stack([A.A(one) for one in x]).numpy(), atol=1e-12)
    y = drawn((3, *A.data_shape), A.complex_data, rng)
    np.testing.assert_allclose(A.AH(y).numpy(), torch.stack([A.AH(one) for one in y]).numpy(), atol=1e-12)


def test_both_products_at_once_are_one_after_the_other(A, rng):
    x = drawn((3, *A.image_shape), A.complex_image, rng)
    np.testing.assert_allclose(A.gram(x).numpy(), A.AH(A.A(x)).numpy(), atol=1e-11)
    assert A.gram(x).dtype == x.dtype


@pytest.mark.parametrize("name", ["radon", "sense, whole rows", "fft"])
def test_conjugate_gradients_of_a_batch_have_the_bits_of_each_image(name, rng):
    A = OPERATORS[name]()
    right = A.gram(drawn((9, *A.image_shape), A.complex_image, rng))
    start = torch.zeros_like(right)
    each = [batched_cg(A.gram, right[i : i + 1], start[i : i + 1], steps=6).x for i in range(9)]
    assert torch.equal(batched_cg(A.gram, right, start, steps=6).x, torch.cat(each))


def test_coils_of_a_batch_larger_than_a_block_are_those_of_each_image(rng):
    A = Sense(birdcage(5, 64), COLUMNS[:1].repeat(64, 0)[:, np.arange(64) % 11])
    x = drawn((7, 64, 64), True, rng)
    np.testing.assert_allclose(A.gram(x).numpy(), A.AH(A.A(x)).numpy(), atol=1e-12)


def test_single_precision_stays(A, rng):
    x = drawn(A.image_shape, A.complex_image, rng)
    short = x.to(torch.complex64 if x.is_complex() else torch.float32)
    found = A.A(short)
    assert found.dtype in (torch.float32, torch.complex64)
    np.testing.assert_allclose(found.numpy(), A.A(x).numpy(), rtol=1e-4, atol=1e-4)


def test_the_decomposition_gives_the_operator_back(A, rng):
    svd = A.svd()
    x = drawn((2, *A.image_shape), A.complex_image, rng)
    c = svd.into(x)
    np.testing.assert_allclose(A.real_if_real(svd.back(c)).numpy(), x.numpy(), atol=1e-10)
    np.testing.assert_allclose(svd.measured(A.A(x)).numpy(), (svd.values * c).numpy(), atol=1e-10)
    np.testing.assert_allclose(c.abs().square().sum().item(), x.abs().square().sum().item(), rtol=1e-10)


def test_the_pseudo_inverse_is_that_of_the_matrix(A, rng):
    y = drawn(A.data_shape, A.complex_data, rng)
    matrix = A.matmat(np.eye(A.shape[1]))
    flat = y.reshape(-1).numpy()
    flat = np.concatenate([flat.real, flat.imag]) if len(flat) < A.shape[0] else flat
    wanted = np.linalg.pinv(matrix, rcond=1e-4) @ flat
    np.testing.assert_allclose(A.pinv(y, 1e-4).reshape(-1).numpy(), wanted, atol=1e-8)


def test_a_large_operator_finds_its_pseudo_inverse_by_conjugate_gradients():
    A = Radon(66, 66)
    x = ellipses(1, 66)[0]
    found = A.pinv(A.A(x))
    assert float(torch.linalg.vector_norm(A.A(found) - A.A(x)) / torch.linalg.vector_norm(A.A(x))) < 1e-3


@pytest.mark.parametrize("side", [16, 33, 64])
def test_the_sinogram_is_that_of_scikit_image(side):
    skimage = pytest.importorskip("skimage.transform")
    image = shepp_logan(side).numpy() + 1  # zero outside the circle, as scikit-image wants it
    image[np.hypot(*np.indices((side, side)) - side // 2) > side // 2 - 1] = 0
    angles = np.arange(0, 180, 7.5)
    wanted = skimage.radon(image, angles).T
    found = Radon(side, angles).A(image)
    assert np.abs(found - wanted).max() < 0.02 * wanted.max()


def test_a_disc_has_the_chords_of_a_circle_from_every_side():
    side, radius = 64, 20.0
    rows, columns = np.indices((side, side)) - side // 2
    disc = np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1)
    s = np.arange(side) - side // 2
    chord = 2 * np.sqrt(np.clip(radius**2 - s**2, 0, None))
    assert np.abs(Radon(side, 9).A(disc) - chord).mean() < 0.01 * chord.max()
    fan = FanBeam(side, 9, distance=1000.0, detectors=side + 1)  # so far away that rays are parallel
    s = ((np.arange(side + 1) + 0.5) / (side + 1) * 2 - 1) * side / 2
    chord = 2 * np.sqrt(np.clip(radius**2 - s**2, 0, None))
    assert np.abs(fan.A(disc) - chord).mean() < 0.01 * chord.max()


def test_rays_and_their_matrix_are_one_operator(rng):
    x, y = rng.standard_normal((2, 20, 20)), rng.standard_normal((2, 6, 20))
    kept, made = Radon(20, 6), Radon(20, 6, matrix=False)
    np.testing.assert_allclose(kept.A(x), made.A(x), atol=1e-12)
    np.testing.assert_allclose(kept.AH(y), made.AH(y), atol=1e-12)


def test_the_library_and_scipy_solve_with_an_operator():
    A = Blur((8, 8), gaussian_kernel(0.5))
    x = ellipses(1, 8)[0].numpy()
    b = A.A(x).ravel()
    gram = spla.LinearOperator((64, 64), matvec=lambda v: A.rmatvec(A.matvec(v)), dtype=np.float64)
    np.testing.assert_allclose(cg(gram, A.rmatvec(b), rtol=1e-12).x, x.ravel(), atol=1e-8)
    complex_one = Sense(birdcage(4, 8), np.ones((8, 8)), real=True)
    found = spla.lsqr(complex_one, complex_one.matvec(x.ravel()), atol=1e-12, btol=1e-12)[0]
    np.testing.assert_allclose(found, x.ravel(), atol=1e-8)


class Wrong(Operator):
    """Its adjoint is that of unfiltered back-projection over its views, as some codes have it."""

    def __init__(self, check=True):
        self.inner = Radon(12, 8)
        super().__init__((12, 12), (8, 12), check=check)

    def _forward(self, x):
        return self.inner._forward(x)

    def _adjoint_of(self, y):
        return self.inner._adjoint_of(y) * np.pi / 16


def test_an_adjoint_that_is_none_is_refused_by_the_dot_test_unless_asked():
    with pytest.raises(InvalidProblem, match="Wrong: _adjoint_of is not the adjoint of _forward"):
        Wrong()
    assert Wrong(check=False).mismatch() > 1e-3


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(sorted(MASKS)),
    rows=st.integers(16, 60),
    columns=st.integers(16, 60),
    acceleration=st.floats(1.5, 8.0),
    seed=st.integers(0, 100),
)
def test_masks_hit_their_acceleration_within_a_line_and_measure_the_middle(
    kind, rows, columns, acceleration, seed
):
    mask = MASKS[kind]((rows, columns), acceleration, 0.08, seed)
    assert mask.shape == (rows, columns)
    assert set(np.unique(mask)) <= {0.0, 1.0}
    line = rows if kind in ("uniform1d", "gaussian1d", "equispaced") else max(rows, columns)
    assert abs(mask.sum() - mask.size / acceleration) <= line
    assert mask[rows // 2, columns // 2] == 1
    np.testing.assert_array_equal(mask, MASKS[kind]((rows, columns), acceleration, 0.08, seed))


def test_gaussian_masks_prefer_the_middle_and_poisson_discs_keep_their_distance():
    far = np.hypot(*np.indices((64, 64)) - 32)
    spread = {kind: far[MASKS[kind]((64, 64), 8.0, 0.0) == 1].mean() for kind in ("gaussian2d", "uniform2d")}
    assert spread["gaussian2d"] < 0.7 * spread["uniform2d"]

    def nearest(kind):
        points = np.argwhere(MASKS[kind]((64, 64), 8.0, 0.0))
        gap = np.linalg.norm(points[:, None] - points, axis=2) + 1e9 * np.eye(len(points))
        return gap.min(1).mean()

    assert nearest("poisson") > 1.3 * nearest("uniform2d")


def test_maps_are_found_from_the_middle_of_the_data():
    maps = birdcage(4, 48)
    image = shepp_logan(48) + 1.2
    y = Sense(maps, np.ones((48, 48))).A(image)
    found = estimate_maps(y, 16)
    wanted = maps * (maps[:1].conj() / maps[:1].abs())
    inside = image > 0.3
    assert float((found - wanted).abs()[:, inside].mean()) < 0.05
    torch.testing.assert_close(found.abs().square().sum(0), torch.ones(48, 48).double())


def test_a_coil_that_sees_nothing_has_a_map_of_zeros_and_the_others_theirs():
    y = Sense(birdcage(4, 32), np.ones((32, 32))).A(shepp_logan(32) + 1.2)
    y[0] = 0
    found = estimate_maps(y, 16)
    torch.testing.assert_close(found[1:], estimate_maps(y[1:], 16))
    assert not found[0].any()


def test_maps_that_are_not_normalised_are_told_and_normalised_on_request():
    with pytest.raises(
        InvalidProblem, match=r"squares of the maps sum to 4 to 4; expected 1.*normalise=True"
    ):
        Sense(2 * birdcage(3, 8), np.ones((8, 8)))
    torch.testing.assert_close(
        Sense(2 * birdcage(3, 8), np.ones((8, 8)), normalise=True).maps, birdcage(3, 8)
    )
    torch.testing.assert_close(normalised_maps(5 * birdcage(3, 8)), birdcage(3, 8))


def test_photon_noise_has_the_mean_and_the_growing_spread_of_counts():
    p = np.repeat([0.5, 3.0], 4000)
    noisy = transmission_noise(p, 1e4, 3)
    for level in (0.5, 3.0):
        here = noisy[p == level]
        assert here.mean() == pytest.approx(level, abs=0.01)
        assert here.std() == pytest.approx(np.sqrt(np.exp(level) / 1e4), rel=0.1)  # delta method


def test_noise_of_measurements_has_the_deviation_asked_for_and_only_where_measured():
    A = MaskedFFT(uniform1d((64, 64)))
    noise = A.measured(torch.zeros(64, 64, dtype=torch.complex128), 0.5)
    assert float(noise[A.mask == 0].abs().max()) == 0
    for part in (noise.real, noise.imag):
        assert float(part[A.mask == 1].std()) == pytest.approx(0.5, rel=0.1)


def test_bad_operators_are_refused_with_the_mend():
    cases = [
        (lambda: MaskedFFT(np.zeros((4, 4))), InvalidProblem, "mask is empty"),
        (lambda: MaskedFFT(np.full((4, 4), 0.5)), InvalidProblem, "other numbers than 0 and 1"),
        (lambda: MaskedFFT(np.full((4, 4), np.nan)), InvalidProblem, "other numbers than 0 and 1"),
        (lambda: MaskedFFT(np.ones(4)), InvalidProblem, r"expected \(height, width\)"),
        (lambda: Sense(np.ones((2, 4, 5)), np.ones((4, 4))), InvalidProblem, "maps have shape"),
        (lambda: Sense(np.full((1, 4, 4), np.nan), np.ones((4, 4))), InvalidProblem, "NaN"),
        (lambda: Radon(8, 0), InvalidParameter, "views >= 1"),
        (lambda: Radon(8, 4, span=0.0), InvalidParameter, "span"),
        (lambda: Radon(8, [[1.0]]), InvalidProblem, "angles have shape"),
        (lambda: FanBeam(8, 4, distance=0.3), InvalidParameter, "outside the image"),
        (lambda: Rays(8, np.zeros((1, 2, 2)), np.zeros((1, 3, 2)), 4), InvalidProblem, "expected twice"),
        (lambda: Blur((8, 8), np.ones((2, 2))), InvalidProblem, "odd sides"),
        (lambda: Blur((8, 8), np.zeros((3, 3))), InvalidProblem, "kernel is zero"),
        (lambda: SuperResolution((8, 9), 2), InvalidParameter, "divides the sides"),
        (lambda: SliceStack(SliceStack(Radon(8, 2), 2), 2), InvalidProblem, "SliceStack"),
        (lambda: Radon(8, 2).A(np.ones((9, 9))), InvalidProblem, "the image has shape"),
        (lambda: Radon(8, 2).A(np.ones((8, 8)) * 1j), InvalidProblem, "is complex and is real here"),
        (lambda: uniform1d((8, 8), 8.0, 0.5), InvalidProblem, "Take a smaller centre"),
        (lambda: estimate_maps(np.zeros((2, 8, 8))), InvalidProblem, "nothing to estimate from"),
        (lambda: Sense(birdcage(20, 64), np.ones((64, 64))).svd(), InvalidProblem, "Use DDS"),
        (lambda: transmission_noise([-100.0], 1e4), InvalidProblem, "expected p >= 0"),
    ]
    for make, kind, words in cases:
        with pytest.raises(kind, match=words):
            make()


def test_the_phase_of_an_image_can_be_left_to_the_maps():
    maps, x = birdcage(4, 64), (ellipses(1, 64, 3)[0] + 1.5) / 2
    slow = torch.exp(1j * torch.linspace(0, 2, 64, dtype=torch.float64))[:, None] * x
    y = Sense(maps, np.ones((64, 64))).A(slow)
    shares = []
    for real in (False, True):
        image = Sense(estimate_maps(y, 24, real=real), np.ones((64, 64))).AH(y)
        shares.append(float(image.imag.square().sum() / image.abs().square().sum()))
    assert shares[1] < 0.005 < 0.1 < shares[0]  # what is left lies at the border, where the window wraps
    assert float((image.real - x).abs().mean()) < 0.02


def test_the_middle_is_the_square_that_is_measured_whole():
    assert middle(uniform2d((64, 48), 4.0, 0.25)) >= 12
    mask = np.ones((9, 9))
    mask[:, 2] = 0
    assert middle(mask) == 3  # columns 3 to 5
    assert middle(1 - mask) == 0
