"""Whether images of another kind than the denoiser's are told, and those of its kind are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thalweg import Stop, solve
from thalweg.core import InvalidProblem, NotFinite
from thalweg.inverse import (
    DDNM,
    DDS,
    DenoiserLearning,
    DiffPIR,
    EMATraining,
    GaussianPrior,
    Inpainting,
    Radon,
    SliceStack,
    SuperResolution,
    UNet,
    denoising_error,
    load_unet,
    pretrained_unet,
    save_unet,
    train_unet,
)
from thalweg.inverse.familiarity import NOISE
from thalweg.inverse.phantoms import ellipses, ellipsoids, photo_patches

ODD = "unlike those that the denoiser has learned"


@pytest.fixture(scope="module")
def network():
    return pretrained_unet()


def test_the_error_is_that_of_the_exact_denoiser_of_a_gaussian():
    prior = GaussianPrior(np.zeros((32, 32)), np.eye(1024))
    found = float(denoising_error(prior, torch.zeros(1, 1, 32, 32, dtype=torch.float64))[0])
    # of x = 0 the posterior mean is signal noise z; noise / signal is about NOISE, and z's size about one
    assert found == pytest.approx(NOISE / (1 + NOISE**2), rel=0.05)


def test_an_image_has_the_same_error_in_any_batch(network):
    x = ellipses(70, 32, 5)[:, None]
    alone = torch.cat([denoising_error(network, x[k : k + 1]) for k in (0, 69)])
    torch.testing.assert_close(denoising_error(network, x)[[0, 69]], alone, rtol=1e-4, atol=0)


@pytest.mark.parametrize("method", [DDS, DDNM, DiffPIR])
def test_photographs_are_told_and_ellipses_are_not(network, method):
    A = SuperResolution((32, 32), 2)
    ours, theirs = ellipses(2, 32, 11), photo_patches(2, 32, 3)
    assert ODD not in method(network, A, steps=10).solve(A.A(ours), progress=False).message
    assert (
        f"2 of 2 images are {ODD}" in method(network, A, steps=10).solve(A.A(theirs), progress=False).message
    )


@pytest.mark.parametrize(("scale", "shift"), [(255.0, 0.0), (0.5, 0.5), (1.0, 1.5)])
def test_data_in_another_unit_are_told(network, scale, shift):
    A = Radon(32, 8)
    message = (
        DDS(network, A, steps=5).solve(A.A(scale * ellipses(1, 32, 4)[0] + shift), progress=False).message
    )
    assert f"The image is {ODD}" in message
    assert "the unit of y" in message


def test_slices_of_a_volume_are_judged_one_by_one(network):
    volume = ellipsoids(3, 32, 1)
    volume[1] = photo_patches(1, 32, 3)[0]
    A = SliceStack(Inpainting(np.ones((32, 32))), 3)
    assert f"1 of 3 images are {ODD}" in DDS(network, A, steps=3).solve(A.A(volume), progress=False).message


def test_a_denoiser_that_knows_no_usual_error_says_nothing():
    A = Inpainting(np.ones((8, 8)))
    found = DDS(UNet(widths=(4, 8)), A, steps=2).solve(99.0 * torch.ones(8, 8), progress=False)
    assert found.message == "2 steps done."


def test_the_usual_error_is_measured_kept_and_forgotten(tmp_path):
    network = train_unet(side=8, steps=2, batch=2, network=UNet(widths=(4, 8)), progress=False).x
    assert 0 < network.usual_error < 1
    save_unet(tmp_path / "a.safetensors", network)
    assert load_unet(tmp_path / "a.safetensors").usual_error == network.usual_error
    learning = DenoiserLearning(torch.zeros(2, 1, 8, 8), batch=2)
    other = solve(learning, EMATraining(network.train(), steps=1), stop=Stop(steps=1), progress=False).x
    assert other.usual_error is None


def test_images_of_another_shape_are_refused(network):
    with pytest.raises(InvalidProblem, match="count, channels, height, width"):
        denoising_error(network, ellipses(2))
    with pytest.raises(NotFinite):
        denoising_error(network, torch.full((1, 1, 32, 32), torch.nan))
