"""Few dear runs: a model of the score over the parameters says where to look."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from thalweg.blackbox import Categorical, Integer, Parameter, Real, Study, Trial
from thalweg.core import InvalidParameter
from thalweg.workflow.constraints import Bounds, Choices
from thalweg.workflow.optimizers.optimizer import Proposal, WorkflowSearch
from thalweg.workflow.parameters import ParameterNode


class BayesSearch(WorkflowSearch):
    """Bayesian optimization of the parameters that were executed: a `thalweg.blackbox.Study` behind the trace.

    Use it for up to some twenty numbers and choices where a run takes longer than a second. Each set of parameters
    that is executed together has a study of its own; the next trial comes from that of the best run.

    Args:
        parameters: nodes with `Bounds` or `Choices`.
        direction: ``"minimize"`` or ``"maximize"``.
        noise: ``"learn"``, or ``"none"`` where equal values give equal scores.
        seed: makes the trials repeatable.

    Raises:
        InvalidParameter: a parameter without bounds and choices.

    Cost per step: one run, and some tens of milliseconds for the model.
    """

    def __init__(
        self,
        parameters: Iterable[ParameterNode],
        direction: str = "minimize",
        noise: str = "learn",
        seed: int = 0,
    ) -> None:
        super().__init__(parameters, direction)
        self.noise, self.seed = noise, seed
        self._space = {p: _parameter(p) for p in self.parameters}
        self._studies: dict[frozenset[ParameterNode], Study] = {}
        self._asked: tuple[frozenset[ParameterNode], Trial] | None = None
        self._home: frozenset[ParameterNode] = frozenset()

    def propose(self) -> Proposal:
        """The point that promises most."""
        loss, executed, better = self.loss()
        inside, told = frozenset(executed), None
        if self._asked is not None:
            told, trial = self._asked
            self._studies[told].tell(trial, loss)
        if inside != told:
            self._study(inside).tell(self._point(inside), loss)
        if better:
            self._home = inside
        trial = self._study(self._home).ask()
        self._asked = self._home, trial
        names = {str(i): p for i, p in enumerate(self.parameters)}
        found = {names[name]: value for name, value in trial.point.items()}
        return {**self.best, **found}

    def _study(self, inside: frozenset[ParameterNode]) -> Study:
        if inside not in self._studies:
            space = {str(i): self._space[p] for i, p in enumerate(self.parameters) if p in inside}
            self._studies[inside] = Study(space, noise=self.noise, seed=self.seed)
        return self._studies[inside]

    def _point(self, inside: frozenset[ParameterNode]) -> dict[str, object]:
        return {str(i): p.data for i, p in enumerate(self.parameters) if p in inside}


def _parameter(p: ParameterNode) -> Parameter:
    bounds = p.constraint
    if isinstance(bounds, Choices):
        return Categorical(cast("tuple[str, ...]", bounds.values))
    if not isinstance(bounds, Bounds):
        raise InvalidParameter(f"BayesSearch: {p.name} needs constraint=Bounds(low, high) or Choices((...)).")
    if bounds.whole:
        return Integer(int(bounds.low), int(bounds.high), log=bounds.log)
    return Real(bounds.low, bounds.high, log=bounds.log)
