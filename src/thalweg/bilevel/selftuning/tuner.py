"""Training a network and its hyper-parameters in one run (MacKay et al., 2019, algorithm 1; Bae and Grosse, 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, Self, TypeAlias

import torch
from torch import Tensor, nn

from thalweg.bilevel.selftuning.network import SelfTuned, self_tuning
from thalweg.bilevel.selftuning.regularisers import Augment, ExamplePenalty, cross_entropy_by_example
from thalweg.bilevel.selftuning.space import HyperSpace
from thalweg.core import InvalidProblem, Method, NotFinite, Problem, State
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import require_counts, require_positive
from thalweg.numerics.tensor_checks import require_tensors

Data: TypeAlias = Sequence[Tensor]


class Schedule(Protocol):
    """A learning-rate scheduler, as torch has them."""

    def step(self) -> None:
        """Called after every training step."""

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""


@dataclass(frozen=True, eq=False)
class SelfTuningTask(Problem):
    """A network, its data, and what hyper-parameters do to its training.

    Args:
        model: makes a fresh network; called under a seed.
        space: the hyper-parameters.
        train, validation, test: ``(inputs, targets)``, the examples along the first axis. Validation data tune the
            hyper-parameters, test data judge.
        loss: ``loss(outputs, targets, values)``, one for each example, shape (batch,); values by their names, None
            when validating. Default cross-entropy.
        dropout: which hyper-parameter is the rate of which ``Dropout`` layer.
        augment: ``augment(inputs, values, generator)``, of training inputs.
        penalties: of training, each ``penalty(network, u, values)``, shape (batch,).
        batch_size: examples a step.

    The metrics of an answer, a network, are ``validation`` and ``test``, mean losses, and their
    ``accuracy`` where the targets are classes.

    Raises:
        InvalidProblem: no validation or other data, lengths that differ.
    """

    model: Callable[[], nn.Module]
    space: HyperSpace
    train: Data
    validation: Data
    test: Data
    loss: Callable[..., Tensor] = cross_entropy_by_example
    dropout: Mapping[str, str] = field(default_factory=dict)
    augment: Augment | None = None
    penalties: Sequence[ExamplePenalty] = ()
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            data = getattr(self, name)
            lengths = [len(t) for t in data] if data is not None else []
            if len(lengths) != 2 or len(set(lengths)) != 1 or lengths[0] == 0:
                raise InvalidProblem(
                    f"SelfTuningTask.{name} needs (inputs, targets) of one length > 0; got lengths {lengths}."
                )
            require_tensors(f"SelfTuningTask.{name}", data)
        require_counts(self, "batch_size")

    @torch.no_grad()
    def metrics(self, x: nn.Module) -> dict[str, float]:
        """Losses and accuracies on validation and test data, in evaluation mode."""
        was_training = x.training
        x.eval()
        told = {}
        for name in ("validation", "test"):
            inputs, targets = getattr(self, name)
            outputs = x(inputs)
            told[name] = float(self.loss(outputs, targets, None).mean())
            if not targets.is_floating_point():
                told[f"{name} accuracy"] = float((outputs.argmax(-1) == targets).double().mean())
        x.train(was_training)
        return told

    def fresh_model(self, seed: int) -> nn.Module:
        """The network with the initial weights of a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.model()


@dataclass(kw_only=True)
class TuningState(State):
    """``x`` is the self-tuned network, overwritten by every step.

    Its own layers draw from torch's global stream, whose state is saved with it.
    """

    x: SelfTuned
    optimizer: torch.optim.Optimizer
    schedule: Schedule | None
    seed: int
    step: int = 0

    def tree(self) -> dict[str, Any]:
        """The state as plain data, for a checkpoint."""
        return {**super().tree(), "rng": torch.get_rng_state()}

    def restored(self, tree: dict[str, Any]) -> Self:
        """This freshly initialised state with the values of ``tree`` put in."""
        torch.set_rng_state(tree["rng"])
        return super().restored({name: value for name, value in tree.items() if name != "rng"})


@dataclass(kw_only=True)
class SelfTuningState(TuningState):
    """As `TuningState`, with the hyper-parameters and sigma, and their optimizer."""

    hyper: Hyper
    hyper_optimizer: torch.optim.Optimizer


class Hyper(nn.Module):
    """U and the logarithms of sigma."""

    def __init__(self, space: HyperSpace) -> None:
        super().__init__()
        self.u = nn.Parameter(space.u0)
        self.log_spread = nn.Parameter(space.spread.log())

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """``u + eps`` for each example, shape (count, hyper-parameters)."""
        noise = torch.randn(count, len(self.u), generator=generator, dtype=self.u.dtype)
        return self.u + self.log_spread.exp() * noise

    @property
    def entropy(self) -> Tensor:
        """Of ``N(0, diag sigma^2)``."""
        return (self.log_spread + 0.5 * math.log(2.0 * math.pi * math.e)).sum()


@dataclass(frozen=True)
class SelfTuner(Method[SelfTuningTask, SelfTuningState]):
    """Self-tuning networks: training steps fit the response to perturbed hyper-parameters, validation steps follow it.

    One run instead of a search, and a schedule of the hyper-parameters that no fixed value gives. For regularisers that
    the weights respond to smoothly; not for learning rates or sizes of the network, to which weights at a minimum do
    not respond (`thalweg.blackbox`, `thalweg.training.AutoLRS`).

    Args:
        delta: Delta-STN: the response is linear around the current hyper-parameters, and is fitted without moving the
            centre. A more accurate Jacobian for about twice the time of STN's training step.
        optimizer, options: of the weights; by default SGD with momentum.
        schedule: makes a learning-rate scheduler from the optimizer, stepped every training step; None for none.
        hyper_rate: of Adam, for u and log sigma; 0.003 as the authors have it.
        entropy: tau, weight of the perturbations' entropy; 0.001 as the authors have it.
        train_steps, validation_steps: how many of each before the other; 2 and 1.
        warmup: training steps before the first validation step.
        learn_spread: False keeps sigma at its first value.

    ``Stop(steps=)`` counts training steps. The metrics of a step are ``train`` and ``validation``, losses on batches,
    and every hyper-parameter's value, unrounded, and ``sigma``: the history is the schedule found.

    Cost per training step: about 2.2 plain ones; 4 with ``delta``. A validation step costs as much.
    """

    in_place: ClassVar[bool] = True

    delta: bool = False
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
    options: Mapping[str, object] = field(default_factory=lambda: {"lr": 0.05, "momentum": 0.9})
    schedule: Callable[[torch.optim.Optimizer], Schedule] | None = None
    hyper_rate: float = 0.003
    entropy: float = 0.001
    train_steps: int = 2
    validation_steps: int = 1
    warmup: int = 100
    learn_spread: bool = True

    def __post_init__(self) -> None:
        require_positive(self, "hyper_rate")
        require_positive(self, "entropy", zero=True)
        require_counts(self, "train_steps", "validation_steps")
        require_counts(self, "warmup", least=0)

    def init(self, problem: SelfTuningTask, seed: int) -> SelfTuningState:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self_tuning(problem.model(), problem.space, dropout=problem.dropout, delta=self.delta)
        torch.manual_seed(seed)  # dropout in the network's own layers
        hyper = Hyper(problem.space)
        tuned = [hyper.u, hyper.log_spread] if self.learn_spread else [hyper.u]
        optimizer = self.optimizer(network.parameters(), **self.options)
        return SelfTuningState(
            x=network,
            optimizer=optimizer,
            schedule=None if self.schedule is None else self.schedule(optimizer),
            hyper=hyper,
            hyper_optimizer=torch.optim.Adam(tuned, self.hyper_rate),
            seed=seed,
        )

    def step(self, problem: SelfTuningTask, state: SelfTuningState) -> SelfTuningState:
        random = torch_generator(state.seed, state.step, 0x57)
        metrics = dict(state.metrics)
        metrics["train"] = self._train(problem, state, random)
        done = state.step + 1
        if done > self.warmup and (done - self.warmup) % self.train_steps == 0:
            for _ in range(self.validation_steps):
                metrics["validation"] = self._validate(problem, state, random)
        hyper = state.hyper
        with torch.no_grad():
            values = problem.space.values(hyper.u, whole=False)
            metrics |= {name: float(v) for name, v in values.items()}
            metrics |= {
                f"sigma {name}": float(v) for name, v in zip(values, hyper.log_spread.exp(), strict=True)
            }
        return replace(state, metrics=metrics, calls=state.calls + 1, step=done)

    def _train(self, problem: SelfTuningTask, state: SelfTuningState, random: torch.Generator) -> float:
        network, hyper = state.x, state.hyper
        network.train()
        inputs, targets = batch(problem.train, problem.batch_size, random)
        u = hyper.sample(len(inputs), random).detach()
        told = total = training_loss(problem, network, inputs, targets, u, random)
        if self.delta:  # the centre by itself; the response gives it no gradient
            here = network.current.expand(len(inputs), -1)
            told = training_loss(problem, network, inputs, targets, here, random, centre=True)
            total = total + told
        state.optimizer.zero_grad()
        total.backward()
        state.optimizer.step()
        if state.schedule is not None:
            state.schedule.step()
        value = float(told.detach())
        if not math.isfinite(value):
            raise NotFinite(
                f"SelfTuner: the training loss is {value} after {state.step} steps; lower the rate."
            )
        return value

    def _validate(self, problem: SelfTuningTask, state: SelfTuningState, random: torch.Generator) -> float:
        network, hyper = state.x, state.hyper
        network.eval()
        inputs, targets = batch(problem.validation, problem.batch_size, random)
        tuned = [p for group in state.hyper_optimizer.param_groups for p in group["params"]]
        with _held(network):
            outputs = network(inputs, at=hyper.sample(len(inputs), random))
            loss = problem.loss(outputs, targets, None).mean()
            objective = loss - self.entropy * hyper.entropy
            slopes = torch.autograd.grad(objective, tuned, allow_unused=True)
        for p, slope in zip(tuned, slopes, strict=True):
            p.grad = slope
        state.hyper_optimizer.step()
        network.move(hyper.u.detach())
        return float(loss.detach())


@contextmanager
def _held(network: nn.Module) -> Iterator[None]:
    """No gradients for the weights while the block runs: those of an LSTM are half the work of its backward pass."""
    trained = [p for p in network.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


def training_loss(
    problem: SelfTuningTask,
    network: SelfTuned,
    inputs: Tensor,
    targets: Tensor,
    u: Tensor,
    random: torch.Generator,
    centre: bool = False,
) -> Tensor:
    """The mean training loss at each example's u; ``centre`` is the plain network, whose hyper-parameters u are."""
    values = problem.space.values(u)
    changed = inputs if problem.augment is None else problem.augment(inputs, values, random)
    outputs = network(changed) if centre else network(changed, at=u)
    losses = problem.loss(outputs, targets, values)
    with network.context.at(None, None, linear=network.delta and not centre):
        for penalty in problem.penalties:
            losses = losses + penalty(network, u, values)
    return losses.mean()


def batch(data: Data, size: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Examples drawn with replacement; all of them where they are no more than ``size``."""
    inputs, targets = data
    if len(inputs) <= size:
        return inputs, targets
    rows = torch.randint(len(inputs), (size,), generator=random)
    return inputs[rows], targets[rows]
