"""Smoke rises past a turning cross; every pressure system is solved with a learned multigrid cycle.

Run it: ``python examples/smoke_plume.py smoke.html``. It writes a page with the smoke at eight moments, and the
iterations of each frame beside those of conjugate gradients.
"""

import sys

import numpy as np

from thalweg import Stop, solve
from thalweg.core import Figure, Series, Surface
from thalweg.linear import FLUID, ConjugateGradient, MultigridCycle, SmokePlume
from thalweg.linear.obstacles import cross
from thalweg.workbench import render_figures


def main(page: str | None = None, side: int = 64, frames: int = 80) -> tuple[int, int]:
    """Iterations of all frames: ours, and those of conjugate gradients."""
    shape = (side, side)
    plume = SmokePlume(shape, frames, obstacle=lambda t: cross(shape, angle=0.04 * t))
    stop = Stop(below={"residual": 1e-4})
    pressure, pictures, ours, theirs = None, [], [], []
    axis = np.arange(side, dtype=float).tolist()
    for t in range(frames):
        system = plume.system(t, pressure)
        result = solve(system, ConjugateGradient(MultigridCycle(system.A)), stop=stop)
        pressure = result.x
        ours.append(result.steps)
        theirs.append(solve(system, ConjugateGradient(), stop=stop).steps)
        if t % max(1, frames // 8) == frames % max(1, frames // 8):
            smoke = np.where(plume.system_cells() == FLUID, plume.density, -0.3)
            told = f"{result.steps} iterations against {theirs[-1]}"
            surface = Surface(axis, axis, smoke.tolist())
            pictures.append(Figure(f"Frame {t}", told, "x", "height", [], surface=surface))
    moments = np.arange(frames, dtype=float)
    curves = [Series.of(name, moments, steps) for name, steps in (("learned cycle", ours), ("CG", theirs))]
    if page is not None:
        caption = "To a residual of 1e-4."
        figures = [Figure("Iterations", caption, "frame", "iterations", curves), *pictures]
        render_figures(figures, page, "Smoke past a turning cross")
    return sum(ours), sum(theirs)


if __name__ == "__main__":
    print("iterations, learned cycle and CG:", *main(*sys.argv[1:2]))
