"""How far from the optimum a design can end, and what of that each imperfection costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from thalweg.core.validation import check_vector, require
from thalweg.distributed.federated.design import Design


@dataclass(frozen=True)
class ErrorBound:
    """What `error_bound` finds; the terms but the last are of the loss, and add up.

    Args:
        initial: of where training starts.
        noise: of stochastic gradients.
        participation: of clients that take part at random.
        drift: of local steps towards the clients' own optima.
        delay: of updates that are old.
        disparity: of weights that are not the importances, in units of the gradient.
        smoothness: L.
        ratio: the largest ``p_i / q_i``.
    """

    initial: float
    noise: float
    participation: float
    drift: float
    delay: float
    disparity: float
    smoothness: float
    ratio: float

    @property
    def loss(self) -> float:
        """Bounds the mean over aggregations of ``E[L_q(theta^n)] - min L_q``, L_q being the loss of the weights q."""
        return self.initial + self.noise + self.participation + self.drift + self.delay

    @property
    def gradient(self) -> float:
        """Bounds the root mean square over aggregations of ``|grad sum_i p_i L_i|``, the loss that is wanted."""
        return float(np.sqrt(2.0 * self.smoothness * self.ratio * self.loss)) + self.disparity

    def __str__(self) -> str:
        names = ("initial", "noise", "participation", "drift", "delay")
        terms = [(name, getattr(self, name)) for name in names]
        lines = [f"{name:<14} {value:.3g}  ({value / self.loss:.0%})" for name, value in terms]
        return "\n".join(
            [
                *lines,
                f"{'loss':<14} {self.loss:.3g}",
                f"{'disparity':<14} {self.disparity:.3g}",
                f"{'gradient':<14} {self.gradient:.3g}",
            ]
        )


def error_bound(
    design: Design,
    aggregations: int,
    *,
    smoothness: float,
    distance: float,
    gradients: ArrayLike,
    lr: float,
    local_steps: int = 1,
    server_lr: float = 1.0,
    noise: float = 0.0,
    delay: int | None = None,
) -> ErrorBound:
    """What so many aggregations guarantee on convex, smooth losses.

    Args:
        design: as `design` returns it: means and covariances of the weights d, and the delay.
        aggregations: N.
        smoothness: L of every client's loss.
        distance: R, from the start to a minimiser theta* of ``L_q = sum_i q_i L_i``.
        gradients: ``|grad L_i(theta*)|``, shape (clients,): how much the clients disagree.
        lr, local_steps, server_lr: eta_l, K and eta_g.
        noise: sigma, the root of the variance of a stochastic gradient.
        delay: tau, aggregations an update is old at most; the design's by default, which for random times is an
            expectation.

    With ``gamma = eta_g eta_l K sum_i E[d_i]``, ``zeta^2 = sum_i q_i |grad L_i(theta*)|^2`` and v the covariance's
    bound, both of ``d / sum_i E[d_i]``, V their second moments' sum, and c = 2 (1 without noise or with one step):

    - initial ``R^2 / (2 gamma N)``, participation ``gamma c sum_i v_i |grad L_i(theta*)|^2``,
    - noise ``gamma c V sigma^2 / (2 K) + c L eta_l^2 (K - 1) sigma^2 / 2``, drift ``c L eta_l^2 K (K - 1) zeta^2``,
    - delay ``2 gamma L tau^2`` times participation and the first of noise,
    - disparity ``zeta sqrt(sum_i (p_i - q_i)^2 / q_i)``.

    The terms are those of Fraboni and others (2023), the constants our own: d^n and the updates' ages are independent
    of the models, as in the paper. That is exact for `FedAvg` and `Sampled`; where times decide who takes part it
    replaces their sequence by independent draws.

    Raises:
        InvalidParameter: rates beyond the proof's condition, ``c (1 + 2 max v_i/q_i) gamma L (1 + 2 gamma L tau^2) +
            2 c L^2 eta_l^2 K (K - 1) <= 1``. The message says the largest.

    >>> from thalweg.distributed.federated import ClientTimes, FedAvg, design
    >>> found = design(FedAvg(), ClientTimes.heterogeneous(4, 0.5))
    >>> print(error_bound(found, 100, smoothness=1.0, distance=2.0, gradients=[1, 1, 1, 1], lr=0.05, local_steps=4))
    initial        0.1  (77%)
    noise          0  (0%)
    participation  0  (0%)
    drift          0.03  (23%)
    delay          0  (0%)
    loss           0.13
    disparity      0
    gradient       0.51
    """
    G = check_vector("gradients", np.asarray(gradients, dtype=np.float64), len(design.p)) ** 2
    K, L, tau = local_steps, smoothness, design.delay if delay is None else delay
    require(
        aggregations >= 1 and K >= 1,
        "error_bound needs aggregations, local_steps >= 1",
        got=(aggregations, K),
    )
    require(
        L > 0 and lr > 0 and server_lr > 0,
        "error_bound needs smoothness, lr, server_lr > 0",
        got=(L, lr, server_lr),
    )
    require(
        distance >= 0 and noise >= 0 and tau >= 0,
        "error_bound needs distance, noise, delay >= 0",
        got=(distance, noise, tau),
    )
    total, q, c = float(design.expected.sum()), design.q, 2.0 if noise > 0 and K > 1 else 1.0
    gamma, v = server_lr * lr * K * total, design.covariance_bound / total**2
    _check_rates(gamma, lr, server_lr, c * (1.0 + 2.0 * float((v / q).max())), c, K, L, tau)

    second = float((design.variance + design.expected**2).sum()) / total**2
    zeta2, sampled = float(q @ G), gamma * c * float(v @ G)
    noisy = 0.5 * gamma * c * second * noise**2 / K
    return ErrorBound(
        initial=distance**2 / (2.0 * gamma * aggregations),
        noise=noisy + 0.5 * c * L * lr**2 * (K - 1) * noise**2,
        participation=sampled,
        drift=c * L * lr**2 * K * (K - 1) * zeta2,
        delay=2.0 * gamma * L * tau**2 * (sampled + noisy),
        disparity=float(np.sqrt(zeta2 * ((design.p - q) ** 2 / q).sum())),
        smoothness=L,
        ratio=float((design.p / q).max()),
    )


def _check_rates(
    gamma: float, lr: float, server_lr: float, a: float, c: float, K: int, L: float, tau: int
) -> None:
    left = 1.0 - 2.0 * c * (L * lr) ** 2 * K * (K - 1)
    require(
        left > 0, f"error_bound needs lr < {1.0 / (L * np.sqrt(2.0 * c * K * (K - 1) or 1.0)):.4g}", got=lr
    )
    # a u (1 + 2 tau^2 u) = left, in a form that holds without delays too
    most = 2.0 * left / a / (1.0 + np.sqrt(1.0 + 8.0 * tau**2 * left / a))
    require(
        gamma * L <= most * (1.0 + 1e-12),
        f"error_bound needs server_lr <= {server_lr * most / (gamma * L):.4g}",
        got=server_lr,
    )
