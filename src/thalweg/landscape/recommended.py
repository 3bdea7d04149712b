"""The methods of the area by name, and which of them suits a problem."""

from __future__ import annotations

from thalweg.core import Method, recommended
from thalweg.landscape.permutation.activations import ActivationMatching, StraightThrough
from thalweg.landscape.permutation.matching import WeightMatching
from thalweg.landscape.permutation.problem import Rebasin
from thalweg.landscape.permutation.sinkhorn import SinkhornMatching

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {
    "activation-matching": ActivationMatching,
    "sinkhorn": SinkhornMatching,
    "straight-through": StraightThrough,
    "weight-matching": WeightMatching,
}


@recommended.register
def for_two_networks(problem: Rebasin) -> WeightMatching:
    """Weight matching: no data, seconds."""
    return WeightMatching()
