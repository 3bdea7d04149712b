"""An image from eight X-ray views: the sampler, its spread, and what other methods make of the same data.

Run it: ``python examples/image_from_eight_views.py page.html``. The shipped denoiser has learned ellipses; the page
shows the image, eight samples' mean, and where they differ.
"""

import sys

import torch

from thalweg import Stop, solve
from thalweg.core import Figure
from thalweg.core.figure import Surface
from thalweg.inverse import (
    DDS,
    TVADMM,
    FilteredBackProjection,
    InverseProblem,
    PseudoInverse,
    Radon,
    peak_signal_noise_ratio,
    pretrained_unet,
)
from thalweg.inverse.phantoms import ellipses
from thalweg.workbench import render_figures


def main(page: str = "", steps: int = 50, samples: int = 8) -> dict[str, float]:
    """PSNR in decibels by method."""
    truth = ellipses(1, 32, (34, 2))[0]
    A = Radon(32, views=8)
    y = A.measured(truth, sigma=0.1)
    problem = InverseProblem(A, y, sigma=0.1, truth=truth)
    methods = {"filtered back-projection": FilteredBackProjection(), "pseudo-inverse": PseudoInverse(0.01)}
    methods |= {"total variation": TVADMM(tv=1e-3)}
    found = {
        name: solve(problem, method, stop=Stop(steps=300)).metrics["psnr"] for name, method in methods.items()
    }
    sampler = DDS(pretrained_unet(), A, steps=steps, gamma=20.0)
    found["one sample"] = sampler.solve(y, 0.1, truth=truth).metrics["psnr"]
    many = sampler.posterior(y, 0.1, samples=samples)
    found["mean of samples"] = peak_signal_noise_ratio(many.mean, truth)
    found["deviation"] = float(many.deviation.mean())
    if page:
        shown = {"The truth": truth, "Mean of the samples": many.mean, "Their deviation": many.deviation}
        render_figures([picture(name, image) for name, image in shown.items()], page, "From eight views")
    return found


def picture(title: str, image: torch.Tensor) -> Figure:
    """An image as a figure."""
    rows, columns = (list(map(float, range(n))) for n in image.shape)
    surface = Surface(columns, [-row for row in rows], image.tolist())
    return Figure(title, "", "column", "row", [], surface=surface)


if __name__ == "__main__":
    for name, value in main(*sys.argv[1:2]).items():
        print(f"{name:26s} {value:.2f}")
