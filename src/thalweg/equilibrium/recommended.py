"""The methods for monotone inclusions and games by name, and which of them suits a problem."""

from __future__ import annotations

from typing import Any

from thalweg.core import Method, recommended
from thalweg.equilibrium.baselines import (
    PDHG,
    SVRG,
    AnchoredExtragradient,
    Extragradient,
    ForwardReflectedBackward,
    Halpern,
    VRExtragradient,
)
from thalweg.equilibrium.halpern import VRHalpern
from thalweg.equilibrium.inexact import InexactHalpern
from thalweg.equilibrium.markov import MarkovGame, ShapleyIteration
from thalweg.equilibrium.problem import MonotoneInclusion

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method[Any, Any]]] = {
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
def for_inclusions(problem: MonotoneInclusion) -> InexactHalpern:
    """Inexact Halpern with variance reduction: it asks for no cocoercivity."""
    return InexactHalpern()


@recommended.register
def for_markov_games(problem: MarkovGame) -> ShapleyIteration:
    """Shapley's iteration."""
    return ShapleyIteration()
