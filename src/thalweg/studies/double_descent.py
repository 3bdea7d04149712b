"""25: double descent shows where the optimizer reaches a minimum; conditioning, steps and optimizer act through that.

Liu and Flanigan (2023), "Understanding the role of optimization in double descent" (arXiv 2312.03951). The abstract's
claims on settings of our own: the paper's data sets and sizes are not public in text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from thalweg.datasets import load
from thalweg.landscape.double_descent import (
    CGLS,
    SGD,
    EarlyStopping,
    Exact,
    FeatureModels,
    GradientDescent,
    HeavyBall,
    LastLayer,
    LinearTeacher,
    Networks,
    RandomFeatures,
    Ridge,
    Rows,
    Scan,
    Split,
    Torch,
    descent_map,
    scan,
    two_layer,
)
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Table, Tell
from thalweg.studies.intervals import median, median_interval
from thalweg.studies.verdict import Pair, Relation, Verdict

Array = NDArray[np.float64]

STEPS = (100, 1000, 10_000, 100_000, 1_000_000)
#: Hidden units of the two-layer networks; all rows can be fitted from 14 on.
HIDDEN = (4, 12, 24, 128)


@dataclass(frozen=True)
class Size:
    """Rows to train on, seeds, steps of the optimizers that race, of the networks, and their seeds."""

    rows: int
    seeds: int
    steps: int
    network: int
    networks: int


SIZES: dict[Scale, Size] = {
    "smoke": Size(30, 2, 200, 20, 2),
    "quick": Size(100, 5, 2000, 1000, 5),
    "full": Size(100, 20, 2000, 3000, 8),
}


def near(rows: int) -> list[int]:
    """Widths between half the rows and twice."""
    return [round(rows * share) for share in (0.5, 0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0)]


def grid(rows: int) -> list[int]:
    """Two narrow widths, those near the threshold, and eight times the rows."""
    return [round(rows * share) for share in (0.2, 0.4)] + near(rows) + [8 * rows]


def ratios(test: Array) -> Array:
    """The largest error of widths near the threshold over the widest one's: errors (widths of `grid`, seeds)."""
    return np.asarray(test[2:-1].max(0) / test[-1])


def rises(test: Array) -> Array:
    """The same over the least error of the two narrow widths: below 1 the error only falls."""
    return np.asarray(test[2:-1].max(0) / test[:2].min(0))


def errors(found: Scan) -> Array:
    """Test errors, (widths, seeds)."""
    return np.array([m.test for m in found.measured])


def optimizers() -> dict[str, tuple[LastLayer, float]]:
    """Who races at the threshold, and its share of the steps."""
    return {
        "gradient descent, step 0.1": (GradientDescent(0.1), 1.0),
        "gradient descent, step 1": (GradientDescent(1.0), 1.0),
        "gradient descent, step 1.9": (GradientDescent(1.9), 1.0),
        "momentum 0.9": (HeavyBall(1.0, 0.9), 1.0),
        "momentum 0.99": (HeavyBall(1.0, 0.99), 1.0),
        "Adam, rate 0.001": (Torch(lambda p: torch.optim.Adam(p, lr=1e-3)), 1.0),
        "Adam, rate 0.1": (Torch(lambda p: torch.optim.Adam(p, lr=0.1)), 1.0),
        "SGD, batch 1": (SGD(1), 1.0),
        "SGD, batch 10": (SGD(10), 1.0),
        "conjugate gradients, few": (CGLS(), 0.01),
        "conjugate gradients": (CGLS(), 0.1),
    }


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    table: Table = []
    tell(0.0, "steps and the exact solution")
    verdicts, figure = _steps(size, table)
    tell(0.2, "conditioning")
    verdicts += _conditioning(size, table)
    tell(0.3, "optimizers at the threshold")
    more, scatter = _optimizers(size, table)
    tell(0.5, "controls")
    verdicts += [*more, *_controls(size, table), *_real(size, table)]
    tell(0.6, "two-layer networks")
    more, networks = _networks(size, table)
    notes = (
        "A ratio is the largest test error at widths from half the rows to twice over that at eight times the rows; a "
        "rise is the same over the least error of narrower widths, and only above 1 there is a peak. "
        "Errors are those of noiseless targets. Nothing was tuned."
    )
    return Evidence([*verdicts, *more], table, [figure, scatter, networks], notes=notes)


def _teacher(size: Size) -> LinearTeacher:
    return LinearTeacher(size.rows, columns=20 if size.rows >= 100 else 6)


def _verdict(claim: str, values: Array, required: float | Pair, relation: Relation) -> Verdict:
    return Verdict(claim, median(values), required, relation, median_interval(values))


def _steps(size: Size, table: Table) -> tuple[list[Verdict], Figure]:
    """Claims A and B: the exact solution peaks at the threshold, gradient descent only after many steps."""
    n = size.rows
    widths = grid(n)
    found = descent_map(RandomFeatures(), _teacher(size), widths, STEPS, seeds=size.seeds)
    exact = _scanned(Exact(), size, widths)
    by_steps = {T: ratios(found.test[:, 0, j]) for j, T in enumerate(STEPS)}
    series = [Series("exact", [float(w) for w in widths], exact.test.tolist())]
    for j, T in enumerate(STEPS):
        table.append(
            {
                "setting": f"{T} steps",
                "train at the threshold": float(np.median(found.train[widths.index(n), 0, j])),
                "ratio": median(by_steps[T]),
            }
        )
        series.append(
            Series(f"{T} steps", [float(w) for w in widths], np.median(found.test[:, 0, j], -1).tolist())
        )
    table.append(
        {
            "setting": "exact",
            "train at the threshold": float(exact.train[widths.index(n)]),
            "ratio": exact.ratio,
        }
    )
    growth = np.array([median(by_steps[T]) for T in STEPS])
    figure = Figure(
        "Steps of gradient descent",
        f"Random ReLU features, {n} rows; medians over {size.seeds} seeds.",
        "width",
        "test error",
        series,
        log_x=True,
        log_y=True,
    )
    return [
        Verdict("exact: width of the peak over the rows", exact.peak_width / n, (0.95, 1.05), "within"),
        _verdict("exact: ratio", ratios(errors(exact)), 20.0, ">="),
        _verdict("100 steps: ratio", by_steps[100], 2.5, "<="),
        _verdict("100 steps: rise", rises(found.test[:, 0, 0]), 1.2, "<="),
        _verdict("100 000 steps: ratio", by_steps[100_000], 10.0, ">="),
        Verdict(
            "least growth of the ratio by ten times the steps, from 1000 on",
            float((growth[2:] / growth[1:-1]).min()),
            1.0,
            ">=",
        ),
    ], figure


def _scanned(
    optimizer: LastLayer, size: Size, widths: Sequence[int], steps: int = 10_000, **options: Any
) -> Scan:
    features = options.pop("features", RandomFeatures())
    family = FeatureModels(features, optimizer, **options)
    return scan(family, _teacher(size), widths, steps=steps, seeds=size.seeds, effects=False)


def _conditioning(size: Size, table: Table) -> list[Verdict]:
    """Claim C: after as many steps, better conditioned features have the higher peak, worse ones the lower."""
    widths = grid(size.rows)
    kinds = {
        "as they are": RandomFeatures(),
        "centred": RandomFeatures(centred=True),
        "Fourier": RandomFeatures("fourier"),
        "inputs spread 30 times": RandomFeatures(spread=30.0),
    }
    found = {}
    for name, features in kinds.items():
        scanned = _scanned(GradientDescent(), size, widths, features=features)
        found[name] = ratios(errors(scanned))
        conditions = scanned.measured[widths.index(size.rows)].conditions
        table.append(
            {
                "setting": f"features {name}, 10000 steps",
                "train at the threshold": float(scanned.train[widths.index(size.rows)]),
                "ratio": median(found[name]),
                "condition at the threshold": float(np.median([c.number for c in conditions])),
            }
        )
    plain = found["as they are"]
    return [
        _verdict(
            "10 000 steps: ratio with centred features / as they are", found["centred"] / plain, 1.5, ">="
        ),
        _verdict(
            "10 000 steps: ratio with features as they are / inputs spread 30 times",
            plain / found["inputs spread 30 times"],
            1.5,
            ">=",
        ),
    ]


def _optimizers(size: Size, table: Table) -> tuple[list[Verdict], Figure]:
    """Claims D and E: whoever reaches the lower training error has the larger test error at the threshold."""
    widths = [size.rows, 8 * size.rows] if size.seeds > 5 else [size.rows]
    train, test = [], []
    for name, (optimizer, share) in optimizers().items():
        found = _scanned(optimizer, size, widths, max(1, round(share * size.steps)))
        train.append(found.measured[0].train)
        test.append(found.measured[0].test)
        table.append(
            {
                "setting": name,
                "train at the threshold": float(found.train[0]),
                "test at the threshold": float(found.test[0]),
                "test at 8 times": float(found.test[-1]) if len(widths) > 1 else None,
            }
        )
    reached, judged = np.array(train), np.array(test)  # (settings, seeds)
    law = np.array([spearmanr(reached[:, k], judged[:, k]).statistic for k in range(size.seeds)])
    figure = Figure(
        "Whoever reaches the minimum pays at the threshold",
        "A dot for each optimizer, medians over the seeds.",
        "training error",
        "test error",
        [
            Series(name, [float(np.median(a))], [float(np.median(b))], dots=True)
            for name, a, b in zip(optimizers(), reached, judged, strict=True)
        ],
        log_x=True,
        log_y=True,
    )
    claim = f"Spearman of training and test error at the threshold over {len(reached)} optimizers"
    return [_verdict(claim, law, -0.8, "<=")], figure


def _controls(size: Size, table: Table) -> list[Verdict]:
    """Claim F: ridge regression and early stopping show no peak; a large start adds error to wide models."""
    widths = grid(size.rows)
    found: dict[str, Scan] = {
        "ridge by leave-one-out": _scanned(Ridge(), size, widths),
        "early stopping": _scanned(EarlyStopping(), size, widths),
        "gradient descent": _scanned(GradientDescent(), size, widths),
        "gradient descent from a start of size 3": _scanned(GradientDescent(), size, widths, start=3.0),
    }
    tests = {name: errors(s) for name, s in found.items()}
    table += [
        {
            "setting": name,
            "ratio": median(ratios(v)),
            "rise": median(rises(v)),
            "test at 8 times": median(v[-1]),
        }
        for name, v in tests.items()
    ]
    added = tests["gradient descent from a start of size 3"][-1] / tests["gradient descent"][-1]
    return [
        _verdict("ridge by leave-one-out: rise", rises(tests["ridge by leave-one-out"]), 1.2, "<="),
        _verdict("early stopping: rise", rises(tests["early stopping"]), 1.2, "<="),
        _verdict("test error at 8 times the rows, start of size 3 / 0", added, 2.0, ">="),
    ]


def _real(size: Size, table: Table) -> list[Verdict]:
    """Real tables: trained to the minimum they peak; with early stopping or ridge regression they do not."""
    widths = grid(size.rows)
    peaks, kept = [], []
    for name, X, y in _tables():
        data = Split(X, y, size.rows)
        found = {
            label: scan(
                FeatureModels(RandomFeatures(), o),
                data,
                widths,
                steps=100_000,
                seeds=size.seeds,
                effects=False,
            )
            for label, o in (("exact", Exact()), ("early stopping", EarlyStopping()), ("ridge", Ridge()))
        }
        table += [
            {"setting": f"{name}, {label}", "ratio": s.ratio, "rise": s.rise} for label, s in found.items()
        ]
        tests = {label: errors(s) for label, s in found.items()}
        peaks.append(ratios(tests["exact"]))
        kept.append(np.maximum(rises(tests["early stopping"]), rises(tests["ridge"])))
    return [
        _verdict("real tables, exact: least ratio of 3", np.min(peaks, axis=0), 5.0, ">="),
        _verdict("real tables, early stopping or ridge: largest rise of 3", np.max(kept, axis=0), 1.2, "<="),
    ]


def _tables() -> list[tuple[str, Array, Array]]:
    found = []
    for name in ("diabetes", "breast_cancer", "digits"):
        data = load(name)
        X, y = np.asarray(data.X, dtype=np.float64), np.asarray(data.y, dtype=np.float64)
        X = (X - X.mean(0)) / np.maximum(X.std(0), 1e-12)
        target = np.eye(10)[y.astype(int)] if name == "digits" else (y - y.mean()) / y.std()
        found.append((name, X, target))
    return found


@dataclass(frozen=True)
class WrongDigits:
    """A hundred digits to train on, a fifth of them with a wrong label, in one-hot targets; the rest to judge by."""

    rows: int = 100
    wrong: float = 0.2

    def __call__(self, seed: int) -> Rows:
        data = load("digits")
        X, labels = np.asarray(data.X, dtype=np.float64) / 16.0, np.asarray(data.y).astype(int)
        rng = np.random.default_rng((seed, 0x25))
        order = rng.permutation(len(labels))
        train, test = order[: self.rows], order[self.rows :]
        given = labels[train]
        flipped = rng.permutation(self.rows)[: round(self.wrong * self.rows)]
        given[flipped] = (given[flipped] + rng.integers(1, 10, len(flipped))) % 10
        return Rows(X[train], np.eye(10)[given], X[test], np.eye(10)[labels[test]])


def _networks(size: Size, table: Table) -> tuple[list[Verdict], Figure]:
    """Claim G: two-layer networks peak when trained by Adam, and do not by as many steps of SGD."""
    makers: Mapping[str, Any] = {
        "Adam": lambda p: torch.optim.Adam(p, lr=1e-2),
        "SGD": lambda p: torch.optim.SGD(p, lr=0.02),
    }
    found, series = {}, []
    for name, optimizer in makers.items():
        family = Networks(lambda width: two_layer(64, width, 10), optimizer)
        scanned = scan(family, WrongDigits(), HIDDEN, steps=size.network, seeds=size.networks)
        found[name] = errors(scanned)
        series.append(Series(name, [float(h) for h in HIDDEN], scanned.test.tolist()))
        table += [
            {"setting": f"two layers, {name}, {h} hidden", "train": float(a), "test": float(b)}
            for h, a, b in zip(HIDDEN, scanned.train, scanned.test, strict=True)
        ]
    figure = Figure(
        "Two-layer networks on digits",
        f"A hundred rows, a fifth of the labels wrong, {size.network} steps; medians over {size.networks} seeds.",
        "hidden units",
        "test error",
        series,
        log_x=True,
        log_y=True,
    )
    peak, fall = ((found[name][1:3].max(0) / found[name][end]) for name, end in (("Adam", 3), ("SGD", 0)))
    name = f"two layers, {size.network} steps: test error at 12 or 24 hidden units"
    return [
        _verdict(f"{name} / 128, Adam", peak, 1.7, ">="),
        _verdict(f"{name} / 4, SGD", fall, 1.15, "<="),
    ], figure
