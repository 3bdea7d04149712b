"""``thalweg search``: a near-optimal row of a table, by running a program on few of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.online import Noise, Standardize, features_of
from thalweg.cli.options import Header, Json, Seed
from thalweg.cli.output import check_outputs, strict_json
from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem, UnknownName

if TYPE_CHECKING:
    import pandas as pd

    from thalweg.online import ActionSearch, Search


def search(
    table: Annotated[Path, typer.Argument(help="A row an action; its columns of numbers are features.")],
    command: Annotated[
        list[str],
        typer.Argument(
            help="After --: the program, with {name} where a column's value goes and {row} for the row's number, from "
            "0. Its last line is the reward."
        ),
    ],
    sparsity: Annotated[int, typer.Option(min=0, help="Features that matter, at most.")] = 2,
    eps: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Most that a reward is off from linear. Default: found from below, without proof."
        ),
    ] = None,
    radius: Annotated[float, typer.Option(help="Most that the parameter's norm may be.")] = 1.0,
    method: Annotated[
        str | None,
        typer.Option(
            help="NAME or NAME:option=1,... in place of the three above; `thalweg list online` shows all."
        ),
    ] = None,
    noise: Noise = 0.0,
    standardize: Standardize = False,
    keep: Annotated[
        Path,
        typer.Option(help="Where rewards are kept as they come; the same command goes on from there."),
    ] = Path("actions.rewards"),
    timeout: Annotated[float | None, typer.Option(help="Seconds until the program counts as hung.")] = None,
    seed: Seed = 0,
    header: Header = None,
    as_json: Json = False,
) -> None:
    """Find a near-optimal row of a table by running a program on few of them.

    Rewards should be nearly linear in few of the columns. The search ends by itself, with what is certain: how much
    better another row may be, if rewards are within eps of linear. Columns of words are no features, but may stand in
    the program's words. What was measured is never measured again, by whatever method: it is kept. Ctrl-C ends with the
    best row so far. Exit status 1 if it was interrupted, or its end has no certificate.

    Example: thalweg search alloys.csv --sparsity 2 --eps 0.1 -- ./measure.sh {copper} {zinc:.3f}
    """
    import thalweg.online.recommended  # noqa: F401 -- the methods
    from thalweg.blackbox.workers import Command
    from thalweg.datasets import load_frame

    check_outputs([(keep, ())], [table])
    rows = load_frame(table, header=header)
    if "row" in rows.columns:
        raise InvalidProblem(
            f"{table}: a column is called 'row', which stands for the row's number. Rename it."
        )
    program = Command([os.fsencode(word).decode("utf-8", "surrogateescape") for word in command], timeout)
    points: list[dict[str, object]] = [
        {"row": i, **{str(name): value for name, value in point.items()}}
        for i, point in enumerate(rows.to_dict("records"))
    ]
    names = ("row", *(str(name) for name in rows.columns))
    if not program.check_words(names, points, "column; the table has"):
        raise InvalidParameter("The command has no placeholder: write {row}, or a column's name in braces.")
    features, _ = features_of(rows, table, standardize)
    given = method or f"lazy-elimination:sparsity={sparsity},radius={radius}" + (
        f",eps={eps}" if eps is not None else ""
    )
    if method is None and eps is None and noise:
        given += f",accuracy={noise}"
    chosen = _search_named(given)
    ours = chosen.begin(features, noise=noise, seed=seed)
    kept = Kept.at(keep, features, program.words)
    if kept.count:
        typer.echo(f"{keep} holds {kept.count} rewards; they are used first.", err=True)
    complete = _play(ours, lambda row: program(points[row]), kept, rows)
    _tell(ours, complete, rows, as_json)
    raise typer.Exit(0 if complete and ours.result().certificate is not None else 1)


def _search_named(text: str) -> ActionSearch:
    from typing import cast

    from thalweg.cli.methods import parsed
    from thalweg.online import METHODS, ActionSearch, ActionTable

    searches = {name: kind for name, kind in METHODS.items() if issubclass(kind, ActionSearch)}
    name = text.partition(":")[0]
    if name not in searches:
        raise UnknownName("search", name, searches, see="`thalweg list online` shows all methods.")
    return cast(ActionSearch, parsed(text, searches, ActionTable([[0.0]], [0.0]), "online"))


@dataclass
class Kept:
    """Rewards observed so far, by row and in their order, in a file."""

    path: Path
    table: str  # the features, as a fingerprint
    command: str  # the program's words
    rewards: dict[int, list[float]] = field(default_factory=dict)

    @classmethod
    def at(cls, path: Path, features: object, words: Sequence[str]) -> Kept:
        """What the file holds; nothing where there is none.

        Raises:
            CheckpointMismatch: it is of another table or program. UnreadableFile: no such file.
        """
        from thalweg.core.fingerprint import fingerprint
        from thalweg.core.tree import load_tree, restoring

        kept = cls(path, fingerprint(features), shlex.join(words))
        if not path.exists():
            return kept
        with restoring(path, "a file of rewards"):
            tree = load_tree(path)
            saved, pairs = tree["table"], zip(tree["rows"].tolist(), tree["rewards"].tolist(), strict=True)
            if saved != kept.table:
                raise CheckpointMismatch(
                    f"{path} holds rewards of another table. Name another file: --keep, or remove it."
                )
            if tree["command"] != kept.command:
                raise CheckpointMismatch(
                    f"{path} holds rewards of another program, {tree['command']}. Name another file: --keep, or remove "
                    "it."
                )
            for row, reward in pairs:
                kept.rewards.setdefault(int(row), []).append(float(reward))
        return kept

    @property
    def count(self) -> int:
        """Rewards in all."""
        return sum(map(len, self.rewards.values()))

    def add(self, row: int, reward: float) -> None:
        """Take one in, and write the file."""
        import numpy as np

        from thalweg.core.tree import save_tree

        self.rewards.setdefault(row, []).append(reward)
        rows = [row for row, found in self.rewards.items() for _ in found]
        values = [reward for found in self.rewards.values() for reward in found]
        tree = {
            "table": self.table,
            "command": self.command,
            "rows": np.array(rows),
            "rewards": np.array(values),
        }
        save_tree(self.path, tree)


def _play(ours: Search, measure: Callable[[int], float], kept: Kept, rows: pd.DataFrame) -> bool:
    """Ask and answer until the search has ended; False where Ctrl-C came first, or a measurement failed."""
    from thalweg.blackbox.evaluation import EvaluationFailed

    used: dict[int, int] = {}
    try:
        while not ours.done:
            row = ours.next_action()
            known, used[row] = used.get(row, 0), used.get(row, 0) + 1
            if known < len(kept.rewards.get(row, [])):
                ours.observe(kept.rewards[row][known])
                continue
            reward = measure(row)
            kept.add(row, reward)
            ours.observe(reward)
            best = ours.answer()
            typer.echo(
                f"{len(ours.actions):4d}  row {row}: {reward:.6g}  best {ours.mean(best):.6g} in row {best}",
                err=True,
            )
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        return False
    except EvaluationFailed as error:
        words = " ".join(f"{name}={value}" for name, value in rows.iloc[row].items())
        typer.echo(
            f"The program failed in row {row} ({words}): {error}. Mend it; the same command goes on.",
            err=True,
        )
        return False
    return True


def _tell(ours: Search, complete: bool, rows: pd.DataFrame, as_json: bool) -> None:
    found = ours.result()
    row: Mapping[str, object] = {str(name): value for name, value in rows.iloc[found.action].items()}
    proof = found.certificate
    if as_json:
        certificate = None if proof is None else {**vars(proof), "gap": proof.gap}
        told = {"complete": complete, "row": found.action, "action": dict(row), "reward": found.reward}
        told |= {"queries": found.queries, "draws": found.draws}
        typer.echo(strict_json({**told, "certificate": certificate, "message": found.message}))
        return
    if not found.draws:
        typer.echo("Nothing was measured.")
        return
    words = " ".join(f"{name}={v:.6g}" if isinstance(v, float) else f"{name}={v}" for name, v in row.items())
    typer.echo(f"Use row {found.action} (from 0): {words}. Its reward: {found.reward:.6g}.")
    typer.echo(
        f"{found.queries} of {len(rows)} rows measured, {found.draws} times in all. {found.message}".rstrip()
    )
    if proof is not None:
        typer.echo(str(proof))
