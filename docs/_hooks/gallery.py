"""The front page's gallery: a card for each system, from its recorded evidence and the example of its docstring.

mkdocs calls `on_page_markdown`, which puts the cards in the place of ``PLACE`` on a page.
"""

from __future__ import annotations

import base64
import doctest
import importlib
import inspect
from html import escape
from pathlib import Path

from thalweg.catalogue import SYSTEMS, System
from thalweg.needs import NEEDS
from thalweg.workbench import Record, read_recorded
from thalweg.workbench.page import counted
from thalweg.workbench.thumbnail import thumbnail

PLACE = "<!-- the gallery -->"
ROOT = Path(__file__).parent.parent.parent
#: For each system the class or function whose example is shown, and the page of the guide.
SHOWN = {
    "01": ("adaptation.AdaptedClassifier", "adaptation"),
    "02": ("linear.SequenceSolver", "linear"),
    "03": ("linear.MultigridCycle", "grids"),
    "04": ("constrained.SketchedNewton", "constrained"),
    "05": ("blackbox.design.SequenceDesign", "design"),
    "06": ("bilevel.Penalty", "bilevel"),
    "07": ("training.RefinedSchedule", "training"),
    "08": ("training.TargetSurrogate", "training"),
    "09": ("online.MagnitudeReduced", "online"),
    "10": ("convex.BlockCoordinateDescent", "convex"),
    "11": ("training.REX", "training"),
    "12": ("training.LionK", "training"),
    "13": ("bilevel.custom_root", "bilevel"),
    "14": ("workflow.optimizers.PatternSearch", "workflow"),
    "15": ("matrix.MatrixCompletion", "matrix"),
    "16": ("distributed.federated.Federation", "distributed"),
    "17": ("online.LazyElimination", "online"),
    "18": ("blackbox.Study", "blackbox"),
    "19": ("transport.LightBridge", "transport"),
    "20": ("distributed.coding.CodedTraining", "distributed"),
    "21": ("convex.polish", "relu"),
    "22": ("equilibrium.VRHalpern", "equilibrium"),
    "23": ("distributed.zeroth_order.FZooS", "distributed"),
    "24": ("online.GroupwiseRegressor", "online"),
    "25": ("landscape.double_descent.scan", "landscape"),
    "26": ("bilevel.selftuning.self_tuning", "selftuning"),
    "27": ("training.Lion", "training"),
    "28": ("matrix.OnlineDictionary", "dictionary"),
    "29": ("landscape.permutation.WeightMatching", "landscape"),
    "30": ("robust.TwoStageRobust", "robust"),
    "31": ("bilevel.BOREP", "bilevel"),
    "32": ("landscape.interpolate", "landscape"),
    "33": ("bilevel.alignment.APARL", "alignment"),
    "34": ("inverse.DDS", "inverse"),
    "35": ("training.AutoLRS", "training"),
}


def example(export: str) -> str:
    """The example of a docstring as a program, with what it prints as comments."""
    package, _, name = export.rpartition(".")
    text = inspect.getdoc(getattr(importlib.import_module(f"thalweg.{package}"), name)) or ""
    lines = []
    for part in doctest.DocTestParser().get_examples(text):
        lines += part.source.splitlines()
        lines += [f"# {line}" for line in part.want.splitlines()]
    return "\n".join(lines)


def card(system: System, record: Record | None) -> str:
    """A system: its picture, what you have who needs it, its outcomes, and its lines of code."""
    export, page = SHOWN[system.number]
    code = example(export).replace("\n", "\n    ")
    return (
        f'<div class="card" markdown="1">\n{_picture(record)}\n\n'
        f"**[{system.number} {system.title}](guide/{page}.md)**\n\n"
        f"You have {NEEDS[system.number].have}.\n\n{_outcomes(record)}\n\n"
        f'??? example "{export.rpartition(".")[2]}"\n    ```python\n    {code}\n    ```\n\n</div>\n'
    )


def _picture(record: Record | None) -> str:
    if record is None:
        return ""
    drawn = next(filter(None, map(thumbnail, record.evidence.figures)), "")
    # A picture of its own does not know the page's colours: a grey that light and dark pages bear.
    data = base64.b64encode(drawn.replace("currentColor", "#808890").encode()).decode()
    said = escape(record.evidence.figures[0].title if record.evidence.figures else record.system.title)
    return f'<img alt="{said}" src="data:image/svg+xml;base64,{data}">' if drawn else ""


def _outcomes(record: Record | None) -> str:
    if record is None:
        return (
            '<span class="outcomes">Its claims are run by `thalweg reproduce`; none is recorded yet.</span>'
        )
    parts = [
        f'<span class="{outcome}">{count} {outcome}</span>'
        for outcome, count in counted(record.evidence.verdicts).items()
    ]
    return f'<span class="outcomes">{" ".join(parts)}</span>'


def gallery() -> str:
    """All cards, in catalogue order."""
    recorded = read_recorded(ROOT / "evidence")
    cards = "\n".join(card(system, recorded.get(system.number)) for system in SYSTEMS)
    return f'<div class="gallery" markdown="1">\n\n{cards}\n</div>\n'


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by mkdocs for each page: the gallery where the page asks for it."""
    return markdown.replace(PLACE, gallery()) if PLACE in markdown else markdown
