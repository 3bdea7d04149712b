"""Gaussian processes: exact, batched over models, with derivatives, tasks and fidelities, and sparse ones."""

from thalweg.numerics.gaussian_process.derivatives import Derivative, Warped, with_gradients
from thalweg.numerics.gaussian_process.kernels import (
    RBF,
    Coregion,
    Downsampling,
    Kernel,
    Linear,
    Matern,
    Periodic,
    Product,
    RationalQuadratic,
    Scaled,
    Stationary,
    Sum,
)
from thalweg.numerics.gaussian_process.model import GaussianProcess, standardised
from thalweg.numerics.gaussian_process.paths import Paths, draw_paths, spectral_frequencies
from thalweg.numerics.gaussian_process.posterior import NearSingular, Posterior, cholesky
from thalweg.numerics.gaussian_process.sparse import SparsePosterior, inducing_points, sparse_posterior

__all__ = [
    "RBF",
    "Derivative",
    "Downsampling",
    "GaussianProcess",
    "Kernel",
    "Linear",
    "Matern",
    "NearSingular",
    "Paths",
    "Periodic",
    "Posterior",
    "Product",
    "RationalQuadratic",
    "Scaled",
    "SparsePosterior",
    "Stationary",
    "Sum",
    "Coregion",
    "Warped",
    "cholesky",
    "draw_paths",
    "inducing_points",
    "sparse_posterior",
    "spectral_frequencies",
    "standardised",
    "with_gradients",
]
