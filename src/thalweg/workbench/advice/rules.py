"""What fits the files that were looked at: a rule for each kind of problem, in the order in which they are told."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from thalweg.core import UnreadableFile
from thalweg.workbench.advice.sight import Column, Sight, look_at_all

#: Words that columns of one meaning are called by.
TARGETS = ("y", "target", "label", "labels", "class", "outcome", "response", "price", "score", "output")
SCORES = ("score", "fitness", "activity", "y", "target", "value", "log", "binding", "affinity", "signal")
NORMS = ("l1", "l2", "norm", "grad", "gradient")
TIMES = ("time", "second", "delay", "latency", "duration", "client", "worker")
#: A payoff matrix that somebody wrote down has rarely more strategies.
STRATEGIES = 2000


@dataclass(frozen=True)
class Advice:
    """One kind of problem that files may be, or are not.

    Args:
        systems: their numbers.
        what: the problem, in a few words.
        fits: whether the files can be that.
        why: what speaks for it, or against it.
        commands: ready to run; words in capitals are for the user to fill in.
        question: what decides, where the files alone do not.
        compared: the words of a comparison that races its methods, without options of its own; empty where there is
            none, or where the user has to say something first.
    """

    systems: tuple[str, ...]
    what: str
    fits: bool
    why: str
    commands: tuple[str, ...] = ()
    question: str = ""
    compared: tuple[str, ...] = ()


def advise(paths: Sequence[Path], header: bool | None = None) -> tuple[list[Sight], list[Advice]]:
    """What the files hold, and what they may be a problem of: what fits first.

    Args:
        paths: the files of one problem.
        header: whether tables begin with a line of names; seen by itself.

    Raises:
        UnreadableFile: a file that nothing here reads.
        InvalidProblem: no file, one twice.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "A.csv"
    >>> _ = path.write_text("2,1\\n1,2\\n")
    >>> sights, found = advise([path])
    >>> found[0].what, found[0].fits
    ('a linear system A x = b', True)
    """
    sights = look_at_all(paths, header)
    found = [advice for rule in RULES if (advice := rule(sights)) is not None]
    return sights, sorted(found, key=lambda advice: not advice.fits)


def _words(sights: Sequence[Sight]) -> str:
    return " ".join(shlex.quote(str(sight.path)) for sight in sights)


def _linear(sights: list[Sight]) -> Advice | None:
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
        words = _words(sights)
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
        words = f"{_words([first])} --rhs {_words(rest)}"
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


def _game(sights: list[Sight]) -> Advice | None:
    sight = sights[0]
    least, most = sorted((sight.rows, sight.columns))
    if len(sights) > 1 or not sight.is_numeric or least < 2 or most > 5 * least:
        return None
    what, systems = "a zero-sum game", ("22",)
    if sight.density < 0.2 or most > STRATEGIES:
        return Advice(systems, what, False, "Payoffs fill a table of at most some thousand strategies.")
    words = _words(sights)
    commands = (f"thalweg solve equilibrium {words}", f"thalweg compare equilibrium {words}")
    why = f"{sight.rows} strategies against {sight.columns}."
    question = "Is an entry what the row player pays the column player?"
    return Advice(systems, what, True, why, commands, question, ("equilibrium", str(sight.path)))


def _ratings(sights: list[Sight]) -> Advice | None:
    sight = sights[0]
    if len(sights) > 1 or sight.kind not in ("table", "matrix"):
        return None
    what, systems = "ratings to complete", ("15",)
    holes = max((column.holes for column in sight.table), default=0.0)
    labels = [column for column in sight.table[:2] if column.words or column.whole]
    triples = sight.kind == "table" and sight.columns in (3, 4) and len(labels) == 2
    if triples and not sight.table[2].words and all(2 * c.distinct <= sight.rows for c in labels):
        words = _words(sights)
        rows, columns = (c.distinct for c in labels)
        why = f"{rows} x {columns} labels, {sight.rows} numbers: {100 * sight.rows / (rows * columns):.2g} % are known."
        commands = (f"thalweg solve matrix {words} --out factors.npz", f"thalweg compare matrix {words}")
        question = "Does a line say what one (a user) gave another (an item)?"
        return Advice(systems, what, True, why, commands, question, ("matrix", str(sight.path)))
    if holes > 0.05 and sight.columns >= 4 and not sight.has_words:
        line = "thalweg.matrix.MatrixCompletion(rank=5).fit(X): X with NaN where nothing is known"
        return Advice(systems, what, True, f"Up to {100 * holes:.0f} % of a column is missing.", (line,))
    return None


def _target(sight: Sight) -> Column | None:
    """The column that is called as targets are; else the last."""
    named = [c for c in sight.table if c.name.lower() in TARGETS]
    return named[0] if named else (sight.table[-1] if sight.table else None)


def _regression(sights: list[Sight]) -> Advice | None:
    sight = sights[0]
    what, systems = "a regression or a classification with penalties", ("10",)
    if (
        len(sights) == 1
        and sight.kind == "matrix"
        and not sight.is_square
        and min(sight.rows, sight.columns) > 1
    ):
        why = "Features alone; it needs a target too: a .npz with X and y, a .svm, or a table with a column of it."
        return Advice(systems, what, False, why)
    if len(sights) > 1 or sight.kind not in ("table", "examples"):
        return None
    target = _target(sight)
    if target is None or (sight.kind == "table" and sight.columns < 2):
        return None
    holed = [c.name for c in sight.table if c.holes]
    wordy = [c.name for c in sight.table if c.words and c is not target]
    if holed or wordy:
        bad = f"{holed[0]!r} has holes" if holed else f"{wordy[0]!r} holds words"
        return Advice(systems, what, False, f"Column {bad}. Fill or encode it first.")
    loss = "squares"
    if target.is_class:
        loss = "logistic" if target.distinct == 2 else "multiclass"
    elif target.words:
        return Advice(systems, what, False, f"The target {target.name!r} has {target.distinct} words.")
    why = f"{sight.rows} rows; {target.name!r} has {target.distinct} values: the loss is {loss}."
    if sight.kind == "table" and not sight.header:
        question = "Which column is to be predicted? Name the columns in a first line, and pass --target."
        return Advice(systems, what, True, f"{sight.rows} rows of numbers.", (), question)
    own = ["--target", target.name] if sight.kind == "table" else []
    options = [*own, *(["--loss", loss] if loss != "squares" else []), "--l1", "1"]
    words = f"{_words(sights)} {shlex.join(options)}"
    known = sight.kind == "examples" or target.name.lower() in TARGETS
    question = "" if known else f"Is {target.name!r} what is to be predicted from the other columns?"
    commands = (f"thalweg solve convex {words} --out x.npy", f"thalweg compare convex {words}")
    return Advice(systems, what, True, why, commands, question, ("convex", str(sight.path), *options))


def _groups(sights: list[Sight]) -> Advice | None:
    sight, target = sights[0], _target(sights[0])
    if len(sights) > 1 or sight.kind != "table" or not sight.header or target is None or target.words:
        return None
    groups = [c for c in sight.table if c is not target and c.is_class and not c.is_sequence]
    groups = [c for c in groups if not set(",*:") & set(c.name)]  # which --groups takes for its own
    groups.sort(key=lambda column: not column.words)
    if not groups or sight.rows < 20 or target.distinct < 2:
        return None
    what, systems = "predictions that are good on every group of rows", ("24",)
    bad = [f"{c.name!r} has holes" for c in sight.table if c.holes]
    bad += [
        f"{c.name!r} holds {c.distinct} different words" for c in sight.table if c.words and not c.is_class
    ]
    if bad:
        return Advice(systems, what, False, f"Column {bad[0]}. Mend it or leave it out first.")
    names = ",".join(column.name for column in groups[:2])
    words = f"{_words(sights)} --target {shlex.quote(target.name)} --groups {shlex.quote(names)}"
    commands = (f"thalweg solve online {words} --report page.html", f"thalweg compare online {words}")
    listed = " and ".join(f"{c.name!r} ({c.distinct} values)" for c in groups[:2])
    question = (
        f"Do the rows come one by one, is {target.name!r} seen after each, and must no group be worse off than with a "
        "model of its own?"
    )
    return Advice(systems, what, True, f"{sight.rows} rows in groups: {listed}.", commands, question)


def _widths(sights: list[Sight]) -> Advice | None:
    fit = _regression(sights)
    if fit is None or not fit.fits or not fit.compared or sights[0].rows < 20:
        return None
    target = _target(sights[0])
    own = f" --target {shlex.quote(target.name)}" if target is not None and sights[0].kind == "table" else ""
    command = f"thalweg double-descent {_words(sights)}{own} --report page.html"
    question = "Do you fear that a wider model is worse?"
    return Advice(("25",), "the width of a model", True, "Features with a target.", (command,), question)


def _sequences(sights: list[Sight]) -> Advice | None:
    sight = sights[0]
    what, systems = "sequences to improve", ("05",)
    if sight.kind == "letters":
        why = "Design needs a score for each sequence: a .csv with a column of sequences and one of scores."
        return Advice(systems, what, False, why)
    column = next((c for c in sight.table if c.is_sequence), None)
    if len(sights) > 1 or column is None:
        return None
    scores = [c for c in sight.table if not c.words and not c.holes]
    if not scores:
        return Advice(
            systems, what, False, f"Column {column.name!r} may be sequences, but none holds scores."
        )
    letters = set(column.letters.upper())
    alphabet = "dna" if letters <= set("ACGT") else "rna" if letters <= set("ACGU") else "protein"
    if not letters <= set("ACDEFGHIKLMNPQRSTVWY") and alphabet == "protein":
        alphabet = column.letters
    least, most = column.lengths
    if least != most:
        why = f"Sequences of {least} to {most} letters; design needs one length: align or cut them first."
        return Advice(systems, what, False, why)
    words = f"{_words(sights)} --alphabet {alphabet}"
    command = f"thalweg solve design {words} --propose 128 --out designs.csv --report page.html"
    named = next((c for c in scores if any(w in c.name.lower() for w in SCORES)), scores[0])
    question = f"Is {named.name!r} a score, the larger the better, and can no more be measured for now?"
    return Advice(systems, what, True, f"{sight.rows} sequences of {least} letters.", (command,), question)


def _norms(sights: list[Sight]) -> Advice | None:
    sight = sights[0]
    numeric = [c for c in sight.table if not c.words]
    named = [c for c in numeric if any(c.name.lower().startswith(w) for w in NORMS)]
    size = sight.rows * sight.columns
    vector = sight.is_numeric and min(sight.rows, sight.columns) == 1 < size and not sight.negative
    if len(sights) > 1 or not (vector or (named and all(c.positive and not c.holes for c in named))):
        return None
    geometry = "l1" if named and named[0].name.lower() == "l1" else "l2"
    column = (
        f" --column {shlex.quote(named[0].name)}"
        if named and named[0].name.lower() not in ("l1", "l2")
        else ""
    )
    command = f"thalweg schedule refine {_words(sights)} --geometry {geometry}{column} --plot page.html"
    question = "" if named else "Are these the gradient norms of a training run, step by step?"
    return Advice(
        ("07",),
        "a schedule from gradient norms",
        True,
        f"{size if vector else sight.rows} numbers above zero.",
        (command,),
        question,
    )


def _times(sights: list[Sight]) -> Advice | None:
    sight = sights[0]
    if len(sights) > 1 or not sight.is_numeric or sight.negative or sight.columns < 2 or sight.rows < 2:
        return None
    named = [c for c in sight.table if any(w in c.name.lower() for w in TIMES)]
    if not named and not (sight.table and all(c.positive for c in sight.table)):
        return None
    words = _words(sights)
    commands = (
        f"thalweg federated report --times {words}",
        f"thalweg coding plan --profile {words}",
    )
    question = (
        "Are these seconds that clients with data of their own take (the first command), or that workers took in each "
        "round (the second)?"
    )
    why = f"{sight.rows} x {sight.columns} numbers, none below zero."
    return Advice(("16", "20"), "times of clients or workers", True, why, commands, question)


def _clouds(sights: list[Sight]) -> Advice | None:
    if len(sights) != 2:
        return None
    first, second = sights
    what, systems = "a cloud of points to carry to another", ("19",)
    if first.kind == second.kind == "cells":
        words = _words(sights)
        return Advice(
            systems,
            what,
            True,
            "Cells before and after.",
            (f"thalweg solve transport {words} --out plan.npz",),
        )
    if not (first.is_numeric and second.is_numeric):
        return None
    if first.columns != second.columns:
        why = f"{first.columns} columns here, {second.columns} there; expected the same."
        return Advice(systems, what, False, why)
    if (first.is_square and second.is_square) or min(first.rows, second.rows) < 2:
        return None
    words = _words(sights)
    why = f"{first.rows} and {second.rows} points of {first.columns} numbers, unpaired."
    commands = (f"thalweg solve transport {words} --out plan.npz", f"thalweg compare transport {words}")
    question = "Are the rows samples of one thing before and after, which nothing pairs?"
    return Advice(systems, what, True, why, commands, question, ("transport", *(str(s.path) for s in sights)))


def _adapted(sights: list[Sight]) -> Advice | None:
    if len(sights) != 2 or any(s.kind not in ("table", "examples", "matrix") for s in sights):
        return None
    source, target = sights
    what, systems = "labels in one domain, use in another", ("01",)
    label = next((c for c in source.table if c.is_class and c.name.lower() in TARGETS), None)
    if label is None:
        return None
    wide = source.columns if source.kind == "examples" else source.columns - 1
    theirs = target.columns - sum(c.name == label.name for c in target.table if target.kind == "table")
    if wide != theirs:
        return Advice(systems, what, False, f"{wide} features here, {theirs} there; expected the same.")
    own = "" if source.kind == "examples" else f" --labels {shlex.quote(label.name)}"
    words = f"{_words(sights)}{own}"
    why = f"{label.name!r} has {label.distinct} classes in {source.path.name}."
    question = "Will the classifier be used on rows such as those of the second file?"
    return Advice(systems, what, True, why, (f"thalweg solve adaptation {words} --out labels.csv",), question)


def _networks(sights: list[Sight]) -> Advice | None:
    if not all(sight.kind == "weights" for sight in sights):
        return None
    what, systems = "trained networks to match and merge", ("29", "32")
    if len(sights) != 2:
        return Advice(systems, what, False, f"{len(sights)} networks are given; matching takes two.")
    command = (
        f"thalweg solve landscape {_words(sights)} --module PACKAGE.MODULE:FUNCTION --out merged.safetensors"
    )
    question = "Have both the same architecture?"
    return Advice(systems, what, True, "Two files of weights.", (command,), question)


def _instances(sights: list[Sight]) -> Advice | None:
    if not all(sight.kind == "instance" for sight in sights):
        return None
    words = _words(sights)
    question = "Does the file hold a two-stage problem: a knapsack, capital budgeting or facility location?"
    return Advice(
        ("30",),
        "a decision before the worst case",
        True,
        "A text in JSON.",
        (f"thalweg solve robust {words}",),
        question,
    )


def _stream(sights: list[Sight]) -> Advice | None:
    sight = sights[0]
    if (
        len(sights) > 1
        or not sight.is_numeric
        or sight.columns < 4
        or sight.rows < 4 * sight.columns
        or sight.is_square
    ):
        return None
    if sight.path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return None
    command = f"thalweg dictionary {_words(sights)} --out basis.npz"
    question = "Is a row one reading of all sensors, or one patch, and do you look for patterns in them?"
    why = f"{sight.rows} rows of {sight.columns} numbers."
    return Advice(("28",), "readings that are sparse in some basis", True, why, (command,), question)


def _measured(sights: list[Sight]) -> Advice | None:
    sight = sights[0]
    numeric = [c for c in sight.table if not c.words and not c.holes]
    if len(sights) > 1 or sight.kind != "table" or not sight.header or len(numeric) < 2 or sight.rows < 10:
        return None
    command = (
        f"thalweg search {_words(sights)} --sparsity 2 --eps 0.1 -- ./MEASURE.sh {{{numeric[0].name}}} ..."
    )
    question = "Is a row a recipe that can still be measured, at a price, and is the best one wanted?"
    return Advice(("17",), "a search among recipes", True, f"{sight.rows} rows.", (command,), question)


Rule = Callable[[list[Sight]], Advice | None]
#: In the order in which they are told.
RULES: tuple[Rule, ...] = (
    _sequences,
    _networks,
    _instances,
    _ratings,
    _adapted,
    _clouds,
    _linear,
    _regression,
    _groups,
    _norms,
    _times,
    _game,
    _stream,
    _widths,
    _measured,
)


def refuse_nothing(sights: Sequence[Sight], found: Sequence[Advice]) -> None:
    """Refuse files of which nothing is known, in a line that says how to go on.

    Raises:
        UnreadableFile: no rule has a word for them.
    """
    if not found:
        listed = ", ".join(str(sight.path) for sight in sights)
        raise UnreadableFile(
            f"Nothing here takes {listed} as they are. `thalweg find WORDS` searches by what you have in words."
        )
