"""An optimization inside another: derivatives of solutions with respect to what the problem was made of."""

from thalweg.bilevel._root import NotARoot, SolveInaccurate
from thalweg.bilevel.bisection import bisection
from thalweg.bilevel.blocks import BlockDescent
from thalweg.bilevel.implicit import (
    Precision,
    custom_fixed_point,
    custom_root,
    precision,
    root_jvp,
    root_vjp,
)
from thalweg.bilevel.inner import (
    Anderson,
    Composite,
    MirrorDescent,
    Newton,
    ProximalGradient,
    differentiable,
)
from thalweg.bilevel.scipy_solvers import scipy_minimize, scipy_root

__all__ = [
    "Anderson",
    "BlockDescent",
    "Composite",
    "MirrorDescent",
    "Newton",
    "NotARoot",
    "Precision",
    "ProximalGradient",
    "SolveInaccurate",
    "bisection",
    "custom_fixed_point",
    "custom_root",
    "differentiable",
    "precision",
    "root_jvp",
    "root_vjp",
    "scipy_minimize",
    "scipy_root",
]
