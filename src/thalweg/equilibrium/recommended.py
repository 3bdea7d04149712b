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
from thalweg.equilibrium.pdhg import PDHG, is_game
from thalweg.equilibrium.problem import MonotoneInclusion
from thalweg.equilibrium.programs import LinearProgram
from thalweg.equilibrium.shapley import ShapleyIteration
from thalweg.equilibrium.variance_reduced import SVRG, VRExtragradient

#: Components from which sampling them pays for the inner loops.
MANY = 500
#: The predicted gain over restarted PDHG from which sampling beats the anchored and extragradient methods.
LEAST_GAIN = 0.4

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
    """PDHG for bilinear games; else restarted Halpern where sampling many components pays, extragradient where not.

    A bilinear game's F is two products with a matrix: PDHG is ahead by the clock even where sampling would evaluate
    less, see `Sampling.predicted_gain`.
    """
    if is_game(problem):
        return PDHG()
    if problem.count < MANY or problem.sampling().predicted_gain < LEAST_GAIN:
        return Extragradient()
    return InexactHalpern(restart=0.5)


@recommended.register
def for_linear_programs(problem: LinearProgram) -> PDHG:
    """Restarted primal-dual hybrid gradients."""
    return PDHG()


@recommended.register
def for_markov_games(problem: MarkovGame) -> ShapleyIteration:
    """Shapley's iteration."""
    return ShapleyIteration()
