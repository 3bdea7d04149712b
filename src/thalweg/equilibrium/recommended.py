"""The methods for monotone inclusions and games by name, and which of them suits a problem."""

from __future__ import annotations

from thalweg.core import Method, recommended
from thalweg.equilibrium.deterministic import (
    AnchoredExtragradient,
    Extragradient,
    ForwardReflectedBackward,
    Halpern,
)
from thalweg.equilibrium.halpern import VRHalpern
from thalweg.equilibrium.inexact import InexactHalpern
from thalweg.equilibrium.markov import MarkovGame
from thalweg.equilibrium.operators import Bilinear
from thalweg.equilibrium.pdhg import PDHG
from thalweg.equilibrium.problem import MonotoneInclusion
from thalweg.equilibrium.programs import LinearProgram
from thalweg.equilibrium.shapley import ShapleyIteration
from thalweg.equilibrium.variance_reduced import SVRG, VRExtragradient

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {
    "anchored-extragradient": AnchoredExtragradient,
    "extragradient": Extragradient,
    "forward-reflected-backward": ForwardReflectedBackward,
    "halpern": Halpern,
    "inexact-halpern": InexactHalpern,
    "pdhg": PDHG,
    "shapley": ShapleyIteration,
    "svrg": SVRG,
    "vr-extragradient": VRExtragradient,
    "vr-halpern": VRHalpern,
}


@recommended.register
def for_inclusions(problem: MonotoneInclusion) -> PDHG | Extragradient | InexactHalpern:
    """PDHG for bilinear games; else restarted Halpern where sampling is predicted to pay, or extragradient.

    A bilinear game's F is two products with a matrix: by the clock PDHG is ahead even where sampling evaluates less, so
    `predicted_gain` decides for other sums. None of the three asks for cocoercivity.
    """
    components = problem.components
    if isinstance(components, Bilinear) and not components.regularisation:
        return PDHG()
    return InexactHalpern(restart=0.5) if problem.sampling.predicted_gain >= 1.0 else Extragradient()


@recommended.register
def for_linear_programs(problem: LinearProgram) -> PDHG:
    """Restarted primal-dual hybrid gradients."""
    return PDHG()


@recommended.register
def for_markov_games(problem: MarkovGame) -> ShapleyIteration:
    """Shapley's iteration."""
    return ShapleyIteration()
