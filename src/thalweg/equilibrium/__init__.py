"""A game, a monotone inclusion: ``0 in F(u) + G(u)`` with F a finite sum."""

from thalweg.equilibrium.baselines import (
    PDHG,
    AnchoredExtragradient,
    Extragradient,
    ForwardReflectedBackward,
    Halpern,
    VRExtragradient,
)
from thalweg.equilibrium.games import (
    linear_program,
    matrix_game,
    nemirovski,
    policeman_and_burglar,
    random_game,
    robust_regression,
)
from thalweg.equilibrium.halpern import VRHalpern
from thalweg.equilibrium.inexact import InexactHalpern
from thalweg.equilibrium.operators import Bilinear, Components, Functions, Scaled, Sum
from thalweg.equilibrium.problem import MonotoneInclusion, NotMonotone, estimate_lipschitz

__all__ = [
    "PDHG",
    "AnchoredExtragradient",
    "Bilinear",
    "Components",
    "Extragradient",
    "ForwardReflectedBackward",
    "Functions",
    "Halpern",
    "InexactHalpern",
    "MonotoneInclusion",
    "NotMonotone",
    "Scaled",
    "Sum",
    "VRExtragradient",
    "VRHalpern",
    "estimate_lipschitz",
    "linear_program",
    "matrix_game",
    "nemirovski",
    "policeman_and_burglar",
    "random_game",
    "robust_regression",
]
