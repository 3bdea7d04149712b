"""Why training works: questions about the loss and its minima, with answers that are measured."""

from thalweg.landscape import double_descent, permutation
from thalweg.landscape.barriers import (
    Kinks,
    LayerTable,
    barrier_by_curvature,
    barrier_by_ends,
    barrier_by_midpoint,
    layer_table,
)
from thalweg.landscape.branches import Ridges, Spawned, late_decay, ridges, spawn
from thalweg.landscape.curvature import (
    Eigenpairs,
    Trace,
    along,
    fisher_form,
    gradient,
    hessian,
    top_eigenvalues,
    trace,
)
from thalweg.landscape.recommended import METHODS
from thalweg.landscape.slices import (
    Line,
    Plane,
    cosine,
    filter_normalised,
    interpolate,
    plane,
    radial,
    random_plane,
)
from thalweg.landscape.surface import LossSurface, Unmoved
from thalweg.landscape.toy import Mountainside

__all__ = [
    "METHODS",
    "Eigenpairs",
    "Kinks",
    "LayerTable",
    "Line",
    "LossSurface",
    "Mountainside",
    "Plane",
    "Ridges",
    "Spawned",
    "Trace",
    "Unmoved",
    "along",
    "barrier_by_curvature",
    "barrier_by_ends",
    "barrier_by_midpoint",
    "cosine",
    "double_descent",
    "filter_normalised",
    "fisher_form",
    "gradient",
    "hessian",
    "interpolate",
    "late_decay",
    "layer_table",
    "permutation",
    "plane",
    "radial",
    "random_plane",
    "ridges",
    "spawn",
    "top_eigenvalues",
    "trace",
]
