"""A value network inside a mixed-integer program.

For a yes-or-no x_i the item MLP is linear, ``phi(x_i) = phi(0) + x_i (phi(1) - phi(0))``, so that the sum over items
needs no ReLU: the 64 of the MLP after it and 8 for each scenario are left. A ReLU is ``v >= 0, v >= u, v <= u -
low (1 - b), v <= high b`` with its input's bounds, and a line where its sign is known (Fischetti and Jo, 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from thalweg.core.validation import require
from thalweg.robust.milp import Array, Columns, Model
from thalweg.robust.stages import FirstStage
from thalweg.robust.uncertainty import UncertaintySet
from thalweg.robust.value_network import ValueSurrogate

Bounds = Literal["interval", "lp"]


@dataclass(frozen=True)
class Layer:
    """``M v + k`` of columns v that lie between ``low`` and ``high``."""

    columns: Columns
    M: Array  # (out, columns)
    k: Array  # (out,)
    low: Array  # (columns,)
    high: Array  # (columns,)

    def ends(self) -> tuple[Array, Array]:
        """Interval bounds of the entries."""
        plus, minus = np.maximum(self.M, 0.0), np.minimum(self.M, 0.0)
        return self.k + plus @ self.low + minus @ self.high, self.k + plus @ self.high + minus @ self.low

    def then(self, W: Array, bias: Array | float = 0.0) -> Layer:
        """This layer followed by a linear one."""
        return Layer(self.columns, W @ self.M, W @ self.k + bias, self.low, self.high)


def weights(pair: nn.Module) -> tuple[Array, Array | float, Array, Array | float]:
    """W and bias of the layers before and after the ReLU of an MLP."""
    found: list[Array | float] = []
    for layer in (cast(nn.Sequential, pair)[0], cast(nn.Sequential, pair)[2]):
        linear = cast(nn.Linear, layer)
        found.append(linear.weight.detach().numpy().astype(np.float64))
        found.append(0.0 if linear.bias is None else linear.bias.detach().numpy().astype(np.float64))
    return cast(tuple[Array, Array | float, Array, Array | float], tuple(found))


def add_relu(model: Model, layer: Layer, low: Array, high: Array) -> Layer:
    """Columns of ``max(layer, 0)``, given bounds of the layer."""
    count = len(low)
    v = model.columns(count, np.maximum(low, 0.0), np.maximum(high, 0.0))
    on, between = np.flatnonzero(low >= 0), np.flatnonzero((low < 0) & (high > 0))
    eye = np.eye(count)
    if len(on):
        model.rows([(v, eye[on]), (layer.columns, -layer.M[on])], layer.k[on], layer.k[on])
    if len(between):
        b = model.columns(len(between), 0.0, 1.0, integer=True)
        M, k, bottom, top = layer.M[between], layer.k[between], low[between], high[between]
        model.rows([(v, eye[between]), (layer.columns, -M)], lower=k)
        model.rows([(v, eye[between]), (layer.columns, -M), (b, np.diag(-bottom))], upper=k - bottom)
        model.rows([(v, eye[between]), (b, np.diag(-top))], upper=0.0)
    return Layer(v, eye, np.zeros(count), np.maximum(low, 0.0), np.maximum(high, 0.0))


def item_sum(surrogate: ValueSurrogate, x: Columns) -> Layer:
    """What goes into the MLP after the sum, linear in x: the summed items, and the scaled entries that are no items."""
    problem, network = surrogate.problem, surrogate.network
    features = torch.from_numpy(np.ascontiguousarray(problem.item_features()))
    known = (features - network.item_low) / network.item_width
    with torch.no_grad():
        off, on = (
            network.item(torch.cat([torch.full_like(known[:, :1], bit), known], 1)) for bit in (0.0, 1.0)
        )
    off, on = off.numpy(), on.numpy()
    low, width = network.other_low.numpy(), network.other_width.numpy()
    items, others = off.shape[1], len(problem.others)
    M = np.zeros((items + others, problem.n))
    M[:items, problem.items] = (on - off).T
    M[items:, problem.others] = np.diag(1.0 / width)
    first = problem.first_stage
    return Layer(x, M, np.r_[off.sum(0), -low / width], first.lower, first.upper)


class Embedding:
    """The value of a decision by a network, as columns of ``model``.

    Args:
        model: the program, which holds x already.
        x: the columns of x.
        surrogate: network and problem.
        bounds: ``"interval"``, or ``"lp"``: two linear programs over X for each ReLU after the sum; tighter where X has
            rows, and the same where it has none.

    >>> from thalweg.robust import RobustKnapsack, pretrained_value
    >>> problem = RobustKnapsack.random(20, seed=5)
    >>> surrogate, model = ValueSurrogate(pretrained_value("knapsack"), problem), Model()
    >>> x = model.columns(20, 1.0, 1.0, integer=True)  # every order taken
    >>> column, low, high = Embedding(model, x, surrogate).value(np.eye(20)[0])
    >>> told = model.minimize().x[column][0]
    >>> bool(abs(told - surrogate.predict(np.ones(20), np.eye(20)[0])[0, 0]) < 1e-5 * abs(told))
    True
    """

    def __init__(
        self, model: Model, x: Columns, surrogate: ValueSurrogate, bounds: Bounds = "interval"
    ) -> None:
        require(bounds in ("interval", "lp"), "Embedding: bounds are interval or lp", got=bounds)
        self._model, self._surrogate = model, surrogate
        W, bias, after, end = weights(surrogate.network.post)
        before = item_sum(surrogate, x).then(W, bias)
        low, high = before.ends()
        if bounds == "lp":
            low, high = _tightened(surrogate.problem.first_stage, before, low, high)
        self._embedded = add_relu(model, before, low, high).then(after, end)

    def value(self, xi: Array) -> tuple[Columns, float, float]:
        """The column of the predicted label at a scenario, shape (d,), and bounds of it."""
        return self.value_of(self._surrogate.scenarios(xi[None])[0])

    def value_of(self, scenario: Tensor) -> tuple[Columns, float, float]:
        """The same from a scenario's embedding, shape (post,)."""
        network, split = self._surrogate.network, self._surrogate.network.shape.post
        W, bias, after, end = weights(network.joint)
        fixed = W[:, split:] @ scenario.detach().numpy().astype(np.float64) + bias
        return _output(self._model, self._embedded.then(W[:, :split], fixed), after, end, self._surrogate)


def _output(
    model: Model, before: Layer, after: Array, end: Array | float, surrogate: ValueSurrogate
) -> tuple[Columns, float, float]:
    bottom, top = surrogate.network.range_of(surrogate.problem)
    hidden = add_relu(model, before, *before.ends())
    last = hidden.then((top - bottom) * after, (top - bottom) * end + bottom)
    low, high = last.ends()
    column = model.columns(1, low, high)
    model.rows([(column, [[1.0]]), (last.columns, -last.M)], last.k, last.k)
    return column, float(low[0]), float(high[0])


def _tightened(first: FirstStage, layer: Layer, low: Array, high: Array) -> tuple[Array, Array]:
    """Bounds of a layer that is linear in x, over the linear relaxation of X."""
    low, high = low.copy(), high.copy()
    for j in np.flatnonzero((low < 0) & (high > 0)):
        for side, sign in ((low, 1.0), (high, -1.0)):
            model = Model()
            first.add_to(model, sign * layer.M[j], relaxed=True)
            bound = sign * model.minimize().bound + layer.k[j]
            if np.isfinite(bound):
                side[j] = max(low[j], bound) if sign > 0 else min(high[j], bound)
    return low, high


def worst_by_program(
    surrogate: ValueSurrogate, scenarios: UncertaintySet, x: Array, seconds: float
) -> tuple[float, Array]:
    """The scenario that the network finds dearest for x, by a program; every item's ReLUs are in it.

    A scenario's item MLP is not linear, as scenarios are no yes or no: 32 ReLUs for each row, for the patient.
    """
    problem, network = surrogate.problem, surrogate.network
    maps, fixed = problem.scenario_features()
    low, width = network.scenario_low.numpy(), network.scenario_width.numpy()
    model = Model()
    xi = scenarios.add_to(model)
    W, bias, after, end = weights(network.scenario_item)
    ends, q = scenarios.ends, maps.shape[1]
    sums: list[Layer] = []
    for rows, known in zip(maps, fixed, strict=True):
        M = np.vstack([rows, np.zeros((len(known), len(xi)))]) / width[:, None]
        k = (np.r_[np.zeros(q), known] - low) / width
        item = Layer(xi, M, k, *ends).then(W, bias)
        sums.append(add_relu(model, item, *item.ends()).then(after, end))
    summed = Layer(
        np.concatenate([s.columns for s in sums]),
        np.hstack([s.M for s in sums]),
        np.sum([s.k for s in sums], axis=0),
        np.concatenate([s.low for s in sums]),
        np.concatenate([s.high for s in sums]),
    )
    W, bias, after, end = weights(network.scenario_post)
    post = summed.then(W, bias)
    embedded = add_relu(model, post, *post.ends()).then(after, end)
    W, bias, after, end = weights(network.joint)
    split = network.shape.post
    decided = W[:, :split] @ surrogate.decisions(x)[0].numpy().astype(np.float64)
    column, _, high = _output(model, embedded.then(W[:, split:], decided + bias), after, end, surrogate)
    aim = model.columns(1, -np.inf, high, cost=-1.0)
    model.rows([(aim, [[1.0]]), (column, [[-1.0]])], 0.0, 0.0)
    found = model.minimize(seconds=seconds, gap=1e-3)
    if found.x is None:
        return -np.inf, scenarios.centre
    return -found.value, found.x[xi]
