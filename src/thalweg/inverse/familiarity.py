"""Whether an image is of the kind that a denoiser has learned: by how well it tells noise from it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import check_finite
from thalweg.inverse.denoisers import AT_ONCE, Denoiser, schedule_of

#: Noise over signal at which a denoiser is asked: large against an edge's blur, small against an image.
NOISE = 1 / 3
#: Times the usual error from which an image is of another kind. Of 400 images like the learned ones the worst has 1.53.
UNLIKE = 1.6


def denoising_error(denoiser: Denoiser, images: Tensor, seed: int = 0) -> Tensor:
    """Root mean square error of each image with noise of a third of its range's half, denoised; shape (count,).

    On images like those learned it is about the same for all; a larger one tells that an image is of another kind, and
    that the denoiser invents what it does not know. All images get the same noise.

    Args:
        denoiser: its own schedule is used, else the linear one.
        images: shape (count, channels, height, width), in the range that the denoiser has learned.
        seed: of the noise.

    Raises:
        InvalidProblem: images of another shape. NotFinite: NaN in them.

    Cost: one evaluation of the denoiser, for at most 64 images at once.

    >>> from thalweg.inverse import pretrained_unet
    >>> from thalweg.inverse.phantoms import ellipses
    >>> network = pretrained_unet()
    >>> found = denoising_error(network, ellipses(8)[:, None]) / network.usual_error
    >>> bool((found < UNLIKE).all()), bool((denoising_error(network, torch.zeros(1, 1, 32, 32)) > 0).all())
    (True, True)
    """
    if images.ndim != 4 or not images.numel() or not images.is_floating_point():
        raise InvalidProblem(
            f"denoising_error: images have shape {tuple(images.shape)} of {images.dtype}; expected real numbers, "
            "(count, channels, height, width)."
        )
    check_finite("denoising_error: images", images.detach().cpu().numpy())
    schedule = schedule_of(denoiser, None)
    t = int(np.abs(np.asarray(schedule.noise) / np.asarray(schedule.signal) - NOISE).argmin())
    signal, noise = schedule.levels(t)
    parameter = next(denoiser.parameters(), None) if isinstance(denoiser, torch.nn.Module) else None
    x = images if parameter is None else images.to(parameter.device, parameter.dtype)
    z = torch.randn(x.shape[1:], generator=torch_generator(seed, 0x34, 2), dtype=torch.float64).to(x)
    errors = []
    with torch.no_grad():
        for part in torch.split(x, AT_ONCE):
            eps = denoiser(signal * part + noise * z, torch.full((len(part),), t, device=x.device))
            errors.append((eps[:, : x.shape[1]] - z).square().mean((1, 2, 3)).sqrt().double())
    return torch.cat(errors) * (noise / signal)


def told(denoiser: Denoiser, images: Tensor) -> str:
    """A sentence where images are of another kind than the denoiser's; empty where all are, or nothing is known."""
    usual: float | None = getattr(denoiser, "usual_error", None)
    if usual is None:
        return ""
    ratio = denoising_error(denoiser, images) / usual
    odd = ratio[ratio > UNLIKE]
    if not len(odd):
        return ""
    whose = "The image is" if len(images) == 1 else f"{len(odd)} of {len(images)} images are"
    return (
        f"{whose} unlike those that the denoiser has learned: it errs {float(odd.max()):.2g} times as much as usual. "
        "What the data leave open is invented. Look at the unit of y, use TVADMM, or a denoiser of such images."
    )
