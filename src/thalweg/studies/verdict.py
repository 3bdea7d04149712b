"""A claim in a line, the number measured, the number it must reach, and whether it does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from thalweg.core import InvalidProblem
from thalweg.core.validation import require

Relation = Literal["<=", ">=", "within"]
Outcome = Literal["holds", "fails", "open"]
Pair = tuple[float, float]

#: The keys of a verdict's row, in their order.
KEYS = ("claim", "measured", "required", "relation", "interval", "outcome", "holds")


@dataclass(frozen=True)
class Verdict:
    """A claim, the number measured, the number it must reach, and the outcome.

    Args:
        claim: what was tested, in words that say no more than the numbers do.
        measured: what came out; a median over seeds where something is random. NaN and an infinity on the wrong
            side fail.
        required: a finite number, or for ``within`` a band (low, high). A number that every measurement reaches
            would be a claim that cannot fail, so an infinite one is refused.
        relation: ``measured <= required``, ``measured >= required``, or ``low <= measured <= high``.
        interval: a 90 % interval of the measured number over seeds, with the number in it; None only where
            nothing is random. An end may be infinite: too few seeds, or seeds whose run failed.

    Raises:
        InvalidParameter: an unknown relation, a required number or band that is none, an interval that does not
            hold the measured number.

    >>> Verdict("half the memory", 0.5, 0.51).outcome
    'holds'
    >>> Verdict("half the memory", 0.5, 0.51, interval=(0.45, 0.6)).outcome
    'open'
    >>> Verdict("calls grow as n^3", 0.04, (2.4, 3.6), "within").outcome
    'fails'
    """

    claim: str
    measured: float
    required: float | Pair
    relation: Relation = "<="
    interval: Pair | None = None

    def __post_init__(self) -> None:
        require(
            self.relation in get_args(Relation), "Verdict: relation is <=, >= or within", got=self.relation
        )
        object.__setattr__(self, "measured", float(self.measured))
        if self.relation == "within":
            require(_is_pair(self.required), "Verdict: `within` needs a band (low, high)", got=self.required)
            low, high = map(float, cast(Pair, self.required))
            require(-math.inf < low < high < math.inf, "Verdict: a band has low < high", got=self.required)
            object.__setattr__(self, "required", (low, high))
        else:
            require(
                not _is_pair(self.required) and math.isfinite(cast(float, self.required)),
                f"Verdict: `{self.relation}` needs one finite required number",
                got=self.required,
            )
            object.__setattr__(self, "required", float(cast(float, self.required)))
        if self.interval is not None:
            low, high = map(float, self.interval)
            require(
                low <= self.measured <= high or math.isnan(self.measured),
                f"Verdict: the interval holds the measured number {self.measured:g}",
                got=self.interval,
            )
            object.__setattr__(self, "interval", None if math.isnan(self.measured) else (low, high))

    @property
    def wanted(self) -> Pair:
        """The numbers for which the claim holds, as (low, high); an end without a limit is infinite."""
        if isinstance(self.required, tuple):
            return self.required
        return (-math.inf, self.required) if self.relation == "<=" else (self.required, math.inf)

    @property
    def outcome(self) -> Outcome:
        """``holds``: the whole interval is wanted. ``fails``: none of it is. ``open``: a required number inside."""
        low, high = self.wanted
        if not math.isfinite(self.measured) and not low <= self.measured <= high:
            return "fails"
        least, most = self.interval or (self.measured, self.measured)
        if low <= least and most <= high:
            return "holds"
        return "fails" if most < low or least > high else "open"

    @property
    def holds(self) -> bool:
        """Whether the outcome is ``holds``."""
        return self.outcome == "holds"

    def to_dict(self) -> dict[str, object]:
        """A row of strict JSON with the keys `KEYS`: NaN is null, an infinity ``"inf"`` or ``"-inf"``.

        >>> Verdict("a", float("inf"), 2).to_dict()["measured"]
        'inf'
        """
        required = self.required
        return {
            "claim": self.claim,
            "measured": _written(self.measured),
            "required": list(required) if isinstance(required, tuple) else required,
            "relation": self.relation,
            "interval": None if self.interval is None else [_written(end) for end in self.interval],
            "outcome": self.outcome,
            "holds": self.holds,
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, object]) -> Verdict:
        """Inverse of `to_dict`.

        Raises:
            InvalidProblem: the row lacks a key, or its outcome is not what its numbers say.
        """
        missing = [key for key in KEYS if key not in row]
        if missing:
            raise InvalidProblem(f"A verdict's row lacks {', '.join(missing)}; expected {', '.join(KEYS)}.")
        required, interval = row["required"], row["interval"]
        verdict = cls(
            str(row["claim"]),
            _read(row["measured"]),
            _read_pair(required) if isinstance(required, list) else _read(required),
            cast(Relation, row["relation"]),
            None if interval is None else _read_pair(interval),
        )
        if (row["outcome"], row["holds"]) != (verdict.outcome, verdict.holds):
            raise InvalidProblem(
                f"'{verdict.claim}' is said to be '{row['outcome']}', its numbers say '{verdict.outcome}'."
            )
        return verdict


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _written(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def _read(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidProblem(f"A verdict's row holds {value!r} where a number is expected.")
    return float(value)


def _read_pair(values: object) -> Pair:
    if not isinstance(values, list) or len(values) != 2:
        raise InvalidProblem(f"A verdict's row holds {values!r} where two numbers are expected.")
    return _read(values[0]), _read(values[1])
