"""What makes the features of two domains alike: the losses between which and the labels the combiner settles.

Each is a module ``loss(source, target, source_logits, target_logits, labels, strength)``; those that have a
discriminator train it by gradient reversal in the same pass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

from thalweg.core import InvalidProblem, UnknownName


class _Reversal(torch.autograd.Function):
    """The identity, whose gradient is turned round."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None  # type: ignore[attr-defined]


def reverse_gradient(x: Tensor, strength: float = 1.0) -> Tensor:
    """x itself; its gradient is multiplied by ``-strength`` (Ganin and Lempitsky, 2015).

    >>> x = torch.ones(2, requires_grad=True)
    >>> reverse_gradient(x, 0.5).sum().backward(); x.grad
    tensor([-0.5000, -0.5000])
    """
    reversed_: Tensor = _Reversal.apply(x, strength)  # type: ignore[no-untyped-call]
    return reversed_


def reversal_strength(step: int, ramp: float = 1000.0) -> float:
    """``2 / (1 + exp(-step / ramp)) - 1``, counted once a step.

    >>> reversal_strength(0), round(reversal_strength(1000), 4)
    (0.0, 0.4621)
    """
    return math.tanh(step / (2.0 * ramp))


class AlignmentLoss(nn.Module, ABC):
    """Base: a loss that is small where source and target features cannot be told apart."""

    @abstractmethod
    def loss(
        self,
        source: Tensor,
        target: Tensor,
        source_logits: Tensor,
        target_logits: Tensor,
        labels: Tensor,
        strength: float,
    ) -> Tensor:
        """The alignment loss of one batch.

        Args:
            source, target: features, (n, d) and (m, d).
            source_logits, target_logits: (n, K) and (m, K).
            labels: of the source rows.
            strength: of gradient reversal.
        """


def _discriminator(features: int, hidden: int, outputs: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )


def _domain_loss(net: nn.Module, source: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of a discriminator for which the source is 1; each domain counts half."""
    found = net(torch.cat([source, target]))[:, 0]
    own, other = functional.softplus(-found[: len(source)]), functional.softplus(found[len(source) :])
    return 0.5 * (own.mean() + other.mean())


class DANN(AlignmentLoss):
    """A discriminator of the features, deceived (Ganin et al., 2016)."""

    def __init__(self, features: int, classes: int, hidden: int = 1024) -> None:
        super().__init__()
        self.net = _discriminator(features, hidden)

    def loss(
        self,
        source: Tensor,
        target: Tensor,
        source_logits: Tensor,
        target_logits: Tensor,
        labels: Tensor,
        strength: float,
    ) -> Tensor:
        return _domain_loss(self.net, reverse_gradient(source, strength), reverse_gradient(target, strength))


class CDAN(AlignmentLoss):
    """A discriminator of features times predicted probabilities (Long et al., 2018).

    Beyond 4 096 products it takes as many random ones, as the paper does. Predictions get no gradient from it.
    """

    LARGEST = 4096

    def __init__(self, features: int, classes: int, hidden: int = 1024) -> None:
        super().__init__()
        self.of_features: Tensor
        self.of_classes: Tensor
        self.drawn = features * classes > self.LARGEST
        width = self.LARGEST if self.drawn else features * classes
        self.net = _discriminator(width, hidden)
        if self.drawn:
            self.register_buffer("of_features", torch.randn(features, width))
            self.register_buffer("of_classes", torch.randn(classes, width))

    def _map(self, features: Tensor, logits: Tensor, strength: float) -> Tensor:
        z, p = reverse_gradient(features, strength), logits.detach().softmax(-1)
        if self.drawn:
            found: Tensor = (z @ self.of_features) * (p @ self.of_classes) / math.sqrt(self.LARGEST)
            return found
        return (p[:, :, None] * z[:, None, :]).flatten(1)

    def loss(
        self,
        source: Tensor,
        target: Tensor,
        source_logits: Tensor,
        target_logits: Tensor,
        labels: Tensor,
        strength: float,
    ) -> Tensor:
        own = self._map(source, source_logits, strength)
        return _domain_loss(self.net, own, self._map(target, target_logits, strength))


class MDD(AlignmentLoss):
    """Margin disparity: a second classifier that agrees on the source and disagrees on the target (Zhang et al., 2019).

    ``MARGIN`` is the paper's gamma.
    """

    MARGIN = 4.0

    def __init__(self, features: int, classes: int, hidden: int = 1024) -> None:
        super().__init__()
        self.net = _discriminator(features, hidden, classes)

    def loss(
        self,
        source: Tensor,
        target: Tensor,
        source_logits: Tensor,
        target_logits: Tensor,
        labels: Tensor,
        strength: float,
    ) -> Tensor:
        z = torch.cat([source, target])
        logits = self.net(reverse_gradient(z, strength))
        said = torch.cat([source_logits, target_logits]).detach().argmax(1)
        n = len(source)
        agrees = functional.cross_entropy(logits[:n], said[:n])
        chance = functional.log_softmax(logits[n:], 1).gather(1, said[n:, None])[:, 0]
        disagrees = -torch.log(-torch.expm1(chance.clamp(max=-1e-6))).mean()
        return self.MARGIN * agrees + disagrees


def _kernel(z: Tensor) -> Tensor:
    """Sum of five Gaussian kernels around the mean squared distance, (n, n)."""
    # The width follows the features' size: in units of it no square overflows.
    largest = z.detach().abs().amax()
    z = z / torch.where(largest > 0, largest, 1.0)
    squares = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").square()
    width = squares.detach().mean().clamp(min=torch.finfo(z.dtype).eps ** 2)
    return torch.stack([torch.exp(-squares / (width * 2.0**k)) for k in range(-2, 3)]).sum(0)


def _discrepancy(kernel: Tensor, n: int) -> Tensor:
    """The squared maximum mean discrepancy of the first n rows and the others, >= 0."""
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2.0 * kernel[:n, n:].mean()


class MMD(AlignmentLoss):
    """Maximum mean discrepancy of the features, five Gaussian kernels (Long et al., 2015)."""

    def __init__(self, features: int, classes: int, hidden: int = 1024) -> None:
        super().__init__()

    def loss(
        self,
        source: Tensor,
        target: Tensor,
        source_logits: Tensor,
        target_logits: Tensor,
        labels: Tensor,
        strength: float,
    ) -> Tensor:
        return _discrepancy(_kernel(torch.cat([source, target])), len(source))


class JAN(AlignmentLoss):
    """Joint maximum mean discrepancy of features and predicted probabilities (Long et al., 2017)."""

    def __init__(self, features: int, classes: int, hidden: int = 1024) -> None:
        super().__init__()

    def loss(
        self,
        source: Tensor,
        target: Tensor,
        source_logits: Tensor,
        target_logits: Tensor,
        labels: Tensor,
        strength: float,
    ) -> Tensor:
        p = torch.cat([source_logits, target_logits]).softmax(1)
        return _discrepancy(_kernel(torch.cat([source, target])) * _kernel(p), len(source))


class CORAL(AlignmentLoss):
    """Squared distance of the covariances, over ``4 d^2`` (Sun and Saenko, 2016).

    It has the unit of the features to the fourth power: float32 holds it, and its gradient, for features between 1e-9
    and 1e9. Standardise features of other sizes.
    """

    def __init__(self, features: int, classes: int, hidden: int = 1024) -> None:
        super().__init__()

    def loss(
        self,
        source: Tensor,
        target: Tensor,
        source_logits: Tensor,
        target_logits: Tensor,
        labels: Tensor,
        strength: float,
    ) -> Tensor:
        if min(len(source), len(target)) < 2:
            raise InvalidProblem("CORAL needs batches of two rows or more of each domain.")
        return (source.T.cov() - target.T.cov()).square().sum() / (4.0 * source.shape[1] ** 2)


#: Alignments by name; ``"source-only"`` has none.
BASES: dict[str, type[AlignmentLoss] | None] = {
    "dann": DANN,
    "cdan": CDAN,
    "mdd": MDD,
    "mmd": MMD,
    "jan": JAN,
    "coral": CORAL,
    "source-only": None,
}


def alignment_named(name: str, features: int, classes: int, hidden: int) -> AlignmentLoss | None:
    """A fresh alignment; None for source-only.

    >>> type(alignment_named("coral", 4, 3, 16)).__name__
    'CORAL'
    """
    if name not in BASES:
        raise UnknownName("base", name, BASES)
    kind = BASES[name]
    return None if kind is None else kind(features, classes, hidden)
