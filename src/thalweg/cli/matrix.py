"""Ratings completed from files, and pairs predicted from what was learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from thalweg.cli.case import Case, named
from thalweg.cli.options import Header, Json
from thalweg.cli.output import check_outputs, strict_json
from thalweg.core import InvalidParameter, InvalidProblem, Problem, Result, UnknownName

if TYPE_CHECKING:
    import numpy as np

    from thalweg.matrix import Completion, Factors, HeldOutError

JOINS = ("error", "sum", "mean")
User = Annotated[
    str | None, typer.Option(help="Column of the rows' labels; known by its name, or the first.")
]
Item = Annotated[
    str | None, typer.Option(help="Column of the columns' labels; known by its name, or the second.")
]


def read(
    ratings: Annotated[
        list[Path],
        typer.Argument(
            help="user, item, rating and perhaps time a line: .csv, MovieLens' u.data or ratings.dat; also .gz."
        ),
    ],
    rank: Annotated[
        str, typer.Option(help="Length of the factors, or auto: doubled while it pays.")
    ] = "auto",
    ridge: Annotated[
        float,
        typer.Option(min=0.0, help="Penalty for each rating of a user or item, in the ratings' spread."),
    ] = 0.05,
    biases: Annotated[
        bool | None,
        typer.Option(
            "--biases/--no-biases", help="A number for each user and item; default unless --implicit."
        ),
    ] = None,
    nonnegative: Annotated[bool, typer.Option("--nonnegative", help="Hold factors >= 0.")] = False,
    implicit: Annotated[
        float | None, typer.Option(help="Ratings are counts; each adds this to the weight of its place.")
    ] = None,
    held_out: Annotated[float, typer.Option(help="Share that stops the run and chooses the rank.")] = 0.05,
    test: Annotated[
        float, typer.Option(help="Share set apart for the error that is told at the end.")
    ] = 0.05,
    max_rank: Annotated[int, typer.Option(help="Where --rank auto ends.")] = 128,
    duplicates: Annotated[str, typer.Option(help=f"Ratings given twice: {', '.join(JOINS)}.")] = "error",
    single: Annotated[
        bool, typer.Option("--single", help="Factors in float32: two thirds of the memory.")
    ] = False,
    user: User = None,
    item: Item = None,
    rating: Annotated[str | None, typer.Option(help="Column of the ratings.")] = None,
    header: Header = None,
) -> Mapping[str, Problem]:
    """Complete a matrix of ratings (users, items, or whatever the labels say) by factors of low rank."""
    import numpy as np

    from thalweg.datasets import load_ratings
    from thalweg.matrix import Completion

    if duplicates not in JOINS:
        raise UnknownName("way to join duplicates", duplicates, JOINS)
    length = _rank(rank)
    found: dict[str, Problem] = {}
    for name, path in named(ratings).items():
        given = load_ratings(path, user=user, item=item, rating=rating, header=header)
        if implicit is None and len(given.values) > 1 and not np.ptp(given.values):
            raise InvalidProblem(
                f"{path}: each rating is {given.values[0]:g}, as where a file has no column of them: nothing is to be "
                "learned from their size. If what counts is that they are there, say --implicit with their weight."
            )
        found[name] = Completion(
            given.entries,
            length,
            shape=given.shape,
            ridge=ridge,
            ridge_by_count=True,
            biases=implicit is None and not nonnegative if biases is None else biases,
            nonnegative=nonnegative,
            confidence=implicit,
            held_out=held_out,
            test=test,
            max_rank=max_rank,
            standardize=True,
            duplicates=duplicates,  # type: ignore[arg-type]
            dtype=np.float32 if single else np.float64,
            row_ids=given.row_ids,
            column_ids=given.column_ids,
        )
    return found


def _rank(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isascii() or not text.isdigit():
        raise InvalidParameter(f"--rank is a whole number or auto; got {text!r}.")
    return int(text)


@dataclass
class CompletionCase(Case):
    """Factors with labels and biases, and the error on ratings that were set apart."""

    endings = (".npz",)

    def _problem(self) -> Completion:
        from typing import cast

        return cast("Completion", self.problem)

    def _error(self, result: Result) -> HeldOutError:
        from thalweg.matrix import held_out_error

        return held_out_error(self._problem(), result.x)

    def arrays(self, result: Result) -> dict[str, np.ndarray]:
        import numpy as np

        from thalweg.matrix import Factors

        found = self._error(result)
        error = np.array([found.error, found.low, found.high])
        return {**Factors.of(self._problem(), result.x).arrays(), "test_error": error}

    def told(self, result: Result) -> dict[str, object]:
        problem, error = self._problem(), self._error(result)
        return {
            "rank": problem.rank_of(result.x),
            "rows": problem.m,
            "columns": problem.n,
            "entries": len(problem.seen),
            "test": {
                "measure": self._measure(),
                "error": error.error,
                "interval": [error.low, error.high],
                "level": error.level,
                "entries": error.entries,
            },
        }

    def said(self, result: Result) -> Sequence[str]:
        problem, error = self._problem(), self._error(result)
        lines = [
            f"{len(problem.seen)} ratings of {problem.n} items by {problem.m} users; rank {problem.rank_of(result.x)}."
        ]
        if error.entries:
            lines.append(
                f"{self._measure()} on {error.entries} ratings set apart: {error.error:.4g}, "
                f"{100 * error.level:g} % interval {error.low:.4g} to {error.high:.4g}."
            )
        return lines

    def _measure(self) -> str:
        return "RMSE" if self._problem().confidence is None else "Mean rank (0 best, 0.5 a guess)"


def predict(
    factors: Annotated[Path, typer.Argument(help="What `thalweg solve matrix --out` wrote: .npz.")],
    pairs: Annotated[Path, typer.Argument(help="user and item a line, as in the ratings.")],
    out: Annotated[
        Path | None, typer.Option(help="Write user, item and prediction here: .csv. Default: print them.")
    ] = None,
    user: User = None,
    item: Item = None,
    header: Header = None,
    as_json: Json = False,
) -> None:
    """Predict the ratings of pairs from a completed matrix.

    A user or item that was not among the ratings is predicted by the mean and the other's bias, and told.
    """
    import numpy as np

    from thalweg.core.files import write_text
    from thalweg.datasets import load_pairs

    check_outputs([(out, (".csv",))], [factors, pairs])
    model = _load(factors)
    rows, columns = load_pairs(pairs, user=user, item=item, header=header)
    values, cold = model.predict_labels(rows, columns)
    if as_json:
        told = {"predictions": values, "cold": np.flatnonzero(cold), "out": None if out is None else str(out)}
        typer.echo(strict_json(told))
    lines = [f"{_cell(u)},{_cell(i)},{v:.6g}" for u, i, v in zip(rows, columns, values, strict=True)]
    if out is not None:
        write_text(out, "\n".join(["user,item,prediction", *lines, ""]))
    elif not as_json:
        typer.echo("\n".join(["user,item,prediction", *lines]))
    if cold.any():
        first = int(np.argmax(cold))
        typer.echo(
            f"Warning: {int(cold.sum())} of {len(cold)} pairs have a user or item that was never rated (the first: "
            f"{rows[first]}, {columns[first]}); their prediction is the mean and the other's bias.",
            err=True,
        )


def _load(path: Path) -> Factors:
    from thalweg.datasets import load_arrays
    from thalweg.matrix import Factors

    return Factors.from_arrays(load_arrays(path), str(path))


def _cell(label: object) -> str:
    """A label as a cell: quoted where it holds what parts cells."""
    text = str(label)
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n\r') else text
