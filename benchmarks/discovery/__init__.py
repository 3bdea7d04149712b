"""27: the interpreter against NumPy by hand, candidates a second, types and hashes, and what caches save."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.race import Row, race
from thalweg import Stop, solve
from thalweg.discovery import (
    ADAMW,
    DigitsMLP,
    Mutations,
    ProgramSearch,
    RegularizedEvolution,
    Rule,
    check,
    structural_hash,
)

CHILDREN, EVALUATIONS = 500, 100


def by_hand(steps: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    """AdamW as the program has it."""
    for _ in range(steps):
        m = (1 - 0.9) * g + 0.9 * m
        v = (1 - 0.999) * np.square(g) + 0.999 * v
        update = (m / (np.sqrt(np.abs(v)) + 1e-12) + 0.01 * w) * (0.001 * 0.5)
    return update


def interpreted(steps: int, rule: Rule, w: Any, g: Any, m: Any, v: Any) -> Any:
    """The same by the interpreter."""
    for _ in range(steps):
        update, m, v = rule(w, g, m, v, 0.5)
    return update


def judged(children: list[Any]) -> int:
    """Types and hash of each child."""
    return sum(check(child) is None and bool(structural_hash(child)) for child in children)


def searched(**options: Any) -> Any:
    """A short search on the digits proxy."""
    task = ProgramSearch(DigitsMLP())
    return solve(
        task, RegularizedEvolution(population=30, tournament=8, **options), stop=Stop(calls=EVALUATIONS)
    )


def rows() -> Iterator[Row]:
    """Interpreter, proxy, types and hash, searches with and without caches, and with two workers."""
    draw = np.random.default_rng(0)
    rule = Rule(ADAMW)
    for size in (64 * 32, 1_000_000):
        w, g, m, v = np.abs(draw.standard_normal((4, size)))
        steps = 500 if size < 10_000 else 5
        (ours, a), (theirs, b) = race(
            lambda n=steps, w=w, g=g, m=m, v=v: interpreted(n, rule, w, g, m, v),
            lambda n=steps, w=w, g=g, m=m, v=v: by_hand(n, w, g, m, v),
            rounds=3,
        )
        assert np.allclose(a, b, rtol=1e-6)
        yield Row("27", f"{steps} steps of AdamW, {size} weights", ours, "NumPy by hand", theirs)
    parent, mutations = ADAMW, Mutations()
    children = []
    for _ in range(CHILDREN):
        child = mutations.child(parent, draw)
        children.append(child)
        parent = child if check(child) is None else parent
    (each, _), (run, _) = race(lambda: judged(children), lambda: list(DigitsMLP()(rule)), rounds=3)
    yield Row("27", "types and hash of a child", each / CHILDREN, "a run of the proxy", run)
    (both, found), (none, _) = race(searched, lambda: searched(join=False, early_stop=False), rounds=1)
    saved = found.history.metrics[-1]
    yield Row(
        "27",
        f"{EVALUATIONS} evaluations; types save {saved['rejected']:.0%}, caches {saved['hits']:.0%}",
        both,
        "no joining, no early stop",
        none,
        found.metrics["loss"],
    )
    (two, _), (one, _) = race(
        lambda: searched(workers=2, children=32), lambda: searched(children=32), rounds=3
    )
    yield Row("27", f"{EVALUATIONS} evaluations, 32 children a step, two workers", two, "one worker", one)
