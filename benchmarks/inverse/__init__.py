"""34: products, batched conjugate gradients and a sampler against scikit-image, a loop and deepinv."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.race import Row, race
from thalweg.inverse import (
    DDS,
    InverseProblem,
    Radon,
    Sense,
    batched_cg,
    peak_signal_noise_ratio,
    pretrained_unet,
)
from thalweg.inverse.masks import gaussian1d
from thalweg.inverse.phantoms import birdcage, ellipses

SIDE, STEPS, IMAGES = 32, 20, 8


def rows() -> Iterator[Row]:
    """A product, conjugate gradients of 64 images, and a reconstruction at equal evaluations."""
    yield sinograms()
    yield systems("Radon 16, 8 views", Radon(16, 8))
    yield systems("Radon 64, 8 views", Radon(64, 8))
    yield systems("SENSE 32, 4 coils", Sense(birdcage(4, 32), gaussian1d((32, 32))))
    yield from deepinv()


def sinograms() -> Row:
    """64 images of 64 x 64, 8 views: a product of ours, and scikit-image's one by one."""
    from skimage.transform import radon

    A = Radon(64, 8)
    rows_, columns = np.indices((64, 64)) - 32
    x = (ellipses(64, 64).numpy() + 1) * (np.hypot(rows_, columns) < 31)
    (ours, y), (peer, other) = race(
        lambda: A.A(x), lambda: np.stack([radon(image, A.angles).T for image in x]), rounds=3
    )
    gap = float(np.abs(y - other).max() / np.abs(other).max())
    return Row("34", "64 sinograms of 64 x 64, 8 views", ours, "scikit-image's radon", peer, gap, 0.0)


def systems(name: str, A: Any) -> Row:
    """Ten steps for 64 images, at once and one by one."""
    x = ellipses(64, A.image_shape[0])
    right = A.AH(A.A(x.to(torch.complex128) if A.complex_image else x))
    start = torch.zeros_like(right)

    def together() -> torch.Tensor:
        return batched_cg(A.gram, right, start, steps=10).x

    def one_by_one() -> torch.Tensor:
        return torch.cat([batched_cg(A.gram, b[None], s[None], steps=10).x for b, s in zip(right, start)])

    (fast, a), (slow, b) = race(together, one_by_one, rounds=3)
    gap = float((a - b).abs().max() / b.abs().max())
    return Row("34", f"10 CG steps of 64 images, {name}", fast, "a loop over images", slow, gap, 0.0)


def deepinv() -> Iterator[Row]:
    """Twenty evaluations of the shipped network on 8 images, ours and deepinv's DiffPIR; nothing without deepinv."""
    try:
        from deepinv.optim.data_fidelity import L2
        from deepinv.physics import GaussianNoise, LinearPhysics
        from deepinv.sampling import DiffPIR
    except ImportError:
        print("deepinv is not installed: no row against its DiffPIR.")
        return
    A, x, network = Radon(SIDE, 8), ellipses(IMAGES, SIDE, 7), pretrained_unet()
    sigma = 0.3
    y = A.measured(x, sigma)
    noise, signal = (
        torch.as_tensor(level).float() for level in (network.schedule.noise, network.schedule.signal)
    )
    scale = A.norm()

    class Denoiser(torch.nn.Module):
        """As deepinv asks: an image in [0, 1] with noise of deviation sigma, denoised."""

        def forward(self, z: torch.Tensor, sigma: Any, **options: Any) -> torch.Tensor:
            level = float(torch.as_tensor(sigma).reshape(-1)[0]) * 2
            t = int((noise / signal - level).abs().argmin())
            with torch.no_grad():
                noisy = signal[t] * (2 * z - 1)
                eps = network(noisy, torch.full((len(z),), t))
            return ((noisy - noise[t] * eps) / signal[t] + 1) / 2

    physics = LinearPhysics(
        A=lambda z, **options: A.A(z[:, 0].float())[:, None] / scale,
        A_adjoint=lambda v, **options: A.AH(v[:, 0].float())[:, None] / scale,
        noise_model=GaussianNoise(sigma / scale / 2),
        max_iter=5,
    )
    data = ((y + A.A(torch.ones_like(x))) / 2 / scale).float()[:, None]
    other = DiffPIR(Denoiser(), L2(), sigma=sigma / scale / 2, max_iter=STEPS, verbose=False, device="cpu")
    method, problem = DDS(network, steps=STEPS), InverseProblem(A, y.float(), sigma)

    def ours() -> torch.Tensor:
        state = method.init(problem, 0)
        for _ in range(STEPS):
            state = method.step(problem, state)
        return state.x

    (fast, mine), (slow, its) = race(ours, lambda: other(data, physics), rounds=2)
    yield Row(
        "34",
        f"{STEPS} evaluations, {IMAGES} images of {SIDE} x {SIDE}, 8 views, noise (accuracy: minus PSNR)",
        fast,
        "deepinv's DiffPIR",
        slow,
        -peak_signal_noise_ratio(mine.double(), x),
        -peak_signal_noise_ratio(2 * its[:, 0].double() - 1, x),
    )
