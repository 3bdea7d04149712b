"""Networks from different seeds, brought into one basin by permuting hidden units: match, merge, and see why."""

from thalweg.landscape.permutation.activations import ActivationMatching, StraightThrough
from thalweg.landscape.permutation.matching import WeightMatching
from thalweg.landscape.permutation.merging import (
    Matched,
    match,
    merge,
    merge_many,
    recomputed,
)
from thalweg.landscape.permutation.preserving import check_preserved
from thalweg.landscape.permutation.problem import Rebasin
from thalweg.landscape.permutation.repairing import repair
from thalweg.landscape.permutation.singular_vectors import Alignment, alignment, input_energy
from thalweg.landscape.permutation.sinkhorn import SinkhornMatching
from thalweg.landscape.permutation.specification import (
    Axis,
    Factor,
    Permutation,
    PermutationSpec,
    Segment,
)
from thalweg.landscape.permutation.tracing import trace_permutations
from thalweg.landscape.permutation.weights import load_weights, mixed, save_weights

__all__ = [
    "ActivationMatching",
    "Alignment",
    "Axis",
    "Factor",
    "Matched",
    "Permutation",
    "PermutationSpec",
    "Rebasin",
    "Segment",
    "SinkhornMatching",
    "StraightThrough",
    "WeightMatching",
    "alignment",
    "check_preserved",
    "input_energy",
    "load_weights",
    "match",
    "merge",
    "merge_many",
    "mixed",
    "recomputed",
    "repair",
    "save_weights",
    "trace_permutations",
]
