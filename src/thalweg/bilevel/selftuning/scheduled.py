"""Training under given hyper-parameters, or a recorded schedule of them: what self-tuning is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeAlias

import torch

from thalweg.bilevel.selftuning.network import self_tuning
from thalweg.bilevel.selftuning.space import HyperSpace
from thalweg.bilevel.selftuning.tuner import Schedule, SelfTuningTask, TuningState, batch, training_loss
from thalweg.core import Method, NotFinite
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import require

Values: TypeAlias = Mapping[str, float]


@dataclass(frozen=True)
class ScheduledTraining(Method[SelfTuningTask, TuningState]):
    """The plain network, trained under fixed hyper-parameters or under a schedule of them.

    Args:
        values: of every hyper-parameter by name, or one such mapping for each step; the last one stays. `schedule_of`
            takes them from the history of a `SelfTuner`.
        optimizer, options, schedule: as for `SelfTuner`.

    The metrics of a step are ``train``, the loss on its batch. Cost per step: a plain training step.
    """

    in_place: ClassVar[bool] = True

    values: Values | Sequence[Values]
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
    options: Mapping[str, object] = field(default_factory=lambda: {"lr": 0.05, "momentum": 0.9})
    schedule: Callable[[torch.optim.Optimizer], Schedule] | None = None

    def __post_init__(self) -> None:
        require(len(self.values) >= 1, "ScheduledTraining needs values")

    def init(self, problem: SelfTuningTask, seed: int) -> TuningState:
        torch.manual_seed(seed)
        model = problem.fresh_model(seed)
        network = self_tuning(model, problem.space, dropout=problem.dropout, delta=True)
        responses = {id(p) for p in network.responses}
        optimizer = self.optimizer(
            [p for p in network.parameters() if id(p) not in responses], **self.options
        )
        network.move(problem.space.unconstrained(self._values(0)))
        return TuningState(
            x=network,
            optimizer=optimizer,
            schedule=None if self.schedule is None else self.schedule(optimizer),
            seed=seed,
        )

    def _values(self, step: int) -> Values:
        if isinstance(self.values, Mapping):
            return self.values
        return self.values[min(step, len(self.values) - 1)]

    def step(self, problem: SelfTuningTask, state: TuningState) -> TuningState:
        network, random = state.x, torch_generator(state.seed, state.step, 0x57)
        network.train()
        if not isinstance(self.values, Mapping):
            network.move(problem.space.unconstrained(self._values(state.step)))
        inputs, targets = batch(problem.train, problem.batch_size, random)
        here = network.current.expand(len(inputs), -1)
        loss = training_loss(problem, network, inputs, targets, here, random, centre=True)
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        if state.schedule is not None:
            state.schedule.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NotFinite(
                f"ScheduledTraining: the loss is {value} after {state.step} steps; lower the rate."
            )
        return replace(state, metrics={"train": value}, calls=state.calls + 1, step=state.step + 1)


def schedule_of(history: Sequence[Mapping[str, float]], space: HyperSpace) -> list[dict[str, float]]:
    """The hyper-parameters of each step of a `SelfTuner`, from ``result.history.metrics``.

    >>> from thalweg.bilevel.selftuning import HyperParameter
    >>> space = HyperSpace(HyperParameter("rate", 0.5))
    >>> schedule_of([{"rate": 0.2, "train": 1.0}, {"rate": 0.3, "train": 0.9}], space)
    [{'rate': 0.2}, {'rate': 0.3}]
    """
    return [{p.name: p.inside(step[p.name]) for p in space.parameters} for step in history]
