"""What one table, matrix or list of examples may be."""

from __future__ import annotations

import shlex

from thalweg.workbench.advice.kinds import TARGETS, Advice, words_of
from thalweg.workbench.advice.sight import Column, Sight

#: Words that columns of one meaning are called by.
SCORES = ("score", "fitness", "activity", "y", "target", "value", "log", "binding", "affinity", "signal")
NORMS = ("l1", "l2", "norm", "grad", "gradient")
TIMES = ("time", "second", "delay", "latency", "duration", "client", "worker")


def _target(sight: Sight) -> Column | None:
    """The column that is called as targets are; else the last."""
    named = [c for c in sight.table if c.name.lower() in TARGETS]
    return named[0] if named else (sight.table[-1] if sight.table else None)


def regression(sights: list[Sight]) -> Advice | None:
    """Features with a target."""
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
    words = f"{words_of(sights)} {shlex.join(options)}"
    known = sight.kind == "examples" or target.name.lower() in TARGETS
    question = "" if known else f"Is {target.name!r} what is to be predicted from the other columns?"
    commands = (f"thalweg solve convex {words} --out x.npy", f"thalweg compare convex {words}")
    return Advice(systems, what, True, why, commands, question, ("convex", str(sight.path), *options))


def groups(sights: list[Sight]) -> Advice | None:
    """A table with a target and columns of few values."""
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
    words = f"{words_of(sights)} --target {shlex.quote(target.name)} --groups {shlex.quote(names)}"
    commands = (f"thalweg solve online {words} --report page.html", f"thalweg compare online {words}")
    listed = " and ".join(f"{c.name!r} ({c.distinct} values)" for c in groups[:2])
    question = (
        f"Do the rows come one by one, is {target.name!r} seen after each, and must no group be worse off than with a "
        "model of its own?"
    )
    return Advice(systems, what, True, f"{sight.rows} rows in groups: {listed}.", commands, question)


def widths(sights: list[Sight]) -> Advice | None:
    """Features with a target, for models of any width."""
    fit = regression(sights)
    if fit is None or not fit.fits or not fit.compared or sights[0].rows < 20:
        return None
    target = _target(sights[0])
    own = f" --target {shlex.quote(target.name)}" if target is not None and sights[0].kind == "table" else ""
    command = f"thalweg double-descent {words_of(sights)}{own} --report page.html"
    question = "Do you fear that a wider model is worse?"
    return Advice(("25",), "the width of a model", True, "Features with a target.", (command,), question)


def sequences(sights: list[Sight]) -> Advice | None:
    """A column of sequences with one of scores."""
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
    words = f"{words_of(sights)} --alphabet {alphabet}"
    command = f"thalweg solve design {words} --propose 128 --out designs.csv --report page.html"
    named = next((c for c in scores if any(w in c.name.lower() for w in SCORES)), scores[0])
    question = f"Is {named.name!r} a score, the larger the better, and can no more be measured for now?"
    return Advice(systems, what, True, f"{sight.rows} sequences of {least} letters.", (command,), question)


def norms(sights: list[Sight]) -> Advice | None:
    """Numbers above zero, one a step."""
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
    command = f"thalweg schedule refine {words_of(sights)} --geometry {geometry}{column} --plot page.html"
    question = "" if named else "Are these the gradient norms of a training run, step by step?"
    return Advice(
        ("07",),
        "a schedule from gradient norms",
        True,
        f"{size if vector else sight.rows} numbers above zero.",
        (command,),
        question,
    )


def times(sights: list[Sight]) -> Advice | None:
    """A table of seconds."""
    sight = sights[0]
    if len(sights) > 1 or not sight.is_numeric or sight.negative or sight.columns < 2 or sight.rows < 2:
        return None
    named = [c for c in sight.table if any(w in c.name.lower() for w in TIMES)]
    if not named and not (sight.table and all(c.positive for c in sight.table)):
        return None
    words = words_of(sights)
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


def stream(sights: list[Sight]) -> Advice | None:
    """Rows of many numbers."""
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
    command = f"thalweg dictionary {words_of(sights)} --out basis.npz"
    question = "Is a row one reading of all sensors, or one patch, and do you look for patterns in them?"
    why = f"{sight.rows} rows of {sight.columns} numbers."
    return Advice(("28",), "readings that are sparse in some basis", True, why, (command,), question)


def recipes(sights: list[Sight]) -> Advice | None:
    """A table whose rows may be measured."""
    sight = sights[0]
    numeric = [c for c in sight.table if not c.words and not c.holes]
    if len(sights) > 1 or sight.kind != "table" or not sight.header or len(numeric) < 2 or sight.rows < 10:
        return None
    command = (
        f"thalweg search {words_of(sights)} --sparsity 2 --eps 0.1 -- ./MEASURE.sh {{{numeric[0].name}}} ..."
    )
    question = "Is a row a recipe that can still be measured, at a price, and is the best one wanted?"
    return Advice(("17",), "a search among recipes", True, f"{sight.rows} rows.", (command,), question)
