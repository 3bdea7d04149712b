"""The methods for expensive functions and for tables of sequences by name, and which of them suits one."""

from __future__ import annotations

from thalweg.blackbox.bayesian import BayesianOptimization
from thalweg.blackbox.design.bidirectional import BidirectionalDesign, ProxyAscent
from thalweg.blackbox.design.conservative import ConservativeAscent
from thalweg.blackbox.design.problem import SequenceTable
from thalweg.blackbox.design.searches import (
    BestRows,
    EvolvedLetters,
    ImprovementDesign,
    LetterPolicy,
    RandomMutation,
)
from thalweg.blackbox.problem import BlackBox
from thalweg.blackbox.samplers import OptunaSampling, SpaceFilling
from thalweg.core import InvalidParameter, Method, recommended
from thalweg.core.contestant import contestant

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {
    "bayesian-optimization": BayesianOptimization,
    "best-rows": BestRows,
    "bidirectional-design": BidirectionalDesign,
    "conservative-ascent": ConservativeAscent,
    "evolved-letters": EvolvedLetters,
    "improvement-design": ImprovementDesign,
    "letter-policy": LetterPolicy,
    "optuna-sampling": OptunaSampling,
    "proxy-ascent": ProxyAscent,
    "random-mutation": RandomMutation,
    "space-filling": SpaceFilling,
}


@recommended.register
def for_black_boxes(problem: BlackBox) -> BayesianOptimization:
    """Bayesian optimisation with its defaults."""
    return BayesianOptimization()


@recommended.register
def for_sequence_tables(problem: SequenceTable) -> BidirectionalDesign:
    """Bidirectional design with its defaults."""
    return BidirectionalDesign()


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
