"""Black boxes that stay with their clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from thalweg.core import InvalidProblem, Problem, Stop
from thalweg.core.validation import as_real, require
from thalweg.distributed.federated.design import importances


@dataclass(frozen=True, eq=False)
class FederatedBlackBox(Problem):
    """Minimise ``sum_i p_i f_i(x)`` over the unit cube; f_i is client i's own, has no gradient, and each value costs.

    Args:
        clients: f_i: takes points, shape (m, d), and gives their values, shape (m,); NaN or infinity where an
            evaluation failed.
        x0: where to start, in the cube, shape (d,).
        p: importances, summing to one; equal by default.

    The metrics are ``objective``, the mean over the clients whose function has a value at x (their importances scaled
    to sum to one; none where no function has), and ``answered``, how many have. What it takes to tell them is not
    counted among the queries.

    Raises:
        InvalidProblem: no clients, an x0 outside the cube, importances that do not sum to one, a client that gives
            another shape, or no numbers.

    >>> bowls = [lambda X, c=c: ((X - c) ** 2).sum(-1) for c in (0.2, 0.6)]
    >>> problem = FederatedBlackBox(bowls, torch.full((3,), 0.5))
    >>> round(problem.metrics(torch.full((3,), 0.4))["objective"], 6)
    0.12
    """

    objective: ClassVar[str | None] = "objective"

    clients: Sequence[Callable[[Tensor], Tensor]]
    x0: Tensor
    p: ArrayLike | None = None
    weights: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        listed = isinstance(self.clients, Sequence) and all(callable(f) for f in self.clients)
        require(listed, "FederatedBlackBox needs a list of functions", got=self.clients, error=InvalidProblem)
        require(len(self.clients) > 0, "There are no clients", error=InvalidProblem)
        x0 = torch.from_numpy(as_real("x0", self.x0))
        if x0.ndim != 1 or not len(x0) or not bool(((x0 >= 0) & (x0 <= 1)).all()):
            raise InvalidProblem(
                "FederatedBlackBox needs x0 to be a vector in the unit cube. Scale the coordinates of the clients' "
                "functions to [0, 1]."
            )
        object.__setattr__(self, "x0", x0.clone())
        count = len(self.clients)
        p = np.full(count, 1.0 / count) if self.p is None else importances(self.p, count)
        object.__setattr__(self, "weights", p)

    def values(self, X: Tensor, who: Sequence[int]) -> Tensor:
        """Each client at its own points, X of shape (clients, m, d): shape (clients, m)."""
        X = X.to(torch.float64)
        return torch.stack([values_of(self.clients[i], points, i) for i, points in zip(who, X, strict=True)])

    def recommended_stop(self) -> Stop:
        """Fifty rounds, as queries are dear, or ten without a smaller value."""
        return Stop(steps=50, patience=10)

    def metrics(self, x: Tensor) -> dict[str, float]:
        """``objective`` and ``answered``."""
        values = self.values(x.expand(len(self.clients), 1, -1), range(len(self.clients)))[:, 0]
        answered = torch.isfinite(values)
        told = {"answered": float(answered.sum())}
        if not bool(answered.any()):
            return told
        weights = torch.from_numpy(self.weights)[answered]
        return {"objective": float(values[answered] @ (weights / weights.sum()))} | told


def values_of(f: Callable[[Tensor], object], points: Tensor, number: int) -> Tensor:
    """A client's values at points, shape (m, d) to (m,), whatever array of numbers it gives them as.

    Raises:
        InvalidProblem: another shape, or no numbers; names the client.
    """
    given = f(points)
    try:
        value = torch.as_tensor(given).detach()
        if value.is_complex():
            raise TypeError("they are complex")
        value = value.to(points)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidProblem(f"Client {number} gives {type(given).__name__}, no values: {error}.") from None
    if value.shape != points.shape[:1]:
        raise InvalidProblem(
            f"Client {number} gives shape {tuple(value.shape)} for {len(points)} points; expected one value each."
        )
    return value
