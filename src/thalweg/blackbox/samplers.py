"""Ways to choose points that learn nothing, and Optuna's: what Bayesian optimisation is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from thalweg.blackbox.method import StudyState, evaluated
from thalweg.blackbox.parameters import Categorical, Integer, Parameter, Real
from thalweg.blackbox.problem import BlackBox
from thalweg.blackbox.study import Study
from thalweg.core import InvalidProblem, Method, MissingExtra

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.distributions import BaseDistribution, CategoricalChoiceType
    from optuna.samplers import BaseSampler

#: Points of a space-filling design drawn at once.
BLOCK = 64


@dataclass(frozen=True)
class SpaceFilling(Method[BlackBox, StudyState]):
    """Points spread over the space, whatever came out before: the floor of any comparison.

    Args:
        kind: ``"sobol"``, or ``"lhs"`` for a Latin hypercube.

    Cost per step: the evaluation.
    """

    in_place: ClassVar[bool] = True

    kind: Literal["sobol", "lhs"] = "sobol"

    def init(self, problem: BlackBox, seed: int) -> StudyState:
        return StudyState(study=Study(problem.space, problem.direction, seed=seed))

    def step(self, problem: BlackBox, state: StudyState) -> StudyState:
        done = len(state.study.trials)
        space = state.study.space  # whose parameters keep their order when a run is resumed
        block = space.design(BLOCK, state.study.seed + 1_000_003 * (done // BLOCK), self.kind)
        return evaluated(problem, state, space.decode(block[done % BLOCK]))


@dataclass(kw_only=True)
class OptunaState(StudyState):
    """Our own study of what was told, and Optuna's; it cannot be saved."""

    theirs: OptunaStudy = field(repr=False)


@dataclass(frozen=True, eq=False)
class OptunaSampling(Method[BlackBox, OptunaState]):
    """One of Optuna's samplers on a black box, by ask and tell.

    Args:
        sampler: its class, or a function of the seed that makes one.

    Raises:
        MissingExtra: Optuna is not installed.
        InvalidProblem: the space knows constraints, which Optuna's samplers do not take.

    Cost per step: the sampler's, and the evaluation.
    """

    in_place: ClassVar[bool] = True

    sampler: Callable[..., BaseSampler]

    @property
    def name(self) -> str:
        """The sampler's."""
        return getattr(self.sampler, "__name__", "optuna")

    def init(self, problem: BlackBox, seed: int) -> OptunaState:
        try:
            import optuna
        except ImportError:
            raise MissingExtra("Optuna", "optuna") from None
        if problem.space.allowed is not None:
            raise InvalidProblem(
                "Optuna's samplers take no constraints on the space. Use BayesianOptimization."
            )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        theirs = optuna.create_study(direction=problem.direction, sampler=self.sampler(seed=seed))
        return OptunaState(study=Study(problem.space, problem.direction, seed=seed), theirs=theirs)

    def step(self, problem: BlackBox, state: OptunaState) -> OptunaState:
        from optuna.trial import TrialState

        theirs = state.theirs
        trial = theirs.ask({name: _distribution(p) for name, p in problem.space.parameters.items()})
        space, values = problem.space, trial.params
        point = {name: values[name] for name in space.parameters if space.active(name, values)}
        after = evaluated(problem, state, point)
        value = after.study.trials[-1].value
        if value is None:
            theirs.tell(trial, state=TrialState.FAIL)
        else:
            theirs.tell(trial, value)
        return after


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, Real):
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    if isinstance(parameter, Integer):
        return IntDistribution(parameter.low, parameter.high, log=parameter.log)
    if isinstance(parameter, Categorical):
        return CategoricalDistribution(cast("Sequence[CategoricalChoiceType]", parameter.choices))
    raise InvalidProblem(f"Optuna has no distribution for a {type(parameter).__name__}.")
