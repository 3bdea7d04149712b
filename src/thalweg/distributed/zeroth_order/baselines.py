"""What FZooS is measured against: finite differences along random directions, corrected or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thalweg.core.validation import is_whole, require, require_counts, require_positive
from thalweg.distributed.zeroth_order.rounds import Ask, Local, Message, ZerothOrder


@dataclass(frozen=True)
class FedZO(ZerothOrder):
    """Local steps along ``(d/q) sum_k u_k (f_i(x + mu u_k) - f_i(x))/mu``, q orthonormal directions drawn anew.

    Args:
        local_steps, lr, optimizer, faults: as of all methods.
        directions: q, at most d.
        mu: length of the differences.

    Cost per local step: q + 1 queries a client. Messages hold x alone.

    Source: Fang, Yu, Jiang, Shi, Jones and Zhou (2022), "Communication-efficient stochastic zeroth-order optimization
    for federated learning".
    """

    directions: int = 20
    mu: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "directions")
        require_positive(self, "mu")

    def begin(self, ask: Ask, broadcast: Message, memory: Message) -> Local:
        return Differences(self, ask, broadcast)


@dataclass(frozen=True)
class FedProxZO(FedZO):
    """`FedZO` with a pull to the server's x, ``proximal (x - x_server)`` (Li et al., 2020)."""

    proximal: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "proximal", zero=True)

    def begin(self, ask: Ask, broadcast: Message, memory: Message) -> Local:
        return _Pulled(self, ask, broadcast, self.proximal)


@dataclass(frozen=True)
class ScaffoldZO(FedZO):
    """`FedZO` with control variates: ``g - c_i + c``, c the average of the clients' c_i of the round before.

    Args:
        option: 1: c_i is the gradient at the server's x, estimated by q + 1 queries of its own; 2: the mean of the
            round's local gradients, at no cost.

    Messages hold x and c_i. Source: Karimireddy et al. (2020), options I and II.
    """

    option: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            is_whole(self.option) and self.option in (1, 2),
            "ScaffoldZO knows options 1 and 2",
            got=self.option,
        )

    def first_broadcast(self, x0: Tensor, seed: int) -> Message:
        return {"x": x0.clone(), "c": torch.zeros_like(x0)}

    def first_memory(self, clients: int, d: int) -> Message:
        return {"c": torch.zeros(clients, d, dtype=torch.float64)}

    def begin(self, ask: Ask, broadcast: Message, memory: Message) -> Local:
        return _Controlled(self, ask, broadcast, memory)

    def combine(self, broadcast: Message, messages: Message, weights: Tensor) -> Message:
        return {"c": weights @ messages["c"]}


class Differences(Local):
    """A round of finite differences."""

    def __init__(self, method: FedZO, ask: Ask, broadcast: Message) -> None:
        self.method, self.ask, self.server = method, ask, broadcast["x"]

    def direction(self, x: Tensor, t: int) -> Tensor:
        d = x.shape[1]
        q, mu = min(self.method.directions, d), self.method.mu
        U = torch.linalg.qr(self.ask.normal(d, q)).Q.mT  # (clients, q, d)
        ahead = (x[:, None] + mu * U).clamp(0.0, 1.0)
        y = self.ask(torch.cat([x[:, None], ahead], 1))
        change = torch.nan_to_num(y[:, 1:] - y[:, :1], nan=0.0, posinf=0.0, neginf=0.0)
        return d / q * torch.einsum("cq,cqd->cd", change / mu, U)

    def finish(self, x: Tensor) -> tuple[Message, Message]:
        return {}, {}


class _Pulled(Differences):
    def __init__(self, method: FedZO, ask: Ask, broadcast: Message, proximal: float) -> None:
        super().__init__(method, ask, broadcast)
        self.proximal = proximal

    def direction(self, x: Tensor, t: int) -> Tensor:
        return super().direction(x, t) + self.proximal * (x - self.server)


class _Controlled(Differences):
    def __init__(self, method: ScaffoldZO, ask: Ask, broadcast: Message, memory: Message) -> None:
        super().__init__(method, ask, broadcast)
        self.option, self.c, self.own = method.option, broadcast["c"], memory["c"]
        self.total, self.steps = torch.zeros_like(self.own), 0
        self.at_server = (
            super().direction(self.server.expand_as(self.own), 0) if self.option == 1 else self.own
        )

    def direction(self, x: Tensor, t: int) -> Tensor:
        g = super().direction(x, t)
        self.total, self.steps = self.total + g, self.steps + 1
        return g - self.own + self.c

    def finish(self, x: Tensor) -> tuple[Message, Message]:
        c = self.at_server if self.option == 1 else self.total / self.steps
        return {"c": c}, {"c": c}
