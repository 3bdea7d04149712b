"""Measurements to turn back into an image: operators with exact adjoints, and diffusion models as priors."""

from thalweg.inverse.classical import CGSense, FilteredBackProjection, PseudoInverse
from thalweg.inverse.conjugate import BatchedSolution, batched_cg
from thalweg.inverse.ddnm import DDNM
from thalweg.inverse.ddrm import DDRM
from thalweg.inverse.dds import DDS
from thalweg.inverse.denoisers import DiffusersDenoiser, ScoreDenoiser, load_diffusers
from thalweg.inverse.diffpir import DiffPIR
from thalweg.inverse.diffusion import Diffusion, PosteriorSamples
from thalweg.inverse.dps import DPS, MCG
from thalweg.inverse.familiarity import denoising_error
from thalweg.inverse.operators import (
    SVD,
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
    estimate_maps,
    gaussian_kernel,
    normalised_maps,
    transmission_noise,
)
from thalweg.inverse.priors import GaussianPrior, MixturePrior
from thalweg.inverse.problem import InverseProblem
from thalweg.inverse.quality import peak_signal_noise_ratio, ssim
from thalweg.inverse.recommended import METHODS
from thalweg.inverse.schedules import Schedule
from thalweg.inverse.total_variation import TVADMM
from thalweg.inverse.unet import UNet, load_unet, pretrained_unet, save_unet
from thalweg.inverse.unet_training import DenoiserLearning, EMATraining, train_unet

__all__ = [
    "DDNM",
    "DDRM",
    "DDS",
    "DPS",
    "MCG",
    "METHODS",
    "SVD",
    "TVADMM",
    "BatchedSolution",
    "Blur",
    "CGSense",
    "DenoiserLearning",
    "DiffPIR",
    "DiffusersDenoiser",
    "Diffusion",
    "EMATraining",
    "FanBeam",
    "FilteredBackProjection",
    "GaussianPrior",
    "Inpainting",
    "InverseProblem",
    "MaskedFFT",
    "MixturePrior",
    "Operator",
    "PosteriorSamples",
    "PseudoInverse",
    "Radon",
    "Rays",
    "Schedule",
    "ScoreDenoiser",
    "Sense",
    "SliceStack",
    "SuperResolution",
    "UNet",
    "batched_cg",
    "denoising_error",
    "estimate_maps",
    "gaussian_kernel",
    "load_diffusers",
    "load_unet",
    "normalised_maps",
    "peak_signal_noise_ratio",
    "pretrained_unet",
    "save_unet",
    "ssim",
    "train_unet",
    "transmission_noise",
]
