"""What two files, folders of pictures, weights and texts may be."""

from __future__ import annotations

import shlex

from thalweg.workbench.advice.kinds import TARGETS, Advice, words_of
from thalweg.workbench.advice.sight import Sight


def clouds(sights: list[Sight]) -> Advice | None:
    """Two tables with the same columns."""
    if len(sights) != 2:
        return None
    first, second = sights
    what, systems = "a cloud of points to carry to another", ("19",)
    if first.kind == second.kind == "cells":
        words = words_of(sights)
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
    words = words_of(sights)
    why = f"{first.rows} and {second.rows} points of {first.columns} numbers, unpaired."
    commands = (f"thalweg solve transport {words} --out plan.npz", f"thalweg compare transport {words}")
    question = "Are the rows samples of one thing before and after, which nothing pairs?"
    return Advice(systems, what, True, why, commands, question, ("transport", *(str(s.path) for s in sights)))


def adapted(sights: list[Sight]) -> Advice | None:
    """A table with classes, and one of the same columns."""
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
    words = f"{words_of(sights)}{own}"
    why = f"{label.name!r} has {label.distinct} classes in {source.path.name}."
    question = "Will the classifier be used on rows such as those of the second file?"
    return Advice(systems, what, True, why, (f"thalweg solve adaptation {words} --out labels.csv",), question)


def networks(sights: list[Sight]) -> Advice | None:
    """Files of weights."""
    if not all(sight.kind == "weights" for sight in sights):
        return None
    what, systems = "trained networks to match and merge", ("29", "32")
    if len(sights) != 2:
        return Advice(systems, what, False, f"{len(sights)} networks are given; matching takes two.")
    command = f"thalweg solve landscape {words_of(sights)} --module PACKAGE.MODULE:FUNCTION --out merged.safetensors"
    question = "Have both the same architecture?"
    return Advice(systems, what, True, "Two files of weights.", (command,), question)


def instances(sights: list[Sight]) -> Advice | None:
    """Texts in JSON."""
    if not all(sight.kind == "instance" for sight in sights):
        return None
    words = words_of(sights)
    question = "Does the file hold a two-stage problem: a knapsack, capital budgeting or facility location?"
    return Advice(
        ("30",),
        "a decision before the worst case",
        True,
        "A text in JSON.",
        (f"thalweg solve robust {words}",),
        question,
    )


def pictures(sights: list[Sight]) -> Advice | None:
    """Folders of pictures."""
    if any(sight.kind != "pictures" for sight in sights):
        return None
    what, systems = "labels in one domain, use in another", ("01",)
    first = sights[0]
    if len(first.classes) < 2:
        why = f"{first.path} has no folder for each class; pictures with labels come first."
        return Advice(systems, what, False, why)
    if len(sights) != 2:
        why = "It takes two folders: pictures with labels, and some of where the classifier will be used."
        return Advice(systems, what, False, why)
    why = f"{first.rows} pictures in {len(first.classes)} classes, and {sights[1].rows} others."
    question = "Will the classifier be used on pictures such as those of the second folder?"
    command = f"thalweg solve adaptation {words_of(sights)} --out labels.csv"
    return Advice(systems, what, True, why, (command,), question)


def picture(sights: list[Sight]) -> Advice | None:
    """One picture, as measurements of the one that is wanted."""
    if len(sights) != 1 or sights[0].kind != "picture":
        return None
    what, systems = "an image from incomplete measurements", ("34",)
    if sights[0].has_colour:
        why = "It is in colour; grey pictures are reconstructed. Convert it, or give a channel as .npy."
        return Advice(systems, what, False, why)
    words = words_of(sights)
    commands = (
        f"thalweg solve inverse {words} --operator inpainting --out whole.png",
        f"thalweg solve inverse {words} --operator blur:deviation=1 --out sharp.png",
        f"thalweg solve inverse {words} --operator super:factor=2 --out large.png",
    )
    question = "Has it black holes, is it blurred, or too small? Commands in this order."
    return Advice(systems, what, True, "One grey picture.", commands, question)
