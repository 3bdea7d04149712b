"""Digits with labels are upright, those of use are turned: adapt without a label and without a weight to tune.

Run it: ``python examples/digits_turned.py page.html``. It says which share of turned digits is read right by a network
that saw upright ones, and by one that adapted, and draws the weights of the three objectives.
"""

import sys

import numpy as np
import torch
from scipy.ndimage import rotate
from torch import nn

from thalweg.adaptation import ParetoDA, run_figures
from thalweg.datasets import load
from thalweg.workbench import render_figures


def network(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """Backbone and head."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU()), nn.Linear(48, 10)


def main(page: str = "", steps: int = 400) -> tuple[float, float]:
    """Shares of turned digits that are read right: without adaptation, and with it."""
    digits = load("digits")
    images, y = np.asarray(digits.X).reshape(-1, 8, 8) / 16.0, np.asarray(digits.y)
    upright = images[:900].reshape(900, -1)
    turned = np.stack([rotate(image, 30, reshape=False, order=1) for image in images[900:]]).reshape(-1, 64)
    options = {"rate": 0.03, "ramp": 100.0, "hidden": 64}
    found = []
    for base, combiner in (("source-only", "linear"), ("dann", "preference")):
        model = ParetoDA(*network(), base, combiner, **options)
        model.fit((upright, y[:900]), turned, steps=steps, batch_size=64)
        found.append(float((model.predict(turned) == y[900:]).mean()))
    if page:
        render_figures(run_figures(model.result), page, "Digits, turned")
    return found[0], found[1]


if __name__ == "__main__":
    before, after = main(*sys.argv[1:2])
    print(
        f"Read right: {before:.0%} by the network that saw upright digits, {after:.0%} by the one that adapted."
    )
