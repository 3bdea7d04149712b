"""Zero-sum Markov games: a matrix game in every state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from thalweg.core import InvalidProblem, Problem, Stop
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import is_real, require
from thalweg.equilibrium._tensors import as_tensor, in_units, without_constant
from thalweg.equilibrium.problem import MonotoneInclusion
from thalweg.numerics.projections import simplex

#: Rounds of policy iteration; it needs a handful, unless rounding lets it turn in circles.
MOST = 1000


@dataclass(frozen=True, eq=False)
class MarkovGame(Problem):
    """Two players, states, and what the row player pays, discounted: find both players' stationary strategies.

    Args:
        payments: shape (states, rows, columns); tensors, arrays or lists.
        transitions: chances of the next state, shape (states, rows, columns, states).
        discount: in [0, 1).

    An answer x is both strategies: the row player's, shape (states, rows), beside the column player's, in one tensor of
    shape (states, rows + columns). It is judged by ``exploitability``: how much more the column player could get
    against the row strategy than the row player would have to pay against the column strategy, in the worst state, both
    playing best responses (by policy iteration, exactly); zero at equilibria only. ``value`` is the mean over states of
    what is paid when both play x. Both are in the payments' own units; the run itself is the same in all units, and a
    constant that dominates the payments is taken out first.

    Raises:
        InvalidProblem: shapes that do not fit, chances that are negative or do not sum to one, a discount out of range.
        NotFinite: NaN or infinity in the payments.

    >>> pennies = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]], dtype=torch.float64)
    >>> game = MarkovGame(pennies, torch.ones(1, 2, 2, 1, dtype=torch.float64), 0.9)
    >>> game.metrics(torch.full((1, 4), 0.5, dtype=torch.float64))
    {'exploitability': 0.0, 'value': 0.0}
    """

    objective: ClassVar[str | None] = "exploitability"

    payments: Tensor
    transitions: Tensor
    discount: float
    _scaled: Tensor = field(init=False, repr=False)
    shift: float = field(init=False, repr=False)
    unit: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        payments = as_tensor("payments", self.payments, "states", "rows", "columns")
        moves = as_tensor("transitions", self.transitions, "states", "rows", "columns", "states").to(payments)
        object.__setattr__(self, "payments", payments)
        object.__setattr__(self, "transitions", moves)
        expected = (*self.payments.shape, self.payments.shape[0])
        if self.transitions.shape != expected:
            raise InvalidProblem(
                f"MarkovGame needs transitions of shape {tuple(expected)}; got {tuple(self.transitions.shape)}."
            )
        off = (self.transitions.sum(-1) - 1.0).abs()
        if not bool((self.transitions >= 0).all()) or float(off.max()) > 1e-6:
            state = int(off.flatten(1).amax(1).argmax())
            raise InvalidProblem(
                f"MarkovGame: transitions are chances: not negative, and summing to one (state {state} is off by "
                f"{float(off[state].max()):.3g})."
            )
        fits = is_real(self.discount) and 0 <= self.discount < 1
        require(fits, "MarkovGame needs 0 <= discount < 1", got=self.discount, error=InvalidProblem)
        for name, value in zip(("_scaled", "shift", "unit"), in_units(payments), strict=True):
            object.__setattr__(self, name, value)

    @property
    def rows(self) -> int:
        """The row player's actions."""
        return self.payments.shape[1]

    def strategies(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both players', shapes (states, rows) and (states, columns)."""
        return x[:, : self.rows], x[:, self.rows :]

    def stage(self, values: Tensor) -> Tensor:
        """``(payments - shift)/unit + discount E[values of the next state]``: the matrix game of each state."""
        return self._scaled + self.discount * (self.transitions @ values)

    def best_response(self, x: Tensor, player: str) -> Tensor:
        """The value of each state when ``"columns"`` (or ``"rows"``) play their best against the other's strategy."""
        return self.unit * self._best_response(x, player) + self.shift / (1.0 - self.discount)

    def _best_response(self, x: Tensor, player: str) -> Tensor:
        rows, columns = self.strategies(x)
        if player == "columns":
            payments = torch.einsum("sa,sab->sb", rows, self._scaled)
            moves = torch.einsum("sa,sabt->sbt", rows, self.transitions)
            return _best(payments, moves, self.discount)
        payments = torch.einsum("sb,sab->sa", columns, self._scaled)
        moves = torch.einsum("sb,sabt->sat", columns, self.transitions)
        return -_best(-payments, moves, self.discount)

    def recommended_stop(self) -> Stop:
        """An exploitability of 1e-6 in the unit of the payments, the power of two above the largest."""
        return Stop(below={"exploitability": 1e-6 * self.unit})

    def metrics(self, x: Tensor) -> dict[str, float]:
        """``exploitability`` and ``value``."""
        rows, columns = self.strategies(x)
        paid = torch.einsum("sa,sab,sb->s", rows, self._scaled, columns)
        moves = torch.einsum("sa,sabt,sb->st", rows, self.transitions, columns)
        values = torch.linalg.solve(torch.eye(len(paid)).to(paid) - self.discount * moves, paid)
        apart = self._best_response(x, "columns") - self._best_response(x, "rows")
        value = self.unit * float(values.mean()) + self.shift / (1.0 - self.discount)
        return {"exploitability": self.unit * float(apart.max().clamp_min(0.0)), "value": value}


def random_markov_game(
    states: int, rows: int, columns: int, discount: float = 0.9, seed: int = 0
) -> MarkovGame:
    """Payments uniform in [-1, 1]; chances of the next state uniform, then scaled to sum to one."""
    require(min(states, rows, columns) >= 1, "random_markov_game needs states, rows and columns")
    random = torch_generator(seed, 0xB2)
    payments = 2.0 * torch.rand(states, rows, columns, generator=random, dtype=torch.float64) - 1.0
    moves = torch.rand(states, rows, columns, states, generator=random, dtype=torch.float64)
    return MarkovGame(payments, moves / moves.sum(-1, keepdim=True), discount)


def stage_games(games: ArrayLike | Tensor, x0: Tensor) -> MonotoneInclusion:
    """Independent matrix games, shape (states, rows, columns), as one inclusion; u is the flattened strategies.

    A state is a component. A constant that dominates a state's payoffs is taken out. Judged by ``gap``, the largest
    duality gap of a state.
    """
    payoffs, _ = without_constant(as_tensor("games", games, "states", "rows", "columns"))
    states, m, n = payoffs.shape

    def operator(u: Tensor, some: Tensor) -> Tensor:
        """F of some states."""
        x = u.view(states, m + n)[some]
        A = payoffs[some]
        of_rows = torch.einsum("sab,sb->sa", A, x[:, m:])
        of_columns = -torch.einsum("sab,sa->sb", A, x[:, :m])
        return torch.cat([of_rows, of_columns], 1)

    class States:
        count = states

        def weighted(self, u: Tensor, some: Tensor, weights: Tensor) -> Tensor:
            found = u.new_zeros(states, m + n)
            return found.index_add(0, some, states * weights[:, None] * operator(u, some)).view(-1)

        def full(self, u: Tensor) -> Tensor:
            return operator(u, torch.arange(states)).view(-1)

    def resolvent(v: Tensor, step: float) -> Tensor:
        x = v.view(states, m + n)
        return torch.cat([simplex(x[:, :m]), simplex(x[:, m:])], 1).view(-1)

    def judge(u: Tensor) -> dict[str, float]:
        of = operator(u, torch.arange(states))
        return {"gap": float((-of[:, m:].amin(1) - of[:, :m].amin(1)).max())}

    return MonotoneInclusion(States(), x0.reshape(-1), resolvent, judge=judge)


def _best(payments: Tensor, moves: Tensor, discount: float) -> Tensor:
    """Values of the best policy of an MDP, rewards (states, actions), by policy iteration."""
    states = len(payments)
    eye, at = torch.eye(states).to(payments), torch.arange(states)
    policy, values = payments.argmax(1), payments.new_zeros(states)
    for _ in range(MOST):
        values = torch.linalg.solve(eye - discount * moves[at, policy], payments[at, policy])
        worth = payments + discount * (moves @ values)
        better = worth.amax(1) > worth[at, policy] + 1e-12 * (1.0 + values.abs().max())
        if not bool(better.any()):
            break
        policy = torch.where(better, worth.argmax(1), policy)
    return values
