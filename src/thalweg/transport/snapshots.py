"""A population seen at several times, no member twice: does a bridge know what is between?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_finite, is_whole, require
from thalweg.numerics.scaling import balancing
from thalweg.transport.estimator import LightBridge

Array = NDArray[np.float64]


def earth_mover(x: ArrayLike, y: ArrayLike, most: int = 1000, seed: int = 0) -> float:
    """The mean distance by which the points of one sample move onto those of the other, at best (W1).

    Args:
        x, y: shapes (n, D) and (m, D). As many of each are drawn without replacement: ``min(n, m, most)``.
        most: points compared; the assignment takes ``O(most^3)``.

    Samples of one law have a distance above zero, the more so in many dimensions: compare with that of two halves.

    >>> earth_mover([[0.0], [1.0]], [[3.0], [2.0]])
    2.0
    """
    first, second = (_cloud(name, value) for name, value in (("x", x), ("y", y)))
    if first.shape[1] != second.shape[1]:
        raise InvalidProblem(
            f"earth_mover: x has {first.shape[1]} columns and y {second.shape[1]}; expected the same."
        )
    require(is_whole(most) and most >= 1, "earth_mover needs most >= 1", got=most)
    count, drawn = min(len(first), len(second), most), generator(seed, 0x19)
    some = [z[drawn.permutation(len(z))[:count]] if len(z) > count else z for z in (first, second)]
    power = balancing(np.concatenate(some))
    cost = cdist(np.ldexp(some[0], -power), np.ldexp(some[1], -power))
    return math.ldexp(float(cost[linear_sum_assignment(cost)].mean()), power)


def leave_one_time_out(
    snapshots: Sequence[ArrayLike],
    times: Sequence[float] | None = None,
    *,
    most: int = 500,
    seed: int = 0,
    **options: Any,  # noqa: ANN401
) -> pd.DataFrame:
    """How far a bridge between a time's neighbours passes from what was seen at that time, and what else does.

    Args:
        snapshots: clouds of points in the order of time, shape (n_i, D) each, three or more. Nothing pairs them.
        times: when they were seen, rising. Default evenly.
        most: points compared, see `earth_mover`.
        seed: of draws and fits.
        **options: of `LightBridge`; ``eps`` is best given in the units of one unit of time: it is multiplied by the
            time between the neighbours.

    Returns:
        A row for each time but the first and the last, with `earth_mover` distances to what was seen then: ``bridge``;
        ``line``, points on the straight lines of random pairs; ``before`` and ``after``, the neighbours as they are;
        ``same``, between two halves of what was seen, of a law with itself.

    Raises:
        InvalidProblem: fewer than three snapshots, times that do not rise, other columns.

    >>> rng = np.random.default_rng(0)
    >>> series = [rng.standard_normal((200, 2)) * 0.1 + 3 * t for t in range(4)]
    >>> table = leave_one_time_out(series, n_components=3, steps=200)
    >>> list(table.time), bool((table.bridge < table.before).all())
    ([1.0, 2.0], True)
    """
    clouds = [_cloud(f"snapshot {k}", cloud) for k, cloud in enumerate(snapshots)]
    if len(clouds) < 3:
        raise InvalidProblem(f"leave_one_time_out needs three snapshots or more; got {len(clouds)}.")
    widths = sorted({cloud.shape[1] for cloud in clouds})
    if len(widths) > 1:
        raise InvalidProblem(f"Snapshots have {' and '.join(map(str, widths))} columns; expected the same.")
    when = np.arange(float(len(clouds))) if times is None else as_real("times", times)
    if when.shape != (len(clouds),) or not np.isfinite(when).all() or not (np.diff(when) > 0).all():
        raise InvalidProblem(f"times: expected {len(clouds)} rising numbers; got {times!r}.")
    eps, rows = options.pop("eps", "auto"), []
    for k in range(1, len(clouds) - 1):
        before, seen, after = clouds[k - 1 : k + 2]
        span = float(when[k + 1] - when[k - 1])
        share, drawn = float(when[k] - when[k - 1]) / span, generator(seed, 0x19, k)
        model = LightBridge(eps if eps == "auto" else eps * span, random_state=seed, **options)
        model.fit(before, after)
        start = before[drawn.integers(len(before), size=len(seen))]
        end = after[drawn.integers(len(after), size=len(seen))]
        half = drawn.permutation(len(seen))
        clouds_there = {
            "bridge": model.interpolate(start, share, random_state=seed),
            "line": (1 - share) * start + share * end,
            "before": before,
            "after": after,
        }
        told = {name: earth_mover(cloud, seen, most, seed) for name, cloud in clouds_there.items()}
        told["same"] = earth_mover(seen[half[::2]], seen[half[1::2]], most, seed)
        rows.append({"time": float(when[k]), **told})
    return pd.DataFrame(rows)


def _cloud(name: str, values: ArrayLike) -> Array:
    found = as_real(name, values)
    if found.ndim != 2 or len(found) < 2:
        raise InvalidProblem(f"{name} has shape {found.shape}; expected (points, dimensions), two or more.")
    check_finite(name, found)
    return found
