"""The study of the search: what it says at its smallest scale."""

from __future__ import annotations

import numpy as np

from thalweg.studies import program_search


def test_the_search_is_told_by_verdicts_rows_and_a_figure():
    shares = []
    verdicts, table, figures, note = program_search.evidence(
        "smoke", lambda share, what: shares.append(share)
    )
    assert len(verdicts) == 3
    assert [row["optimizer"] for row in table] == ["tuned AdamW", "tuned Lion", "evolution", "no selection"]
    assert all(np.isfinite(row["proxy loss"]) for row in table)
    assert [series.name for series in figures[0].series] == ["evolution", "no selection", "tuned AdamW"]
    assert shares == sorted(shares)
    assert "20 evaluations" in note


def test_a_count_of_seeds_fails_under_four_of_five():
    ours, rival = [1.0, 1.0, 1.0, 3.0, 3.0], [2.0] * 5
    assert program_search._won("it wins", ours, rival).outcome == "fails"
    assert program_search._won("it wins", [1.0] * 4 + [3.0], rival).outcome == "holds"
