"""Linear maps of images to measurements, each with its exact adjoint."""

from thalweg.inverse.operators.base import SVD, Operator
from thalweg.inverse.operators.fourier import MaskedFFT, Sense, estimate_maps, normalised_maps
from thalweg.inverse.operators.images import Blur, Inpainting, SuperResolution, gaussian_kernel
from thalweg.inverse.operators.radon import FanBeam, Radon, Rays, transmission_noise
from thalweg.inverse.operators.slices import SliceStack

__all__ = [
    "SVD",
    "Blur",
    "FanBeam",
    "Inpainting",
    "MaskedFFT",
    "Operator",
    "Radon",
    "Rays",
    "Sense",
    "SliceStack",
    "SuperResolution",
    "estimate_maps",
    "gaussian_kernel",
    "normalised_maps",
    "transmission_noise",
]
