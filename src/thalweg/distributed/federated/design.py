"""Is a design unbiased? Whom does it favour? What does asynchrony cost?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, require
from thalweg.distributed.federated.schemes import Aggregation
from thalweg.distributed.federated.times import ClientTimes

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """What a scheme does to the clients of some times.

    Args:
        scheme: the aggregation.
        p: importances, shape (clients,).
        expected, variance: E[d_i] and Var[d_i] of an aggregation.
        covariance_bound: v, such that Cov[d] is at most diag(v).
        participation: updates of each client an aggregation takes, in expectation.
        window: aggregations within which each client takes part.
        delay: aggregations an update is old at most.
        interval: seconds between aggregations.
    """

    scheme: Aggregation
    p: Vector
    expected: Vector
    variance: Vector
    covariance_bound: Vector
    participation: Vector
    window: int
    delay: int
    interval: float

    @property
    def q(self) -> Vector:
        """The weights of the loss that is minimised, ``E[d_i] / sum_j E[d_j]``."""
        return np.asarray(self.expected / self.expected.sum())

    @property
    def disparity(self) -> float:
        """``sum_i |q_i - p_i| / 2``: the share of importance that is given to the wrong clients."""
        return 0.5 * float(np.abs(self.q - self.p).sum())

    @property
    def unbiased(self) -> bool:
        """Whether q is p, up to a thousandth."""
        return self.disparity <= 1e-3

    def server_rate(self, curvature: float, lr: float, local_steps: int) -> float:
        """The largest eta_g that is sure to settle on quadratic losses of one curvature, however delays fall.

        K local steps of eta_l move a model by the share ``a = 1 - (1 - eta_l h)^K`` of its distance, from models that
        are at most ``tau = window - 1`` aggregations old. The error then settles where ``a < 2`` without delays, and
        where ``a (tau + 1) < 3/2`` with any that vary (Yorke's condition; Erbe, Xia and Yu, 1995).

        Args:
            curvature: L, the largest eigenvalue of the losses' Hessians.
            lr, local_steps: eta_l and K.

        Raises:
            InvalidParameter: rates that are not positive, or local steps that diverge by themselves, eta_l >= 2 / L.

        >>> from thalweg.distributed.federated import FedAvg, FedFix
        >>> times = ClientTimes.heterogeneous(4, 0.75)
        >>> [round(design(s, times).server_rate(1.0, 0.1, 5), 2) for s in (FedAvg(), FedFix(0.5), FedFix(0.25))]
        [4.88, 1.83, 0.92]
        """
        require(
            curvature > 0 and lr > 0 and local_steps >= 1,
            "server_rate needs curvature, lr > 0, local_steps >= 1",
            got=(curvature, lr, local_steps),
        )
        require(lr * curvature < 2, "Local steps diverge: server_rate needs lr < 2 / curvature", got=lr)
        kept = (1.0 - lr * curvature) ** local_steps
        share = 1.0 - (kept if lr * curvature <= 1.0 else min(kept, 0.0))  # the largest over 0 < h <= L
        limit = 2.0 if self.window == 1 else 1.5 / self.window
        return float(limit / (share * self.expected.sum()))

    @property
    def favoured(self) -> list[int]:
        """Clients whose weight exceeds their importance by 5 % and more, most first."""
        return _beyond(self.q / self.p, 1.05)

    @property
    def neglected(self) -> list[int]:
        """Clients whose weight falls short of their importance by 5 % and more, most first."""
        return _beyond(self.p / self.q, 1.05)

    def __str__(self) -> str:
        gaps = self.q / self.p
        lines = [
            f"{self.scheme}: {'unbiased' if self.unbiased else 'BIASED'}",
            f"aggregation every        {self.interval:.4g} s",
            f"updates an aggregation   {self.participation.sum():.4g} of {len(self.p)} clients",
            f"every client within      {self.window} aggregations, {self.window * self.interval:.4g} s",
            f"q over p                 {gaps.min():.3f} to {gaps.max():.3f}; misplaced importance {self.disparity:.3f}",
            f"deviation, at most       {float(np.sqrt(self.variance).max() / self.p.mean()):.3g} mean importances",
        ]
        if self.neglected:
            lines.append(f"neglected                {', '.join(map(str, self.neglected[:8]))}")
        return "\n".join([*lines, *(f"- {word}" for word in self.advice())])

    def advice(self) -> list[str]:
        """What to change, in sentences."""
        said = []
        if not self.unbiased:
            said.append(
                "The optimum is that of other importances: use the corrected weights (corrected=True)."
            )
        if self.window > 10:
            said.append(
                f"The slowest client is {self.window} aggregations behind: take {self.scheme.waits_longer}, or a "
                "smaller server rate; updates that old can destabilise training."
            )
        if self.window == 1 and float(self.participation.min()) >= 1.0:
            said.append(f"Everybody is waited for: {self.scheme.waits_less} saves time.")
        return said or ["Nothing to change."]


def design(scheme: Aggregation, times: ClientTimes, p: ArrayLike | None = None) -> Design:
    """Expectations of a scheme's weights; p are the importances, equal by default.

    Raises:
        InvalidProblem: importances that are no distribution over the clients.

    >>> from thalweg.distributed.federated import FedFix
    >>> times = ClientTimes.heterogeneous(4, 0.8)
    >>> design(FedFix(0.5), times).unbiased, design(FedFix(0.5, corrected=False), times).unbiased
    (True, False)
    """
    p = importances(p, times.clients)
    return Design(
        scheme,
        p,
        scheme.expected(p, times),
        scheme.variance(p, times),
        scheme.covariance_bound(p, times),
        scheme.participation(p, times),
        scheme.window(p, times),
        scheme.delay(p, times),
        scheme.interval(p, times),
    )


def importances(p: ArrayLike | None, clients: int) -> Vector:
    """p as a distribution over clients, or a refusal."""
    if p is None:
        return np.full(clients, 1.0 / clients)
    given = as_real("importances", p)
    if given.shape != (clients,):
        raise InvalidProblem(
            f"importances has shape {given.shape}; expected ({clients},), one for each client."
        )
    for client, value in enumerate(given.tolist()):
        if not 0 < value < np.inf:
            raise InvalidProblem(
                f"Importances are positive; that of client {client} (from 0) is {value:g}. Leave out clients that are "
                "to count for nothing."
            )
    total = float(given.sum())
    if not abs(total - 1.0) <= 1e-6:
        raise InvalidProblem(f"Importances sum to 1; these sum to {total:.6g}. Divide them by their sum.")
    return given


def _beyond(ratio: Vector, bound: float) -> list[int]:
    order = np.argsort(-ratio, kind="stable")
    return [int(i) for i in order if ratio[i] > bound]
