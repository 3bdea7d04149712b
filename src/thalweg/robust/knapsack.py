"""A knapsack whose profits degrade: take orders now, produce, repair or outsource them when the losses are known.

Arslan and Detienne (2022), "Decomposition-based approaches for a class of two-stage robust binary optimization
problems", section 5.2; instances after its generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from thalweg.core import InvalidProblem, UnknownName
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_vector, is_real, is_whole, require
from thalweg.robust._kernels import branch_and_bound, relaxed_values
from thalweg.robust.milp import Array
from thalweg.robust.problem import TwoStageRobust
from thalweg.robust.stages import FirstStage, Recourse
from thalweg.robust.uncertainty import UncertaintySet, budget_set

Correlation = Literal["UN", "WC", "ASC", "SC"]

#: Branches this much, relative to the value at stake, above the best plan are cut.
PLAN_GAP = 1e-7
#: Most nodes of a plan's search; the bound says what is left.
NODES = 2_000_000


@dataclass(frozen=True, eq=False)
class RobustKnapsack(TwoStageRobust):
    """Take orders x; xi of at most ``gamma`` losses come; then produce (y), produce with repair (r), or outsource.

    Cost ``sum (penalty - profit) x + min sum (loss xi - penalty) y - loss xi r`` over ``weight'y + repair'r <=
    capacity``, ``r <= y <= x``, all binary. An order earns its profit when produced with repair, loses ``loss xi_i``
    of it without, and costs ``penalty - profit`` when outsourced. Costs are minimised: a profit of 5 is a cost of -5.

    Args:
        weight, profit, loss, penalty, repair: shape (n,), >= 0; ``repair`` is the weight of a repair. Weights > 0.
        capacity: >= 0.
        gamma: how much goes wrong at once, 0 <= gamma <= n.

    Raises:
        InvalidProblem, NotFinite: shapes, negative numbers, gamma out of its range.

    Only costs are uncertain, so `RelaxedRecourse` and `problem.bound` are strong; a network seldom beats them.
    `recourse` is a branch and bound of its own, about 0.1 ms at n = 20; `labels` are values of its relaxation
    by greedy, which are below the exact ones by at most one item's value.

    >>> problem = RobustKnapsack([2, 3], [4, 5], [2, 3], [5, 6], [1, 1], capacity=4, gamma=1)
    >>> problem.worst_case([1, 0]).value, problem.worst_case([0, 1]).value
    (-4.0, -5.0)
    """

    weight: ArrayLike
    profit: ArrayLike
    loss: ArrayLike
    penalty: ArrayLike
    repair: ArrayLike
    capacity: float
    gamma: float

    def __post_init__(self) -> None:
        first = as_real("RobustKnapsack: weight", self.weight)
        if first.ndim != 1 or not len(first):
            raise InvalidProblem(f"RobustKnapsack: weight has shape {first.shape}; expected (n,), n >= 1.")
        for name in ("weight", "profit", "loss", "penalty", "repair"):
            values = check_vector(f"RobustKnapsack: {name}", getattr(self, name), len(first))
            if (values < 0).any() or (name == "weight" and (values == 0).any()):
                i = int(np.argmin(values))
                least = "> 0" if name == "weight" else ">= 0"
                raise InvalidProblem(f"RobustKnapsack: {name}[{i}] is {values[i]:g}; expected {least}.")
            object.__setattr__(self, name, values)
        fits = is_real(self.capacity) and 0 <= self.capacity < math.inf
        require(fits, "RobustKnapsack needs capacity >= 0", got=self.capacity, error=InvalidProblem)
        n = len(first)
        fits = is_real(self.gamma) and 0 <= self.gamma <= n
        require(fits, f"RobustKnapsack needs 0 <= gamma <= n = {n}", got=self.gamma, error=InvalidProblem)

    @classmethod
    def random(
        cls,
        n: int,
        seed: int,
        correlation: Correlation = "UN",
        *,
        spread: float = 0.5,
        h: int = 40,
        budget: float = 0.1,
    ) -> RobustKnapsack:
        """An instance of the published generator, R = 1000, H = 100; what it draws below zero is zero here.

        Args:
            correlation: of profits with weights: ``"UN"`` none, ``"WC"`` weak, ``"ASC"`` almost strong, ``"SC"``
                strong.
            spread: losses are profits times ``U((1 - spread)/2, (1 + spread)/2)``.
            h: capacity is ``h / 101`` of all weight; published: 40, 80.
            budget: gamma / n; published: 0.1, 0.15, 0.2.
        """
        require(is_whole(n) and n >= 1, "RobustKnapsack.random needs n >= 1", got=n)
        for name, value, most in (("spread", spread, 1), ("h", h, 101), ("budget", budget, 1)):
            fits = is_real(value) and 0 <= value <= most
            require(fits, f"RobustKnapsack.random needs 0 <= {name} <= {most}", got=value)
        if correlation not in get_args(Correlation):
            raise UnknownName("correlation", correlation, get_args(Correlation))
        rng, R = generator(seed, 0x1E), 1000.0
        c = rng.uniform(1, R, n)
        noise = rng.uniform(-1, 1, n)
        profits = {
            "UN": rng.uniform(1, R, n),
            "WC": c + noise * R / 20,
            "ASC": c + R / 10 + noise * R / 1000,
            "SC": c + R / 10,
        }
        p = profits[correlation].clip(min=1.0)
        loss = p * rng.uniform((1 - spread) / 2, (1 + spread) / 2, n)
        f, other = p * rng.uniform(1.1, 1.5, n), rng.uniform(-1, 1, n)
        repairs = {
            "UN": rng.uniform(1, c),
            "WC": loss / 2 + other * R / 40,
            "ASC": loss / 2 + c / 10 + other * R / 1000,
            "SC": loss / 2 + c / 10,
        }
        t = repairs[correlation].clip(min=0.0)
        return cls(c, p, loss, f, t, float(h / 101 * c.sum()), budget * n)

    @cached_property
    def data(self) -> tuple[Array, Array, Array, Array, Array]:
        """weight, profit, loss, penalty, repair as arrays."""
        parts = (self.weight, self.profit, self.loss, self.penalty, self.repair)
        return tuple(np.asarray(part, dtype=np.float64) for part in parts)  # type: ignore[return-value]

    @cached_property
    def uncertainty(self) -> UncertaintySet:
        """The budget set."""
        return budget_set(len(self.data[0]), self.gamma)

    @cached_property
    def first_stage(self) -> FirstStage:
        """Any orders."""
        return FirstStage.binary(len(self.data[0]))

    @property
    def nominal(self) -> Array:
        """Nothing is lost."""
        return np.zeros(len(self.data[0]))

    def second_stage(self, xi: Array) -> Recourse:
        """``y = (produced, repaired)``."""
        c, p, loss, f, t = self.data
        n = len(c)
        eye, zero = np.eye(n), np.zeros((n, n))
        W = np.vstack([np.r_[c, t], np.hstack([eye, zero]), np.hstack([-eye, eye])])
        T = np.vstack([np.zeros(n), -eye, zero])
        h = np.r_[self.capacity, np.zeros(2 * n)]
        d = np.r_[loss * xi - f, -loss * xi]
        return Recourse(f - p, d, W, T, h, np.ones(2 * n), np.ones(2 * n, dtype=bool))

    def recourse(self, x: Array, xi: Array) -> tuple[float, float, Array]:
        """By branch and bound over skip, produce, repair."""
        c, p, loss, f, t = self.data
        taken = x > 0.5
        gain = np.where(taken, f - loss * xi, 0.0)
        full = np.where(taken, f, 0.0)
        scale = PLAN_GAP * max(float(full.sum()), 1e-300)
        choice, value, ceiling = branch_and_bound(
            c, gain, c + t, full, float(self.capacity), 0.0, math.inf, scale, NODES
        )
        first = float((f - p) @ x)
        return first - value, first - ceiling, np.r_[choice > 0, choice > 1].astype(np.float64)

    def labels(self, X: Array, XI: Array) -> Array:
        """Second-stage values of the relaxation; about a microsecond each at n = 20."""
        c, _, loss, f, t = self.data
        a, b, n = len(X), len(XI), len(c)
        taken = np.repeat(X > 0.5, b, axis=0)
        gain = np.where(taken, np.tile(f - loss * XI, (a, 1)), 0.0)
        full = np.where(taken, f, 0.0)
        w1, w2 = np.broadcast_to(c, (a * b, n)), np.broadcast_to(c + t, (a * b, n))
        ends = np.full(a * b, float(self.capacity)), np.zeros(a * b)
        return -relaxed_values(w1, gain, w2, full, *ends, math.inf).reshape(a, b)

    def item_features(self) -> Array:
        """Weight, profit, loss, penalty, repair, and the capacity."""
        return np.stack([*self.data, np.full(len(self.data[0]), float(self.capacity))], axis=1)

    def scenario_features(self) -> tuple[Array, Array]:
        """xi_i beside what is known of item i."""
        return np.eye(len(self.data[0]))[:, None, :], self.item_features()
