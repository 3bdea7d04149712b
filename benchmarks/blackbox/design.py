"""05: designs in one batch against one after the other, and the Gram form of the backward loss against the table's."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.race import Row, race
from thalweg import solve
from thalweg.blackbox.design import BidirectionalDesign, six6
from thalweg.blackbox.design.proxy import BackwardForm, proxy_of, told_weights
from thalweg.core.seeding import torch_generator

DESIGNS, STEPS = 128, 20


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
