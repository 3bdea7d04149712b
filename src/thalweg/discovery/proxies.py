"""Small tasks that judge a program: train a network by it, and return validation losses.

A proxy is a Python function of a `Rule` that returns a loss, or yields several: at a third and two thirds of its steps,
by which bad candidates are stopped, and at the end.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from thalweg.core import UnknownName
from thalweg.core.seeding import generator, torch_generator
from thalweg.core.validation import require, require_counts, require_positive
from thalweg.datasets import load, load_text
from thalweg.discovery.functions import Value
from thalweg.discovery.interpreter import Rule

if TYPE_CHECKING:
    from torch import Tensor, nn

Array: TypeAlias = NDArray[np.float64]
Proxy: TypeAlias = Callable[[Rule], "float | Iterator[float]"]
CLASSES = 10


def cosine(step: int, steps: int) -> float:
    """The schedule of all proxies: from 1 down to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * step / steps))


@functools.cache
def _digits(shifted: bool) -> tuple[Array, NDArray[np.int64]]:
    """The digits in a fixed order; ``shifted``: turned by a right angle and light on dark."""
    table = load("digits")
    X, y = np.asarray(table.X, dtype=np.float64) / 16.0, np.asarray(table.y).astype(np.int64)
    order = generator(0xD161).permutation(len(y))
    X, y = X[order], y[order]
    if shifted:
        X = 1.0 - np.rot90(X.reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64)
    return np.ascontiguousarray(X), y


@dataclass(frozen=True)
class DigitsMLP:
    """A rectified network 64-width-10 on scikit-learn's digits, in NumPy; the loss is the mean over seeds.

    Args:
        steps, batch: of training, by a cosine schedule. 120 steps of 64 by default.
        width: hidden units.
        seeds: initial weights and orders of the examples.
        shifted: another task to be judged on: the images turned and inverted.
        part: ``search``: trained on 900 digits, judged on 400 others; ``held out``: trained on those 1 300, judged on
            the remaining 497.

    All seeds train at once. A program without reductions sees all weights as one tensor, which is the same to it.

    Cost: 25 ms for two seeds and 120 steps on one core.

    >>> from thalweg.discovery import ADAMW
    >>> losses = list(DigitsMLP(steps=30)(Rule(ADAMW)))
    >>> len(losses), losses[-1] < 2.3
    (3, True)
    """

    steps: int = 120
    batch: int = 64
    width: int = 32
    seeds: tuple[int, ...] = (0, 1)
    shifted: bool = False
    part: str = "search"

    def __post_init__(self) -> None:
        require_counts(self, "steps", "batch", "width")
        require(len(self.seeds) > 0, "DigitsMLP needs a seed")
        require(self.part in ("search", "held out"), "DigitsMLP: part is search or held out", got=self.part)

    def __call__(self, rule: Rule) -> Iterator[float]:
        X, y = _digits(self.shifted)
        train, end = (900, 1300) if self.part == "search" else (1300, len(y))
        test = X[train:end], y[train:end]
        weights = _Stacked(self.width, self.seeds)
        orders = [generator(seed, 2) for seed in self.seeds]
        marks = {math.ceil(self.steps / 3), math.ceil(2 * self.steps / 3), self.steps}
        memory = [np.zeros_like(weights.flat), np.zeros_like(weights.flat)]
        for step in range(self.steps):
            rows = np.stack([draw.integers(train, size=self.batch) for draw in orders])
            gradient = weights.gradient(X[rows], y[rows])
            weights.update(rule, gradient, memory, cosine(step, self.steps))
            if not math.isfinite(float(np.abs(weights.flat).max())):
                yield math.inf
                return
            if step + 1 in marks:
                yield weights.loss(*test)


class _Stacked:
    """Weights of one small network for each seed, all in one vector."""

    def __init__(self, width: int, seeds: tuple[int, ...]) -> None:
        shapes = [(64, width), (1, width), (width, CLASSES), (1, CLASSES)]
        n = len(seeds)
        self.flat = np.zeros(n * sum(a * b for a, b in shapes))
        self.parts, self.leaves, at = [], [], 0
        draws = [generator(seed, 1) for seed in seeds]
        for a, b in shapes:
            size = a * b
            part = self.flat[at : at + n * size].reshape(n, a, b)
            if a > 1:
                part[:] = [draw.standard_normal((a, b)) / math.sqrt(a / 2) for draw in draws]
            self.parts.append(part)
            self.leaves += [slice(at + k * size, at + (k + 1) * size) for k in range(n)]
            at += n * size

    def _forward(self, X: Array) -> tuple[Array, Array]:
        first, b1, second, b2 = self.parts
        hidden = np.maximum(X @ first + b1, 0.0)
        return hidden, hidden @ second + b2

    def gradient(self, X: Array, y: NDArray[np.int64]) -> Array:
        """Of the mean cross-entropy, X of shape (seeds, batch, 64), as one vector."""
        _, _, second, _ = self.parts
        with np.errstate(all="ignore"):
            hidden, logits = self._forward(X)
            logits = np.exp(logits - logits.max(2, keepdims=True))
            logits /= logits.sum(2, keepdims=True)
            np.put_along_axis(logits, y[:, :, None], np.take_along_axis(logits, y[:, :, None], 2) - 1.0, 2)
            logits /= X.shape[1]
            back = (logits @ second.transpose(0, 2, 1)) * (hidden > 0)
            parts = (
                X.transpose(0, 2, 1) @ back,
                back.sum(1, keepdims=True),
                hidden.transpose(0, 2, 1) @ logits,
                logits.sum(1, keepdims=True),
            )
        return np.concatenate([part.ravel() for part in parts])

    def loss(self, X: Array, y: NDArray[np.int64]) -> float:
        """Mean cross-entropy over the seeds."""
        with np.errstate(all="ignore"):
            _, logits = self._forward(X[None])
            logits = logits - logits.max(2, keepdims=True)
            chosen = np.take_along_axis(logits, y[None, :, None], 2)[..., 0]
            return float((np.log(np.exp(logits).sum(2)) - chosen).mean())

    def update(self, rule: Rule, gradient: Array, memory: list[Array], rate: float) -> None:
        """One step of the rule, ``memory`` in place."""
        whole = [slice(None)] if rule.is_elementwise else self.leaves
        for part in whole:
            change, *kept = rule(self.flat[part], gradient[part], *(m[part] for m in memory), rate)
            for m, new in zip(memory, kept, strict=True):
                m[part] = new
            with np.errstate(all="ignore"):
                self.flat[part] -= change


@dataclass(frozen=True)
class NetworkProxy:
    """A network of torch, trained by the program on a small task; the loss is that of held-out data.

    Args:
        task: ``cnn``: digits by two convolutions; ``characters``: the next letter of Python's own documentation by a
            recurrent network; ``tabular``: scikit-learn's diabetes by a network of two layers, mean squared error.
        steps: of training, by a cosine schedule.
        batch: examples a step; 64 by default, 512 for large batches.
        seeds: initial weights and orders; the loss is their mean.
        width: of the network.

    Cost: on one core, 0.04 s a candidate for ``tabular``, 0.15 s for ``cnn``, 0.4 s for ``characters``.
    """

    task: str = "cnn"
    steps: int = 60
    batch: int = 64
    seeds: tuple[int, ...] = (0,)
    width: int = 16

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise UnknownName("task", self.task, TASKS)
        require_counts(self, "steps", "batch", "width")
        require(len(self.seeds) > 0, "NetworkProxy needs a seed")

    def __call__(self, rule: Rule) -> Iterator[float]:
        runs = [self._run(rule, seed) for seed in self.seeds]
        for losses in zip(*runs, strict=False):
            yield sum(losses) / len(losses)

    def _run(self, rule: Rule, seed: int) -> Iterator[float]:
        import torch

        model, (X, y), (test_X, test_y), loss = TASKS[self.task](self.width, seed)
        drawn = torch_generator(seed, 2)
        memory = [(torch.zeros_like(p), torch.zeros_like(p)) for p in model.parameters()]
        marks = {math.ceil(self.steps / 3), math.ceil(2 * self.steps / 3), self.steps}
        for step in range(self.steps):
            rows = torch.randint(len(y), (min(self.batch, len(y)),), generator=drawn)
            found = loss(model(X[rows]), y[rows])
            gradients = torch.autograd.grad(found, list(model.parameters()))
            with torch.no_grad():
                for k, (p, g) in enumerate(zip(model.parameters(), gradients, strict=True)):
                    update, m, v = rule(p, g, *memory[k], cosine(step, self.steps))
                    memory[k] = (m, v)  # type: ignore[assignment]
                    p.sub_(update)  # type: ignore[arg-type]
                if step + 1 in marks:
                    yield float(loss(model(test_X), test_y))


Pair: TypeAlias = "tuple[Tensor, Tensor]"
Task: TypeAlias = "tuple[nn.Module, Pair, Pair, Callable[[Tensor, Tensor], Tensor]]"


def _seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _cnn(width: int, seed: int) -> Task:
    import torch
    from torch import nn
    from torch.nn import functional

    X, y = _digits(False)
    images, labels = torch.tensor(X, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(y)
    model = _seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * 16, CLASSES),
        ),
        seed,
    )
    return model, (images[:900], labels[:900]), (images[900:1300], labels[900:1300]), functional.cross_entropy


def _characters(width: int, seed: int) -> Task:
    import torch
    from torch.nn import functional

    from thalweg.discovery._recurrent import Recurrent

    corpus = load_text(characters=60_000)
    windows = torch.tensor(corpus.windows(32), dtype=torch.int64)
    windows = windows[torch.randperm(len(windows), generator=torch_generator(0xC4A2))]
    train, test = windows[200:], windows[:200]
    model = _seeded(lambda: Recurrent(len(corpus.alphabet), width), seed)

    def loss(logits: Tensor, codes: Tensor) -> Tensor:
        return functional.cross_entropy(logits.flatten(0, 1), codes.flatten())

    return model, (train[:, :-1], train[:, 1:]), (test[:, :-1], test[:, 1:]), loss


def _tabular(width: int, seed: int) -> Task:
    import torch
    from torch import nn
    from torch.nn import functional

    table = load("diabetes")
    X, y = np.asarray(table.X, dtype=np.float64), np.asarray(table.y, dtype=np.float64)
    order = generator(0x7AB).permutation(len(y))
    X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    inputs = torch.tensor(X[order], dtype=torch.float32)
    targets = torch.tensor(y[order], dtype=torch.float32)[:, None]
    model = _seeded(
        lambda: nn.Sequential(nn.Linear(X.shape[1], width), nn.Tanh(), nn.Linear(width, 1)),
        seed,
    )
    return model, (inputs[:300], targets[:300]), (inputs[300:], targets[300:]), functional.mse_loss


TASKS: dict[str, Callable[[int, int], Task]] = {"cnn": _cnn, "characters": _characters, "tabular": _tabular}


@dataclass(frozen=True)
class DigitsSchedule:
    """A proxy of schedules: the digits' network trained by momentum at ``rate`` times the program's factor.

    Args:
        steps: of training.
        rate: the base rate.
        seeds: as of `DigitsMLP`.
    """

    steps: int = 120
    rate: float = 0.3
    seeds: tuple[int, ...] = (0, 1)

    def __post_init__(self) -> None:
        require_counts(self, "steps")
        require_positive(self, "rate")
        require(len(self.seeds) > 0, "DigitsSchedule needs a seed")

    def __call__(self, rule: Rule) -> Iterator[float]:
        X, y = _digits(False)
        weights = _Stacked(32, self.seeds)
        orders = [generator(seed, 2) for seed in self.seeds]
        marks = {math.ceil(self.steps / 3), math.ceil(2 * self.steps / 3), self.steps}
        momentum = np.zeros_like(weights.flat)
        for step in range(self.steps):
            rows = np.stack([draw.integers(900, size=64) for draw in orders])
            factor: Value = rule((step + 1) / self.steps)[0]
            momentum = 0.9 * momentum + 0.1 * weights.gradient(X[rows], y[rows])
            with np.errstate(all="ignore"):
                weights.flat -= self.rate * float(factor) * momentum
            if not math.isfinite(float(np.abs(weights.flat).max())):
                yield math.inf
                return
            if step + 1 in marks:
                yield weights.loss(X[900:1300], y[900:1300])


#: Proxies by the names that the command uses.
PROXIES: dict[str, Callable[..., Proxy]] = {
    "digits-mlp": DigitsMLP,
    **{f"{name}": functools.partial(NetworkProxy, name) for name in ("cnn", "characters", "tabular")},
}
