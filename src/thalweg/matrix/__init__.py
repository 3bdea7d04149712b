"""A matrix with hidden structure: completion from few entries."""

from thalweg.matrix.alternating import (
    AltMin,
    AutomaticAltMin,
    CGAltMin,
    CoordinateAltMin,
    ExactAltMin,
    SketchedAltMin,
    Underdetermined,
)
from thalweg.matrix.estimator import ColdWarning, MatrixCompletion
from thalweg.matrix.factors import Factors
from thalweg.matrix.held_out_error import HeldOutError, held_out_error
from thalweg.matrix.observations import Entries, read_entries
from thalweg.matrix.problem import Completion
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
    "MatrixCompletion",
    "SketchedAltMin",
    "Underdetermined",
    "held_out_error",
    "read_entries",
]
