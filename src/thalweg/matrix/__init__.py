"""Matrices with hidden structure: orthonormal bases in which a stream of samples is sparse."""

from thalweg.matrix import dictionary_recommended as _  # registers the methods
from thalweg.matrix.dictionary import OnlineDictionary
from thalweg.matrix.dictionary_alignment import match_atoms, recovery_error
from thalweg.matrix.dictionary_codes import compression_ratio
from thalweg.matrix.dictionary_merge import merge_dictionaries
from thalweg.matrix.dictionary_offline import (
    KTermBasis,
    MatchingStretchingProjection,
    OrthogonalMOD,
    SparsestBasis,
)
from thalweg.matrix.dictionary_patches import (
    cosines,
    denoise,
    from_patches,
    grey_photographs,
    patch_stream,
    patches,
    psnr,
)
from thalweg.matrix.dictionary_streams import SparseStream, minibatches

__all__ = [
    "KTermBasis",
    "MatchingStretchingProjection",
    "OnlineDictionary",
    "OrthogonalMOD",
    "SparseStream",
    "SparsestBasis",
    "compression_ratio",
    "cosines",
    "denoise",
    "from_patches",
    "grey_photographs",
    "match_atoms",
    "merge_dictionaries",
    "minibatches",
    "patch_stream",
    "patches",
    "psnr",
    "recovery_error",
]
