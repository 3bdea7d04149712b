"""The methods for expensive functions by name, and which of them suits one."""

from __future__ import annotations

from typing import Any

from thalweg.blackbox.problem import BayesianOptimization, BlackBox
from thalweg.core import Method, recommended

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method[Any, Any]]] = {
    "bayesian-optimization": BayesianOptimization,
}


@recommended.register
def for_black_boxes(problem: BlackBox) -> BayesianOptimization:
    """Bayesian optimisation with its defaults."""
    return BayesianOptimization()
