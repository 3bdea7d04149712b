"""30: labels against a loop of HiGHS, the linear item embedding against one with its ReLUs, evaluation, an answer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.race import Row, race
from thalweg.core import solve
from thalweg.robust import Certified, RobustKnapsack, TwoStageRobust, ValueSurrogate, pretrained_value
from thalweg.robust.embedding import Embedding, Layer, add_relu, weights
from thalweg.robust.evaluation import by_plans
from thalweg.robust.milp import Columns, Model

N, SECONDS = 20, 60.0


def labels() -> Row:
    """Second-stage values: 2000 by greedy, 20 by HiGHS, seconds for 2000."""
    problem, rng = RobustKnapsack.random(N, 0), np.random.default_rng(0)
    X, XI = problem.sample_decisions(40, rng), problem.uncertainty.sample(50, rng)
    (fast, found), (slow, other) = race(
        lambda: problem.labels(X, XI),
        lambda: [TwoStageRobust.recourse(problem, X[k], XI[k])[0] for k in range(20)],
        rounds=3,
    )
    first = X[:20] @ problem.affine.at_zero.c
    error = float(np.abs(np.array(other) - first - found[range(20), range(20)]).max() / np.abs(found).max())
    return Row("30", f"2000 labels, n {N}", fast, "HiGHS, one each", 100 * slow, error)


def evaluation() -> Row:
    """The exact worst case of a decision, by plans of our own search or of HiGHS."""
    problem = RobustKnapsack.random(N, 0, spread=1.0, budget=0.15)
    x = np.ones(N)
    affine, scenarios = problem.affine, problem.uncertainty
    (fast, ours), (slow, peer) = race(
        lambda: by_plans(affine, scenarios, x, problem.recourse).value,
        lambda: by_plans(affine, scenarios, x, lambda a, xi: TwoStageRobust.recourse(problem, a, xi)).value,
        rounds=2,
    )
    return Row("30", f"worst case, n {N}", fast, "HiGHS for plans", slow, 0.0, abs(peer / ours - 1))


def plans() -> Row:
    """One best plan, by our own search and by HiGHS."""
    problem, xi, x = RobustKnapsack.random(N, 0, spread=1.0), np.linspace(0, 0.3, N), np.ones(N)
    (fast, ours), (slow, peer) = race(
        lambda: problem.recourse(x, xi)[0], lambda: TwoStageRobust.recourse(problem, x, xi)[0], rounds=5
    )
    return Row("30", f"a best plan, n {N}", fast, "HiGHS", slow, 0.0, abs(peer / ours - 1))


def value_program(surrogate: ValueSurrogate, xi: np.ndarray, is_linear: bool) -> float:
    """Minimise certain costs and the network's value at a scenario; items linear in x, or with 32 ReLUs each."""
    problem, model = surrogate.problem, Model()
    x = problem.first_stage.add_to(model, problem.affine.at_zero.c)
    if is_linear:
        column, low, high = Embedding(model, x, surrogate).value(xi)
    else:
        column, low, high = with_item_relus(model, x, surrogate, xi)
    aim = model.columns(1, low, high, cost=1.0)
    model.rows([(aim, [[1.0]]), (column, [[-1.0]])], 0.0, 0.0)
    return model.minimize(seconds=SECONDS, gap=1e-3).value


def with_item_relus(
    model: Model, x: Columns, surrogate: ValueSurrogate, xi: np.ndarray
) -> tuple[Columns, float, float]:
    """The embedding with a ReLU for each hidden unit of each item."""
    problem, network = surrogate.problem, surrogate.network
    known = (torch.from_numpy(problem.item_features()) - network.item_low) / network.item_width
    W, bias, after, end = weights(network.item)
    sums = []
    for i, features in enumerate(known.numpy()):
        start = Layer(x[i : i + 1], W[:, :1], W[:, 1:] @ features + bias, np.zeros(1), np.ones(1))
        sums.append(add_relu(model, start, *start.ends()).then(after, end))
    summed = Layer(
        np.concatenate([s.columns for s in sums]),
        np.hstack([s.M for s in sums]),
        np.sum([s.k for s in sums], axis=0),
        np.concatenate([s.low for s in sums]),
        np.concatenate([s.high for s in sums]),
    )
    W, bias, after, end = weights(network.post)
    post = summed.then(W, bias)
    embedded = add_relu(model, post, *post.ends()).then(after, end)
    W, bias, after, end = weights(network.joint)
    split = network.shape.post
    fixed = W[:, split:] @ surrogate.scenarios(xi[None])[0].numpy() + bias
    joint = embedded.then(W[:, :split], fixed)
    bottom, top = network.range_of(problem)
    last = add_relu(model, joint, *joint.ends()).then((top - bottom) * after, (top - bottom) * end + bottom)
    low, high = last.ends()
    column = model.columns(1, low, high)
    model.rows([(column, [[1.0]]), (last.columns, -last.M)], last.k, last.k)
    return column, float(low[0]), float(high[0])


def embedding() -> Row:
    """A main problem with one scenario at n = 50; the peer ends at a minute."""
    problem = RobustKnapsack.random(50, 1)
    surrogate, xi = ValueSurrogate(pretrained_value("knapsack"), problem), np.eye(50)[0]
    (fast, ours), (slow, peer) = race(
        lambda: value_program(surrogate, xi, True), lambda: value_program(surrogate, xi, False), rounds=1
    )
    return Row("30", "main problem, n 50", fast, "n x 32 ReLUs", slow, 0.0, abs(peer - ours) / abs(ours))


def answer() -> Row:
    """A knapsack with its proof, against ten seconds."""
    problem = RobustKnapsack.random(N, 7, spread=1.0, budget=0.15)
    ((fast, result),) = race(lambda: solve(problem, Certified(), progress=False), rounds=1)
    return Row("30", f"answer with proof, n {N}", fast, "ten seconds", 10.0, result.metrics["gap"])


def rows() -> Iterator[Row]:
    """Labels, plans, evaluation, embedding, a whole answer."""
    for make in (labels, plans, evaluation, embedding, answer):
        yield make()
