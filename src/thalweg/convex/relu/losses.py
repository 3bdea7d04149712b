"""Losses of a network's outputs with what the convex program asks of them: slopes, proximal steps, conjugates.

Outputs f and targets y have shape (k, n): a row for each output. Losses are sums over samples and outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit, log_softmax, softmax, xlogy

from thalweg.convex.datafits import Vector

#: Newton steps for a proximal point or a bias: they end at rounding long before.
NEWTON = 60


@dataclass(frozen=True, eq=False)
class OutputLoss(ABC):
    """A convex loss of outputs.

    Args:
        y: targets, shape (k, n).
        weights: of the samples, positive, shape (n,).
    """

    #: Whether the loss has a gradient everywhere.
    is_smooth: ClassVar[bool] = True
    #: Whether outputs are coupled.
    is_joint: ClassVar[bool] = False

    y: Vector
    weights: Vector

    @abstractmethod
    def value(self, f: Vector) -> float:
        """The loss."""

    @abstractmethod
    def slope(self, f: Vector) -> Vector:
        """A subgradient, shape (k, n)."""

    @abstractmethod
    def prox(self, q: Vector, rho: float) -> Vector:
        """``argmin_f loss(f) + rho/2 sum weights (f - q)^2``: weights count as repetitions of samples."""

    @abstractmethod
    def dual(self, theta: Vector, limit: float) -> float:
        """The best of ``-conjugate(-c theta)`` over multiples c in [0, limit] for which it is known to be finite."""

    def feasible(self, theta: Vector, has_bias: bool) -> Vector:
        """The nearest usable dual point: in the conjugate's domain, of sum zero over samples where a bias is free."""
        return (
            theta - self.weights * (theta.sum(1, keepdims=True) / self.weights.sum()) if has_bias else theta
        )

    def best_bias(self, f: Vector) -> Vector:
        """The bias of each output that minimises the loss of ``f + bias``, shape (k,): Newton's method, damped."""
        bias = np.zeros(len(f))
        for _ in range(NEWTON):
            now = f + bias[:, None]
            step = self.slope(now).sum(1) / np.maximum(self.curvature(now).sum(1), 1e-12 * self.weights.max())
            step = np.clip(step, -1.0, 1.0)
            bias -= step
            if np.abs(step).max() <= 1e-14 * (1.0 + np.abs(bias).max()):
                break
        return bias

    def curvature(self, f: Vector) -> Vector:
        """A bound of the second derivative in each output, shape (k, n)."""
        return np.broadcast_to(self.weights, f.shape)


class Squares(OutputLoss):
    """``sum weights (f - y)^2 / 2``."""

    def value(self, f: Vector) -> float:
        return 0.5 * float((self.weights * np.square(f - self.y)).sum())

    def slope(self, f: Vector) -> Vector:
        return self.weights * (f - self.y)

    def prox(self, q: Vector, rho: float) -> Vector:
        return (self.y + rho * q) / (1.0 + rho)

    def dual(self, theta: Vector, limit: float) -> float:
        along, squares = float((theta * self.y).sum()), float((theta * theta / self.weights).sum())
        c = min(max(along / squares, 0.0), limit) if squares > 0 else 0.0
        return c * along - 0.5 * c * c * squares

    def best_bias(self, f: Vector) -> Vector:
        return np.asarray(np.average(self.y - f, axis=1, weights=self.weights))


class _Labelled(OutputLoss):
    """Losses of a margin ``y f``, y = -1 or 1."""

    def feasible(self, theta: Vector, has_bias: bool) -> Vector:
        p = np.clip(self.y * theta / self.weights, 0.0, 1.0)
        if has_bias:
            positive = self.y > 0
            up = (self.weights * p * positive).sum(1, keepdims=True)
            down = (self.weights * p * ~positive).sum(1, keepdims=True)
            least = np.minimum(up, down)
            share_up = np.divide(least, up, out=np.zeros_like(up), where=up > 0)
            share_down = np.divide(least, down, out=np.zeros_like(down), where=down > 0)
            p = p * np.where(positive, share_up, share_down)
        return self.y * self.weights * p


class LogisticLoss(_Labelled):
    """``sum weights log(1 + exp(-y f))``, y = -1 or 1."""

    def value(self, f: Vector) -> float:
        return float((self.weights * np.logaddexp(0.0, -self.y * f)).sum())

    def slope(self, f: Vector) -> Vector:
        return -self.weights * self.y * expit(-self.y * f)

    def curvature(self, f: Vector) -> Vector:
        p = expit(f)
        return self.weights * p * (1.0 - p)

    def prox(self, q: Vector, rho: float) -> Vector:
        # m - p/rho = y q with p = expit(-m): the root lies within 1/rho above y q.
        low = self.y * q
        high = low + 1.0 / rho
        m = low + expit(-low) / rho
        for t in range(NEWTON):
            p = expit(-m)
            off = m - p / rho - self.y * q
            low, high = np.where(off < 0, m, low), np.where(off > 0, m, high)
            new = m - off / (1.0 + p * (1.0 - p) / rho)
            # a flat loss sends Newton's steps to and fro between the ends
            outside = (new < low) | (new > high) | (t % 8 == 7)
            new = np.where(outside, 0.5 * (low + high), new)
            if np.abs(new - m).max() <= 1e-13 * (1.0 + np.abs(m).max()):
                break
            m = new
        return self.y * m

    def dual(self, theta: Vector, limit: float) -> float:
        p = np.clip(min(1.0, limit) * self.y * theta / self.weights, 0.0, 1.0)
        return -float((self.weights * (xlogy(p, p) + xlogy(1.0 - p, 1.0 - p))).sum())


class HingeLoss(_Labelled):
    """``sum weights (1 - y f)_+``, y = -1 or 1."""

    is_smooth: ClassVar[bool] = False

    def value(self, f: Vector) -> float:
        return float((self.weights * np.maximum(1.0 - self.y * f, 0.0)).sum())

    def slope(self, f: Vector) -> Vector:
        return np.where(self.y * f < 1.0, -self.y, 0.0) * self.weights

    def prox(self, q: Vector, rho: float) -> Vector:
        m = self.y * q
        return self.y * np.where(m >= 1.0, m, np.minimum(m + 1.0 / rho, 1.0))

    def dual(self, theta: Vector, limit: float) -> float:
        return min(1.0, limit) * float((self.y * theta).sum())

    def best_bias(self, f: Vector) -> Vector:
        """A weighted quantile: the loss is linear between the biases at which a margin is one."""
        found = np.zeros(len(f))
        for k, (row, y) in enumerate(zip(f, self.y, strict=True)):
            kinks = y - row
            order = np.argsort(kinks, kind="stable")
            rise = np.cumsum(self.weights[order]) - (self.weights * (y > 0)).sum()
            found[k] = kinks[order[min(int(np.searchsorted(rise, 0.0)), len(order) - 1)]]
        return found


class SoftmaxCrossEntropy(OutputLoss):
    """``-sum weights log softmax(f)[label]``, y one column of ones and zeros for each sample: outputs are coupled."""

    is_joint: ClassVar[bool] = True

    def value(self, f: Vector) -> float:
        return -float((self.weights * (self.y * log_softmax(f, axis=0)).sum(0)).sum())

    def slope(self, f: Vector) -> Vector:
        return self.weights * (np.asarray(softmax(f, axis=0)) - self.y)

    def curvature(self, f: Vector) -> Vector:
        return np.broadcast_to(0.5 * self.weights, f.shape)

    def prox(self, q: Vector, rho: float) -> Vector:
        f = np.array(q)
        for _ in range(10 * NEWTON):
            p = np.asarray(softmax(f, axis=0))
            g = p - self.y + rho * (f - q)
            # Hessian diag(p) + rho - p p': one rank-one correction (Sherman and Morrison)
            inverse = 1.0 / (p + rho)
            along = (p * inverse * g).sum(0) / (1.0 - (p * inverse * p).sum(0))
            step = inverse * (g + p * along)
            size = np.abs(step).max(0)
            f -= step / np.maximum(size, 1.0)
            if size.max() <= 1e-12 * (1.0 + np.abs(f).max()):
                break
        return f

    def dual(self, theta: Vector, limit: float) -> float:
        p = np.clip(self.y - min(1.0, limit) * theta / self.weights, 0.0, 1.0)
        return -float((self.weights * xlogy(p, p).sum(0)).sum())

    def feasible(self, theta: Vector, has_bias: bool) -> Vector:
        p = np.clip(self.y - theta / self.weights, 0.0, None)
        total = p.sum(0)
        p = np.where(total > 0, p / np.where(total > 0, total, 1.0), self.y)
        theta = self.weights * (self.y - p)
        if not has_bias:
            return theta
        # Sums of zero over the samples: each class's probabilities move towards its share by a common mixture.
        off = -theta.sum(1) / self.weights.sum()
        least = np.min(p, axis=1)
        if (least >= off).all():
            return self.weights * (self.y - (p - off[:, None]))
        return np.zeros_like(theta)

    def best_bias(self, f: Vector) -> Vector:
        """Newton's method in all biases together, the first output's held at zero."""
        k, bias = len(f), np.zeros(len(f))
        for _ in range(NEWTON):
            p = np.asarray(softmax(f + bias[:, None], axis=0))
            g = (self.weights * (p - self.y)).sum(1)
            H = np.diag((self.weights * p).sum(1)) - (self.weights * p) @ p.T
            H[np.diag_indices(k)] += 1e-12 * self.weights.sum()
            step = np.zeros(k)
            step[1:] = np.linalg.solve(H[1:, 1:], g[1:])
            bias -= step / max(1.0, float(np.abs(step).max()))
            if np.abs(step).max() <= 1e-13 * (1.0 + np.abs(bias).max()):
                break
        return bias


#: Losses by the names that problems, estimators and the command use.
LOSSES: dict[str, type[OutputLoss]] = {
    "squares": Squares,
    "logistic": LogisticLoss,
    "hinge": HingeLoss,
    "softmax": SoftmaxCrossEntropy,
}
