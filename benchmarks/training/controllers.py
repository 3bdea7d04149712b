"""07: what recording costs; 08: an inner step against a plain one; 35: AutoLRS' own time beside its trials'."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from scipy.ndimage import median_filter
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.race import Row, race
from thalweg.training import AutoLRS, GradientNormRecorder, TargetSurrogate, refine


def rows() -> Iterator[Row]:
    """All rows."""
    yield recorder()
    yield refinement()
    yield inner_step()
    yield autolrs()


def _wide(width: int = 2200) -> nn.Module:
    """Ten million parameters in two hidden layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.Linear(width, 10),
    )


def recorder() -> Row:
    """A training step with AdamW, batches of 256, with a recorder and without."""
    X, y = torch.randn(256, 64), torch.randint(0, 10, (256,))

    def stepper(recording: bool):
        model = _wide()
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        if recording:
            GradientNormRecorder(optimizer)

        def step() -> None:
            optimizer.zero_grad()
            functional.cross_entropy(model(X), y).backward()
            optimizer.step()

        return step

    count = sum(p.numel() for p in _wide().parameters())
    (with_it, _), (without, _) = race(stepper(True), stepper(False), rounds=25)
    return Row(
        "07", f"step of {count:.1e} parameters, norms recorded", with_it, "the same, not recorded", without
    )


def refinement() -> Row:
    """A schedule from a million norms, against the median filter that it has to contain."""
    norms = np.random.default_rng(0).lognormal(size=1_000_000)
    (ours, _), (peer, _) = race(
        lambda: refine(norms), lambda: median_filter(norms, size=100_001, mode="nearest"), rounds=3
    )
    return Row("07", "refine 1e6 norms", ours, "its median filter alone", peer)


def inner_step(steps: int = 50) -> Row:
    """One of 50 inner steps against one of 50 steps of the same optimizer on the loss itself."""
    X, y = torch.randn(256, 64), torch.randint(0, 10, (256,))

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
        )

    ours, plain = model(), model()
    surrogate = TargetSurrogate(
        ours.parameters(), "softmax", inner=lambda p: torch.optim.SGD(p, lr=1e-3), inner_steps=steps
    )
    sgd = torch.optim.SGD(plain.parameters(), lr=1e-3)

    def loss(z: Tensor) -> Tensor:
        return functional.cross_entropy(z, y)

    def plain_steps() -> None:
        for _ in range(steps):
            sgd.zero_grad()
            loss(plain(X)).backward()
            sgd.step()

    (mine, _), (theirs, _) = race(lambda: surrogate.step(lambda: ours(X), loss), plain_steps, rounds=7)
    return Row("08", "an inner step", mine / steps, "a step of SGD", theirs / steps)


def autolrs(steps: int = 1000) -> Row:
    """Seconds of a whole run, the user's own work taken out, against the work of its trials."""
    _stage(100)  # kernels are loaded, once a process
    own, explored, trials = _stage(steps)
    return Row(
        "35", f"AutoLRS' own time in {steps} steps", own, f"the {explored} steps of its trials", trials
    )


def _stage(steps: int) -> tuple[float, int, float]:
    """A run of one stage: seconds of its own, steps of its trials, seconds of their work."""
    torch.manual_seed(0)
    X, y = torch.randn(4096, 64), torch.randint(0, 10, (4096,))
    batches = list(zip(X.split(512), y.split(512), strict=True))
    model = nn.Sequential(
        nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
    )
    optimizer = torch.optim.AdamW(model.parameters())
    work = trials = 0.0
    begin = time.perf_counter()
    auto = AutoLRS(model, optimizer, 1e-4, 1e-1, total_steps=steps, stage_steps=steps, max_stage_steps=steps)
    for some, labels in auto.steps(batches):
        start, exploring = time.perf_counter(), auto.exploring
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(some), labels)
        loss.backward()
        optimizer.step()
        took = time.perf_counter() - start
        work, trials = work + took, trials + took * exploring
        auto.step(loss)
    return time.perf_counter() - begin - work, auto.explored, trials
