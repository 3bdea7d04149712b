"""What an evaluation brings: a value, or word that it failed there. One rule for every way of evaluating."""

from __future__ import annotations

from collections.abc import Callable

from thalweg.blackbox.study import Study
from thalweg.blackbox.telling import as_number
from thalweg.blackbox.trial import LARGEST, Trial


class EvaluationFailed(Exception):
    """A trial that brought no value; the message says why. Raise it in an objective to say so."""


def outcome_of(outcome: Callable[[], float]) -> tuple[float | None, str]:
    """What ``outcome()`` returns, or None and why the evaluation failed.

    `EvaluationFailed`, an arithmetic error and a value that is no finite number up to 1e300 are failures. Any other
    error is one of the user's code and is raised.
    """
    try:
        value = as_number("The objective's value", outcome())
    except (EvaluationFailed, ArithmeticError) as error:
        return None, str(error) or type(error).__name__
    return (value, "") if abs(value) <= LARGEST else (None, f"the value is {value:g}")


def settle(study: Study, trial: Trial, outcome: Callable[[], float]) -> tuple[Trial, str]:
    """Tell ``study`` what ``outcome()`` returns; returns the trial told, and why it failed or an empty message.

    What is a failure says `outcome_of`.

    >>> from thalweg.blackbox import Real
    >>> study = Study({"x": Real(0.0, 1.0)})
    >>> trial, why = settle(study, study.ask(), lambda: 1 / 0)
    >>> trial.status, why
    ('failed', 'division by zero')
    """
    value, why = outcome_of(outcome)
    return (study.tell(trial, failed=True) if value is None else study.tell(trial, value)), why
