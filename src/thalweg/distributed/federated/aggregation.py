"""What a server makes of the updates that have come, whatever has carried them: the one rule of every engine.

Fraboni, Vidal, Kameni and Lorenzi (2023), algorithm 1: ``theta' = theta + eta_g sum_i d_i Delta_i``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.core import InvalidProblem, NotFinite
from thalweg.core.validation import is_real, is_whole, require
from thalweg.distributed.federated.schemes import Aggregation

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Update:
    """What a client has sent.

    Args:
        client: its place among the importances.
        change: Delta, how its local steps have moved the model; of any shape, as it has come.
        seconds: that its task took.
        version: the aggregation whose model it began from.
    """

    client: int
    change: Tensor
    seconds: float
    version: int


@dataclass(frozen=True)
class Aggregated:
    """The new model, and what became of the updates: ``taken``, ``rejected`` (broken), ``discarded`` (too old)."""

    x: Tensor
    taken: int
    rejected: int
    discarded: int


@dataclass(frozen=True)
class AggregationRule:
    """The server's rule.

    Args:
        scheme: tells the weight d_i of each update.
        server_lr: eta_g.
        stale: updates that are more aggregations old are thrown away; None for none.

    >>> from thalweg.distributed.federated import FedAvg
    >>> rule = AggregationRule(FedAvg())
    >>> updates = [Update(0, torch.ones(2), 1.0, 0), Update(1, torch.tensor([3.0, float("nan")]), 1.0, 0)]
    >>> rule.aggregate(torch.zeros(2), updates, 0, np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    Aggregated(x=tensor([0.5000, 0.5000]), taken=1, rejected=1, discarded=0)
    """

    scheme: Aggregation
    server_lr: float = 1.0
    stale: int | None = None

    def __post_init__(self) -> None:
        finite = is_real(self.server_lr) and 0 < self.server_lr < math.inf
        require(finite, "AggregationRule needs a finite server_lr > 0", got=self.server_lr)
        counted = self.stale is None or (is_whole(self.stale) and self.stale >= 0)
        require(counted, "AggregationRule needs whole stale >= 0, or None", got=self.stale)

    def is_stale(self, version: int, aggregation: int) -> bool:
        """Whether an update from the model of aggregation ``version`` is too old for this one."""
        return self.stale is not None and aggregation - version > self.stale

    @staticmethod
    def _are_finite(changes: Sequence[Tensor]) -> list[bool]:
        if len({(change.dtype, change.device) for change in changes}) > 1:
            return [bool(torch.isfinite(change).all()) for change in changes]
        if not changes or not changes[0].numel():
            return [True] * len(changes)
        found: list[bool] = (
            torch.isfinite(torch.stack(list(changes))).reshape(len(changes), -1).all(1).tolist()
        )
        return found

    @torch.no_grad()
    def aggregate(
        self, x: Tensor, updates: Sequence[Update], aggregation: int, p: Vector, shares: Vector
    ) -> Aggregated:
        """The model after aggregation number ``aggregation``.

        Updates are added client by client, so that the order in which those of different clients come changes no bit.

        Args:
            x: the model.
            p: importances of the clients.
            shares: of the clients among updates, as of `arrival_shares`.

        Raises:
            InvalidProblem: the model is not real floating-point, or an update of its shape is complex; a client that is
                not among the importances.
            NotFinite: the new model is not.
        """
        if not x.is_floating_point():
            raise InvalidProblem(f"The model is of {x.dtype}; expected real floating-point numbers.")
        young = [u for u in updates if not self.is_stale(u.version, aggregation)]
        shaped = [u for u in young if u.change.shape == x.shape]
        whole = self._are_finite([u.change for u in shaped])
        good = [u for u, finite in zip(shaped, whole, strict=True) if finite]
        for update in good:
            if not 0 <= update.client < len(p):
                raise InvalidProblem(
                    f"An update is of client {update.client}; importances are of clients 0 to {len(p) - 1}."
                )
            if update.change.is_complex():
                raise InvalidProblem(
                    f"The update of client {update.client} is complex; expected real numbers."
                )
        total = torch.zeros_like(x)
        for update in sorted(good, key=lambda u: (u.client, u.version)):
            total += self.scheme.weight(update.client, update.seconds, p, shares) * update.change
        taken, rejected, discarded = len(good), len(young) - len(good), len(updates) - len(young)
        new = x + self.server_lr * total if taken else x
        if not bool(torch.isfinite(new).all()):
            raise NotFinite(
                f"The model is not finite after {aggregation + 1} aggregations. Lower lr or server_lr."
            )
        return Aggregated(new, taken, rejected, discarded)
