"""Race optimizers and schedules on a network of your own, under one budget, and write a page about it.

Run it: python examples/compare_optimizers.py comparison.html
"""

from __future__ import annotations

import functools
import sys

import torch
from torch import nn

from thalweg import compare
from thalweg.datasets import load
from thalweg.training import REX, Lion, ProfileSchedule, TrainingTask
from thalweg.workbench import Comparison


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 2))


def main(page: str = "comparison.html", steps: int = 200) -> Comparison:
    data = load("breast_cancer")
    X = torch.tensor((data.X - data.X.mean(0)) / data.X.std(0), dtype=torch.float32)
    y = torch.tensor(data.y)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    train, test = order[:400], order[400:]
    task = TrainingTask(network, (X[train], y[train]), (X[test], y[test]), steps=steps, batch_size=32)

    cosine = functools.partial(ProfileSchedule, profile="cosine")
    found = compare(
        task,
        {
            "AdamW, constant": (torch.optim.AdamW, {"lr": 3e-3}),
            "AdamW, cosine": (torch.optim.AdamW, {"lr": 3e-3}, cosine),
            "AdamW, REX": (torch.optim.AdamW, {"lr": 3e-3}, REX),
            "Lion, REX": (Lion, {"lr": 1e-3, "weight_decay": 0.03}, REX),
        },
        seeds=(0, 1, 2),
    )
    print(found.summary()[["method", "test_loss", "accuracy", "seconds"]].to_string(index=False))
    print(f"report: {found.report(page)}")
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
