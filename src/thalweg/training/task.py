"""A network to train, as a problem: what is given, and how good trained weights are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from thalweg.core import InvalidProblem, Method, NotFinite, Problem, State, Status, Stop
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import require
from thalweg.numerics.tensor_checks import require_tensors
from thalweg.training.snapshot import random_states, set_random_states

Data = Sequence[Tensor]
Loss = Callable[..., Tensor]


def cross_entropy(model: nn.Module, *batch: Tensor) -> Tensor:
    """Mean cross-entropy of a classifier; logits of shape (..., classes), labels of shape (...)."""
    inputs, labels = batch
    logits = model(inputs)
    return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))


def accuracy(model: nn.Module, *data: Tensor) -> Tensor:
    """Share of labels that the largest logit names."""
    inputs, labels = data
    return (model(inputs).argmax(-1) == labels).double().mean()


@dataclass(frozen=True, eq=False)
class TrainingTask(Problem):
    """Train a network for a number of steps; judge it on held-out data.

    Args:
        model: makes a fresh network; called under a seed, so that equal seeds start from equal weights.
        train, test: tuples of tensors with the examples along the first axis, e.g. ``(inputs, labels)``.
        steps: the budget, in optimizer steps.
        batch_size: examples a step, drawn by reshuffling; all of them at once when there are fewer.
        loss: ``loss(model, *batch)``, a scalar tensor. Default cross-entropy.
        scores: more numbers to judge by on the test data, by name, each ``score(model, *test)``.
        device: where to train.

    The metrics of an answer, a trained network, are ``test_loss`` and ``scores``.

    Raises:
        InvalidProblem: no data, tensors of different lengths, no steps.
        NotFinite: NaN or infinity in floating-point data.

    >>> data = torch.randn(64, 5), torch.randint(0, 3, (64,))
    >>> task = TrainingTask(lambda: nn.Linear(5, 3), data, data, steps=10)
    >>> sorted(task.metrics(nn.Linear(5, 3)))
    ['accuracy', 'test_loss']
    """

    model: Callable[[], nn.Module]
    train: Data
    test: Data
    steps: int
    batch_size: int = 64
    loss: Loss = cross_entropy
    scores: Mapping[str, Loss] = field(default_factory=lambda: {"accuracy": accuracy})
    device: str = "cpu"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "TrainingTask needs steps >= 1", got=self.steps, error=InvalidProblem)
        require(self.batch_size >= 1, "TrainingTask needs batch_size >= 1", got=self.batch_size)
        for name in ("train", "test"):
            data = getattr(self, name)
            lengths = [len(t) for t in data]
            if not lengths or len(set(lengths)) != 1 or lengths[0] == 0:
                raise InvalidProblem(
                    f"TrainingTask.{name} needs tensors of one length > 0; got lengths {lengths}."
                )
            require_tensors(f"TrainingTask.{name}", data)
            for i, t in enumerate(data):
                if t.is_floating_point() and not bool(torch.isfinite(t).all()):
                    raise NotFinite(
                        f"TrainingTask.{name}[{i}] holds NaN or infinity. "
                        "Remove or impute them before training."
                    )

    def recommended_stop(self) -> Stop:
        """The task's own length."""
        return Stop(steps=self.steps)

    @torch.no_grad()
    def metrics(self, x: nn.Module) -> dict[str, float]:
        """``test_loss`` and every score of the network ``x``, in evaluation mode."""
        was_training = x.training
        x.eval()
        test = [t.to(self.device) for t in self.test]
        judged = {"test_loss": float(self.loss(x, *test))}
        judged |= {name: float(score(x, *test)) for name, score in self.scores.items()}
        x.train(was_training)
        return judged

    def fresh_model(self, seed: int) -> nn.Module:
        """The network with the initial weights of ``seed``; torch's global random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.model().to(self.device)


class Shuffle:
    """Order of the examples: a fresh permutation each epoch, resumable at any batch."""

    def __init__(self, examples: int, batch_size: int, seed: int) -> None:
        self.examples, self.batch_size = examples, min(batch_size, examples)
        self._generator = torch_generator(seed, 1)
        self._order, self._next = torch.empty(0, dtype=torch.int64), 0

    def draw(self) -> Tensor:
        """Indices of the next batch; what does not fill a batch at an epoch's end is left out."""
        if self._next + self.batch_size > len(self._order):
            self._order, self._next = torch.randperm(self.examples, generator=self._generator), 0
        self._next += self.batch_size
        return self._order[self._next - self.batch_size : self._next]

    def state_dict(self) -> dict[str, Any]:
        """Generator, permutation and place in it."""
        return {"generator": self._generator.get_state(), "order": self._order, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._generator.set_state(state["generator"])
        self._order, self._next = state["order"], state["next"]


@dataclass(kw_only=True)
class TrainingState(State):
    """``x`` is the live network, and the optimizer's and the schedule's states go on with it."""

    x: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler | None
    shuffle: Shuffle
    data: list[Tensor] = field(repr=False)  # the task's, on its device; no part of a checkpoint
    step: int = 0
    highest: float = 0.0  # rate so far

    def tree(self) -> dict[str, Any]:
        tree = super().tree()
        del tree["data"]
        return {**tree, "rng": random_states()}

    def restored(self, tree: dict[str, Any]) -> TrainingState:
        set_random_states(tree["rng"])
        return super().restored({name: value for name, value in tree.items() if name != "rng"})


@dataclass(frozen=True)
class Train(Method[TrainingTask, TrainingState]):
    """An optimizer with a schedule, run on a `TrainingTask`; one step is one optimizer step.

    Args:
        optimizer: a `torch.optim.Optimizer` class, or anything called as ``optimizer(params, **options)``.
        options: its options.
        schedule: called as ``schedule(optimizer, total_steps)``, e.g. `REX`; None for a constant rate.
        label: what tables call it; by default made of the class and the options.

    The metrics of a step are ``loss`` on its batch and ``rate``. A loss that is not finite ends the run
    as DIVERGED, with the weights that gave it.

    >>> from thalweg import solve
    >>> from thalweg.training import REX, Lion
    >>> data = torch.randn(64, 5), torch.randint(0, 3, (64,))
    >>> task = TrainingTask(lambda: nn.Linear(5, 3), data, data, steps=10)
    >>> solve(task, Train(Lion, {"lr": 1e-3}, REX)).steps
    10
    """

    in_place: ClassVar[bool] = True

    optimizer: Callable[..., Optimizer]
    options: Mapping[str, Any] = field(default_factory=dict)
    schedule: Callable[[Optimizer, int], LRScheduler] | None = None
    label: str = ""

    @property
    def name(self) -> str:
        """The label."""
        if self.label:
            return self.label
        options = ", ".join(
            f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.options.items()
        )
        schedule = f" + {getattr(self.schedule, '__name__', self.schedule)}" if self.schedule else ""
        return f"{getattr(self.optimizer, '__name__', self.optimizer)}({options}){schedule}"

    def init(self, problem: TrainingTask, seed: int) -> TrainingState:
        model = problem.fresh_model(seed)
        model.train()
        optimizer = self.optimizer(model.parameters(), **self.options)
        schedule = self.schedule(optimizer, problem.steps) if self.schedule else None
        shuffle = Shuffle(len(problem.train[0]), problem.batch_size, seed)
        data = [t.to(problem.device) for t in problem.train]
        torch.manual_seed(seed)  # for dropout and the like
        return TrainingState(x=model, optimizer=optimizer, schedule=schedule, shuffle=shuffle, data=data)

    def step(self, problem: TrainingTask, state: TrainingState) -> TrainingState:
        batch = state.shuffle.draw().to(problem.device)
        rate = state.optimizer.param_groups[0]["lr"]
        state.optimizer.zero_grad(set_to_none=True)
        loss = problem.loss(state.x, *(t[batch] for t in state.data))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NotFinite(
                f"The loss is {value} in step {state.step + 1}, after steps at rates up to {state.highest:.3g}: the "
                "weights have grown beyond measure, or the loss has no value there. Lower the rate."
            )
        loss.backward()
        state.optimizer.step()
        if state.schedule is not None:
            state.schedule.step()
        state.step += 1
        state.highest = max(state.highest, float(rate))
        state.metrics = {"loss": value, "rate": float(rate)}
        if state.step == problem.steps:
            state.status, state.message = Status.EXHAUSTED, f"The task's {problem.steps} steps are done."
        return state
