"""27 Lion against AdamW, each at its best learning rate from a grid of the same size; and the search that found Lion.

Chen, Liang, Huang et al. (2023), sections 3 to 5. Rates are chosen under another seed, on data set apart.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.optim import AdamW, Optimizer

from thalweg.core import Result
from thalweg.studies import program_search, tasks
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Scale, Tell
from thalweg.studies.intervals import median, median_interval
from thalweg.studies.standings import Standings, together
from thalweg.studies.verdict import Verdict
from thalweg.training import REX, Lion, Train, TrainingTask

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
# The paper's rule: Lion's decay is larger by the factor by which its learning rate is smaller.
DECAY = {"Lion": 1.0, "AdamW": 0.1}
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"Lion": Lion, "AdamW": AdamW}
SMALL, LARGE = "digits MLP, batch 16", "digits MLP, batch 512"


@dataclass(frozen=True)
class Setting:
    """What the two race on, and by what they are judged."""

    task: Callable[..., TrainingTask]
    score: Callable[[Result[torch.nn.Module]], float]
    what: str


def _error(result: Result[torch.nn.Module]) -> float:
    return 1.0 - result.metrics["accuracy"]


def _loss(result: Result[torch.nn.Module]) -> float:
    return result.metrics["test_loss"]


def _settings(scale: Scale) -> dict[str, Setting]:
    steps = {"smoke": 12, "quick": 60, "full": 2500}[scale]
    size = 32 if scale == "full" else 16
    wrong = "share of wrong answers"
    mlp = functools.partial(tasks.digits, steps, network="mlp")
    text = functools.partial(tasks.text, steps, length=size, width=size)
    found = {
        SMALL: Setting(functools.partial(mlp, batch_size=16), _error, wrong),
        LARGE: Setting(functools.partial(mlp, batch_size=512), _error, wrong),
    }
    if scale != "smoke":
        found["character transformer"] = Setting(text, _loss, "test loss")
    if scale == "full":
        cnn = functools.partial(tasks.digits, steps, batch_size=128)
        found["digits CNN, batch 128"] = Setting(cnn, _error, wrong)
    return found


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    settings = _settings(scale)
    races = {}
    for i, (name, setting) in enumerate(settings.items()):
        tell(0.5 * i / len(settings), name)
        races[name] = _race(name, setting, scale)
    scores = together(list(races.values()), "score")
    found, rows, drawn, note = program_search.evidence(
        scale, lambda share, what: tell(0.5 + 0.5 * share, what)
    )
    return Evidence(
        verdicts=[*scores.beats(1.0), _batches(races[SMALL], races[LARGE]), _memory(), *found],
        table=[*(row for race in races.values() for row in race.table()), *rows],
        figures=[*(race.bars(name) for name, race in races.items()), *drawn],
        costs=scores.costs(least=1e-4),
        notes=(
            f"{scores.seeds} judging seeds, REX schedule, the best of the rates {', '.join(f'{r:g}' for r in RATES)} "
            f"for both optimizers, weight decay {DECAY['AdamW']} (AdamW) and {DECAY['Lion']} (Lion). The claims of "
            f"the paper are for large models and batches; these tasks are small. {scores.notes()} {note}"
        ),
    )


def _race(name: str, setting: Setting, scale: Scale) -> Standings:
    task, apart = setting.task(), setting.task(tuning=True)
    grids = {
        label: {f"rate {r:g}": Train(optimizer, {"lr": r, "weight_decay": DECAY[label]}, REX) for r in RATES}
        for label, optimizer in OPTIMIZERS.items()
    }
    return contest(
        {name: lambda seed: task},
        grids,
        setting.score,
        ours="Lion",
        what=setting.what,
        tuning_problems={name: lambda seed: apart},
        judging_seeds=(1, 2) if scale == "smoke" else (1, 2, 3, 4, 5),
        needs_convergence=False,  # a budget is always used up
    )


def _batches(small: Standings, large: Standings) -> Verdict:
    """How much more accuracy Lion gains over AdamW with the larger batch, seed by seed."""
    lead = [
        race.scores[name]["AdamW"] - race.scores[name]["Lion"]
        for name, race in ((SMALL, small), (LARGE, large))
    ]
    more = lead[1] - lead[0]
    claim = "Lion's gain in accuracy over AdamW, batch 512 - batch 16"
    return Verdict(claim, median(more), 0.0, ">=", median_interval(more))


def _memory() -> Verdict:
    def state_bytes(optimizer: Callable[..., Optimizer]) -> int:
        model = tasks.digits_mlp()
        made = optimizer(model.parameters(), lr=1e-3)
        model(torch.zeros(2, 1, 8, 8)).sum().backward()
        made.step()
        kept = [v for state in made.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
        return sum(v.numel() * v.element_size() for v in kept)

    return Verdict(
        "Bytes that Lion keeps / those that AdamW keeps", state_bytes(Lion) / state_bytes(AdamW), 0.51
    )
