"""An Optuna sampler: studies live in Optuna's storages, with its workers, pruners and dashboards.

Akiba, Sano, Yanase, Ohta and Koyama (2019), "Optuna".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from thalweg.blackbox.guard import Guard, guarded
from thalweg.blackbox.models import Model
from thalweg.blackbox.parameters import Categorical, Integer, Parameter, Point, Real
from thalweg.blackbox.space import Space
from thalweg.blackbox.study import Study
from thalweg.blackbox.trial import LARGEST
from thalweg.core import InvalidProblem, MissingExtra

try:
    import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalChoiceType,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, TrialState
except ImportError:
    raise MissingExtra("Optuna", "optuna") from None

#: Where Optuna's own samplers keep what a constraints function returned.
_CONSTRAINTS = "constraints"


class ThalwegSampler(BaseSampler):
    """Bayesian optimisation inside ``optuna.create_study(sampler=ThalwegSampler())``.

    Every suggestion is made from all finished trials of the storage, whoever ran them; running ones are pending
    and kept clear of. A pruned trial counts with the last value it has reported; one that has reported none counts as
    failed, unless the same point has a value. Parameters that are not in every trial (conditional ones) are sampled at
    random. ``n_jobs`` threads may share one sampler: suggestions are made one at a time.

    Args:
        acquisition, noise, batch: as for `Study`.
        startup: trials spread over the space before the model is asked. Default 2 (d + 1), d parameters.
        constraints_func: takes a finished trial, returns values that must be at most zero.
        seed: makes the suggestions repeatable in one process.

    Raises:
        MissingExtra: Optuna is not installed.
        InvalidProblem: a study with several objectives.

    >>> import optuna
    >>> optuna.logging.set_verbosity(optuna.logging.ERROR)
    >>> study = optuna.create_study(sampler=ThalwegSampler(noise="none"))
    >>> study.optimize(lambda t: (t.suggest_float("x", -2, 2) - 0.7) ** 2, n_trials=15)
    >>> study.best_value < 1e-3
    True
    """

    def __init__(
        self,
        *,
        acquisition: str = "auto",
        noise: str = "learn",
        batch: str = "joint",
        startup: int | None = None,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        seed: int = 0,
    ) -> None:
        self._acquisition, self._noise, self._batch = acquisition, noise, batch
        self._startup, self._seed = startup, seed
        self._constraints_func = constraints_func
        self._independent = optuna.samplers.RandomSampler(seed)
        self._search = optuna.search_space.IntersectionSearchSpace()
        self._held: tuple[list[tuple[str, Parameter]], dict[str, Model]] = ([], {})
        self.guard = Guard()

    @guarded
    def reseed_rng(self) -> None:
        """A stream of its own for each worker of ``n_jobs``."""
        self._independent.reseed_rng()

    @guarded
    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that every finished trial had."""
        found = self._search.calculate(study)
        return {name: d for name, d in found.items() if not d.single()}

    @guarded
    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next point, from all that the storage knows."""
        if len(study.directions) > 1:
            raise InvalidProblem("ThalwegSampler is for one objective; this study has several.")
        if not search_space:
            return {}
        space = Space({name: _parameter(d) for name, d in search_space.items()})
        ours = Study(
            space,
            study.direction.name.lower(),
            constraints=self._constraint_count(study),
            initial=self._startup,
            acquisition=self._acquisition,
            noise=self._noise,
            batch=self._batch,
            seed=self._seed,
        )
        coordinates = list(space.parameters.items())
        if self._held[0] == coordinates:
            ours._models.held = self._held[1]
        for other in study.get_trials(deepcopy=False):
            if other.number != trial.number:
                self._tell(ours, other, search_space)
        if len(ours.done) < ours.initial:
            u = space.design(max(ours.initial, trial.number + 1), self._seed)[trial.number]
            point = space.decode(u)
        else:
            # Workers that know the same must not ask the same: those before us are taken to go to the best points.
            for _ in range(self._undecided(study, trial, space)):
                ours.ask()
            ours.seed += trial.number
            point = ours.ask().point
        self._held = (coordinates, ours._models.held)
        return {name: _value(search_space[name], point[name]) for name in search_space}

    @guarded
    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 -- as Optuna's base class has it
        """A random value of a parameter that is not in every trial."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Keep the constraints of a finished trial in the storage."""
        if self._constraints_func is not None and state == TrialState.COMPLETE:
            found = [float(c) for c in self._constraints_func(trial)]
            study._storage.set_trial_system_attr(trial._trial_id, _CONSTRAINTS, found)

    def _undecided(self, study: optuna.Study, trial: FrozenTrial, space: Space) -> int:
        """How many trials are running before this one whose parameters are not in the storage yet."""
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return sum(t.number < trial.number and not set(space.parameters) <= set(t.params) for t in running)

    def _constraint_count(self, study: optuna.Study) -> int:
        counts = [len(t.system_attrs.get(_CONSTRAINTS, ())) for t in study.get_trials(deepcopy=False)]
        return max(counts, default=0)

    def _tell(self, ours: Study, other: FrozenTrial, search_space: dict[str, BaseDistribution]) -> None:
        """Add one of Optuna's trials to ours, unless it lies in another space."""
        try:
            point = {name: _coded(d, other.params[name]) for name, d in search_space.items()}
            if other.state == TrialState.PRUNED and other.value is None and _is_told(ours, point):
                return  # pruned for being there already
            if other.state in (TrialState.COMPLETE, TrialState.PRUNED) and _is_usable(other.value):
                constraints = other.system_attrs.get(_CONSTRAINTS, [0.0] * ours.constraints)
                ours.tell(point, other.value, constraints=constraints)
            elif other.state.is_finished():
                ours.tell(point, failed=True)
            elif other.state == TrialState.RUNNING:
                ours.expect(point)
        except (KeyError, ValueError):  # it has not all parameters, or others than the space allows
            return


def _is_told(ours: Study, point: Point) -> bool:
    return any(t.point == point for t in ours.done)


def _is_usable(value: float | None) -> bool:
    return value is not None and abs(value) <= LARGEST


def _parameter(distribution: BaseDistribution) -> Parameter:
    if isinstance(distribution, FloatDistribution):
        return Real(distribution.low, distribution.high, log=distribution.log)
    if isinstance(distribution, IntDistribution):
        return Integer(distribution.low, distribution.high, log=distribution.log)
    if isinstance(distribution, CategoricalDistribution):
        return Categorical(range(len(distribution.choices)))  # by number: Optuna takes equal choices, and NaN
    raise InvalidProblem(f"ThalwegSampler knows no {type(distribution).__name__}.")


def _coded(distribution: BaseDistribution, value: object) -> object:
    """Optuna's value as ours: a choice by its number."""
    if isinstance(distribution, CategoricalDistribution):
        return int(distribution.to_internal_repr(cast("CategoricalChoiceType", value)))
    return value


def _value(distribution: BaseDistribution, value: object) -> object:
    """Our value as Optuna's: a choice, or a number on the distribution's grid where it has steps."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[cast(int, value)]
    if not isinstance(value, int | float) or not isinstance(
        distribution, FloatDistribution | IntDistribution
    ):
        return value
    if distribution.step in (None, 1):
        return value
    steps = round((value - distribution.low) / distribution.step)
    return min(distribution.low + steps * distribution.step, distribution.high)
