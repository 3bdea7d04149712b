"""A table's columns as features, and as groups: all at once, or row by row."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.core.validation import as_real
from thalweg.datasets import _cells
from thalweg.online.groups import MOST_VALUES, By, Mask, Membership, column_of

if TYPE_CHECKING:
    import pandas as pd

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Encoded:
    """Rows of a table: features (rows, d), a column of ones among them; labels (rows,); groups (rows, groups)."""

    X: NDArray[np.float64]
    y: Vector
    mask: Mask
    group_names: tuple[str, ...]
    feature_names: tuple[str, ...]


def encode(
    table: pd.DataFrame, target: str, groups: Sequence[By] = (), *, indicators: bool = True
) -> Encoded:
    """Features, labels and groups of a table's rows.

    Numbers are scaled to [0, 1] by their column's ends, words become a column a word, and a column of ones is added.

    Args:
        table: columns of numbers, truth values and words.
        target: the column to predict; numbers.
        groups: rules that name columns.
        indicators: membership of a group is a feature as well, so that one model for all knows of groups, too.

    Raises:
        InvalidProblem: no rows, the target is words or makes groups, or no other column is there.
        NotFinite: a cell without a value.
        UnknownName: no such column.

    >>> import pandas as pd
    >>> rows = encode(pd.DataFrame({"a": [1.0, 3.0], "b": ["x", "y"], "y": [0.0, 1.0]}), "y", [By("b")])
    >>> rows.feature_names, rows.group_names
    (('a', 'b=x', 'b=y', 'group b=x', 'group b=y', 'one'), ('everyone', 'b=x', 'b=y'))
    """
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if not len(table):
        raise InvalidProblem("The table holds no rows.")
    label = column_of(table, target)
    if not is_numeric_dtype(label):
        raise InvalidProblem(f"The target {target!r} holds words; expected numbers.")
    if any(column == target for rule in groups for column in rule.columns):
        raise InvalidProblem(
            f"A group is made of the target {target!r}, which nobody knows before the prediction."
        )
    member = Membership(tuple(groups))
    mask = member.mask(table, grow=True)
    features: dict[str, Vector] = {}
    for name in table.columns:
        column = table[name]
        missing = np.flatnonzero(column.isna().to_numpy())
        if len(missing):
            raise NotFinite(
                f"Column {str(name)!r} has no value in row {int(missing[0])}. Fill or drop such rows first."
            )
        if name == target:
            continue
        if is_numeric_dtype(column) and not is_bool_dtype(column):
            values = as_real(str(name), column)
            low, high = float(values.min()), float(values.max())
            features[str(name)] = (values - low) / (high - low) if high > low else np.zeros(len(values))
        else:
            for word in column.unique().tolist():
                features[f"{name}={word}"] = (column == word).to_numpy(dtype=np.float64)
    if not features:
        raise InvalidProblem("The table holds no column beside the target.")
    if indicators:
        for g, name in enumerate(member.names[1:], start=1):
            features[f"group {name}"] = mask[:, g].astype(np.float64)
    features["one"] = np.ones(len(table))
    X = np.column_stack(list(features.values()))
    return Encoded(X, as_real(target, label), mask, tuple(member.names), tuple(features))


@dataclass
class RowEncoder:
    """The same for rows that come one by one: new words make new columns, new labels new groups.

    Numbers stay as they are, since nobody knows yet what ends they will have. A column is one of numbers or one of
    words by its first cell, and stays so: a word among numbers is refused, a number among words is a word, with a
    warning.

    >>> rows = RowEncoder((By("sex"),))
    >>> x, mask = rows.encode({"age": "40", "sex": "f"})
    >>> rows.columns, rows.member.names
    (['one', 'age', 'sex=f'], ['everyone', 'sex=f'])
    """

    groups: tuple[By, ...]
    columns: list[str] = field(default_factory=lambda: ["one"])
    numeric: dict[str, bool] = field(default_factory=dict)
    mixed: set[str] = field(default_factory=set)
    labels: set[tuple[str, float | str]] = field(default_factory=set)
    member: Membership = field(init=False)

    def __post_init__(self) -> None:
        self.member = Membership(self.groups)

    def encode(self, row: Mapping[str, str]) -> tuple[Vector, Mask]:
        """Features (d,) and groups (groups,) of a row of texts; both may be longer than those before.

        Raises:
            NotFinite: a cell is empty, NA, NaN or the like, or infinite.
            InvalidProblem: a cell is no number in a column of numbers, or one too many for a group each.
            UnknownName: a group's column is not there.
        """
        import pandas as pd

        found: dict[str, float] = {"one": 1.0}
        values: dict[str, float | str] = {}
        numeric: dict[str, bool] = {}
        for name, cell in row.items():
            text = cell.strip()
            if text in _cells.MISSING:
                raise NotFinite(f"Column {name!r} has no value{f': it is {text!r}' if text else ''}.")
            numeric[name] = self.numeric.get(name, _cells.is_number(text) or _cells.is_misspelt(text))
            if numeric[name]:
                found[name] = values[name] = _number(name, text)
            else:
                self._warn_of(name, text)
                values[name], found[f"{name}={text}"] = text, 1.0
        uncut = {name for rule in self.groups for name in rule.columns if name not in rule.cuts}
        labels = {(name, value) for name, value in values.items() if name in uncut and numeric[name]}
        self._refuse_many(labels)
        mask = self.member.mask(pd.DataFrame([values]), grow=True)[0]
        self.numeric |= numeric
        self.labels |= labels
        self.columns += [name for name in found if name not in self.columns]
        return np.array([found.get(name, 0.0) for name in self.columns]), mask

    def _refuse_many(self, labels: set[tuple[str, float | str]]) -> None:
        """Refuse one more value of a column of numbers that are a group each."""
        for name, value in labels - self.labels:
            if sum(known == name for known, _ in self.labels) >= MOST_VALUES:
                raise InvalidProblem(
                    f"Column {name!r} has more than {MOST_VALUES} values, {value:g} among them, too many for a group "
                    f"each. Cut it, as --groups {name}:35:50 does."
                )

    def _warn_of(self, name: str, text: str) -> None:
        """Once a column: that a number is taken for a word."""
        if name not in self.mixed and _cells.is_number(text):
            self.mixed.add(name)
            warnings.warn(
                f"Column {name!r} began with a word, so that {text!r} is taken for a word, too.", stacklevel=3
            )


def _number(name: str, text: str) -> float:
    """The number that a cell of a column of numbers is."""
    if not _cells.is_number(text):
        raise InvalidProblem(f"Column {name!r} holds numbers: {_cells.fault(text)}.")
    _cells.refuse_loss(f"Column {name!r}", text)
    found = float(text)
    if not np.isfinite(found):
        raise NotFinite(f"Column {name!r} is {text!r}; expected a finite number.")
    return found


def group_rules(text: str) -> tuple[By, ...]:
    """Rules from text: ``sex,smoker`` are two, ``sex*smoker`` their combinations, ``age:35:50`` cuts at 35 and 50.

    Raises:
        InvalidParameter: an empty name, or cuts that are no rising numbers.

    >>> group_rules("sex, age:35:50*sex")
    (By(columns=('sex',), cuts={}), By(columns=('age', 'sex'), cuts={'age': (35.0, 50.0)}))
    """
    found = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        columns: list[str] = []
        cuts: dict[str | int, Sequence[float]] = {}
        for factor in item.split("*"):
            name, *bounds = (part.strip() for part in factor.split(":"))
            if not name:
                raise InvalidParameter(
                    f"--groups: {item!r} names no column; write name, name*name or name:35:50."
                )
            columns.append(name)
            numbers = [float(b) for b in bounds if _cells.is_number(b) and np.isfinite(float(b))]
            if len(numbers) < len(bounds):
                raise InvalidParameter(
                    f"--groups: the cuts of {name!r} are {':'.join(bounds)!r}; expected numbers."
                )
            if numbers:
                cuts[name] = numbers
        found.append(By(*columns, cuts=cuts))
    return tuple(found)
