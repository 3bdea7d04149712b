"""Bilevel problems that more than one study solves, and contestants at equal oracle calls."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils import _pytree as pytree

from thalweg.bilevel import Bilevel, Minibatches, NegativeCurvature, Pair
from thalweg.bilevel._trees import Tree, ravel
from thalweg.bilevel.penalty_value import inner_solution
from thalweg.core import Method, NotFinite, Status, Stop, solve
from thalweg.core.seeding import torch_generator
from thalweg.datasets import load
from thalweg.numerics.projections import box

Examples = tuple[Tensor, Tensor]


def digits_cleaning(
    seed: int, noise: float = 0.5, train: int = 600, held: int = 300, batch: int = 0
) -> Bilevel:
    """Data hyper-cleaning: a weight for each of the digits to train on, of whose labels a share is redrawn.

    x are the weights' logits, y a linear classifier with bias; f is the loss on clean digits, g the weighted loss on
    the others plus 0.001 of y's squares. ``judge`` tells the accuracy on digits seen by neither.
    """
    X, labels = _digits()
    random = torch_generator(seed, 6)
    order = torch.randperm(len(X), generator=random)
    X, labels = X[order], labels[order]
    noisy = _redrawn(labels[:train], noise, 10, random)
    rows = torch.arange(train)
    net = nn.Linear(64, 10)
    for parameter in net.parameters():
        nn.init.zeros_(parameter)

    def weighted(x: Tensor, y: Tree, data: tuple[Tensor, ...]) -> Tensor:
        inputs, targets, which = data
        losses = functional.cross_entropy(functional_call(net, y, inputs), targets, reduction="none")
        return (torch.sigmoid(x[which]) * losses).mean() + 1e-3 * sum(v.square().sum() for v in y.values())

    def clean(x: Tensor, y: Tree, data: Examples) -> Tensor:
        return functional.cross_entropy(functional_call(net, y, data[0]), data[1])

    middle = train + held
    data = (X[:train], noisy, rows), (X[train:middle], labels[train:middle])
    return Bilevel(
        clean,
        weighted,
        torch.zeros(train),
        net,
        upper_batches=Minibatches(data[1], batch or held),
        lower_batches=Minibatches(data[0], batch or train),
        judge=functools.partial(_judge, net, (X[middle:], labels[middle:])),
    )


def feature_penalties(seed: int, train: int = 250, held: int = 150) -> Bilevel:
    """Logistic regression on breast_cancer with a penalty for each feature; x are their logarithms."""
    data = load("breast_cancer")
    order = torch.randperm(len(data.X), generator=torch_generator(seed, 61))
    X = torch.tensor((data.X - data.X.mean(0)) / data.X.std(0), dtype=torch.float32)[order]
    X = torch.cat([X, torch.randn(len(X), 30, generator=torch_generator(seed, 62))], 1)  # half of them noise
    labels = torch.tensor(data.y, dtype=torch.float32)[order]
    middle = train + held

    def loss(y: Tensor, rows: slice) -> Tensor:
        return functional.binary_cross_entropy_with_logits(X[rows] @ y, labels[rows])

    def judge(x: Tensor, y: Tensor) -> dict[str, float]:
        test = slice(middle, None)
        right = ((X[test] @ y > 0) == (labels[test] > 0.5)).double().mean()
        return {"accuracy": float(right), "test loss": float(loss(y, test))}

    return Bilevel(
        lambda x, y: loss(y, slice(train, middle)),
        lambda x, y: loss(y, slice(0, train)) + 0.5 * (x.exp() * y.square()).sum(),
        torch.full((X.shape[1],), -4.0),
        torch.zeros(X.shape[1]),
        x_set=lambda x: box(x, -7.0, 0.0),
        judge=judge,
    )


@dataclass(frozen=True)
class Grammar:
    """A documented source of sequences: a Markov chain over ``words``, one for each of ``classes``.

    Every chain is a mixture: with probability ``shared`` a word follows by a chain that all classes share, otherwise by
    the class's own, whose rows have three likely words. Classes are told apart by which words follow which, not by how
    often words come, so a recurrent network has something to learn.
    """

    seed: int
    words: int = 10
    classes: int = 4
    shared: float = 0.2

    def sequences(self, count: int, length: int, stream: int) -> Examples:
        """Codes, shape (count, length), and classes, shape (count,)."""
        rng = np.random.default_rng((self.seed, 0x6A))
        chains = np.zeros((self.classes, self.words, self.words))
        base = rng.dirichlet(np.ones(self.words), size=self.words)
        for chain in chains:
            for row in chain:
                row[rng.choice(self.words, 3, replace=False)] = (1.0 - self.shared) / 3
            chain += self.shared * base
        cumulative = chains.cumsum(-1)
        rng = np.random.default_rng((self.seed, stream, 0x6B))
        labels = rng.integers(self.classes, size=count)
        codes = np.zeros((count, length), dtype=np.int64)
        codes[:, 0] = rng.integers(self.words, size=count)
        for t in range(1, length):
            rows = cumulative[labels, codes[:, t - 1]]
            drawn = (rng.random(count)[:, None] * rows[:, -1:] > rows).sum(-1)
            codes[:, t] = np.minimum(drawn, self.words - 1)
        return torch.tensor(codes), torch.tensor(labels)


class Recurrent(nn.Module):
    """Embedding, GRU, and a linear head on the last state."""

    def __init__(self, words: int, classes: int, width: int) -> None:
        super().__init__()
        self.embedding, self.gru = nn.Embedding(words, width), nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, classes)

    def features(self, codes: Tensor) -> Tensor:
        """The last state, shape (batch, width)."""
        states, _ = self.gru(self.embedding(codes))
        last: Tensor = states[:, -1]
        return last

    def forward(self, codes: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(codes))
        return logits


@dataclass(frozen=True)
class TextSize:
    """How big the problems with recurrent networks are."""

    examples: int = 200
    length: int = 8
    width: int = 16
    batch: int = 16
    words: int = 10


def text_cleaning(seed: int, noise: float, size: TextSize) -> Bilevel:
    """Data hyper-cleaning of sequences whose labels are partly redrawn; y is a recurrent classifier."""
    net, (codes, labels), held, test = _text(seed, size)
    noisy = _redrawn(labels, noise, 4, torch_generator(seed, 7))
    rows = torch.arange(len(codes))

    def weighted(x: Tensor, y: Tree, data: tuple[Tensor, ...]) -> Tensor:
        inputs, targets, which = data
        losses = functional.cross_entropy(functional_call(net, y, inputs), targets, reduction="none")
        return (torch.sigmoid(x[which]) * losses).mean() + 1e-3 * sum(v.square().sum() for v in y.values())

    return _on_text(net, torch.zeros(len(codes)), weighted, (codes, noisy, rows), held, test, size)


def text_penalties(seed: int, size: TextSize) -> Bilevel:
    """A penalty for each tensor of a recurrent classifier; x are their logarithms."""
    net, train, held, test = _text(seed, size)
    names = [name for name, _ in net.named_parameters()]

    def penalised(x: Tensor, y: Tree, data: Examples) -> Tensor:
        loss = functional.cross_entropy(functional_call(net, y, data[0]), data[1])
        return loss + sum(x[i].exp() * y[name].square().sum() for i, name in enumerate(names))

    return _on_text(net, torch.full((len(names),), -4.0), penalised, train, held, test, size)


def hyper_representation(seed: int, tasks: int, size: TextSize) -> Bilevel:
    """Meta-learning: x is a recurrent encoder shared by tasks, y a linear head for each, ridge-penalised.

    Every task tells two classes of a grammar of its own apart; all grammars share the words. Accuracy is that of the
    heads on sequences of the same tasks that neither level has seen.
    """
    grammars = [Grammar(1000 * seed + t, size.words, 2) for t in range(tasks)]
    half = max(size.examples // tasks, 8)
    sets = []
    for stream, count in ((0, half), (1, half), (2, 100)):
        drawn = [g.sequences(count, size.length, stream) for g in grammars]
        sets.append((torch.stack([c for c, _ in drawn], 1), torch.stack([v for _, v in drawn], 1)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Recurrent(size.words, 2, size.width)
    encoder = {name: p for name, p in net.named_parameters() if not name.startswith("head")}

    def logits(x: Tree, y: Tensor, codes: Tensor) -> Tensor:
        count = len(codes)  # rows are examples of all tasks: (count, tasks, length)
        features = functional_call(_Features(net), {f"net.{k}": v for k, v in x.items()}, codes.flatten(0, 1))
        features = torch.cat([features, torch.ones(len(features), 1)], 1).reshape(count, tasks, -1)
        return torch.einsum("ctf,tf->ct", features, y)

    def loss(x: Tree, y: Tensor, data: Examples) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits(x, y, data[0]), data[1].float())

    def judge(x: Tree, y: Tensor) -> dict[str, float]:
        codes, labels = sets[2]
        return {"accuracy": float(((logits(x, y, codes) > 0) == (labels > 0)).double().mean())}

    return Bilevel(
        loss,
        lambda x, y, data: loss(x, y, data) + 0.02 * y.square().sum() / tasks,
        encoder,
        torch.zeros(tasks, size.width + 1),
        upper_batches=Minibatches(sets[1], min(8, half)),
        lower_batches=Minibatches(sets[0], min(8, half)),
        judge=judge,
    )


class _Features(nn.Module):
    def __init__(self, net: Recurrent) -> None:
        super().__init__()
        self.net = net

    def forward(self, codes: Tensor) -> Tensor:
        return self.net.features(codes)


def _text(seed: int, size: TextSize) -> tuple[Recurrent, Examples, Examples, Examples]:
    grammar = Grammar(seed, size.words)
    train, held, test = (
        grammar.sequences(n, size.length, i) for i, n in enumerate((size.examples, size.examples, 400))
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Recurrent(size.words, 4, size.width), train, held, test


def _on_text(
    net: nn.Module,
    x: Tensor,
    lower: Callable[..., Tensor],
    train: tuple[Tensor, ...],
    held: Examples,
    test: Examples,
    size: TextSize,
) -> Bilevel:
    def upper(x: Tensor, y: Tree, data: Examples) -> Tensor:
        return functional.cross_entropy(functional_call(net, y, data[0]), data[1])

    return Bilevel(
        upper,
        lower,
        x,
        net,
        upper_batches=Minibatches(held, size.batch),
        lower_batches=Minibatches(train, size.batch),
        judge=functools.partial(_judge, net, test),
    )


def _judge(net: nn.Module, test: Examples, x: Tree, y: Tree) -> dict[str, float]:
    right = functional_call(net, y, test[0]).argmax(-1) == test[1]
    return {"accuracy": float(right.double().mean())}


@functools.cache
def _digits() -> Examples:
    data = load("digits")
    return torch.tensor(data.X / 16.0, dtype=torch.float32), torch.tensor(data.y, dtype=torch.int64)


def _redrawn(labels: Tensor, share: float, classes: int, random: torch.Generator) -> Tensor:
    """A share of the labels replaced by other ones."""
    change = torch.rand(len(labels), generator=random) < share
    shift = torch.randint(1, classes, labels.shape, generator=random)
    return torch.where(change, (labels + shift) % classes, labels)


@dataclass(frozen=True, eq=False)
class BilevelTask:
    """A bilevel problem for a contest at equal oracle calls, with what each method reached on it.

    A second-order product counts as one call, as in the papers, though it takes about as long as two gradients.

    Args:
        problem: its ``judge`` tells the accuracy.
        calls: of one run.
        steps: to solve the lower level with, for judging: see `resolved`.
        reached: metrics by method, kept so that several contests are about the same runs.
    """

    problem: Bilevel
    calls: int
    steps: int = 2000
    reached: dict[str, dict[str, float]] = field(default_factory=dict)

    def metrics(self, method: Method) -> dict[str, float]:
        """The problem's metrics where the method's calls were used up, and the share of errors."""
        if method.name not in self.reached:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NegativeCurvature)  # recurrent lower levels are not convex
                found = solve(self.problem, method, stop=Stop(steps=None, calls=self.calls), progress=False)
            if found.status is Status.DIVERGED:
                raise NotFinite(f"{method.name} diverged.")
            told = self.problem.metrics(resolved(self.problem, found.x, self.steps))
            self.reached[method.name] = told | {"error": 1.0 - told["accuracy"]}
        return self.reached[method.name]


@dataclass(frozen=True)
class EqualCalls:
    """A method as a contestant on a `BilevelTask`, judged by one of its metrics, the smaller the better."""

    method: Method
    metric: str

    def __call__(self, task: BilevelTask, seed: int) -> float:
        return task.metrics(self.method)[self.metric]


def resolved(problem: Bilevel, pair: Pair, steps: int = 2000) -> Pair:
    """The same x with its lower level solved, in so many steps: a method's own y may have been drawn towards f."""
    x, y = (ravel(pytree.tree_leaves(part)) for part in pair)
    solution = inner_solution(problem, x, 0.0, y, Stop(below={"residual": 1e-5}, steps=steps))
    return Pair(pair.x, problem.tree("y", solution))
