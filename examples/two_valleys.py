"""Two runs of one network that part early: the barrier between them, the layers that make it, and pictures.

Run it: ``python examples/two_valleys.py page.html``. It prints the barrier of runs that part at the start and after
eight hundred steps, and draws the segment between the first two and the plane of their start.
"""

import sys

import numpy as np
import torch
from torch import nn

from thalweg.datasets import load
from thalweg.landscape import LossSurface, interpolate, layer_table, plane, spawn
from thalweg.workbench import render_figures


def main(page: str = "", late: int = 800, steps: int = 300) -> dict[int, float]:
    """Barriers by shared steps."""
    data = load("digits")
    X = torch.tensor(np.asarray(data.X)[:1300] / 16.0, dtype=torch.float32)
    y = torch.tensor(np.asarray(data.y)[:1300]).long()
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    runs = spawn(
        network,
        (X, y),
        lambda p: torch.optim.SGD(p, lr=0.08, momentum=0.9),
        after=[0, late],
        steps=steps,
        batch_size=8,
    )
    surface = LossSurface(network, (X, y))
    lines = {k: interpolate(surface, *ends) for k, ends in runs.ends.items()}
    print(layer_table(surface, *runs.ends[0]).to_frame().to_string(index=False))
    if page:
        picture = plane(surface, runs.roots[0], *runs.ends[0])
        figures = [lines[0].figure(), picture.figure(), picture.figure(relief=True)]
        render_figures(figures, page, "Two valleys")
    return {k: line.barrier for k, line in lines.items()}


if __name__ == "__main__":
    for shared, barrier in main(*sys.argv[1:2]).items():
        print(f"{shared} shared steps: barrier {barrier:.3f}")
