"""A game, a monotone inclusion: ``0 in F(u) + G(u)`` with F a finite sum."""

from thalweg.equilibrium.deterministic import (
    AnchoredExtragradient,
    Extragradient,
    ForwardReflectedBackward,
    Halpern,
)
from thalweg.equilibrium.games import (
    adversarial_classification,
    linear_gan,
    matrix_game,
    nemirovski,
    policeman_and_burglar,
    random_game,
    robust_regression,
)
from thalweg.equilibrium.halpern import VRHalpern
from thalweg.equilibrium.inexact import InexactHalpern
from thalweg.equilibrium.markov import MarkovGame, random_markov_game, stage_games
from thalweg.equilibrium.operators import (
    Bilinear,
    Components,
    Functions,
    ScaledIdentity,
    SumOfComponents,
)
from thalweg.equilibrium.pdhg import PDHG
from thalweg.equilibrium.problem import MonotoneInclusion, NotMonotone, estimate_lipschitz
from thalweg.equilibrium.programs import LinearProgram, linear_program
from thalweg.equilibrium.recommended import METHODS
from thalweg.equilibrium.sampling import SamplingReport
from thalweg.equilibrium.shapley import ShapleyIteration
from thalweg.equilibrium.variance_reduced import SVRG, VRExtragradient

__all__ = [
    "METHODS",
    "PDHG",
    "SVRG",
    "AnchoredExtragradient",
    "Bilinear",
    "Components",
    "Extragradient",
    "ForwardReflectedBackward",
    "Functions",
    "Halpern",
    "InexactHalpern",
    "LinearProgram",
    "MarkovGame",
    "MonotoneInclusion",
    "NotMonotone",
    "SamplingReport",
    "ScaledIdentity",
    "ShapleyIteration",
    "SumOfComponents",
    "VRExtragradient",
    "VRHalpern",
    "adversarial_classification",
    "estimate_lipschitz",
    "linear_gan",
    "linear_program",
    "matrix_game",
    "nemirovski",
    "policeman_and_burglar",
    "random_game",
    "random_markov_game",
    "robust_regression",
    "stage_games",
]
