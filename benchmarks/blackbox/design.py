"""05: designs in one batch against one after the other, the Gram form of the backward loss against the table's, and
evolution against pycma's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.race import Row, race
from thalweg import solve
from thalweg.blackbox.design import BidirectionalDesign, EvolvedLetters, SequenceTable, six6
from thalweg.blackbox.design.proxy import BackwardForm, proxy_of, told_weights
from thalweg.core.seeding import torch_generator

DESIGNS, STEPS, GENERATIONS = 128, 20, 200


def rows() -> Iterator[Row]:
    """A batch of 128 designs, and 128 backward losses with gradients on 5000 and 50 000 rows."""
    table = six6().offline(2000, DESIGNS)
    method = BidirectionalDesign(gamma=0.5, steps=STEPS)
    alone = []
    for k in range(DESIGNS):
        one = table.asked(1)
        one.made("starts", lambda k=k: table.starts()[k : k + 1])
        alone.append(one)
    proxy = proxy_of(table, method.encoder, 0)
    table.judge()
    for one in alone:
        one.made((method.encoder, 0), lambda: proxy)
        one.made("judge", table.judge)

    def batch() -> int:
        return len(solve(table, method, progress=False).x)

    def loop() -> int:
        return sum(len(solve(one, method, progress=False).x) for one in alone)

    (fast, _), (slow, _) = race(batch, loop, rounds=2)
    yield Row("05", f"{DESIGNS} designs, {STEPS} steps", fast, "one after the other", slow)
    drawn = torch_generator(5)
    D = 256
    for n in (5000, 50_000):
        H = torch.randn(n, D, dtype=torch.double, generator=drawn)
        y = torch.randn(n, dtype=torch.double, generator=drawn)
        h = torch.randn(DESIGNS, D, dtype=torch.double, generator=drawn).requires_grad_()
        form = BackwardForm(H, y)

        def gram(form: BackwardForm = form, h: torch.Tensor = h) -> float:
            loss = form(told_weights(h, 10.0)).sum()
            torch.autograd.grad(loss, h)
            return float(loss.detach())

        def plain(H: torch.Tensor = H, y: torch.Tensor = y, h: torch.Tensor = h) -> float:
            loss = ((H @ told_weights(h, 10.0).T - y[:, None]) ** 2).mean(0).sum()
            torch.autograd.grad(loss, h)
            return float(loss.detach())

        (fast, found), (slow, other) = race(gram, plain)
        off = abs(found - other) / abs(other)
        yield Row("05", f"backward loss, {n} rows, D {D}", fast, "products with the table", slow, off, 0.0)
    yield from evolution(table)


def evolution(table: SequenceTable, seeds: int = 5) -> Iterator[Row]:
    """CMA-ES on the logits of one sequence, equal populations; accuracy: the best score of the ridge less a seed's, the
    mean over seeds, where the best is what either found on any."""
    try:
        import cma
    except ImportError:
        return
    method = EvolvedLetters(steps=GENERATIONS)
    proxy = proxy_of(table, method.encoder, 0)
    start = np.eye(table.space.letters)[table.starts()[0]].ravel()
    shape = (-1, table.space.positions, table.space.letters)

    def ours() -> np.ndarray:
        found = []
        for seed in range(1, seeds + 1):
            table.made((method.encoder, seed), lambda: proxy)
            found.append(
                float(proxy.predict(solve(table.asked(1), method, seed=seed, progress=False).x).max())
            )
        return np.array(found)

    def theirs() -> np.ndarray:
        found = []
        for seed in range(1, seeds + 1):
            search = cma.CMAEvolutionStrategy(start, method.spread, {"seed": seed, "verbose": -9})
            best = -np.inf
            for _ in range(GENERATIONS):
                points = search.ask()
                values = proxy.predict(np.array(points).reshape(shape).argmax(2))
                best = max(best, float(values.max()))
                search.tell(points, list(-values))
            found.append(best)
        return np.array(found)

    (fast, mine), (slow, peers) = race(ours, theirs, rounds=2)
    best = max(mine.max(), peers.max())
    workload = f"{seeds} searches of {GENERATIONS} generations"
    yield Row("05", workload, fast, "pycma", slow, float(best - mine.mean()), float(best - peers.mean()))
