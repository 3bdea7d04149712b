"""A small search of programs: a rule is found on one task, made shorter, written down, and trains another network.

python examples/discover_an_optimizer.py [found.py]
"""

from __future__ import annotations

import sys

import torch
from torch import nn

from thalweg import compare
from thalweg.datasets import load
from thalweg.discovery import ADAMW, DigitsMLP, optimizer_class, parse, search, write_optimizer
from thalweg.training import TrainingTask
from thalweg.workbench import Comparison


def digits(steps: int) -> TrainingTask:
    """Another network than the search's: two hidden layers, trained with torch."""
    table = load("digits")
    X, y = torch.tensor(table.X, dtype=torch.float32) / 16.0, torch.tensor(table.y).long()
    return TrainingTask(
        lambda: nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10)),
        (X[:1300], y[:1300]),
        (X[1300:], y[1300:]),
        steps=steps,
    )


def main(path: str = "found.py", evaluations: int = 200, steps: int = 120) -> tuple[float, float, Comparison]:
    """Losses of the start and of the winner on the proxy, and the comparison on the other network."""
    start = parse(ADAMW.source.replace("0.001", "0.002"))
    found = search(
        DigitsMLP(steps=60, seeds=(0,)), start=start, evaluations=evaluations, population=30, tournament=8
    )
    short = found.simplified()
    before, after = (found.task.metrics(p.source)["loss"] for p in (start, short.program))
    print(short.program, *(f"# {change}" for change in short.log), sep="\n")
    print(f"Proxy loss {before:.3f} at the start, {after:.3f} now.")
    write_optimizer(short.program, path, "Found")
    entrants = {
        "found": (optimizer_class(short.program), {}),
        "where it began": (optimizer_class(start), {}),
        "AdamW, rate .01": (torch.optim.AdamW, {"lr": 1e-2}),
    }
    other = compare(digits(steps), entrants, progress=False)
    print(other.to_frame()[["method", "test_loss", "accuracy"]].to_string(index=False))
    return before, after, other


if __name__ == "__main__":
    main(*sys.argv[1:2])
