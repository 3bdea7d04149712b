"""Record the gradient norms of one run, make a schedule of them, and race it against linear decay and cosine.

Run it: python examples/refine_a_schedule.py
"""

from __future__ import annotations

import functools

import torch
from torch.optim import Optimizer

from thalweg import compare, solve
from thalweg.studies.tasks import text
from thalweg.training import (
    GradientNormRecorder,
    LinearDecay,
    ProfileSchedule,
    RefinedSchedule,
    Train,
    fit_warmup_poly,
    refine,
)
from thalweg.workbench import Comparison


def main(steps: int = 120, seeds: tuple[int, ...] = (0, 1, 2)) -> Comparison:
    task, options = text(steps), {"lr": 0.02}
    recorders: list[GradientNormRecorder] = []

    def recorded(optimizer: Optimizer, total: int) -> LinearDecay:
        recorders.append(GradientNormRecorder(optimizer))
        return LinearDecay(optimizer, total)

    solve(task, Train(torch.optim.Adam, options, recorded), seed=100)
    refined = refine(recorders[0].norms("l1"), "l1")
    fit = fit_warmup_poly(refined)
    print(f"refined: close to {fit.warmup:.0%} of warm-up, then power {fit.power:.2f}")

    found = compare(
        task,
        {
            "cosine": Train(torch.optim.Adam, options, functools.partial(ProfileSchedule, profile="cosine")),
            "linear decay": Train(torch.optim.Adam, options, LinearDecay),
            "refined": Train(torch.optim.Adam, options, functools.partial(RefinedSchedule, refined=refined)),
        },
        seeds=seeds,
    )
    print(found.summary()[["method", "test_loss"]].to_string(index=False))
    return found


if __name__ == "__main__":
    main()
