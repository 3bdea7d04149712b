"""Facility location: open sites now, ship when demand is known, and pay for what is not delivered.

Zeng and Zhao (2013), "Solving two-stage robust optimization problems using a column-and-constraint generation
method", section 4: the recourse is a linear program, and the loop with exact worst cases is exact.
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
from thalweg.robust.evaluation import GAP
from thalweg.robust.milp import Array, Model
from thalweg.robust.problem import TwoStageRobust
from thalweg.robust.stages import FirstStage, Recourse, WorstCase
from thalweg.robust.uncertainty import UncertaintySet, budget_set


@dataclass(frozen=True, eq=False)
class FacilityLocation(TwoStageRobust):
    """Open sites x; demand is ``demand + surge xi``, at most ``gamma`` surges; ship the cheapest way.

    Cost ``opening'x + min sum shipping y + penalty'u`` over ``sum_j y_ij + u_i >= demand_i(xi)``,
    ``sum_i y_ij <= capacity_j x_j``, y and u >= 0.

    Args:
        opening, capacity: of each site, shape (sites,), >= 0.
        shipping: cost of a unit, shape (sites, customers), >= 0.
        demand, surge: of each customer, shape (customers,), >= 0.
        penalty: for a unit that is not delivered, one number or one for each customer, >= 0.
        gamma: 0 <= gamma <= customers.

    Raises:
        InvalidProblem, NotFinite: shapes, negative numbers, gamma out of its range.

    Demand stands in rows, and the recourse is convex: `ColumnConstraint` is exact here. The worst case is one program
    with a yes or no for each customer, over the duals of shipping.

    >>> one = FacilityLocation([5.0], [10.0], [[1.0]], [4.0], [2.0], penalty=9.0, gamma=1)
    >>> one.worst_case([1.0]).value, one.worst_case([0.0]).value
    (11.0, 54.0)
    """

    opening: ArrayLike
    capacity: ArrayLike
    shipping: ArrayLike
    demand: ArrayLike
    surge: ArrayLike
    penalty: float | ArrayLike
    gamma: float

    def __post_init__(self) -> None:
        table = as_real("FacilityLocation: shipping", self.shipping)
        if table.ndim != 2 or not table.size:
            raise InvalidProblem(
                f"FacilityLocation: shipping has shape {table.shape}; expected (sites, customers), one or more of each."
            )
        sites, customers = table.shape
        lengths = {"opening": sites, "capacity": sites, "demand": customers, "surge": customers}
        found = {n: check_vector(f"FacilityLocation: {n}", getattr(self, n), k) for n, k in lengths.items()}
        fine = as_real("FacilityLocation: penalty", self.penalty)
        if fine.shape not in ((1,), (customers,)):
            raise InvalidProblem(
                f"FacilityLocation: penalty has shape {fine.shape}; expected one number, or ({customers},)."
            )
        fine = np.broadcast_to(fine, (customers,)).copy()
        for name, values in (*found.items(), ("shipping", table), ("penalty", fine)):
            check_finite(f"FacilityLocation: {name}", values)
            if (values < 0).any():
                raise InvalidProblem(
                    f"FacilityLocation: {name} holds {values.min():g}; expected numbers >= 0."
                )
            object.__setattr__(self, name, values)
        fits = is_real(self.gamma) and 0 <= self.gamma <= customers
        require(
            fits,
            f"FacilityLocation needs 0 <= gamma <= customers = {customers}",
            got=self.gamma,
            error=InvalidProblem,
        )

    @classmethod
    def random(cls, sites: int, customers: int, seed: int, *, gamma: float = 2.0) -> FacilityLocation:
        """Sites and customers in a square: shipping by distance, surges up to 40 % of demand."""
        whole = is_whole(sites) and is_whole(customers) and min(sites, customers) >= 1
        require(whole, "FacilityLocation.random needs sites, customers >= 1", got=(sites, customers))
        rng = generator(seed, 0xFA)
        a, b = rng.random((sites, 2)), rng.random((customers, 2))
        distance = np.linalg.norm(a[:, None] - b, axis=2)
        demand = rng.uniform(10, 50, customers)
        capacity = rng.uniform(0.8, 1.6, sites) * 2 * demand.sum() / sites
        opening = rng.uniform(100, 200, sites)
        return cls(
            opening, capacity, 20 * distance, demand, demand * rng.uniform(0.1, 0.4, customers), 60.0, gamma
        )

    @cached_property
    def data(self) -> tuple[Array, Array, Array, Array, Array, Array]:
        """opening, capacity, shipping, demand, surge, penalty as arrays."""
        parts = (self.opening, self.capacity, self.shipping, self.demand, self.surge, self.penalty)
        return tuple(np.asarray(part, dtype=np.float64) for part in parts)  # type: ignore[return-value]

    @cached_property
    def uncertainty(self) -> UncertaintySet:
        """At most gamma surges."""
        return budget_set(len(self.data[3]), self.gamma)

    @cached_property
    def first_stage(self) -> FirstStage:
        """Any sites."""
        return FirstStage.binary(len(self.data[0]))

    @property
    def nominal(self) -> Array:
        """No surge."""
        return np.zeros(len(self.data[3]))

    def second_stage(self, xi: Array) -> Recourse:
        """``y = (shipped, row by row of the table; undelivered)``."""
        opening, capacity, shipping, demand, surge, penalty = self.data
        sites, customers = shipping.shape
        served = np.hstack([np.tile(np.eye(customers), sites), np.eye(customers)])
        used = np.hstack([np.kron(np.eye(sites), np.ones(customers)), np.zeros((sites, customers))])
        needed = demand + surge * xi
        most = np.r_[np.tile(demand + surge, sites), demand + surge]
        return Recourse(
            opening,
            np.r_[shipping.ravel(), penalty],
            np.vstack([-served, used]),
            np.vstack([np.zeros((customers, sites)), -np.diag(capacity)]),
            np.r_[-needed, np.zeros(sites)],
            most,
            np.zeros(len(most), dtype=bool),
        )

    def worst_case(self, x: ArrayLike) -> WorstCase:
        """By the duals u (customers) and v (sites) of shipping: ``max demand(xi)'u - capacity'(x v)``.

        A worst scenario has floor(gamma) whole surges and at most one of what is left of gamma.
        """
        decision = self.answer(x)
        opening, capacity, shipping, demand, surge, penalty = self.data
        sites, customers = shipping.shape
        whole = math.floor(self.gamma)
        model = Model()
        u = model.columns(customers, 0.0, penalty, cost=-demand)
        v = model.columns(sites, 0.0, float(penalty.max(initial=0.0)), cost=capacity * decision)
        rows, columns = np.divmod(np.arange(sites * customers), customers)
        model.rows([(u, np.eye(customers)[columns]), (v, -np.eye(sites)[rows])], upper=shipping.ravel())
        hits = []
        for share, most in ((1.0, whole), (self.gamma - whole, 1)):
            if share <= 0 or most == 0:
                continue
            hit = model.columns(customers, 0.0, 1.0, integer=True)
            gained = model.columns(customers, 0.0, penalty, cost=-share * surge)  # hit times u
            model.rows([(gained, np.eye(customers)), (u, -np.eye(customers))], upper=0.0)
            model.rows([(gained, np.eye(customers)), (hit, -np.diag(penalty))], upper=0.0)
            model.rows([(hit, np.ones((1, customers)))], upper=most)
            hits.append((share, hit))
        if len(hits) == 2:
            model.rows([(hits[0][1], np.eye(customers)), (hits[1][1], np.eye(customers))], upper=1.0)
        found = model.minimize(gap=GAP / 10)
        if found.x is None:
            raise InvalidProblem(
                f"FacilityLocation: the worst demand was not found: the program is {found.status}."
            )
        xi = sum((share * np.round(found.x[hit]) for share, hit in hits), np.zeros(customers))
        fixed = float(opening @ decision)
        return WorstCase(fixed - found.bound, fixed - found.value, xi)

    def item_features(self) -> Array:
        """Opening, capacity, mean and least shipping cost of each site."""
        opening, capacity, shipping, *_ = self.data
        return np.stack([opening, capacity, shipping.mean(1), shipping.min(1)], axis=1)

    def scenario_features(self) -> tuple[Array, Array]:
        """xi_i beside demand, surge, penalty, mean and least shipping cost of each customer."""
        _, _, shipping, demand, surge, penalty = self.data
        fixed = np.stack([demand, surge, penalty, shipping.mean(0), shipping.min(0)], axis=1)
        return np.eye(len(demand))[:, None, :], fixed
