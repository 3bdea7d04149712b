"""05: bidirectional sequence design: better sequences from a table, with a weight that finds the better direction.

Chen, Zhang, Fu, Liu and Coates (2023), "Bidirectional learning for offline model-based biological sequence design"
(arXiv 2301.02931), section 4; judged on tables that are complete.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.blackbox.design import (
    AdaptiveEta,
    BestRows,
    BidirectionalDesign,
    ConservativeAscent,
    EvolvedLetters,
    ImprovementDesign,
    LetterLandscape,
    LetterPolicy,
    MaskedLetters,
    ProxyAscent,
    RandomMutation,
    SequenceTable,
    planted_landscape,
    six6,
    splice_sites,
)
from thalweg.core import Method, solve
from thalweg.studies.contest import Contestant, contest
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Table, Tell
from thalweg.studies.intervals import median, median_interval
from thalweg.studies.verdict import Relation, Verdict

Array = NDArray[np.float64]
OURS = "adaptive"
#: The five of every scale: both directions, both together, and the plainest rival.
MODES: dict[str, Method] = {
    OURS: BidirectionalDesign(),
    "forward": BidirectionalDesign(mode="forward"),
    "backward": BidirectionalDesign(mode="backward"),
    "gamma 0.5": BidirectionalDesign(gamma=0.5),
    "ascent on the ridge": ProxyAscent(),
}
UNTRAINED = "adaptive, encoder untrained"
#: What is raced beside them at full scale.
RIVALS: dict[str, Method] = {
    UNTRAINED: BidirectionalDesign(encoder=MaskedLetters(steps=0)),
    "adaptive, adaptive eta": BidirectionalDesign(step_size=AdaptiveEta()),
    "joint sets": BidirectionalDesign(mode="joint"),
    "ascent on the ensemble": ProxyAscent(on="ensemble"),
    "conservative ascent": ConservativeAscent(),
    "REINFORCE": LetterPolicy(),
    "CMA-ES": EvolvedLetters(),
    "Bayesian optimisation": ImprovementDesign(),
    "random mutation": RandomMutation(),
    "best rows": BestRows(),
}
SPLICE = "splice sites"
#: How much of each landscape is shown: most sequences are no splice sites at all.
LOWEST = {"SIX6": 0.5, "planted": 0.5, SPLICE: 0.85}


@dataclass(frozen=True)
class Size:
    """Rows of a table, designs, judging seeds, which landscapes, whether all rivals race."""

    rows: int
    designs: int
    seeds: int
    names: tuple[str, ...]
    rivals: bool


SIZES: dict[Scale, Size] = {
    "smoke": Size(100, 8, 1, ("SIX6",), False),
    "quick": Size(500, 32, 5, ("SIX6",), False),
    "full": Size(2000, 128, 5, ("SIX6", "planted", SPLICE), True),
}
#: Seeds from here on are judged; nothing was tuned on them.
FIRST = 11


def landscape(name: str, seed: int) -> LetterLandscape:
    """The complete table; the planted one is another for each seed."""
    return {"SIX6": six6, SPLICE: splice_sites}.get(name, lambda: planted_landscape(seed))()


@dataclass(frozen=True)
class Judged:
    """A table with the truth behind it, and what each contestant's designs are truly worth."""

    table: SequenceTable
    truth: LetterLandscape
    rows: Table

    def run(self, name: str, label: str, method: Method, seed: int) -> float:
        """One minus the true median of the designs; the row of the study's table on the way."""
        result = solve(self.table, method, seed=seed, progress=False)
        worth = self.truth(result.x)
        self.rows.append(
            {
                "landscape": name,
                "method": label,
                "seed": seed,
                "median": float(np.median(worth)),
                "best": float(worth.max()),
                "best row": float(self.table.values.max()),
                "distance": result.metrics["distance"],
                "repeated": result.metrics["repeated"],
            }
        )
        return 1 - float(np.median(worth))


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size, table = SIZES[scale], list[dict[str, object]]()
    methods = {**MODES, **(RIVALS if size.rivals else {UNTRAINED: RIVALS[UNTRAINED]})}

    def problem(name: str) -> Callable[[int], Judged]:
        def make(seed: int) -> Judged:
            truth = landscape(name, seed)
            return Judged(truth.offline(size.rows, size.designs, seed, LOWEST[name]), truth, table)

        return make

    def contestant(name: str, label: str, method: Method) -> Contestant[Judged]:
        return lambda judged, seed: judged.run(name, label, method, seed)

    seeds = range(FIRST, FIRST + size.seeds)
    costs: dict[str, dict[str, Array]] = {}
    for k, name in enumerate(size.names):
        grids = {label: {"fixed": contestant(name, label, m)} for label, m in methods.items()}
        found = contest(
            {name: problem(name)},
            grids,
            ours=OURS,
            what="1 - true median",
            judging_seeds=tuple(seeds),
            tell=_part(tell, k, len(size.names)),
        )
        costs[name] = dict(found.scores[name])
    verdicts = [v for name in size.names for v in _verdicts(name, costs[name], table)]
    notes = (
        "Scores lie between 0 and 1; designs are all of a run's, repeats included. A table is rows drawn from the "
        "lowest half of all sequences (of the splice sites, the lowest 85 %); starts are its best. Settings are "
        "the defaults, none was tuned. Adaptive eta has no claim. On splice sites most designs of every method have "
        "the score 0, so that medians tell little apart."
    )
    return Evidence(verdicts, table, [_figure(size.names, costs, methods)], _costs(costs, methods), notes)


def _part(tell: Tell, k: int, parts: int) -> Tell:
    """Tells of one part of several."""
    return lambda share, what: tell((k + share) / parts, what)


def _verdicts(name: str, costs: dict[str, Array], table: Table) -> list[Verdict]:
    """The claims on one landscape, from the true medians, ``1 - cost``."""
    worth = {label: 1 - np.asarray(values) for label, values in costs.items()}
    plain = worth["ascent on the ridge"]
    either = np.maximum(worth["forward"], worth["backward"])
    free = np.maximum(either, worth["gamma 0.5"])
    found = [
        _verdict(
            f"{name}: median, adaptive less the better of forward and backward", worth[OURS] - either, -0.12
        ),
        _verdict(f"{name}: median, adaptive less gamma 0.5", worth[OURS] - worth["gamma 0.5"], 0.0),
        _verdict(
            f"{name}: median, adaptive with a trained encoder less untrained",
            worth[OURS] - worth[UNTRAINED],
            0.1,
        ),
        _verdict(
            f"{name}: median, best of three modes without the ensemble less ascent on the ridge",
            free - plain,
            0.0,
        ),
    ]
    rows = [row for row in table if row["landscape"] == name and row["method"] in MODES]
    seeds = sorted({row["seed"] for row in rows})
    least = np.array([min(r["best"] for r in rows if r["seed"] == seed) for seed in seeds])
    shown = np.array([next(r["best row"] for r in rows if r["seed"] == seed) for seed in seeds])
    found.append(_verdict(f"{name}: best design of the worst of the five modes", least, 0.9))
    found.append(_verdict(f"{name}: the same over the best row of the table", least / shown, 2.0))
    return found


def _verdict(claim: str, values: Array, required: float, relation: Relation = ">=") -> Verdict:
    return Verdict(claim, median(values), required, relation, median_interval(values))


def _figure(names: tuple[str, ...], costs: dict[str, dict[str, Array]], methods: dict[str, Method]) -> Figure:
    places = [float(i) for i in range(len(methods))]
    series = [
        Series(name, places, [1 - median(np.asarray(costs[name][label])) for label in methods])
        for name in names
    ]
    return Figure(
        "What the designs are truly worth",
        "The median of all designs, and of seeds.",
        "method",
        "true score",
        series,
        kind="bars",
        categories=list(methods),
    )


def _costs(costs: dict[str, dict[str, Array]], methods: dict[str, Method]) -> dict[str, object]:
    return {
        "problems": list(costs),
        "methods": {label: [median(np.asarray(costs[name][label])) for name in costs] for label in methods},
    }
