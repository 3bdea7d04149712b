"""Which method finds an orthonormal basis of data that are all there."""

from __future__ import annotations

from thalweg.core import recommended
from thalweg.matrix.dictionary_offline import (
    KTermBasis,
    MatchingStretchingProjection,
    OrthogonalMOD,
    SparsestBasis,
)


@recommended.register
def for_sparsest_bases(problem: SparsestBasis) -> MatchingStretchingProjection:
    """Matching, stretching and projection, from a random basis."""
    return MatchingStretchingProjection()


@recommended.register
def for_k_terms(problem: KTermBasis) -> OrthogonalMOD:
    """Best codes and best basis in turns, from a random basis."""
    return OrthogonalMOD()
