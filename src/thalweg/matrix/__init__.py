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
from thalweg.matrix.problem import Completion
from thalweg.matrix.recommended import METHODS

__all__ = [
    "METHODS",
    "AltMin",
    "AutomaticAltMin",
    "CGAltMin",
    "Completion",
    "CoordinateAltMin",
    "ExactAltMin",
    "SketchedAltMin",
    "Underdetermined",
]
