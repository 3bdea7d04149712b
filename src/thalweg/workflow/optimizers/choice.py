"""Texts and categories by trial: a bandit for each."""

from __future__ import annotations

from collections.abc import Iterable

from thalweg.core import InvalidParameter
from thalweg.core.validation import require
from thalweg.online import TsallisINF
from thalweg.workflow.constraints import Choices
from thalweg.workflow.optimizers.optimizer import Proposal, WorkflowSearch
from thalweg.workflow.parameters import ParameterNode


class ChoiceBandit(WorkflowSearch):
    """Choices with noisy scores: a `TsallisINF` bandit for each parameter with `Choices`.

    Use it for prompts, models and switches where a run costs little and its score varies. Parameters that were not
    executed learn nothing and stay.

    Args:
        parameters: nodes with `Choices` as their constraint.
        direction: ``"minimize"`` or ``"maximize"``.
        scores: the smallest and the largest score that there can be.
        seed: makes the draws repeatable.

    Raises:
        InvalidParameter: a parameter without `Choices`; a score out of ``scores``.

    Source of the bandit: Zimmert and Seldin (2021).

    >>> from thalweg.workflow import Choices, node
    >>> word = node("no", trainable=True, constraint=Choices(("no", "yes")))
    >>> bandit = ChoiceBandit([word], "maximize")
    >>> for _ in range(200):
    ...     y = word + "!"
    ...     bandit.zero_feedback(); bandit.backward(y, float(y.data == "yes!")); _ = bandit.step()
    >>> bandit.likely()[word]
    'yes'
    """

    def __init__(
        self,
        parameters: Iterable[ParameterNode],
        direction: str = "minimize",
        scores: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
    ) -> None:
        super().__init__(parameters, direction)
        require(scores[0] < scores[1], "ChoiceBandit needs scores = (smallest, largest)", got=scores)
        self.scores = scores
        self._policies: dict[ParameterNode, TsallisINF] = {}
        for i, p in enumerate(self.parameters):
            if not isinstance(p.constraint, Choices):
                raise InvalidParameter(f"ChoiceBandit: {p.name} needs constraint=Choices((...)).")
            self._policies[p] = TsallisINF(len(p.constraint.values), scale=1.0).started(seed + i)
        self._drawn: dict[ParameterNode, int] = {}
        self._mean: dict[tuple[ParameterNode, int], tuple[int, float]] = {}

    def propose(self) -> Proposal:
        """Draw a choice for each parameter that was executed."""
        loss, executed, _ = self.loss()
        low, high = sorted(self._sign * s for s in self.scores)
        if not low <= loss <= high:
            raise InvalidParameter(
                f"A score of {self._sign * loss:g} lies outside scores={self.scores}; pass the range that scores have."
            )
        share, found = (loss - low) / (high - low), Proposal()
        for p in executed:
            constraint = p.constraint
            assert isinstance(constraint, Choices)  # noqa: S101
            arm = self._drawn.pop(p, None)
            if arm is not None and constraint.index(p.data) == arm:
                self._policies[p].learn(arm, share)
            shown = constraint.index(p.data)
            if shown is not None:
                count, mean = self._mean.get((p, shown), (0, 0.0))
                self._mean[p, shown] = count + 1, mean + (share - mean) / (count + 1)
            self._drawn[p] = self._policies[p].act()
            found[p] = constraint.values[self._drawn[p]]
        return found

    def likely(self) -> Proposal:
        """The choice of each parameter with the best mean score so far."""
        found = Proposal()
        for p in self.parameters:
            seen = {arm: mean for (q, arm), (_, mean) in self._mean.items() if q is p}
            if seen and isinstance(p.constraint, Choices):
                found[p] = p.constraint.values[min(seen, key=lambda arm: seen[arm])]
        return found
