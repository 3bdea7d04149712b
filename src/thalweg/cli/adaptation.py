"""Labels in one table, use on another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from thalweg.cli.case import Case
from thalweg.cli.options import Header
from thalweg.core import Figure, InvalidParameter, InvalidProblem, Problem, Result, UnknownName

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from thalweg.adaptation import Adapt, AdaptationTask
    from thalweg.datasets.labelled import Dataset


def read(
    source: Annotated[
        Path, typer.Argument(help="Rows with labels: a .npz with X and y, or a table and --labels.")
    ],
    target: Annotated[
        Path, typer.Argument(help="Rows without, with the same columns. Labels in it judge, and never train.")
    ],
    labels: Annotated[str, typer.Option(help="Column or array of the labels. Default y of a .npz.")] = "",
    hidden: Annotated[str, typer.Option(help="Widths of the two hidden layers by a comma.")] = "96,48",
    length: Annotated[int, typer.Option(min=1, help="Steps of a whole run.")] = 1000,
    batch: Annotated[int, typer.Option(min=2, help="Rows of each a step.")] = 64,
    raw: Annotated[
        bool, typer.Option("--raw", help="Take columns as they are; by default each table is standardised.")
    ] = False,
    header: Header = None,
) -> Mapping[str, Problem]:
    """Train on labelled rows for use on rows of another law, and label those."""
    import numpy as np
    import torch

    from thalweg.adaptation import AdaptationTask

    widths = _widths(hidden)
    first, second = _loaded(source, labels, header), _target(target, labels, header)
    y, classes = first.classes()
    tables = [np.asarray(data.X, dtype=np.float64) for data in (first, second)]
    if first.feature_names != second.feature_names or tables[0].shape[1] != tables[1].shape[1]:
        raise InvalidProblem(
            f"{source} has {tables[0].shape[1]} columns, {target} {tables[1].shape[1]}; expected the same."
        )
    inputs = [torch.from_numpy((t if raw else _standard(t)).astype(np.float32)) for t in tables]
    truth = None if second.y is None else torch.from_numpy(_placed(second.y, classes, target))
    task = AdaptationTask(
        lambda: _net((tables[0].shape[1], *widths)),
        lambda: _last(widths[-1], len(classes)),
        (inputs[0], torch.from_numpy(y)),
        (inputs[1],),
        steps=length,
        batch_size=batch,
        target_labels=truth,
    )
    return {f"{source.stem} to {target.stem}": task}


def _widths(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(
        word.strip().isascii() and word.strip().isdigit() and 1 <= int(word) <= 10**5 for word in words
    ):
        raise InvalidParameter(
            f"--hidden is whole numbers from 1 to 100000 by commas, such as 96,48; got {text!r}."
        )
    return tuple(int(word) for word in words)


def _loaded(path: Path, labels: str, header: bool | None) -> Dataset:
    from thalweg.datasets import load

    found = load(path, target=labels or None, header=header)
    if hasattr(found.X, "toarray"):
        raise InvalidProblem(f"{path} is sparse; adaptation takes dense tables.")
    return found


def _target(path: Path, labels: str, header: bool | None) -> Dataset:
    """The target, with its labels where it has the column."""
    try:
        return _loaded(path, labels, header)
    except UnknownName:
        return _loaded(path, "", header)


def _standard(table: np.ndarray) -> np.ndarray:
    import numpy as np

    spread = table.std(0)
    return (table - table.mean(0)) / np.where(spread > 0, spread, 1.0)


def _placed(y: np.ndarray, classes: np.ndarray, path: Path) -> np.ndarray:
    import numpy as np

    found = {value: k for k, value in enumerate(classes.tolist())}
    odd = next((value for value in y.tolist() if value not in found), None)
    if odd is not None:
        raise InvalidProblem(f"{path} has the label {odd!r}, which the source has not.")
    return np.array([found[value] for value in y.tolist()])


def _net(widths: Sequence[int]) -> nn.Module:
    import itertools

    from torch import nn

    layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*layers)


def _last(width: int, classes: int) -> nn.Module:
    from torch import nn

    return nn.Linear(width, classes)


def pareto(
    base: str = "dann",
    combiner: str = "preference",
    weight: float = 0.0,
    tau: float = 0.1,
    refining: Literal["bayes", "scaled logits", "none"] = "bayes",
    rate: float = 0.03,
    ramp: float = 100.0,
    hidden: int = 64,
    judge_every: int = 100,
) -> Adapt:
    """`Adapt` for fresh small networks: ``weight`` is linear's of the target objective, ``tau`` the programme's."""
    from thalweg.adaptation import Adapt, FixedWeights, GradientCombiner, PreferenceLP

    chosen: str | GradientCombiner = combiner
    if combiner == "preference":
        chosen = PreferenceLP(tau)
    elif combiner == "linear":
        chosen = FixedWeights((*[1.0] * (1 if base == "source-only" else 2), weight))
    return Adapt(
        base, chosen, rate=rate, ramp=ramp, hidden=hidden, refining=refining, judge_every=judge_every
    )


MAKERS = {"pareto": pareto}


@dataclass
class AdaptationCase(Case):
    """Labels of the target rows with how sure they are, and what happened on the way."""

    endings = (".csv", ".npz")

    def _problem(self) -> AdaptationTask:
        return cast("AdaptationTask", self.problem)

    def _classes(self) -> np.ndarray:
        given = self.given
        header = cast("bool | None", given["header"])
        return _loaded(cast(Path, given["source"]), str(given["labels"]), header).classes()[1]

    def _predicted(self, result: Result) -> tuple[np.ndarray, np.ndarray]:
        """Labels of the target's rows, and their probability."""
        import torch

        from thalweg.adaptation.problem import predicted

        task = self._problem()
        logits = torch.cat(list(predicted(result.x, task.target, task.device)))
        p, at = logits.double().softmax(1).max(1)
        return self._classes()[at.cpu().numpy()], p.cpu().numpy()

    def write(self, path: Path, result: Result) -> None:
        """A row for each target row: its label and how sure it is."""
        import pandas as pd

        from thalweg.cli.output import write_arrays
        from thalweg.core.files import write_text

        labels, sure = self._predicted(result)
        if path.suffix.lower() == ".npz":
            write_arrays(path, {"label": labels, "probability": sure})
        else:
            write_text(path, pd.DataFrame({"label": labels, "probability": sure}).to_csv(index=False))

    def told(self, result: Result) -> dict[str, object]:
        from thalweg.adaptation import summary

        return {"classes": len(self._classes()), "means over the run": summary(result)}

    def said(self, result: Result) -> Sequence[str]:
        judged = result.metrics
        lines = [
            f"Held-out doubt {judged['doubt']:.3f}: 0 where predictions are sure and even, 1 where they say nothing."
        ]
        if "target_accuracy" in judged:
            lines.append(f"Of the target's own labels {judged['target_accuracy']:.1%} are met.")
        return lines

    def figures(self, result: Result) -> Sequence[Figure]:
        from thalweg.adaptation import run_figures

        return run_figures(result) if result.history.names else []
