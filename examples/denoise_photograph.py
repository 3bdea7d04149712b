"""A photograph is freed of noise by a basis that is learned from the noisy photograph itself, patch by patch.

Run it: ``python examples/denoise_photograph.py denoised.html``. It writes a page with the pictures.
"""

from __future__ import annotations

import sys

import numpy as np

from thalweg.core import Figure, Surface
from thalweg.matrix import OnlineDictionary, cosines, denoise, grey_photographs, patch_stream, psnr
from thalweg.workbench import render_figures

NOISE = 25.0


def main(page: str | None = None, steps: int = 1500, side: int = 256) -> dict[str, float]:
    """Decibels of the noisy picture, and of two that are freed of noise."""
    truth = grey_photographs()[0][:side, -side:]
    noisy = truth + NOISE * np.random.default_rng(0).standard_normal(truth.shape)
    model = OnlineDictionary("smooth-l1", batch_size=64, random_state=0)
    for batch in patch_stream(noisy, size=64, count=steps, seed=0):
        model.partial_fit(batch)
    pictures = {
        "the photograph": truth,
        "noisy": noisy,
        "learned basis": denoise(noisy, model.components_.T, NOISE),
        "discrete cosine transform": denoise(noisy, cosines(8), NOISE),
    }
    found = {name: psnr(picture, truth) for name, picture in pictures.items() if picture is not truth}
    print("  ".join(f"{name}: {value:.2f} dB" for name, value in found.items()))
    if page is not None:
        axis = np.arange(side, dtype=float).tolist()
        told = {name: f"{value:.2f} dB" for name, value in found.items()}
        figures = [
            Figure(
                name, told.get(name, ""), "x", "y", [], surface=Surface(axis, axis, picture[::-1].tolist())
            )
            for name, picture in pictures.items()
        ]
        render_figures(figures, page, "A photograph less its noise")
    return found


if __name__ == "__main__":
    main(*sys.argv[1:2])
