"""Labels in one table or folder of pictures, use on another."""

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
        Path,
        typer.Argument(
            help="Rows with labels: a .npz with X and y, a table and --labels, or a folder of pictures with a folder "
            "for each class."
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            help="Rows without, with the same columns, or a folder of pictures. Labels in it judge, and never train."
        ),
    ],
    labels: Annotated[str, typer.Option(help="Column or array of the labels. Default y of a .npz.")] = "",
    hidden: Annotated[
        str, typer.Option(help="Widths of the two hidden layers by a comma; of tables.")
    ] = "96,48",
    size: Annotated[int, typer.Option(min=8, max=1024, help="Pixels of a side that pictures get.")] = 32,
    grey: Annotated[bool, typer.Option("--grey", help="Pictures in grey; in colours by default.")] = False,
    length: Annotated[int, typer.Option(min=1, help="Steps of a whole run.")] = 1000,
    batch: Annotated[int, typer.Option(min=2, help="Rows of each a step.")] = 64,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Take columns, or channels from 0 to 1, as they are; by default each domain is standardised.",
        ),
    ] = False,
    header: Header = None,
) -> Mapping[str, Problem]:
    """Train on labelled rows or pictures for use on those of another law, and label them."""
    import torch

    from thalweg.adaptation import AdaptationTask
    from thalweg.adaptation.networks import FEATURES, convolutional, perceptron

    if source.is_dir() != target.is_dir():
        raise InvalidProblem(
            f"{source} and {target}: one is a folder and one is not; expected two of a kind."
        )
    if source.is_dir():
        found = _folders(source, target, size, grey)
        channels = found.inputs[0].shape[1]
        backbone, width = (lambda: convolutional(channels)), FEATURES
    else:
        widths = _widths(hidden)
        found = _tables(source, target, labels, header)
        columns = found.inputs[0].shape[1]
        backbone, width = (lambda: perceptron((columns, *widths))), widths[-1]
    inputs = [torch.from_numpy((t if raw else _standard(t)).astype("float32")) for t in found.inputs]
    task = AdaptationTask(
        backbone,
        lambda: _last(width, len(found.classes)),
        (inputs[0], torch.from_numpy(found.y)),
        (inputs[1],),
        steps=length,
        batch_size=batch,
        target_labels=None if found.truth is None else torch.from_numpy(found.truth),
    )
    return {f"{source.stem} to {target.stem}": task}


@dataclass(frozen=True)
class _Domains:
    """Inputs of source and target; places of the source's labels among the classes, and the target's if known."""

    inputs: tuple[np.ndarray, np.ndarray]
    y: np.ndarray
    classes: np.ndarray
    truth: np.ndarray | None


def _tables(source: Path, target: Path, labels: str, header: bool | None) -> _Domains:
    import numpy as np

    first, second = _loaded(source, labels, header), _target(target, labels, header)
    y, classes = first.classes()
    one, other = (np.asarray(data.X, dtype=np.float64) for data in (first, second))
    if first.feature_names != second.feature_names or one.shape[1] != other.shape[1]:
        told = [
            f"the columns {', '.join(data.feature_names)}"
            if data.feature_names
            else f"{X.shape[1]} columns, no names"
            for data, X in ((first, one), (second, other))
        ]
        raise InvalidProblem(
            f"{source} has {told[0]}; {target} has {told[1]}. Expected the same, in one order."
        )
    truth = None if second.y is None else _placed(second.y, classes, target)
    return _Domains((one, other), y, classes, truth)


def _folders(source: Path, target: Path, size: int, grey: bool) -> _Domains:
    """Pictures; the target's folders are labels if each of its pictures lies in one with a class's name."""
    import numpy as np

    from thalweg.datasets import load_images

    first, second = load_images(source, size, grey), load_images(target, size, grey)
    loose = [name for name, label in zip(first.files, first.labels, strict=True) if not label]
    if loose:
        raise InvalidProblem(f"{source}: {loose[0]} lies in no folder; expected a folder for each class.")
    classes = np.array(first.classes)
    if len(classes) < 2:
        raise InvalidProblem(
            f"{source} has the one class {first.classes[0]!r}; expected two folders or more."
        )
    known = set(second.labels) <= set(first.labels)
    truth = _placed(np.array(second.labels), classes, target) if known else None
    y = _placed(np.array(first.labels), classes, source)
    one, other = (images.X.astype("float32") / 255.0 for images in (first, second))
    return _Domains((one, other), y, classes, truth)


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
    """Columns, or channels over all pixels, with mean 0 and deviation 1; constant ones become 0."""
    import numpy as np

    axes = (0, *range(2, table.ndim))
    mean, spread = table.mean(axes, keepdims=True), table.std(axes, keepdims=True)
    return (table - mean) / np.where(spread > 0, spread, 1.0)


def _placed(y: np.ndarray, classes: np.ndarray, path: Path) -> np.ndarray:
    import numpy as np

    found = {value: k for k, value in enumerate(classes.tolist())}
    odd = next((value for value in y.tolist() if value not in found), None)
    if odd is not None:
        raise InvalidProblem(f"{path} has the label {odd!r}, which the source has not.")
    return np.array([found[value] for value in y.tolist()])


def _last(width: int, classes: int) -> nn.Module:
    from torch import nn

    return nn.Linear(width, classes)


def pareto(
    base: str = "dann",
    combiner: str = "preference",
    weight: float | None = None,
    tau: float | None = None,
    refining: Literal["bayes", "scaled logits", "none"] = "bayes",
    rate: float = 0.03,
    ramp: float = 100.0,
    hidden: int = 64,
    judge_every: int = 100,
) -> Adapt:
    """`Adapt` for fresh small networks: ``weight`` is linear's of the target objective, none: 0; ``tau``
    the preference programme's, none: 0.1.
    """
    from thalweg.adaptation import Adapt, FixedWeights, GradientCombiner, PreferenceLP

    for name, value, whose in (("weight", weight, "linear"), ("tau", tau, "preference")):
        if value is not None and combiner != whose:
            raise InvalidParameter(f"pareto: {name} is of combiner={whose}; got combiner={combiner}.")
    chosen: str | GradientCombiner = combiner
    if combiner == "preference":
        chosen = PreferenceLP(0.1 if tau is None else tau)
    elif combiner == "linear":
        ones = [1.0] * (1 if base == "source-only" else 2)
        chosen = FixedWeights((*ones, 0.0 if weight is None else weight))
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
        import numpy as np

        from thalweg.datasets import image_files

        given, source = self.given, cast(Path, self.given["source"])
        if source.is_dir():
            return np.array(sorted({name.split("/")[0] for name in image_files(source)}))
        header = cast("bool | None", given["header"])
        return _loaded(source, str(given["labels"]), header).classes()[1]

    def _predicted(self, result: Result) -> tuple[np.ndarray, np.ndarray]:
        """Labels of the target's rows, and their probability."""
        import torch

        from thalweg.adaptation.problem import predicted

        task = self._problem()
        logits = torch.cat(list(predicted(result.x, task.target, task.device)))
        p, at = logits.double().softmax(1).max(1)
        return self._classes()[at.cpu().numpy()], p.cpu().numpy()

    def write(self, path: Path, result: Result) -> None:
        """A row for each target row: its label and how sure it is; of pictures, their files first."""
        import numpy as np
        import pandas as pd

        from thalweg.cli.output import write_arrays
        from thalweg.core.files import write_text
        from thalweg.datasets import image_files

        labels, sure = self._predicted(result)
        columns = {"label": labels, "probability": sure}
        target = cast(Path, self.given["target"])
        if target.is_dir():
            columns = {"file": np.array(image_files(target)), **columns}
        if path.suffix.lower() == ".npz":
            write_arrays(path, columns)
        else:
            write_text(path, pd.DataFrame(columns).to_csv(index=False))

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
