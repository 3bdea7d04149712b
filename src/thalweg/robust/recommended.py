"""The methods for two-stage robust problems by name, and which of them suits a problem."""

from __future__ import annotations

from thalweg.core import Method, recommended
from thalweg.robust.baselines import ColumnConstraint, KAdaptable, Nominal, RelaxedRecourse, StaticRobust
from thalweg.robust.ccg import NeuralCCG
from thalweg.robust.certified import Certified
from thalweg.robust.problem import TwoStageRobust

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {
    "certified": Certified,
    "neur2ro": NeuralCCG,
    "relaxed": RelaxedRecourse,
    "static": StaticRobust,
    "nominal": Nominal,
    "k-adaptable": KAdaptable,
    "ccg": ColumnConstraint,
}


@recommended.register
def for_two_stage(problem: TwoStageRobust) -> Certified | ColumnConstraint:
    """The exact loop where plans are continuous, else the best of all with its proof."""
    return Certified() if problem.has_exact_plans else ColumnConstraint()
