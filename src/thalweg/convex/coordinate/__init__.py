"""Block coordinate descent: partitions, selections and updates to combine."""

from thalweg.convex.coordinate.partition import FixedBlocks, ForestBlocks, Partition, VariableBlocks
from thalweg.convex.coordinate.selection import (
    GS,
    GSD,
    GSDHB,
    GSL,
    GSQ,
    GSR,
    Cyclic,
    GSProgress,
    LipschitzSampling,
    Random,
    Selection,
)
from thalweg.convex.coordinate.solver import BlockCoordinateDescent, HeapGreedy
from thalweg.convex.coordinate.trees import (
    greedy_forest,
    lattice,
    random_forest,
    red_black,
    solve_forest,
    tree_partition,
)
from thalweg.convex.coordinate.update import (
    BoundStep,
    GradientStep,
    MessagePassing,
    NewtonStep,
    SparseStep,
    TwoMetric,
    Update,
)

#: By the names that the command uses.
SELECTIONS: dict[str, type[Selection]] = {
    "cyclic": Cyclic,
    "random": Random,
    "lipschitz": LipschitzSampling,
    "gs": GS,
    "gsl": GSL,
    "gsd": GSD,
    "gsdhb": GSDHB,
    "gsq": GSQ,
    "gsr": GSR,
    "progress": GSProgress,
}
UPDATES: dict[str, type[Update]] = {
    "gradient": GradientStep,
    "bound": BoundStep,
    "newton": NewtonStep,
    "two-metric": TwoMetric,
}

__all__ = [
    "GS",
    "GSD",
    "GSDHB",
    "GSL",
    "GSQ",
    "GSR",
    "SELECTIONS",
    "UPDATES",
    "BlockCoordinateDescent",
    "BoundStep",
    "Cyclic",
    "FixedBlocks",
    "ForestBlocks",
    "GSProgress",
    "GradientStep",
    "HeapGreedy",
    "LipschitzSampling",
    "MessagePassing",
    "NewtonStep",
    "Partition",
    "Random",
    "Selection",
    "SparseStep",
    "TwoMetric",
    "Update",
    "VariableBlocks",
    "greedy_forest",
    "lattice",
    "random_forest",
    "red_black",
    "solve_forest",
    "tree_partition",
]
