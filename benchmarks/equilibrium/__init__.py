"""22: matrix games to a residual of 1e-4, against HiGHS, extragradient and restarted PDHG on the same operators."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import linprog

from benchmarks.race import Row
from thalweg.core import Stop, solve
from thalweg.equilibrium import (
    PDHG,
    Extragradient,
    InexactHalpern,
    VRExtragradient,
    matrix_game,
    nemirovski,
    policeman_and_burglar,
    random_game,
)

RESIDUAL, MOST = 1e-4, 10.0


def rows() -> Iterator[Row]:
    """Every method of ours against HiGHS; accuracy is the duality gap. A run is given ten seconds."""
    for side in (100, 1000):
        for name, A in (
            ("random", random_game(side, side)),
            ("policeman", policeman_and_burglar(side)),
            ("Nemirovski", nemirovski(side, alpha=2.0)),
        ):
            start = time.perf_counter()
            exact = _highs(A)
            seconds = time.perf_counter() - start
            game = matrix_game(A)
            gap = game.metrics(exact)["gap"]
            stop = Stop(below={"residual": RESIDUAL}, seconds=MOST, steps=None)
            for method in (
                PDHG(),
                Extragradient(),
                VRExtragradient(restart=0.5),
                InexactHalpern(restart=0.5),
            ):
                found = solve(game, method, stop=stop, progress=False)
                told = (
                    f"{name} game, {side} x {side}, {method.name}, residual {found.metrics['residual']:.1e}"
                )
                yield Row("22", told, found.seconds, "HiGHS", seconds, found.metrics["gap"], gap)


def _highs(A: torch.Tensor) -> torch.Tensor:
    """Both strategies, by the row player's linear program and its multipliers."""
    m, n = A.shape
    found = linprog(
        np.r_[np.zeros(m), 1.0],
        A_ub=np.c_[A.numpy().T, -np.ones(n)],
        b_ub=np.zeros(n),
        A_eq=np.r_[np.ones(m), 0.0][None],
        b_eq=[1.0],
        bounds=[(0, None)] * m + [(None, None)],
        method="highs",
    )
    return torch.tensor(np.r_[found.x[:m], -found.ineqlin.marginals])
