"""Capital budgeting: invest early at uncertain cost and revenue, or late for less, within a budget, with loans or not.

Hanasusanto, Kuhn and Wiesemann (2015), section 5.1; Subramanyam, Gounaris and Wiesemann (2020), section 4.2 (loans).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_finite, check_vector, is_real, is_whole, require
from thalweg.robust._kernels import branch_and_bound
from thalweg.robust.milp import Array
from thalweg.robust.problem import TwoStageRobust
from thalweg.robust.stages import FirstStage, Pieces, Recourse
from thalweg.robust.uncertainty import UncertaintySet, box_set

PLAN_GAP = 1e-7
NODES = 2_000_000


@dataclass(frozen=True, eq=False)
class CapitalBudgeting(TwoStageRobust):
    """Projects x now, y later, when ``xi in [-1, 1]^d`` is known; costs ``(1 + phi_i'xi / 2) cost_i``, revenues alike.

    Cost ``-sum r(xi) (x + late y)`` over ``x + y <= 1`` and ``c(xi)'(x + y) <= budget``. With loans, x has one entry
    more, the first loan x0; it adds to the budget, as does a second one y0 when xi is known, each up to
    ``most_loan``; they cost ``rate x0 + rate late_rate y0``. What is invested now has to be within budget and first
    loan in every scenario.

    Args:
        cost, revenue: shape (n,), > 0.
        phi, psi: shape (n, d), >= 0, rows summing to at most 1: how much costs and revenues follow each factor.
        budget: >= 0.
        late: share of the revenue that late projects earn. Default 0.8.
        most_loan: 0, the default, is no loans.
        rate, late_rate: default 0.12 and 1.2.

    Raises:
        InvalidProblem, NotFinite: shapes, signs, rows of phi or psi that sum to more than 1.

    Costs *and* rows are uncertain: there is no compact relaxation, and this is the field of `NeuralCCG`. An answer is
    x, with x0 at its end where there are loans. `recourse` is a branch and bound of its own.

    >>> problem = CapitalBudgeting.random(6, seed=0)
    >>> problem.worst_case(np.zeros(6)).value < 0
    True
    """

    cost: ArrayLike
    revenue: ArrayLike
    phi: ArrayLike
    psi: ArrayLike
    budget: float
    late: float = 0.8
    most_loan: float = 0.0
    rate: float = 0.12
    late_rate: float = 1.2

    def __post_init__(self) -> None:
        cost = as_real("CapitalBudgeting: cost", self.cost)
        if cost.ndim != 1 or not len(cost):
            raise InvalidProblem(f"CapitalBudgeting: cost has shape {cost.shape}; expected (n,), n >= 1.")
        for name in ("cost", "revenue"):
            values = check_vector(f"CapitalBudgeting: {name}", getattr(self, name), len(cost))
            if (values <= 0).any():
                i = int(np.argmin(values))
                raise InvalidProblem(f"CapitalBudgeting: {name}[{i}] is {values[i]:g}; expected > 0.")
            object.__setattr__(self, name, values)
        for name in ("phi", "psi"):
            table = as_real(f"CapitalBudgeting: {name}", getattr(self, name))
            if table.ndim != 2 or len(table) != len(cost) or not table.shape[1]:
                raise InvalidProblem(
                    f"CapitalBudgeting: {name} has shape {table.shape}; expected ({len(cost)}, d), d >= 1."
                )
            check_finite(f"CapitalBudgeting: {name}", table)
            if (table < 0).any() or (table.sum(1) > 1 + 1e-9).any():
                raise InvalidProblem(
                    f"CapitalBudgeting: {name} needs entries >= 0 and rows that sum to at most 1; cost and revenue "
                    "could turn negative otherwise."
                )
            object.__setattr__(self, name, table)
        if np.shape(self.phi) != np.shape(self.psi):
            raise InvalidProblem(
                f"CapitalBudgeting: phi has shape {np.shape(self.phi)}, psi {np.shape(self.psi)}; expected the same."
            )
        for name in ("budget", "late", "most_loan", "rate", "late_rate"):
            value = getattr(self, name)
            fits = is_real(value) and 0 <= value < math.inf
            require(fits, f"CapitalBudgeting needs {name} >= 0", got=value, error=InvalidProblem)

    @classmethod
    def random(cls, n: int, seed: int, *, factors: int = 4, loans: bool = False) -> CapitalBudgeting:
        """An instance of the published generator: cost U(1, 10), revenue a fifth of it, phi and psi on the simplex.

        The budget is half of all cost; loans up to all cost.
        """
        for name, value in (("n", n), ("factors", factors)):
            require(is_whole(value) and value >= 1, f"CapitalBudgeting.random needs {name} >= 1", got=value)
        rng = generator(seed, 0xCB)
        cost = rng.uniform(1, 10, n)
        phi, psi = rng.dirichlet(np.ones(factors), size=(2, n))
        total = float(cost.sum())
        return cls(cost, cost / 5, phi, psi, total / 2, most_loan=total if loans else 0.0)

    @cached_property
    def data(self) -> tuple[Array, Array, Array, Array]:
        """cost, revenue, phi, psi as arrays."""
        parts = (self.cost, self.revenue, self.phi, self.psi)
        return tuple(np.asarray(part, dtype=np.float64) for part in parts)  # type: ignore[return-value]

    @property
    def has_loans(self) -> bool:
        """Whether x and y end with a loan."""
        return self.most_loan > 0

    @cached_property
    def uncertainty(self) -> UncertaintySet:
        """The box of factors."""
        d = self.data[2].shape[1]
        return box_set(-np.ones(d), np.ones(d))

    @cached_property
    def first_stage(self) -> FirstStage:
        """What is affordable in every scenario: the dearest one has all factors at 1, as phi >= 0."""
        cost, _, phi, _ = self.data
        row = cost * (1 + phi.sum(1) / 2)
        if not self.has_loans:
            return FirstStage.binary(len(cost), row, self.budget)
        n = len(cost)
        upper = np.r_[np.ones(n), self.most_loan]
        whole = np.r_[np.ones(n, dtype=bool), False]
        return FirstStage(np.zeros(n + 1), upper, whole, np.r_[row, -1.0][None], np.array([self.budget]))

    def prices(self, xi: Array) -> tuple[Array, Array]:
        """Costs and revenues at a scenario, or at scenarios (b, d)."""
        cost, revenue, phi, psi = self.data
        return (1 + xi @ phi.T / 2) * cost, (1 + xi @ psi.T / 2) * revenue

    def second_stage(self, xi: Array) -> Recourse:
        """y, with y0 at its end where there are loans."""
        c, r = self.prices(xi)
        n, one = len(c), np.eye(len(c))
        loans = np.ones(int(self.has_loans))
        still = np.zeros((n, len(loans)))
        W = np.vstack([np.hstack([one, still]), np.r_[c, -loans]])
        T = np.vstack([np.hstack([one, still]), np.r_[c, -loans]])
        h = np.r_[np.ones(n), self.budget]
        whole = np.r_[np.ones(n, dtype=bool), np.zeros(len(loans), dtype=bool)]
        return Recourse(
            np.r_[-r, self.rate * loans],
            np.r_[-self.late * r, self.rate * self.late_rate * loans],
            W,
            T,
            h,
            np.r_[np.ones(n), self.most_loan * loans],
            whole,
        )

    @property
    def has_exact_plans(self) -> bool:
        """`pieces` take the second loan at its best."""
        return True

    def pieces(self, x: Array, y: Array) -> Pieces:
        """The plan's projects, with no second loan or with the one that they need."""
        if not self.has_loans:
            return super().pieces(x, y)
        n = len(x) - 1
        projects = np.r_[y[:n], 0.0]
        (a, g), (over, slopes) = self.affine.cost(x, projects), self.affine.excess(x, projects)
        price, row = self.rate * self.late_rate, slice(n, n + 1)
        return Pieces(
            np.r_[a, a + price * over[n]],
            np.stack([g, g + price * slopes[n]]),
            over[row] - self.most_loan,
            slopes[row],
            self.room[row],
        )

    def recourse(self, x: Array, xi: Array) -> tuple[float, float, Array]:
        """By branch and bound: a knapsack of what is left, and more of it at the second loan's price."""
        n = len(self.data[0])
        c, r = self.prices(xi)
        projects, loan = x[:n], float(x[n]) if self.has_loans else 0.0
        left = self.budget + loan - float(c @ projects) + float(self.room[n]) / 2
        gain = np.where(projects > 0.5, 0.0, self.late * r)
        price = self.rate * self.late_rate if self.has_loans else math.inf
        if left + self.most_loan < 0:
            return math.inf, math.inf, np.zeros(0)
        nothing = np.zeros(n)
        choice, value, ceiling = branch_and_bound(
            c, gain, c, nothing, left, self.most_loan, price, PLAN_GAP * float(r.sum()), NODES
        )
        y = (choice > 0).astype(np.float64)
        first = -float(r @ projects) + self.rate * loan
        if self.has_loans:
            y = np.r_[y, min(max(float(c @ y) - left, 0.0), self.most_loan)]
        return first - value, first - ceiling, y

    def item_features(self) -> Array:
        """Cost, revenue, the sums of phi and psi, and the budget."""
        cost, revenue, phi, psi = self.data
        fixed = np.full((len(cost), 1), float(self.budget))
        return np.hstack([np.stack([cost, revenue], axis=1), phi, psi, fixed])

    def scenario_features(self) -> tuple[Array, Array]:
        """``phi_i'xi`` and ``psi_i'xi`` beside what is known of project i."""
        _, _, phi, psi = self.data
        return np.stack([phi, psi], axis=1), self.item_features()

    def sample_decisions(self, count: int, rng: np.random.Generator) -> Array:
        """Each bit 0 with one random probability, then projects are left out at random until X is met."""
        first, n = self.first_stage, len(self.data[0])
        found = np.zeros((count, self.n))
        found[:, :n] = rng.random((count, n)) >= rng.random((count, 1))
        if self.has_loans:
            found[:, n] = rng.random(count) * self.most_loan * (rng.random(count) < 0.5)
        row, level = first.A[0], float(first.b[0]) + (found[:, n] if self.has_loans else 0.0)
        for k, order in enumerate(rng.random((count, n)).argsort(1)):
            used = np.cumsum(found[k, order] * row[order])
            found[k, order[used > np.broadcast_to(level, count)[k]]] = 0.0
        return found
