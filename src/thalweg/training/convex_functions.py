"""Convex functions K whose (sub)gradient turns momentum into an update, with their conjugates.

Chen, Liu, Liang and Liu (2024), "Lion secretly solves constrained optimization: as Lyapunov predicts",
table 1. With decoupled weight decay ``lam``, `LionK` minimises ``f(x) + K*(lam x)/lam``: what K* is says what
the training is regularised or bounded by.

Each function acts on one tensor; over a model it is summed over the tensors of a parameter group.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core import InvalidParameter
from thalweg.core.validation import is_real, is_whole, require, require_positive

#: Rounding that a point on the border of a constraint may carry and still count as inside.
TOLERANCE = 1e-6


class ConvexFunction(ABC):
    """Base of the convex functions K."""

    @abstractmethod
    def value(self, m: Tensor) -> Tensor:
        """K(m), a scalar."""

    @abstractmethod
    def subgradient(self, m: Tensor) -> Tensor:
        """An element of the subdifferential of K at m, of its shape."""

    @abstractmethod
    def finite_conjugate(self, x: Tensor) -> Tensor:
        """``K*(x)`` where x lies in its domain, a scalar."""

    def excess(self, x: Tensor) -> Tensor:
        """How far x is outside the domain of K*, a scalar; zero or less inside. All of space by default."""
        return x.new_zeros(())

    def subgradients(self, momenta: Sequence[Tensor]) -> Sequence[Tensor]:
        """`subgradient` of many tensors, in as few launches as may be."""
        return [self.subgradient(m) for m in momenta]

    def contains(self, x: Tensor, tolerance: float = TOLERANCE) -> bool:
        """Whether x lies in the domain of K*."""
        return bool(self.excess(x) <= tolerance)

    def conjugate(self, x: Tensor, tolerance: float = TOLERANCE) -> Tensor:
        """``K*(x) = sup_m <m, x> - K(m)``, infinite outside its domain."""
        return self.finite_conjugate(x) if self.contains(x, tolerance) else x.new_full((), torch.inf)

    def composite(self, x: Tensor, weight_decay: float) -> Tensor:
        """``K*(lam x) / lam``: what training with weight decay lam adds to the loss."""
        return self.conjugate(weight_decay * x) / weight_decay

    def fenchel_gap(self, x: Tensor, gradient: Tensor, weight_decay: float) -> Tensor:
        """``(K(-g) + K*(lam x) + lam <g, x>) / lam``: zero exactly where x is stationary.

        For convex f it bounds how far ``f(x) + K*(lam x)/lam`` is above its minimum (Fenchel-Young).
        """
        scaled = weight_decay * x
        gap = self.value(-gradient) + self.conjugate(scaled) + (gradient * scaled).sum()
        return gap / weight_decay


class _OnBox(ConvexFunction):
    """Functions whose conjugate is finite on the box ``|x|_inf <= 1``."""

    def excess(self, x: Tensor) -> Tensor:
        return x.abs().max() - 1.0 if x.numel() else x.new_zeros(())

    def finite_conjugate(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


@dataclass(frozen=True)
class L1(_OnBox):
    """``K(m) = |m|_1``, update ``sign(m)``: Lion, which keeps ``|x|_inf <= 1/lam``.

    >>> L1().subgradient(torch.tensor([-3.0, 0.0, 2.0]))
    tensor([-1.,  0.,  1.])
    """

    def value(self, m: Tensor) -> Tensor:
        return m.abs().sum()

    def subgradient(self, m: Tensor) -> Tensor:
        return m.sign()

    def subgradients(self, momenta: Sequence[Tensor]) -> Sequence[Tensor]:
        return torch._foreach_sign(list(momenta))


@dataclass(frozen=True)
class Lp(ConvexFunction):
    """``K(m) = |m|_p``: keeps ``|x|_q <= 1/lam``, ``1/p + 1/q = 1``. p = 2 is normalised momentum.

    >>> Lp(2).subgradient(torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """

    p: float = 2.0

    def __post_init__(self) -> None:
        fits = is_real(self.p) and 1 <= self.p < math.inf
        require(fits, "Lp needs a finite p >= 1: below one it is not convex", got=self.p)

    def value(self, m: Tensor) -> Tensor:
        return torch.linalg.vector_norm(m, self.p)

    def subgradient(self, m: Tensor) -> Tensor:
        if self.p == 1:
            return m.sign()
        norm = self.value(m)
        share = m.abs() / torch.where(norm > 0, norm, 1.0)
        return m.sign() * share ** (self.p - 1.0)

    def excess(self, x: Tensor) -> Tensor:
        q = float("inf") if self.p == 1 else self.p / (self.p - 1.0)
        return torch.linalg.vector_norm(x, q) - 1.0

    def finite_conjugate(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


@dataclass(frozen=True)
class GroupL2(ConvexFunction):
    """``K(m) = sum_g |m_g|_2``, groups being the slices along the first axis: keeps ``|x_g|_2 <= 1/lam``.

    For a weight matrix the groups are the rows, one a unit; entries of a bias are groups of one.

    >>> GroupL2().subgradient(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """

    def _norms(self, m: Tensor) -> Tensor:
        return torch.linalg.vector_norm(m.reshape(len(m), -1) if m.ndim else m.reshape(1, 1), dim=1)

    def value(self, m: Tensor) -> Tensor:
        return self._norms(m).sum()

    def subgradient(self, m: Tensor) -> Tensor:
        norms = self._norms(m)
        scale = torch.where(norms > 0, 1.0 / torch.where(norms > 0, norms, 1.0), 0.0)
        return m * scale.reshape(-1, *(1,) * (m.ndim - 1)) if m.ndim else m * scale[0]

    def excess(self, x: Tensor) -> Tensor:
        return self._norms(x).max() - 1.0

    def finite_conjugate(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


@dataclass(frozen=True)
class HalfSquare(ConvexFunction):
    """``K(m) = |m|^2 / 2``: momentum with weight decay, ``K*(x) = |x|^2 / 2``.

    >>> HalfSquare().conjugate(torch.tensor([3.0, 4.0]))
    tensor(12.5000)
    """

    def value(self, m: Tensor) -> Tensor:
        return 0.5 * m.square().sum()

    def subgradient(self, m: Tensor) -> Tensor:
        return m.clone()

    def finite_conjugate(self, x: Tensor) -> Tensor:
        return 0.5 * x.square().sum()


@dataclass(frozen=True)
class ThresholdedL1(_OnBox):
    """``K(m) = sum max(|m_i| - e, 0)``: sparse training, ``K*(x) = e |x|_1`` on ``|x|_inf <= 1``.

    >>> ThresholdedL1(1.0).subgradient(torch.tensor([-3.0, 0.5]))
    tensor([-1.,  0.])
    """

    e: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "e", zero=True)

    def value(self, m: Tensor) -> Tensor:
        return (m.abs() - self.e).clamp_min(0.0).sum()

    def subgradient(self, m: Tensor) -> Tensor:
        return torch.where(m.abs() > self.e, m.sign(), 0.0)

    def finite_conjugate(self, x: Tensor) -> Tensor:
        return self.e * x.abs().sum()


@dataclass(frozen=True)
class TopK(ConvexFunction):
    """``K(m)`` = sum of the k largest ``|m_i|``: keeps ``|x|_1 <= k/lam`` and ``|x|_inf <= 1/lam``.

    An update moves k entries of each tensor; k past the tensor's size is `L1`.

    >>> TopK(1).subgradient(torch.tensor([-3.0, 2.0]))
    tensor([-1.,  0.])
    """

    k: int = 1

    def __post_init__(self) -> None:
        require(is_whole(self.k) and self.k >= 1, "TopK needs a whole k >= 1", got=self.k)

    def value(self, m: Tensor) -> Tensor:
        return m.abs().flatten().topk(min(self.k, m.numel())).values.sum()

    def subgradient(self, m: Tensor) -> Tensor:
        flat = m.flatten()
        chosen = flat.abs().topk(min(self.k, flat.numel())).indices
        out = torch.zeros_like(flat)
        return out.index_copy(0, chosen, flat[chosen].sign()).reshape(m.shape)

    def excess(self, x: Tensor) -> Tensor:
        return torch.maximum(x.abs().max() - 1.0, x.abs().sum() / self.k - 1.0)

    def finite_conjugate(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


@dataclass(frozen=True)
class Huber(_OnBox):
    """Huber function of width e, update ``clip(m/e, -1, 1)``: ``K*(x) = e/2 |x|^2`` on ``|x|_inf <= 1``.

    >>> Huber(2.0).subgradient(torch.tensor([-3.0, 1.0]))
    tensor([-1.0000,  0.5000])
    """

    e: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "e")

    def value(self, m: Tensor) -> Tensor:
        size = m.abs()
        return torch.where(size <= self.e, m.square() / (2 * self.e), size - 0.5 * self.e).sum()

    def subgradient(self, m: Tensor) -> Tensor:
        return (m / self.e).clamp(-1.0, 1.0)

    def finite_conjugate(self, x: Tensor) -> Tensor:
        return 0.5 * self.e * x.square().sum()


@dataclass(frozen=True)
class PseudoHuber(_OnBox):
    """``K(m) = sum sqrt(m_i^2 + e^2)``: a smooth Lion, ``K*(x) = -e sum sqrt(1 - x_i^2)`` on the box.

    >>> PseudoHuber(3.0).subgradient(torch.tensor([4.0]))
    tensor([0.8000])
    """

    e: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "e")

    def value(self, m: Tensor) -> Tensor:
        return (m.square() + self.e**2).sqrt().sum()

    def subgradient(self, m: Tensor) -> Tensor:
        return m / (m.square() + self.e**2).sqrt()

    def finite_conjugate(self, x: Tensor) -> Tensor:
        return -self.e * (1.0 - x.square()).clamp_min(0.0).sqrt().sum()


@dataclass(frozen=True)
class CustomFunction(ConvexFunction):
    """Any convex K given by its value and a subgradient; ``conjugate_of`` for the certificates, if known.

    >>> CustomFunction(lambda m: m.cosh().sum(), torch.sinh).subgradient(torch.zeros(2))
    tensor([0., 0.])
    """

    value_of: Callable[[Tensor], Tensor]
    subgradient_of: Callable[[Tensor], Tensor]
    conjugate_of: Callable[[Tensor], Tensor] | None = None

    def value(self, m: Tensor) -> Tensor:
        return self.value_of(m)

    def subgradient(self, m: Tensor) -> Tensor:
        return self.subgradient_of(m)

    def finite_conjugate(self, x: Tensor) -> Tensor:
        if self.conjugate_of is None:
            raise InvalidParameter("This CustomFunction has no conjugate. Pass conjugate_of= to have it.")
        return self.conjugate_of(x)
