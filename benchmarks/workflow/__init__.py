"""14: operators, bundles and the way back, against microsoft's trace-opt where it can be imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.race import Row, race
from thalweg.workflow import bundle, node

OPERATORS, CALLS, CHAIN, LONG = 500, 200, 4000, 100_000


def chain(make: Callable[..., Any], length: int) -> Any:
    """A sum of ones, one at a time, on a parameter."""
    total = make(0, trainable=True)
    for _ in range(length):
        total = total + 1
    return total


def calls(function: Callable[[int], Any]) -> Any:
    """Some calls of a bundled function."""
    return [function(i) for i in range(CALLS)][-1]


def plus_one(x: int) -> int:
    """Adds one."""
    return x + 1


def long_chain() -> Row:
    """The way back through many operators, beside the way there."""
    here = chain(node, LONG)
    (a, _), (b, _) = race(
        lambda: here.backward("more", retain_graph=True), lambda: chain(node, LONG), rounds=3
    )
    return Row("14", f"backward through {LONG} operators", a, "recording them", b)


def rows() -> Iterator[Row]:
    """Each row; without trace-opt the plain Python that is traced is the peer."""
    ours = bundle(plus_one)
    try:
        trace = importlib.import_module("opto.trace")
    except ImportError:
        (a, x), (b, y) = race(lambda: chain(node, OPERATORS), lambda: chain(lambda v, **_: v, OPERATORS))
        yield Row(
            "14",
            f"{OPERATORS} operators",
            a,
            "Python, untraced",
            b,
            abs(x.data - OPERATORS),
            abs(y - OPERATORS),
        )
        (a, x), (b, y) = race(lambda: calls(ours), lambda: calls(plus_one))
        yield Row(
            "14", f"{CALLS} bundle calls", a, "Python, untraced", b, abs(x.data - CALLS), abs(y - CALLS)
        )
        yield long_chain()
        return
    theirs = trace.bundle()(plus_one)
    (a, x), (b, y) = race(lambda: chain(node, OPERATORS), lambda: chain(trace.node, OPERATORS))
    yield Row(
        "14", f"{OPERATORS} operators", a, "trace-opt", b, abs(x.data - OPERATORS), abs(y.data - OPERATORS)
    )
    (a, x), (b, y) = race(lambda: calls(ours), lambda: calls(theirs))
    yield Row("14", f"{CALLS} bundle calls", a, "trace-opt", b, abs(x.data - CALLS), abs(y.data - CALLS))
    here, there = chain(node, CHAIN), chain(trace.node, CHAIN)
    (a, _), (b, _) = race(
        lambda: here.backward("more", retain_graph=True),
        lambda: there.backward("more", retain_graph=True),
        rounds=1,
    )
    yield Row("14", f"backward through {CHAIN} operators", a, "trace-opt", b)
    yield long_chain()
