"""27 Lion against AdamW, each at its best learning rate from the same grid; and the search of programs that found Lion.

Chen, Liang, Huang et al. (2023), sections 3 to 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.optim import AdamW, Optimizer

from thalweg.core import Result, solve
from thalweg.studies import program_search, tasks
from thalweg.studies.evidence import Evidence, Figure, Row, Scale, Series, Table, Tell
from thalweg.studies.verdict import Verdict
from thalweg.training import REX, Lion, Train, TrainingTask

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
# The paper's rule: Lion's decay is larger by the factor by which its learning rate is smaller.
DECAY = {"AdamW": 0.1, "Lion": 1.0}
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"AdamW": AdamW, "Lion": Lion}


def _tasks(scale: Scale) -> dict[str, tuple[TrainingTask, str]]:
    steps = {"smoke": 20, "quick": 60, "full": 5000}[scale]
    found = {
        "digits MLP, batch 16": (tasks.digits(steps, 16, network="mlp"), "error"),
        "digits MLP, batch 512": (tasks.digits(steps, 512, network="mlp"), "error"),
        "character transformer": (tasks.text(steps), "test_loss"),
    }
    if scale == "smoke":
        del found["character transformer"]
    if scale == "full":
        found["digits CNN, batch 128"] = (tasks.digits(steps, 128), "error")
    return found


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    seeds = {"smoke": 1, "quick": 2, "full": 5}[scale]
    todo = _tasks(scale)
    table: Table = []
    figures, best, done = [], {}, 0
    for name, (task, metric) in todo.items():
        curves, by_rate = [], []
        for label, optimizer in OPTIMIZERS.items():
            tell(0.5 * done / (2 * len(todo)), f"{name}, {label}")
            runs = {
                rate: [_train(task, optimizer, rate, DECAY[label], seed) for seed in range(seeds)]
                for rate in RATES
            }
            scores = {rate: np.array([_score(r, metric) for r in found]) for rate, found in runs.items()}
            rate = min(scores, key=lambda r: float(scores[r].mean()))
            best[name, label] = scores[rate]
            table.append(
                {
                    "task": name,
                    "optimizer": label,
                    "best rate": rate,
                    metric: round(float(scores[rate].mean()), 4),
                    "spread": round(float(scores[rate].std()), 4),
                    "test loss": round(float(np.mean([r.metrics["test_loss"] for r in runs[rate]])), 4),
                }
            )
            losses = np.array([r.history["loss"] for r in runs[rate]])
            steps = np.arange(1, losses.shape[1] + 1)
            curves.append(Series.of(f"{label}, {rate:g}", steps, _smoothed(losses)))
            by_rate.append(Series.of(label, RATES, np.array([scores[r] for r in RATES]).T))
            done += 1
        figures.append(
            Figure(
                name, f"Training loss at the best rate, {seeds} seeds, band: range.", "step", "loss", curves
            )
        )
        figures.append(
            Figure(
                f"{name}: over learning rates",
                "After training; band: range.",
                "learning rate",
                metric,
                by_rate,
                log_x=True,
            )
        )
    found, rows, drawn, note = program_search.evidence(
        scale, lambda share, what: tell(0.5 + 0.5 * share, what)
    )
    return Evidence(
        verdicts=[*_verdicts(best, todo), *found],
        table=[*table, *rows],
        figures=[*figures, *drawn],
        costs={
            "problems": [f"{name}, seed {s}" for name in todo for s in range(seeds)],
            "methods": {
                label: [max(float(v), 1e-4) for name in todo for v in best[name, label]]
                for label in OPTIMIZERS
            },
        },
        notes=(
            f"{seeds} seeds, REX schedule, rates {', '.join(f'{r:g}' for r in RATES)} for both optimizers, weight "
            f"decay {DECAY['AdamW']} (AdamW) and {DECAY['Lion']} (Lion). The paper's claims are for large models and "
            f"batches; these tasks are small, and what comes out is reported as it is. {note}"
        ),
    )


def _train(
    task: TrainingTask, optimizer: Callable[..., Optimizer], rate: float, decay: float, seed: int
) -> Result:
    method = Train(optimizer, {"lr": rate, "weight_decay": decay}, REX)
    return solve(task, method, seed=seed, progress=False)


def _score(result: Result, metric: str) -> float:
    value = 1.0 - result.metrics["accuracy"] if metric == "error" else result.metrics["test_loss"]
    return float(value) if np.isfinite(value) else float("inf")


def _smoothed(losses: np.ndarray, width: int = 10) -> np.ndarray:
    window = np.ones(width) / width
    padded = np.pad(losses, ((0, 0), (width - 1, 0)), mode="edge")
    return np.array([np.convolve(row, window, mode="valid") for row in padded])


def _verdicts(best: dict[tuple[str, str], Any], todo: Row) -> list[Verdict]:
    verdicts = []
    for name, (_, metric) in todo.items():
        lion, adamw = (float(best[name, label].mean()) for label in ("Lion", "AdamW"))
        verdicts.append(Verdict(f"{name}: Lion's {metric} is at most AdamW's", lion, adamw))
    small, large = "digits MLP, batch 16", "digits MLP, batch 512"
    gains = [float(best[n, "AdamW"].mean() - best[n, "Lion"].mean()) for n in (small, large)]
    verdicts.append(
        Verdict(
            "Lion's gain in accuracy over AdamW is at least as large at batch 512 as at 16",
            gains[1],
            gains[0],
            ">=",
        )
    )
    verdicts.append(Verdict("Lion keeps at most 0.51x of the bytes that AdamW keeps", _memory_ratio(), 0.51))
    return verdicts


def _memory_ratio() -> float:
    def state_bytes(optimizer: Callable[..., Optimizer]) -> int:
        model = tasks.digits_mlp()
        made = optimizer(model.parameters(), lr=1e-3)
        model(torch.zeros(2, 1, 8, 8)).sum().backward()
        made.step()
        kept = [v for state in made.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
        return sum(v.numel() * v.element_size() for v in kept)

    return state_bytes(Lion) / state_bytes(AdamW)
