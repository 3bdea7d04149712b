"""Weight matching: orders of units by assignment problems, one permutation after the other.

Ainsworth, Hayase and Srinivasa (2023), "Git re-basin" (arXiv 2209.04836), algorithm 1. Units inside heads are assigned
for every pair of heads first, then heads by what their insides are worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from thalweg.core import Method, NotFinite, State, Status
from thalweg.core.seeding import generator
from thalweg.landscape.permutation.problem import Rebasin
from thalweg.landscape.permutation.specification import Order, Orders, PermutationSpec, Use

Array = NDArray[np.float64]
#: What each pair of places is worth, by the permutations inside the units: (n, *insides, n, *insides).
Worth = dict[tuple[str, ...], Array]
#: Entries of a cost matrix that are computed at once.
BLOCK = 2**22
#: Rises of the objective below this share of its terms are rounding.
RISE = {torch.float64: 1e-12}


@dataclass(kw_only=True)
class MatchingState(State):
    """Orders, and which permutations have to be looked at again."""

    waiting: list[str]
    assignments: int
    generator: np.random.Generator


@dataclass(frozen=True)
class WeightMatching(Method[Rebasin, MatchingState]):
    """Coordinate ascent of ``<a, P b>``: a permutation at a time gets its best order, the others held.

    Use it where no data is at hand, or first of all: it takes seconds and never moves away. It ends at a local optimum,
    which for one hidden layer is the best of all; for more the problem is NP-hard.

    Args:
        x0: orders to begin at, by permutation; by default all units stay. Local optima differ with it:
            ``spec.random(seed)`` from several seeds, the best kept, is what more time buys.
        skip_unchanged: leave out permutations none of whose neighbours has changed since they
            were visited: they have no better order. With it the same optimum takes fewer assignments.

    Cost per step (a sweep): a product of size n^2 times the other axes, and an assignment of n units, for each
    permutation; memory one n x n matrix of float64, and a tensor of each network.

    >>> from thalweg.landscape.permutation import Rebasin, WeightMatching
    >>> import copy
    >>> from torch import nn
    >>> from thalweg import solve
    >>> from thalweg.landscape.permutation import trace_permutations
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> spec = trace_permutations(net)
    >>> shuffled = spec.apply(net.state_dict(), spec.random(3))
    >>> solve(Rebasin(net, shuffled, spec), WeightMatching()).metrics["distance"]
    0.0
    """

    x0: Orders | None = None
    skip_unchanged: bool = True

    def init(self, problem: Rebasin, seed: int) -> MatchingState:
        x = problem.spec.identity() if self.x0 is None else dict(self.x0)
        return MatchingState(
            x=x,
            metrics=problem.metrics(x),
            waiting=list(problem.spec.tops),
            assignments=0,
            generator=generator(seed, 0x29),
        )

    def step(self, problem: Rebasin, state: MatchingState) -> MatchingState:
        spec, orders = problem.spec, dict(state.x)
        waiting, changed, done = set(state.waiting), False, 0
        for k in state.generator.permutation(len(spec.tops)):
            name = spec.tops[k]
            if name not in waiting:
                continue
            done += 1
            waiting.discard(name)
            better = best_order(problem, orders, name)
            if better is not None:
                orders.update(better)
                changed = True
                waiting |= spec.neighbours[name]
        if not self.skip_unchanged:
            waiting = set(spec.tops)
        finished = not changed or not waiting
        return MatchingState(
            x=orders,
            metrics=problem.metrics(orders),
            calls=state.calls + done,
            waiting=sorted(waiting),
            assignments=state.assignments + done,
            generator=state.generator,
            status=Status.CONVERGED if finished else None,
            message="No permutation has a better order." if finished else "",
        )


def best_order(problem: Rebasin, orders: Orders, name: str) -> dict[str, Order] | None:
    """The best order of a permutation and of those inside it, the others held; None where it is no better."""
    spec = problem.spec
    worth = worths(problem, orders, name)
    if not all(np.isfinite(w).all() for w in worth.values()):
        raise NotFinite(f"Matching '{name}': products of the weights overflow. Scale the weights down.")
    found = _assigned(spec, name, worth, orders)
    before, after = (total(spec, name, worth, o) for o in (orders, found))
    tensors = [t for t in spec.tensors[name] if t in problem.compared]
    if any(t in spec.twice for t in tensors):  # the worths are a linear view of a square: look at the square
        whole = {**orders, **found}
        before, after = (
            sum(
                float((problem.first[t].double() * spec.moved(t, problem.second[t], o).double()).sum())
                for t in tensors
            )
            for o in (orders, whole)
        )
    scale = sum(
        float(torch.linalg.vector_norm(problem.first[t]) * torch.linalg.vector_norm(problem.second[t]))
        for t in tensors
    )
    share = max((RISE.get(problem.first[t].dtype, 1e-7) for t in tensors), default=0.0)
    return found if after - before > share * scale else None


def worths(problem: Rebasin, orders: Orders, name: str) -> Worth:
    """``<a, P b>`` as a function of one permutation and those inside it: sums of entries of these arrays."""
    spec = problem.spec
    found: Worth = {}
    still = spec.identity()
    mine = {n: still[n] for n in (name, *spec.children[name])}
    for use in spec.uses[name]:
        if use.tensor not in problem.compared:
            continue
        inside, a = opened(spec, use, problem.first[use.tensor])
        # along this axis b stays as it is; along the others it is moved by what holds now, itself included
        value = problem.second[use.tensor]
        for axis in range(value.ndim):
            index = spec.index(use.tensor, axis, {**orders, **mine} if axis == use.axis else orders)
            if index is not None:
                value = value.index_select(axis, torch.from_numpy(index).to(value.device))
        _, b = opened(spec, use, value.to(a.device))
        sizes = a.shape[:-1]
        if inside not in found:
            found[inside] = np.zeros((*sizes, *sizes))
        rows, columns = (v.reshape(-1, a.shape[-1]) for v in (a, b))
        _add_products(found[inside].reshape(len(rows), len(rows)), rows, columns)
    return found


def _add_products(total: Array, a: Tensor, b: Tensor) -> None:
    """``total += a b^T``, some rows at a time: there is one matrix of n^2, in the type that assignments take."""
    kind = torch.float64 if a.dtype == torch.float64 else torch.float32
    b = b.to(kind)
    step = max(1, BLOCK // len(b))
    for k in range(0, len(a), step):
        total[k : k + step] += (a[k : k + step].to(kind) @ b.T).cpu().numpy()


def opened(spec: PermutationSpec, use: Use, value: Tensor) -> tuple[tuple[str, ...], Tensor]:
    """A segment of a tensor as (units, those inside ..., all else); and the names of those inside."""
    axis = spec.axes[use.tensor][use.axis]
    sizes = [int(np.prod([f.size for f in s])) for s in axis]
    start = sum(sizes[: use.segment])
    segment, name = axis[use.segment], axis[use.segment][use.factor].permutation
    part = value.narrow(use.axis, start, sizes[use.segment]).movedim(use.axis, 0)
    part = part.reshape(*(f.size for f in segment), -1)
    names = [f.permutation for f in segment]
    inside = [
        k
        for k, n in enumerate(names)
        if n is not None and k != use.factor and spec.permutations[n].under == name
    ]
    front = [use.factor, *inside]
    rest = [k for k in range(part.ndim) if k not in front]
    part = part.permute(*front, *rest)
    return tuple(str(names[k]) for k in inside), part.reshape(*part.shape[: len(front)], -1)


def total(spec: PermutationSpec, name: str, worth: Worth, orders: Orders) -> float:
    """What orders are worth."""
    found = 0.0
    for inside, w in worth.items():
        if not inside:
            found += float(w[np.arange(len(w)), orders[name]].sum(dtype=np.float64))
            continue
        for i, j in enumerate(orders[name]):
            found += float(
                _entries(w[i][(slice(None),) * len(inside) + (j,)], [orders[n][i] for n in inside]).sum(
                    dtype=np.float64
                )
            )
    return found


def _entries(w: Array, rows: list[Order]) -> Array:
    """``w[i1, i2, .., p1[i1], p2[i2], ..]`` for all i."""
    grid = np.ix_(*(np.arange(len(r)) for r in rows)) if rows else ()
    return w[(*grid, *(r[g] for r, g in zip(rows, grid, strict=True)))]


def assign(worth: Array) -> Order:
    """For each row the column of an assignment of the largest sum.

    SciPy copies a matrix that is to be maximised; here its signs are turned in place, and back.
    """
    np.negative(worth, out=worth)
    found = np.asarray(linear_sum_assignment(worth)[1], dtype=np.int64)
    np.negative(worth, out=worth)
    return found


def _assigned(spec: PermutationSpec, name: str, worth: Worth, orders: Orders) -> dict[str, Order]:
    children = spec.children[name]
    if not children:
        return {name: assign(worth[()])} if worth else {name: orders[name]}
    n = spec.permutations[name].size
    value = np.zeros((n, n))
    inner = {c: np.zeros((n, n, spec.permutations[c].size), np.int64) for c in children}
    for i in range(n):
        for j in range(n):
            pair = {inside: w[i][(slice(None),) * len(inside) + (j,)] for inside, w in worth.items()}
            here = {c: orders[c][i] for c in children} if orders[name][i] == j else None
            value[i, j], rows = _inside(spec, children, pair, here)
            for c in children:
                inner[c][i, j] = rows[c]
    order = assign(value)
    at = np.arange(n)
    return {name: order, **{c: inner[c][at, order] for c in children}}


def _inside(
    spec: PermutationSpec,
    children: tuple[str, ...],
    pair: Mapping[tuple[str, ...], Array],
    start: dict[str, Order] | None,
) -> tuple[float, dict[str, Order]]:
    """The best orders inside a pair of units: exact where they do not meet in a tensor, else in turns."""
    rows = start or {c: np.arange(spec.permutations[c].size) for c in children}
    joint = any(len(inside) > 1 for inside in pair)
    for _ in range(10 if joint else 1):
        before = rows
        for c in children:
            cost = np.zeros((spec.permutations[c].size,) * 2)
            for inside, w in pair.items():
                if c in inside:
                    cost += _for_one(w, inside, c, rows)
            rows = {**rows, c: assign(cost)}
        if all(np.array_equal(before[c], rows[c]) for c in children):
            break
    value = sum(
        float(_entries(w, [rows[n] for n in inside]).sum(dtype=np.float64)) for inside, w in pair.items()
    )
    return value, rows


def _for_one(w: Array, inside: tuple[str, ...], name: str, rows: dict[str, Order]) -> Array:
    """What one order inside is worth, (n, n), the others held."""
    count = len(inside)
    for k in reversed(range(count)):
        if inside[k] == name:
            continue
        at = np.arange(w.shape[k])
        moved = np.moveaxis(w, (k, w.ndim // 2 + k), (0, 1))
        w = moved[at, rows[inside[k]]].sum(0)
    return w
