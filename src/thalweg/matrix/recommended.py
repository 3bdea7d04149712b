"""The methods for matrices with hidden structure by name, and which of them suits a problem."""

from __future__ import annotations

from thalweg.core import Method, recommended
from thalweg.matrix.alternating import (
    AutomaticAltMin,
    CGAltMin,
    CoordinateAltMin,
    ExactAltMin,
    SketchedAltMin,
)
from thalweg.matrix.dictionary_offline import (
    KTermBasis,
    MatchingStretchingProjection,
    OrthogonalMOD,
    SparsestBasis,
)
from thalweg.matrix.problem import Completion

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {
    "automatic-altmin": AutomaticAltMin,
    "cg-altmin": CGAltMin,
    "coordinate-altmin": CoordinateAltMin,
    "exact-altmin": ExactAltMin,
    "msp": MatchingStretchingProjection,
    "orthogonal-mod": OrthogonalMOD,
    "sketched-altmin": SketchedAltMin,
}


@recommended.register
def for_completion(problem: Completion) -> AutomaticAltMin | CoordinateAltMin:
    """Conjugate gradients for ranks above 16, exact steps below; coordinate descent where factors are bounded."""
    return CoordinateAltMin() if problem.nonnegative else AutomaticAltMin()


@recommended.register
def for_sparsest_bases(problem: SparsestBasis) -> MatchingStretchingProjection:
    """Matching, stretching and projection, from a random basis."""
    return MatchingStretchingProjection()


@recommended.register
def for_k_terms(problem: KTermBasis) -> OrthogonalMOD:
    """Best codes and best basis in turns, from a random basis."""
    return OrthogonalMOD()
