"""A crossing's light is set by its waiting times, and a controller's code is improved in the sandbox, without a model.

python examples/improve_a_workflow.py
"""

from __future__ import annotations

import math

from thalweg.workflow import Bounds, ExecutionError, bundle, node
from thalweg.workflow.optimizers import CodeEdits, PatternSearch
from thalweg.workflow.traffic import Crossing


@bundle(trainable=True)
def steer(position, speed):
    """The force on a mass that should come to rest at zero."""
    return 0.0 * position


def light(runs: int) -> tuple[float, float]:
    """Mean wait with 30 s of green for each road, and after a search."""
    crossing, bounds = Crossing(), Bounds(3.0, 60.0, log=True)
    first = node(30.0, trainable=True, constraint=bounds)
    second = node(30.0, trainable=True, constraint=bounds)
    wait = bundle("mean wait in seconds")(lambda first, second: crossing.wait(first, second, seed=0))
    search = PatternSearch([first, second])
    fixed = wait(first, second).data
    for _ in range(runs):
        seconds = wait(first, second)
        search.zero_feedback()
        search.backward(seconds, seconds.data)
        search.step()
    return fixed, search.best_score


def controller(runs: int) -> tuple[float, float]:
    """Cost of bringing a mass to rest, with the first code and with the best."""
    search, costs = CodeEdits([steer.parameter], seed=0), []
    for _ in range(runs):
        search.zero_feedback()
        position, speed, cost = 1.0, 0.0, 0.0
        try:
            for _ in range(20):
                force = steer(position, speed)
                push = force.data if isinstance(force.data, float) else math.nan
                speed += 0.3 * max(-9.0, min(9.0, push))
                position += 0.3 * speed
                cost += position**2 + 0.1 * speed**2
            output = force
        except ExecutionError as error:
            output, cost = error.node, 1e6
        costs.append(cost if cost < 1e6 else 1e6)
        search.backward(output, costs[-1])
        search.step()
    print(search.best[steer.parameter])
    return costs[0], search.best_score


def main(runs: int = 40, edits: int = 200) -> tuple[float, float, float, float]:
    """Waits before and after, costs before and after."""
    fixed, numbers = light(runs)
    first, last = controller(edits)
    print(f"mean wait: {fixed:.1f} s with 30 s each, {numbers:.1f} s after {runs} runs")
    print(f"cost: {first:.2f} at first, {last:.2f} after {edits} runs")
    return fixed, numbers, first, last


if __name__ == "__main__":
    main()
