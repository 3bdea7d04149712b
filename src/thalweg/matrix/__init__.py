"""Matrices with hidden structure: completion from few entries, orthonormal bases in which a stream is sparse."""

from thalweg.matrix.alternating import (
    AltMin,
    AutomaticAltMin,
    CGAltMin,
    CoordinateAltMin,
    ExactAltMin,
    SketchedAltMin,
    Underdetermined,
)
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
from thalweg.matrix.estimator import ColdWarning, MatrixCompletion
from thalweg.matrix.factors import Factors
from thalweg.matrix.held_out_error import HeldOutError, held_out_error
from thalweg.matrix.observations import Entries
from thalweg.matrix.problem import Completion
from thalweg.matrix.reading import read_entries
from thalweg.matrix.recommended import METHODS

__all__ = [
    "METHODS",
    "AltMin",
    "AutomaticAltMin",
    "CGAltMin",
    "ColdWarning",
    "Completion",
    "CoordinateAltMin",
    "Entries",
    "ExactAltMin",
    "Factors",
    "HeldOutError",
    "KTermBasis",
    "MatchingStretchingProjection",
    "MatrixCompletion",
    "OnlineDictionary",
    "OrthogonalMOD",
    "SketchedAltMin",
    "SparseStream",
    "SparsestBasis",
    "Underdetermined",
    "compression_ratio",
    "cosines",
    "denoise",
    "from_patches",
    "grey_photographs",
    "held_out_error",
    "match_atoms",
    "merge_dictionaries",
    "minibatches",
    "patch_stream",
    "patches",
    "psnr",
    "read_entries",
    "recovery_error",
]
