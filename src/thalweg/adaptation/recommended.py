"""The methods of adaptation by name, and which of them suits a task."""

from __future__ import annotations

from thalweg.adaptation.adapt import Adapt
from thalweg.adaptation.problem import AdaptationTask
from thalweg.core import Method, recommended

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {"pareto": Adapt}


@recommended.register
def for_adaptation(problem: AdaptationTask) -> Adapt:
    """DANN under the preference programme, at the rate of fresh small networks."""
    return Adapt(rate=0.03, ramp=100.0, hidden=64)
