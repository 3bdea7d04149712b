"""Decisions as the data comes: tables of losses, of rows in groups, of actions to search among, and episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli import episodes
from thalweg.cli.case import Case, named
from thalweg.cli.options import Header
from thalweg.cli.output import array_of
from thalweg.core import Figure, InvalidParameter, InvalidProblem, Problem, Result, Series

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from thalweg.online import ActionTable, GroupedStream, LossTable, Play

Low = Annotated[float | None, typer.Option(help="Smallest value that the target can have; seen by itself.")]
High = Annotated[float | None, typer.Option(help="Largest value that the target can have; seen by itself.")]
Noise = Annotated[
    float, typer.Option(min=0.0, help="Of actions: standard deviation of a reward that is observed.")
]
Standardize = Annotated[
    bool,
    typer.Option(
        "--standardize",
        help="Of actions: centre features, scale them to one, and add one that is 1 for all.",
    ),
]
Groups = Annotated[
    str,
    typer.Option(
        help="Columns that make groups of rows, as sex,smoker; sex*smoker makes combinations, and age:35:50 cuts "
        "numbers at 35 and 50."
    ),
]


def read(
    tables: Annotated[
        list[Path],
        typer.Argument(
            help="A row a round: losses, a column an arm; or features and a --target. Or a row an action, features "
            "and a --reward. Or an .npz with transitions and losses of episodes."
        ),
    ],
    target: Annotated[str | None, typer.Option(help="Predict this column, row by row.")] = None,
    groups: Groups = "",
    low: Low = None,
    high: High = None,
    indicators: Annotated[
        bool,
        typer.Option(help="Membership of a group is a feature as well, so that one model for all knows."),
    ] = True,
    context: Annotated[
        str | None, typer.Option(help="Of losses: the column that is known before a round.")
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(help="Of actions: the column that a query shows; a search looks for its largest value."),
    ] = None,
    noise: Noise = 0.0,
    standardize: Standardize = False,
    header: Header = None,
) -> Mapping[str, Problem]:
    """Play losses of arms or episodes, predict a column well on every group, or search among actions."""
    from thalweg.datasets import load_frame
    from thalweg.online import GroupedStream, encode, group_rules

    found: dict[str, Problem] = {}
    if reward is None and (noise or standardize):
        raise InvalidParameter("--noise and --standardize are for actions with a --reward.")
    for name, path in named(tables).items():
        if path.suffix.lower() == ".npz":
            columns = (target, context, low, high, reward)
            if groups or any(option is not None for option in columns):
                raise InvalidParameter(
                    "--target, --groups, --context, --low, --high and --reward are for tables, not .npz."
                )
            found[name] = episodes.read_episodes(path)
            continue
        if reward is not None:
            if target is not None or context is not None or groups or low is not None or high is not None:
                raise InvalidParameter(
                    "--reward is for tables of actions; --target, --groups, --low, --high and --context are for others."
                )
            found[name] = _actions(path, reward, noise, standardize, header)
            continue
        if target is None:
            if groups or low is not None or high is not None:
                raise InvalidParameter("--groups, --low and --high are for rows with a --target.")
            found[name] = _losses(path, context, header)
            continue
        if context is not None:
            raise InvalidParameter("--context is for tables of losses, without --target.")
        table = load_frame(path, header=header, wanted=target)
        rows = encode(table, target, group_rules(groups), indicators=indicators)
        found[name] = GroupedStream(rows.X, rows.y, rows.mask, names=rows.group_names, low=low, high=high)
    return found


def _losses(path: Path, context: str | None, header: bool | None) -> LossTable:
    from pandas.api.types import is_numeric_dtype

    from thalweg.datasets import load_frame
    from thalweg.online import LossTable

    table = load_frame(path, header=header, wanted=context)
    words = [name for name in table.columns if not is_numeric_dtype(table[name])]
    if words:
        raise InvalidProblem(
            f"{path}: column {words[0]!r} holds words; expected losses. Rows need a --target."
        )
    arms = table.drop(columns=[] if context is None else [context])
    if not arms.shape[1]:
        raise InvalidProblem(f"{path} holds no column beside the context.")
    return LossTable(arms.to_numpy(), None if context is None else table[context].to_numpy())


def _actions(path: Path, reward: str, noise: float, standardize: bool, header: bool | None) -> ActionTable:
    from thalweg.datasets import load_frame
    from thalweg.online import ActionTable

    table = load_frame(path, header=header, wanted=reward)
    if table[reward].dtype == object or isinstance(table[reward].iloc[0], str):
        raise InvalidProblem(f"{path}: column {reward!r} holds words; expected rewards.")
    features, _ = features_of(table.drop(columns=[reward]), path, standardize)
    return ActionTable(features, table[reward].to_numpy(), noise=noise)


def features_of(table: pd.DataFrame, path: Path, standardize: bool) -> tuple[np.ndarray, list[str]]:
    """The columns of numbers as features, and their names; columns of words name actions and are left out.

    Standardised ones are centred and scaled to a deviation of one, then all by one number so that no row is longer than
    one, and a constant one is added; columns that are constant are left out then.
    """
    import numpy as np
    from pandas.api.types import is_numeric_dtype

    names = [str(name) for name in table.columns if is_numeric_dtype(table[name])]
    if not names:
        raise InvalidProblem(f"{path} holds no column of numbers beside the reward; expected features.")
    features = np.asarray(table[names].to_numpy(), dtype=np.float64)
    if not standardize:
        return features, names
    with np.errstate(over="ignore", invalid="ignore"):
        spread = features.std(0)
    if not np.isfinite(spread).all():
        raise InvalidProblem(f"{path}: features are too large to be standardised. Scale them down.")
    varies = spread > 1e-12 * np.abs(features).max(0)
    names = [name for name, kept in zip(names, varies, strict=True) if kept]
    scaled = (features[:, varies] - features[:, varies].mean(0)) / spread[varies]
    scaled = np.column_stack([scaled, np.ones(len(scaled))])
    return scaled / np.linalg.norm(scaled, axis=1).max(), [*names, "one"]


def _played(name: str, problem: Problem) -> LossTable:
    from thalweg.online import LossTable

    if not isinstance(problem, LossTable):
        raise InvalidProblem(
            f"{name} plays tables of losses; rows with a --target need groupwise or one-for-all, actions a search, "
            "episodes magnitude-reduced or log-barrier."
        )
    return problem


def tsallis_inf(problem: Problem, scale: float | None = None) -> Play:
    """``scale``: what losses are divided by; their running mean by default."""
    from thalweg.online import Play, TsallisINF

    return Play(TsallisINF(_played("tsallis-inf", problem).arms, scale))


def cheb_cb(problem: Problem, terms: int = 6) -> Play:
    """Its ends are those of the contexts of the table."""
    from thalweg.online import ChebCB, Play

    table = _played("cheb-cb", problem)
    if table.contexts is None:
        raise InvalidProblem(
            "cheb-cb needs a number that is known before each round: name its column, --context."
        )
    low, high = float(table.contexts.min()), float(table.contexts.max())
    return Play(ChebCB(table.arms, low, high if high > low else low + 1.0, terms))


def fixed(problem: Problem, arm: int = 0) -> Play:
    """``arm`` is counted from 0."""
    from thalweg.online import Fixed, Play

    return Play(Fixed(_played("fixed", problem).arms, arm))


MAKERS = {"tsallis-inf": tsallis_inf, "cheb-cb": cheb_cb, "fixed": fixed}


@dataclass
class OnlineCase(Case):
    """Every group's regret, beside that of one model for all; the regret of episodes; the action that was found."""

    def arrays(self, result: Result) -> dict[str, np.ndarray]:
        import numpy as np

        from thalweg.online import ActionTable

        if not isinstance(self.problem, ActionTable):
            return super().arrays(result)
        return {"action": np.array([result.x]), "features": self.problem.features[result.x]}

    @cached_property
    def _one(self) -> np.ndarray:
        from thalweg.core import solve
        from thalweg.online import OneForAll

        return array_of(solve(_stream(self.problem), OneForAll(), progress=False).x)

    def _ledgers(self, result: Result) -> dict[str, dict[str, float]]:
        """Regrets by group: ours and the one model's; none for a table of losses."""
        from thalweg.online import GroupedStream

        if not isinstance(self.problem, GroupedStream):
            return {}
        return {
            "ours": self.problem.ledger(array_of(result.x)),
            "one model for all": self.problem.ledger(self._one),
        }

    def told(self, result: Result) -> dict[str, object]:
        played = episodes.episodes_of(self.problem)
        if played is not None:
            return episodes.told(played, result)
        from thalweg.online import ActionTable

        if isinstance(self.problem, ActionTable):
            return {"action": result.x, "queries": result.history["queries"][-1], "draws": result.calls}
        ledgers = self._ledgers(result)
        if not ledgers:
            return {}
        return {"regrets": ledgers["ours"], "regrets_of_one_model": ledgers["one model for all"]}

    def said(self, result: Result) -> Sequence[str]:
        played = episodes.episodes_of(self.problem)
        if played is not None:
            return episodes.said(played, result)
        from thalweg.online import ActionTable

        if isinstance(self.problem, ActionTable):
            return (f"Action {result.x}, the row counted from 0; {result.calls} rewards observed.",)
        ledgers = self._ledgers(result)
        if not ledgers:
            return ()
        ours, one = ledgers["ours"], ledgers["one model for all"]
        rows = _counts(self.problem, result)
        width = max(len("group"), *map(len, ours))
        lines = [f"{'group':{width}}    rows   regret   one model for all"]
        lines += [f"{name:{width}} {rows[name]:7d} {ours[name]:8.3g}   {one[name]:8.3g}" for name in ours]
        lines.append(
            "Regret: sum of squared errors, in units of the target's range, over that of the best linear model for "
            "the group in hindsight."
        )
        return lines

    def figures(self, result: Result) -> Sequence[Figure]:
        played = episodes.episodes_of(self.problem)
        if played is not None:
            return episodes.figures(played, result)
        ledgers = self._ledgers(result)
        if not ledgers:
            return ()
        names = list(ledgers["ours"])
        places = [float(i) for i in range(len(names))]
        bars = Figure(
            "Regret of each group",
            "Against the best linear model for the group in hindsight; the smaller the better.",
            "group",
            "regret",
            [Series(who, places, [ledger[n] for n in names]) for who, ledger in ledgers.items()],
            kind="bars",
            categories=names,
        )
        curves = []
        for name in names:
            series = [
                Series.of(who, *_curve(self.problem, x, name))
                for who, x in (("ours", array_of(result.x)), ("one model for all", self._one))
            ]
            curves.append(Figure(f"Group {name}", "Regret as its rows come.", "rows", "regret", series))
        return [bars, *curves]


def _stream(problem: Problem) -> GroupedStream:
    from thalweg.online import GroupedStream

    if not isinstance(problem, GroupedStream):
        raise InvalidProblem("Only rows in groups have regrets by group.")
    return problem


def _curve(problem: Problem, x: np.ndarray, group: str) -> tuple[np.ndarray, np.ndarray]:
    return _stream(problem).curve(x, group)


def _counts(problem: Problem, result: Result) -> dict[str, int]:
    import numpy as np

    stream = _stream(problem)
    played = np.isfinite(array_of(result.x))
    return dict(zip(stream.names, (stream.groups & played[:, None]).sum(0).tolist(), strict=True))
