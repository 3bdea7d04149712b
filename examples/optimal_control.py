"""Heat a plate until it comes closest to a raised square with a hole: ten thousand unknowns, by projections alone.

Run it: ``python examples/optimal_control.py control.html``. It prints the steps and, given a page, draws the state and
the control on it.
"""

import sys

import numpy as np

from thalweg import Stop, solve
from thalweg.constrained import PoissonControl
from thalweg.core.figure import Figure, Surface
from thalweg.workbench import render_figures


def main(side: int = 72, page: str | None = None) -> tuple[int, float, float]:
    """Steps, the residual of the optimality conditions, and how far the state is from the target, on average."""
    g = np.arange(1, side + 1) / (side + 1)
    target = ((np.abs(g[:, None] - 0.5) < 0.25) & (np.abs(g - 0.5) < 0.25)).astype(float)
    target[(np.abs(g[:, None] - 0.62) < 0.08) & (np.abs(g - 0.62) < 0.08)] = 0.0
    control = PoissonControl(target)
    found = solve(control.problem, stop=Stop(below={"kkt": 1e-6}, steps=50))
    state = control.state(found.x)
    print(
        f"{found.status.value} after {found.steps} steps, {found.seconds:.1f} s, {control.problem.n} unknowns"
    )
    axis = g.tolist()
    figures = [
        Figure(name, "", "x", "y", [], surface=Surface(axis, axis, field.tolist()))
        for name, field in {"State": state, "Control": control.control(found.x), "Target": target}.items()
    ]
    if page is not None:
        render_figures(figures, page, "Optimal control")
    return found.steps, found.metrics["kkt"], float(np.abs(state - target).mean())


if __name__ == "__main__":
    print(
        "steps, residual, mean distance from the target:",
        *(f"{v:.3g}" for v in main(page=(sys.argv[1:] or [None])[0])),
    )
