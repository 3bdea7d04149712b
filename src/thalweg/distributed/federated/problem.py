"""Data that stay with their clients, and one model for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from thalweg.core import InvalidProblem, NotFinite, Problem, Stop
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, require
from thalweg.distributed.federated.design import importances
from thalweg.numerics.tensor_checks import require_tensors

#: Clients whose updates are computed at once.
CHUNK = 512


@dataclass(frozen=True, eq=False)
class Federated(Problem):
    """Minimise ``sum_i p_i L_i(theta)`` over clients, ``L_i`` the mean loss of client i's examples.

    Args:
        loss: ``loss(theta, X, y)``, the mean over a batch, for a vector theta; made of torch operations that
            `torch.func.vmap` takes: no branches on values (`torch.where` for ``if``), no ``.item()``.
        x0: theta to start from.
        clients: ``(X, y)`` of each client, tensors whose first axes agree within a client and other axes everywhere.
        p: importances, summing to one; the clients' shares of the examples by default.

    The metric is ``loss``, with the importances.

    Raises:
        InvalidProblem: no clients, a client without examples, importances that do not sum to one; from the first step,
            a loss that vmap does not take.
        NotFinite: examples that are not finite.

    >>> clients = [(torch.full((2, 1), float(c)), torch.zeros(2)) for c in range(3)]
    >>> mean = Federated(lambda theta, X, y: ((theta - X) ** 2).mean(), torch.zeros(1), clients)
    >>> round(mean.metrics(torch.ones(1))["loss"], 6)
    0.666667
    """

    objective: ClassVar[str | None] = "loss"

    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    x0: Tensor
    clients: Sequence[tuple[Tensor, Tensor]]
    p: ArrayLike | None = None
    weights: NDArray[np.float64] = field(init=False, repr=False)
    counts: NDArray[np.int64] = field(init=False, repr=False)
    _X: Tensor = field(init=False, repr=False, compare=False)
    _y: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(len(self.clients) > 0, "There are no clients", error=InvalidProblem)
        counts = np.array([len(y) for _, y in self.clients])
        for i, (X, y) in enumerate(self.clients):
            require_tensors(f"clients[{i}]", (X, y))
            if len(X) != len(y) or len(y) == 0:
                raise InvalidProblem(
                    f"Client {i} has {len(X)} X and {len(y)} y; both need the same number, at least one."
                )
            for name, examples in (("X", X), ("y", y)):
                _check_examples(f"Client {i}'s {name}", examples)
        p = counts / counts.sum() if self.p is None else importances(self.p, len(self.clients))
        most = int(counts.max())
        padded = [_padded([v[k] for v in self.clients], most) for k in (0, 1)]
        for name, value in {"weights": p, "counts": counts, "_X": padded[0], "_y": padded[1]}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_module(
        cls,
        model: Callable[[], nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        clients: Sequence[tuple[Tensor, Tensor]],
        p: ArrayLike | None = None,
        seed: int = 0,
    ) -> Federated:
        """A torch module, made by ``model`` under the seed, with ``loss(outputs, y)``, the mean over a batch."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = model()
        names = [(name, v.shape, v.numel()) for name, v in module.named_parameters()]
        x0 = parameters_to_vector(module.parameters()).detach().clone()

        def value(theta: Tensor, X: Tensor, y: Tensor) -> Tensor:
            pieces = torch.split(theta, [size for _, _, size in names])
            parameters = {n: v.reshape(shape) for (n, shape, _), v in zip(names, pieces, strict=True)}
            return loss(functional_call(module, parameters, (X,)), y)

        return cls(value, x0, clients, p)

    def into(self, module: nn.Module, theta: Tensor) -> nn.Module:
        """The module with theta for its parameters."""
        vector_to_parameters(theta.clone(), module.parameters())  # which would share its memory
        return module

    def recommended_stop(self) -> Stop:
        """Two hundred aggregations, or twenty without a smaller loss: there is no measure of being solved."""
        return Stop(steps=200, patience=20)

    def metrics(self, x: Tensor) -> dict[str, float]:
        """``loss``."""
        with torch.no_grad():
            if len(set(self.counts.tolist())) == 1 and len(self.clients) > 1:
                together = vmap(self.loss, in_dims=(None, 0, 0), chunk_size=CHUNK)
                with _branches_told():
                    losses = together(x, self._X, self._y).numpy()
            else:
                losses = np.array([float(self.loss(x, X, y)) for X, y in self.clients])
        return {"loss": float(np.dot(self.weights, losses))}

    def updates(
        self,
        theta: Tensor,
        who: Sequence[tuple[int, int]],
        steps: int,
        lr: float,
        batch: int | None,
        proximal: float,
        seed: int,
    ) -> Tensor:
        """``Delta_i`` of some ``(client, task)``: local steps of SGD, many clients at once.

        Args:
            theta: what they begin from, one vector or a row for each.
            steps: K.
            lr: eta_l.
            batch: examples a step, drawn anew from the client's, with repeats; None for all of them.
            proximal: FedProx's mu, pulls local steps to theta.
            seed: of the batches; a task's are the same wherever it is computed.

        Shape (tasks, parameters).
        """
        theta = theta.expand(len(who), -1)
        out = torch.empty_like(theta, memory_format=torch.contiguous_format)
        for first in range(0, len(who), CHUNK):
            some = who[first : first + CHUNK]
            out[first : first + len(some)] = self._chunk(
                theta[first : first + CHUNK], some, steps, lr, batch, proximal, seed
            )
        return out

    def _chunk(
        self,
        theta: Tensor,
        who: Sequence[tuple[int, int]],
        steps: int,
        lr: float,
        batch: int | None,
        proximal: float,
        seed: int,
    ) -> Tensor:
        clients = torch.tensor([i for i, _ in who])
        counts = self.counts[clients.numpy()]
        if batch is None:
            if len(set(counts.tolist())) > 1:  # different shapes: one after another
                each = [self._whole(x, i, steps, lr, proximal) for x, (i, _) in zip(theta, who, strict=True)]
                return torch.stack(each)
            draws = np.tile(np.arange(counts[0]), (steps, len(who), 1))
        else:
            uniform = np.stack([generator(seed, i, task, 0x1B).random((steps, batch)) for i, task in who], 1)
            draws = (uniform * counts[None, :, None]).astype(np.int64)
        local = theta
        for rows in torch.from_numpy(draws):
            X, y = _taken(self._X, clients, rows), _taken(self._y, clients, rows)
            local = local - lr * (self._slopes(local, X, y) + proximal * (local - theta))
        return local - theta

    def _slopes(self, theta: Tensor, X: Tensor, y: Tensor) -> Tensor:
        """The gradient at each row of theta, of its own batch.

        Rows do not meet: their gradients are those of the sum, and autograd has less to do outside of vmap than within.
        """
        leaf = theta.detach().requires_grad_()
        with torch.enable_grad(), _branches_told():
            losses = vmap(self.loss)(leaf, X, y)
            if losses.ndim != 1:
                shape = tuple(losses.shape[1:])
                raise InvalidProblem(
                    f"Federated: the loss has to be one number for a batch; got shape {shape}."
                )
            if not losses.requires_grad:  # theta has no say in it
                return torch.zeros_like(theta)
            (slopes,) = torch.autograd.grad(losses.sum(), leaf, materialize_grads=True)
        return slopes

    def _whole(self, theta: Tensor, client: int, steps: int, lr: float, proximal: float) -> Tensor:
        X, y = self.clients[client]
        local = theta
        for _ in range(steps):
            local = local - lr * (grad(self.loss)(local, X, y) + proximal * (local - theta))
        return local - theta


@contextmanager
def _branches_told() -> Iterator[None]:
    """What torch says of a loss that cannot be computed for many clients at once, in our words."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "vmap" not in text and "data-dependent" not in text:
            raise
        raise InvalidProblem(
            "Federated: the loss is computed for many clients at once, and so may not branch on values, call .item() "
            "or write into its arguments. Use torch.where in place of if."
        ) from error


def _check_examples(name: str, examples: Tensor) -> None:
    bad = ~torch.isfinite(examples.reshape(len(examples), -1)).all(1)
    if bool(bad.any()):
        raise NotFinite(
            f"{name} holds NaN or infinity in {int(bad.sum())} of {len(bad)} examples, first in example "
            f"{int(bad.nonzero()[0])} (from 0). Remove or impute them."
        )


def _taken(padded: Tensor, clients: Tensor, rows: Tensor) -> Tensor:
    """``padded[clients[:, None], rows]``, in half the time for small rows."""
    places = (clients[:, None] * padded.shape[1] + rows).reshape(-1)
    return padded.flatten(0, 1).index_select(0, places).reshape(*rows.shape, *padded.shape[2:])


def _padded(tensors: list[Tensor], length: int) -> Tensor:
    first = tensors[0]
    out = torch.zeros(len(tensors), length, *first.shape[1:], dtype=first.dtype)
    for k, v in enumerate(tensors):
        if v.shape[1:] != first.shape[1:]:
            raise InvalidProblem(
                f"Client {k}'s examples have shape {tuple(v.shape[1:])}; those of client 0 {tuple(first.shape[1:])}."
            )
        out[k, : len(v)] = v
    return out


def dirichlet(labels: ArrayLike, clients: int, alpha: float = 0.1, seed: int = 0) -> list[NDArray[np.int64]]:
    """Examples of each client, each class shared out by a Dirichlet(alpha) draw; none is left without.

    >>> parts = dirichlet(np.repeat([0, 1], 50), 5, alpha=0.3)
    >>> sorted(np.concatenate(parts).tolist()) == list(range(100)), min(map(len, parts)) > 0
    (True, True)
    """
    labels, random = np.asarray(labels), generator(seed, 0x1C)
    require(is_real(alpha) and 0 < alpha < 1e300, "dirichlet needs 0 < alpha < 1e300", got=alpha)
    require(1 <= clients <= len(labels), f"dirichlet needs 1 <= clients <= {len(labels)}", got=clients)
    parts: list[list[int]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(random.dirichlet(np.full(clients, alpha))) * len(rows)).astype(int)[:-1]
        for part, some in zip(parts, np.split(rows, cuts), strict=True):
            part.extend(some.tolist())
    for part in parts:
        while not part:
            part.append(max(parts, key=len).pop())
    return [np.sort(np.array(part, dtype=np.int64)) for part in parts]


def by_class(labels: ArrayLike, clients: int, classes: int = 2, seed: int = 0) -> list[NDArray[np.int64]]:
    """Examples of each client from few classes: the sorted data are cut into pieces, ``classes`` for each client.

    >>> [len(part) for part in by_class(np.repeat([0, 1, 2, 3], 10), 4, 1)]
    [10, 10, 10, 10]
    """
    labels = np.asarray(labels)
    require(
        clients * classes <= len(labels), "by_class has fewer examples than pieces", got=clients * classes
    )
    pieces = np.array_split(np.argsort(labels, kind="stable"), clients * classes)
    order = generator(seed, 0x1D).permutation(clients * classes)
    return [
        np.sort(np.concatenate([pieces[k] for k in order[i::clients]])).astype(np.int64)
        for i in range(clients)
    ]
