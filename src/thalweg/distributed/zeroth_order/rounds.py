"""Rounds of federated zeroth-order optimization: local steps at the clients, an average at the server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from thalweg.core import InvalidProblem, Method, NotFinite, State
from thalweg.core.seeding import generator, torch_generator
from thalweg.core.validation import require, require_counts, require_positive
from thalweg.distributed.federated.simulation import Faults
from thalweg.distributed.zeroth_order.problem import FederatedBlackBox, values_of

#: What travels, by name; a message has a row for each client, a broadcast has none.
Message = dict[str, Tensor]


class Ask:
    """The values of some clients' functions in the unit cube, counted.

    Args:
        values: each client's at its own points, shape (clients, m, d) to (clients, m).
        who: numbers of the clients.
        seed, round: of the random numbers, which are a client's own wherever it is computed.
    """

    def __init__(self, values: Callable[[Tensor], Tensor], who: Sequence[int], seed: int, round: int) -> None:
        self.values, self.who, self.seed, self.round = values, list(who), seed, round
        self.queries, self.answers = 0, 0
        self._streams = [torch_generator(seed, i, round, 0x23) for i in who]

    def __call__(self, X: Tensor) -> Tensor:
        self.queries += X.shape[1]
        y = self.values(X)
        self.answers += int(torch.isfinite(y).sum())
        return y

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers for each client."""
        return torch.stack([torch.randn(*shape, generator=g, dtype=torch.float64) for g in self._streams])

    def uniform(self, *shape: int) -> Tensor:
        """Numbers uniform in [-1, 1] for each client."""
        drawn = [torch.rand(*shape, generator=g, dtype=torch.float64) for g in self._streams]
        return 2.0 * torch.stack(drawn) - 1.0


class Local(ABC):
    """A round at some clients."""

    @abstractmethod
    def direction(self, x: Tensor, t: int) -> Tensor:
        """The gradient to follow in local step t, x and it of shape (clients, d)."""

    @abstractmethod
    def finish(self, x: Tensor) -> tuple[Message, Message]:
        """What is sent, besides x, and what the clients keep."""


@dataclass(kw_only=True)
class RoundState(State):
    """``x`` is the server's; ``calls`` counts the queries of all clients."""

    x: Tensor  # (d,)
    seed: int
    round: int = 0
    broadcast: Message  # what the server sends next
    memory: Message  # what the clients keep, a row for each
    queries: int = 0  # of one client
    bytes: int = 0  # both ways, of all clients
    rejected: int = 0  # messages


@dataclass(frozen=True)
class ZerothOrder(Method[FederatedBlackBox, RoundState]):
    """Base: a step is a round. `local` is the clients' part and `aggregate` the server's; neither knows an engine.

    Args:
        local_steps: T.
        lr: of the local steps.
        optimizer: ``"adam"``, its moments begun anew each round, or ``"sgd"``.
        faults: ``lost``, the chance that a client dies in mid-round, and ``spoil(client, round, x)``.

    Messages are looked at one at a time: one that is not finite, out of the cube or of another shape is rejected and
    counted, and the average is over the others. A round that brings none changes nothing.

    The metrics of a step are those of the problem, ``queries`` a client so far, ``megabytes`` both ways of all clients,
    and ``rejected`` messages.

    Raises:
        NotFinite: from a step, when no function has a value anywhere in a round.
    """

    local_steps: int = 10
    lr: float = 0.01
    optimizer: Literal["adam", "sgd"] = "adam"
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        name = type(self).__name__
        require_counts(self, "local_steps")
        require_positive(self, "lr")
        require(self.optimizer in ("adam", "sgd"), f"{name} knows 'adam' and 'sgd'", got=self.optimizer)

    def first_broadcast(self, x0: Tensor, seed: int) -> Message:
        """What the server sends in the first round."""
        return {"x": x0.clone()}

    def first_memory(self, clients: int, d: int) -> Message:
        """What clients keep before the first round, a row for each."""
        return {}

    @abstractmethod
    def begin(self, ask: Ask, broadcast: Message, memory: Message) -> Local:
        """A round at some clients."""

    def fits(self, broadcast: Message, message: Message) -> bool:
        """Whether what is sent beside x belongs to the broadcast."""
        return True

    def combine(self, broadcast: Message, messages: Message, weights: Tensor) -> Message:
        """The next broadcast but for x, from the messages that were accepted, and their weights, which sum to one."""
        return {}

    def local(self, ask: Ask, broadcast: Message, memory: Message) -> tuple[Message, Message]:
        """The clients' part: local steps in the unit cube. What they send and what they keep, a row for each."""
        x = broadcast["x"].expand(len(ask.who), -1)
        round = self.begin(ask, broadcast, memory)
        first, second, unit = torch.zeros_like(x), torch.zeros_like(x), torch.ones_like(x[:, :1])
        for t in range(self.local_steps):
            g = round.direction(x, t)
            if self.optimizer == "adam":
                unit = (
                    _size(g) if t == 0 else unit
                )  # Adam's 1e-8 is relative to it: the functions may have any unit
                g = g / unit
                first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
                g = (first / (1 - 0.9 ** (t + 1))) / ((second / (1 - 0.999 ** (t + 1))).sqrt() + 1e-8)
            x = (x - self.lr * g).clamp(0.0, 1.0)
        sent, kept = round.finish(x)
        return {"x": x, **sent}, kept

    def aggregate(
        self, broadcast: Message, messages: Sequence[Message], weights: Tensor
    ) -> tuple[Message, Tensor]:
        """The server's part: the next broadcast, the same one where no message can be used, and which were accepted.

        Args:
            messages: of clients, each with a first axis of one.
            weights: of the clients, shape (messages,); zero for one that is not there.
        """
        usual = _usual_shapes([m for m in messages if _holds_x(m, broadcast["x"])])
        accepted = torch.tensor(
            [
                bool(weight > 0)
                and _holds_x(m, broadcast["x"])
                and _shapes(m) == usual
                and all(bool(torch.isfinite(v).all()) for v in m.values())
                and self.fits(broadcast, m)
                for m, weight in zip(messages, weights, strict=True)
            ],
            dtype=torch.bool,
        )
        if not bool(accepted.any()):
            return broadcast, accepted
        share = weights[accepted] / weights[accepted].sum()
        usable = stacked([m for m, good in zip(messages, accepted, strict=True) if good])
        return {"x": share @ usable["x"], **self.combine(broadcast, usable, share)}, accepted

    def init(self, problem: FederatedBlackBox, seed: int) -> RoundState:
        count, d = len(problem.clients), len(problem.x0)
        state = RoundState(
            x=problem.x0.clone(),
            seed=seed,
            broadcast=self.first_broadcast(problem.x0, seed),
            memory=self.first_memory(count, d),
        )
        state.metrics = self._metrics(problem, state)
        return state

    def step(self, problem: FederatedBlackBox, state: RoundState) -> RoundState:
        who = range(len(problem.clients))
        ask = Ask(lambda X: problem.values(X, who), who, state.seed, state.round)
        messages, memory = self.local(ask, state.broadcast, state.memory)
        if not ask.answers:
            raise NotFinite(
                f"No client's function has a finite value at any of the {ask.queries * len(who)} points of round "
                f"{state.round}. Begin at an x0 where some have."
            )
        down = sum(v.numel() * v.element_size() for v in state.broadcast.values()) * len(who)
        up = sum(v.numel() * v.element_size() for v in messages.values())
        weights, lost = torch.from_numpy(problem.weights).clone(), self._lost(who, state)
        weights[lost] = 0.0
        sent = [row(messages, i) for i in who]
        if self.faults.spoil is not None:
            sent = [
                {**m, "x": self.faults.spoil(i, state.round, m["x"][0])[None]}
                for i, m in zip(who, sent, strict=True)
            ]
        broadcast, accepted = self.aggregate(state.broadcast, sent, weights)
        new = replace(
            state,
            x=broadcast["x"],
            round=state.round + 1,
            broadcast=broadcast,
            memory=memory,
            queries=state.queries + ask.queries,
            bytes=state.bytes + up + down,
            rejected=state.rejected + len(who) - len(lost) - int(accepted.sum()),
            calls=state.calls + ask.queries * len(who),
        )
        return replace(new, metrics=self._metrics(problem, new))

    def _lost(self, who: Sequence[int], state: RoundState) -> list[int]:
        chance = self.faults.lost
        return [
            i for i in who if chance > 0 and generator(state.seed, i, state.round, 0x24).random() < chance
        ]

    @staticmethod
    def _metrics(problem: FederatedBlackBox, state: RoundState) -> dict[str, float]:
        counted = {"queries": float(state.queries), "megabytes": state.bytes / 1e6}
        return problem.metrics(state.x) | counted | {"rejected": float(state.rejected)}


def _size(g: Tensor) -> Tensor:
    """The power of two next to each client's largest entry, (clients, d) to (clients, 1); one where all are zero."""
    largest = g.abs().amax(1, keepdim=True)
    return torch.where(largest > 0, torch.exp2(torch.frexp(largest).exponent.to(g)), 1.0)


def _holds_x(message: Message, x: Tensor) -> bool:
    """Whether a message holds a point of the cube like ``x``, up to rounding."""
    found = message.get("x")
    if found is None or found.shape != (1, *x.shape):
        return False
    return bool(((found >= -1e-9) & (found <= 1.0 + 1e-9)).all())


def _shapes(message: Message) -> frozenset[tuple[str, tuple[int, ...]]]:
    return frozenset((name, tuple(v.shape)) for name, v in message.items())


def _usual_shapes(messages: Sequence[Message]) -> frozenset[tuple[str, tuple[int, ...]]] | None:
    """Names and shapes of most messages; one client of another version does not stop the others."""
    common = Counter(_shapes(m) for m in messages).most_common(1)
    return common[0][0] if common else None


def row(message: Message, i: int) -> Message:
    """One client's row of a message or memory, the axis kept: what is sent to it, or by it, where it is alone."""
    return {name: v[i : i + 1] for name, v in message.items()}


def stacked(messages: Sequence[Message]) -> Message:
    """Rows put together again.

    Raises:
        InvalidProblem: messages of different shapes.
    """
    shapes = [{name: tuple(v.shape[1:]) for name, v in m.items()} for m in messages]
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise InvalidProblem(f"Message {i} holds {shape}; message 0 holds {shapes[0]}.")
    return {name: torch.cat([m[name] for m in messages]) for name in messages[0]}


class Client:
    """One client by itself, for any engine: a Ray actor, a Flower client, a loop. It keeps its own queries.

    Args:
        method: the same as the server's.
        f: its function, as of `FederatedBlackBox`.
        number: its number, which its random numbers belong to.
        seed: as of all.

    >>> from thalweg.distributed.zeroth_order import FedZO
    >>> method = FedZO(local_steps=30, directions=2, lr=0.02)
    >>> clients = [Client(method, lambda X, c=c: ((X - c) ** 2).sum(-1), i) for i, c in enumerate((0.2, 0.6))]
    >>> broadcast = method.first_broadcast(torch.full((2,), 0.9, dtype=torch.float64), seed=0)
    >>> for number in range(3):
    ...     messages = [client.round(broadcast, number) for client in clients]
    ...     broadcast, accepted = method.aggregate(broadcast, messages, torch.tensor([0.5, 0.5]).double())
    >>> broadcast["x"].round(decimals=1)
    tensor([0.4000, 0.4000], dtype=torch.float64)
    """

    def __init__(
        self, method: ZerothOrder, f: Callable[[Tensor], Tensor], number: int, seed: int = 0
    ) -> None:
        self.method, self.f, self.number, self.seed = method, f, number, seed
        self.memory: Message | None = None
        self.queries = 0

    def round(self, broadcast: Message, number: int) -> Message:
        """Local steps from a broadcast; what is sent to the server, with a first axis of one."""
        if self.memory is None:
            self.memory = self.method.first_memory(1, len(broadcast["x"]))
        ask = Ask(lambda X: values_of(self.f, X[0], self.number)[None], [self.number], self.seed, number)
        message, self.memory = self.method.local(ask, broadcast, self.memory)
        self.queries += ask.queries
        return message
