"""The methods for expensive functions by name, and which of them suits one."""

from __future__ import annotations

from thalweg.blackbox.bayesian import BayesianOptimization
from thalweg.blackbox.problem import BlackBox
from thalweg.blackbox.samplers import OptunaSampling, SpaceFilling
from thalweg.core import InvalidParameter, Method, recommended
from thalweg.core.contestant import contestant

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {
    "bayesian-optimization": BayesianOptimization,
    "optuna-sampling": OptunaSampling,
    "space-filling": SpaceFilling,
}


@recommended.register
def for_black_boxes(problem: BlackBox) -> BayesianOptimization:
    """Bayesian optimisation with its defaults."""
    return BayesianOptimization()


@contestant.register
def of_black_boxes(problem: BlackBox, entrant: object) -> Method[BlackBox]:
    """Any of Optuna's samplers, as a class."""
    if isinstance(entrant, Method):
        return entrant
    if isinstance(entrant, type) and hasattr(entrant, "sample_independent"):
        return OptunaSampling(entrant)
    raise InvalidParameter(
        f"A BlackBox is compared by methods and by classes of Optuna's samplers; got {entrant!r}."
    )
