"""29: weight matching with and without visits to permutations whose neighbours did not change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.race import Row, race
from thalweg.core import Result, solve
from thalweg.landscape.permutation import (
    PermutationSpec,
    Rebasin,
    WeightMatching,
    matching,
    trace_permutations,
)


def mlp(width: int, seed: int) -> nn.Module:
    """64-w-w-10."""
    torch.manual_seed(seed)
    layers = nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    return nn.Sequential(*layers)


class Block(nn.Module):
    """Two convolutions, or a bottleneck of three, and a residual sum."""

    def __init__(self, into: int, out: int, inner: int, stride: int) -> None:
        super().__init__()
        first = [nn.Conv2d(into, inner, 1), nn.BatchNorm2d(inner), nn.ReLU()] if inner < out else []
        start = inner if inner < out else into
        middle = [nn.Conv2d(start, inner, 3, stride, 1), nn.BatchNorm2d(inner), nn.ReLU()]
        last = nn.Conv2d(inner, out, 1) if inner < out else nn.Conv2d(inner, out, 3, 1, 1)
        self.body = nn.Sequential(*first, *middle, last, nn.BatchNorm2d(out))
        self.short = nn.Conv2d(into, out, 1, stride) if into != out or stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


def resnet(seed: int, depth: int) -> nn.Module:
    """Of ResNet-20's size (16, 32, 64 channels), or ResNet-50's (256 to 2048, with bottlenecks)."""
    torch.manual_seed(seed)
    small = depth == 20
    narrow = [(16, 16, 3), (32, 32, 3), (64, 64, 3)]
    stages = narrow if small else [(256, 64, 3), (512, 128, 4), (1024, 256, 6), (2048, 512, 3)]
    into = 16 if small else 64
    layers: list[nn.Module] = [nn.Conv2d(3, into, 3, 1, 1), nn.BatchNorm2d(into), nn.ReLU()]
    for stage, (out, inner, blocks) in enumerate(stages):
        for k in range(blocks):
            layers.append(Block(into, out, inner, 2 if stage and not k else 1))
            into = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, 10))


def run(a: nn.Module, b: nn.Module, spec: PermutationSpec, skip: bool) -> Result:
    return solve(Rebasin(a, b, spec), WeightMatching(skip_unchanged=skip), progress=False)


def rows() -> Iterator[Row]:
    """Networks of unrelated weights: seconds, and visits."""
    for name, make in (
        ("64-512-512-10", lambda s: mlp(512, s)),
        ("of ResNet-20's size", lambda s: resnet(s, 20)),
        ("of ResNet-50's size", lambda s: resnet(s, 50)),
    ):
        a, b = make(0), make(1)
        spec = trace_permutations(a, None if name.startswith("64") else torch.randn(2, 3, 32, 32))
        (ours, fewer), (plain, every) = race(
            lambda a=a, b=b, spec=spec: run(a, b, spec, True),
            lambda a=a, b=b, spec=spec: run(a, b, spec, False),
            rounds=1,
        )
        visits = every.calls / fewer.calls
        share = assigning(a, b, spec)
        what = f"{name}, {len(spec.tops)} permutations, {100 * share:.0f} % in assignments, {visits:.2f} times fewer"
        yield Row("29", what, ours, "every permutation in every sweep", plain)


def assigning(a: nn.Module, b: nn.Module, spec: PermutationSpec) -> float:
    """The share of a run's seconds that assignments take."""
    spent = 0.0
    original = matching.assign

    def timed(worth: object) -> object:
        nonlocal spent
        start = time.perf_counter()
        found = original(worth)  # type: ignore[arg-type]
        spent += time.perf_counter() - start
        return found

    start = time.perf_counter()
    with patch.object(matching, "assign", timed):
        run(a, b, spec, True)
    return spent / (time.perf_counter() - start)
