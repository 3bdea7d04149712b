"""Which rows belong to which groups: columns and their combinations, conditions, and stretches of time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, UnknownName
from thalweg.core.validation import is_real, is_whole, require

if TYPE_CHECKING:
    import pandas as pd

Mask = NDArray[np.bool_]
#: A column of numbers with more values than this is no label: it needs cuts.
MOST_VALUES = 20
EVERYONE = "everyone"


@dataclass(frozen=True)
class By:
    """A group for each value of a column, or for each combination of values of several.

    Args:
        columns: a name of a table's column, the number of an array's, or several of them: ``By("sex", "smoker")`` are
            the intersections.
        cuts: for a column of numbers: rising bounds; ``(35, 50)`` makes ``<= 35``, ``35 to 50`` (35 not included) and
            ``> 50``. A mapping by column where there are several.

    Values that come later make groups of their own from then on.

    >>> import pandas as pd
    >>> By("age", cuts=(35, 50)).labels(pd.DataFrame({"age": [20, 35, 36, 70]}))
    ['age <= 35', 'age <= 35', '35 < age <= 50', 'age > 50']
    """

    columns: tuple[str | int, ...]
    cuts: dict[str | int, tuple[float, ...]]

    def __init__(
        self, *columns: str | int, cuts: Sequence[float] | dict[str | int, Sequence[float]] | None = None
    ) -> None:
        require(len(columns) > 0, "By needs a column")
        given = {} if cuts is None else cuts if isinstance(cuts, dict) else {columns[0]: cuts}
        for column, bounds in given.items():
            rising = len(bounds) > 0 and all(map(is_real, bounds)) and list(bounds) == sorted(set(bounds))
            require(rising, f"By: cuts of {column!r} are rising numbers", got=bounds)
            require(
                column in columns, f"By: cuts name {column!r}, which is not among its columns", got=columns
            )
        object.__setattr__(self, "columns", tuple(columns))
        object.__setattr__(self, "cuts", {k: tuple(float(b) for b in v) for k, v in given.items()})

    def labels(self, table: pd.DataFrame) -> list[str]:
        """The group of each row."""
        parts = [self._of(table, column) for column in self.columns]
        return [" and ".join(row) for row in zip(*parts, strict=True)]

    def _of(self, table: pd.DataFrame, column: str | int) -> list[str]:
        import pandas as pd

        values = column_of(table, column)
        bounds = self.cuts.get(column)
        if bounds is None:
            return labels_of(str(column), values)
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
        if np.isnan(numbers).any():
            row = int(np.flatnonzero(np.isnan(numbers))[0])
            raise NotFinite(f"By: row {row} of {column!r} is {values.iloc[row]!r}, which cuts cannot place.")
        shown = [f"{b:g}" for b in bounds]
        names = [f"{column} <= {shown[0]}"]
        names += [f"{a} < {column} <= {b}" for a, b in itertools.pairwise(shown)]
        names += [f"{column} > {shown[-1]}"]
        return [names[i] for i in np.searchsorted(bounds, numbers, side="left")]


@dataclass(frozen=True)
class Where:
    """The rows that a condition of yours takes.

    Args:
        name: of the group.
        condition: called with the table; returns a truth value for each row.

    >>> import pandas as pd
    >>> Where("large", lambda table: table[0] > 1.0).mask(pd.DataFrame([[0.5], [1.5]]))
    array([False,  True])
    """

    name: str
    condition: Callable[[Any], ArrayLike]

    def mask(self, table: pd.DataFrame) -> Mask:
        """Which rows it takes."""
        found = np.asarray(self.condition(table))
        if found.shape != (len(table),) or found.dtype != bool:
            raise InvalidProblem(
                f"Where({self.name!r}): its condition returned {found.dtype} of shape {found.shape}; expected "
                f"({len(table)},) truth values."
            )
        return found


@dataclass(frozen=True)
class TimeIntervals:
    """Learners that begin anew every ``shortest``, ``2 shortest``, ``4 shortest``, ... rows up to ``longest``.

    With them the regret is small on every stretch of time, not only from the first row on: for streams that drift.
    All rows are in all of them.

    Args:
        shortest: rows of the shortest intervals. Default 64: a learner of d columns needs some d rows.
        longest: rows of the longest ones. Default 65 536.

    Source: the geometric cover of Daniely, Gonen and Shalev-Shwartz (2015), "Strongly adaptive online learning".

    >>> TimeIntervals(16, 64).periods
    (16, 32, 64)
    """

    shortest: int = 64
    longest: int = 65_536

    def __post_init__(self) -> None:
        right = is_whole(self.shortest) and is_whole(self.longest) and 2 <= self.shortest <= self.longest
        require(right, "TimeIntervals needs whole numbers 2 <= shortest <= longest", got=self)

    @property
    def periods(self) -> tuple[int, ...]:
        """Rows of the intervals of each level."""
        found = [self.shortest]
        while 2 * found[-1] <= self.longest:
            found.append(2 * found[-1])
        return tuple(found)


Group = By | Where | TimeIntervals


def column_of(table: pd.DataFrame, column: str | int) -> pd.Series[Any]:
    """A column, with an error that names those there are."""
    if column not in table.columns:
        raise UnknownName("column", str(column), [str(c) for c in table.columns])
    return table[column]


def labels_of(name: str, values: pd.Series[Any]) -> list[str]:
    """A group for each value of a column; numbers must be few."""
    import pandas as pd

    missing = np.flatnonzero(pd.isna(values).to_numpy())
    if len(missing):
        raise NotFinite(
            f"Row {int(missing[0])} of the groups' column {name!r} has no value. Give such rows a label of their own."
        )
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if numeric and values.nunique() > MOST_VALUES:
        raise InvalidProblem(
            f"Column {name!r} has {values.nunique()} values, too many for a group each. Cut it: "
            f"By({name!r}, cuts=(35, 50)), as --groups {name}:35:50 does."
        )
    return [f"{name}={_shown(value)}" for value in values.tolist()]


def _shown(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@dataclass
class Membership:
    """The groups seen so far, and how rows are sorted into them.

    ``names`` grows as new labels come; ``periods`` are 0 for groups that are no intervals of time.
    """

    rules: tuple[Group, ...] = ()
    everyone: bool = True
    names: list[str] = field(default_factory=list)
    periods: list[int] = field(default_factory=list)
    width: int | None = None  # of a mask given from outside

    def __post_init__(self) -> None:
        if self.everyone and EVERYONE not in self.names:
            self._add(EVERYONE)
        for rule in self.rules:
            if not isinstance(rule, By | Where | TimeIntervals):
                raise InvalidParameter(f"groups holds {rule!r}; expected By, Where or TimeIntervals.")
            if isinstance(rule, TimeIntervals):
                for period in rule.periods:
                    self._add(f"each {period} rows", period)

    def _add(self, name: str, period: int = 0) -> None:
        if name not in self.names:
            self.names.append(name)
            self.periods.append(period)

    def mask(self, table: pd.DataFrame, given: object = None, *, grow: bool) -> Mask:
        """The groups of each row, shape (rows, groups); new labels make groups where it may ``grow``."""
        labels: list[list[str]] = []
        fixed: list[tuple[str, Mask]] = []
        if given is not None and self.rules:
            raise InvalidParameter(
                "Groups come from the constructor's rules or with the rows, not from both."
            )
        if given is not None:
            self._take(given, len(table), labels, fixed)
        elif self.width is not None:
            raise InvalidParameter("The rows before came with groups. Give groups for these, too.")
        for rule in self.rules:
            if isinstance(rule, By):
                labels.append(rule.labels(table))
            elif isinstance(rule, Where):
                fixed.append((rule.name, rule.mask(table)))
        if grow:
            for name in [name for name, _ in fixed] + [n for row in labels for n in dict.fromkeys(row)]:
                self._add(name)
        place = {name: i for i, name in enumerate(self.names)}
        found = np.zeros((len(table), len(self.names)), dtype=bool)
        found[:, [i for i, period in enumerate(self.periods) if period]] = True
        if self.everyone:
            found[:, place[EVERYONE]] = True
        for name, mask in fixed:
            if name in place:
                found[:, place[name]] = mask
        for column in labels:
            at = np.array([place.get(name, -1) for name in column], dtype=np.int64)
            rows = np.flatnonzero(at >= 0)
            found[rows, at[rows]] = True
        return found

    def _take(self, given: object, rows: int, labels: list[list[str]], fixed: list[tuple[str, Mask]]) -> None:
        """Groups that came with the rows: a mask, or columns of labels."""
        import pandas as pd

        table = given if isinstance(given, pd.DataFrame) else pd.DataFrame(np.asarray(given))
        if len(table) != rows:
            raise InvalidProblem(f"groups has {len(table)} rows; expected {rows}, as X has.")
        if self.width is not None and self.width != table.shape[1]:
            raise InvalidProblem(
                f"groups has {table.shape[1]} columns; the rows before had {self.width}. Leave out none."
            )
        self.width = table.shape[1]
        if all(pd.api.types.is_bool_dtype(kind) for kind in table.dtypes) and table.shape[1]:
            fixed += [(_name(c), table[c].to_numpy(dtype=bool)) for c in table.columns]
            return
        labels += [labels_of(_name(c), table[c]) for c in table.columns]


def _name(column: object) -> str:
    return f"group {column}" if isinstance(column, int) else str(column)
