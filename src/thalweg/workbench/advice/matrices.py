"""What a matrix or a list of places with numbers may be."""

from __future__ import annotations

from thalweg.workbench.advice.kinds import Advice, words_of
from thalweg.workbench.advice.sight import Sight

#: A payoff matrix that somebody wrote down has rarely more strategies.
STRATEGIES = 2000


def linear_system(sights: list[Sight]) -> Advice | None:
    """A square matrix, with more of them or a right side."""
    first, rest = sights[0], sights[1:]
    if first.kind not in ("matrix", "table") or first.has_words:
        return None
    what, systems = "a linear system A x = b", ("02",)
    if not first.is_square:
        if rest or first.kind == "table" or min(first.rows, first.columns) == 1:
            return None
        why = f"{first.rows} x {first.columns} is not square."
        return Advice(systems, what, False, why)
    if not first.is_numeric:
        return Advice(systems, what, False, "A has holes.")
    if first.density == 0:
        return Advice(systems, what, False, "All entries of A are zero.")
    if all(other.is_square and other.rows == first.rows for other in rest):
        words = words_of(sights)
        question = (
            ""
            if first.density < 0.5 or first.rows > STRATEGIES
            else "Are the entries coefficients of equations?"
        )
        kind = _method(first)
        more = (f"thalweg compare linear {words}",) if not rest else ()
        return Advice(
            systems,
            what if not rest else "a sequence of linear systems",
            True,
            kind,
            (f"thalweg solve linear {words} --out x.npy", *more),
            question,
            ("linear", *(str(s.path) for s in sights)) if not rest else (),
        )
    if len(rest) == 1 and rest[0].rows * rest[0].columns % first.rows == 0 and rest[0].is_numeric:
        words = f"{words_of([first])} --rhs {words_of(rest)}"
        commands = (f"thalweg solve linear {words} --out x.npy", f"thalweg compare linear {words}")
        compared = ("linear", str(first.path), "--rhs", str(rest[0].path))
        return Advice(systems, what, True, _method(first), commands, "", compared)
    return None


def _method(sight: Sight) -> str:
    if sight.definite:
        return "Symmetric and positive definite: conjugate gradients, preconditioned."
    if sight.definite is False:
        return "Symmetric, not positive definite: GMRES, or a direct solve; conjugate gradients may fail."
    if sight.symmetric:
        return "Symmetric; too large to see whether it is definite. SSOR-CG if its diagonal is positive, else GMRES."
    return "Not symmetric: GMRES, or a direct solve."


def game(sights: list[Sight]) -> Advice | None:
    """A full table of payoffs."""
    sight = sights[0]
    least, most = sorted((sight.rows, sight.columns))
    if len(sights) > 1 or not sight.is_numeric or least < 2 or most > 5 * least:
        return None
    what, systems = "a zero-sum game", ("22",)
    if sight.density < 0.2 or most > STRATEGIES:
        return Advice(systems, what, False, "Payoffs fill a table of at most some thousand strategies.")
    words = words_of(sights)
    commands = (f"thalweg solve equilibrium {words}", f"thalweg compare equilibrium {words}")
    why = f"{sight.rows} strategies against {sight.columns}."
    question = "Is an entry what the row player pays the column player?"
    return Advice(systems, what, True, why, commands, question, ("equilibrium", str(sight.path)))


def ratings(sights: list[Sight]) -> Advice | None:
    """Row, column and number on a line; a table with holes."""
    sight = sights[0]
    if len(sights) > 1 or sight.kind not in ("table", "matrix"):
        return None
    what, systems = "ratings to complete", ("15",)
    holes = max((column.holes for column in sight.table), default=0.0)
    labels = [column for column in sight.table[:2] if column.words or column.whole]
    triples = sight.kind == "table" and sight.columns in (3, 4) and len(labels) == 2
    if triples and not sight.table[2].words and all(2 * c.distinct <= sight.rows for c in labels):
        words = words_of(sights)
        rows, columns = (c.distinct for c in labels)
        why = f"{rows} x {columns} labels, {sight.rows} numbers: {100 * sight.rows / (rows * columns):.2g} % are known."
        commands = (f"thalweg solve matrix {words} --out factors.npz", f"thalweg compare matrix {words}")
        question = "Does a line say what one (a user) gave another (an item)?"
        return Advice(systems, what, True, why, commands, question, ("matrix", str(sight.path)))
    if holes > 0.05 and sight.columns >= 4 and not sight.has_words:
        line = "thalweg.matrix.MatrixCompletion(rank=5).fit(X): X with NaN where nothing is known"
        return Advice(systems, what, True, f"Up to {100 * holes:.0f} % of a column is missing.", (line,))
    return None
