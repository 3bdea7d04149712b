"""The code chosen on the way: probe uncoded, plan, train, and again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.core import Method
from thalweg.core.validation import require, require_positive
from thalweg.distributed.coding.replay import plan
from thalweg.distributed.coding.schemes import GradientCoding, Multiplexed, Scheme, SelectiveRepeat, Uncoded
from thalweg.distributed.coding.stragglers import DelayProfile
from thalweg.distributed.coding.training import Cluster, CodedState, CodedTraining, DataParallel

KINDS: dict[str, type[Scheme]] = {
    k.__name__: k for k in (Uncoded, GradientCoding, SelectiveRepeat, Multiplexed)
}


@dataclass(kw_only=True)
class SelectedState(CodedState):
    """That of `CodedTraining`, and of the choice."""

    kind: str = "Uncoded"  # of the scheme at work
    parameters: tuple[int, ...] = ()  # the scheme's
    left: int = 0  # rounds that it has to go
    seen: NDArray[np.float64]  # (rounds, workers) seconds of this probe


@dataclass(frozen=True)
class SelectedCoding(Method[DataParallel, SelectedState]):
    """`CodedTraining` whose scheme is chosen by `plan` from rounds that it probes uncoded, and chosen again on the way.

    Every ``keep`` rounds ``probe`` rounds are uncoded: their times make a profile, on which every setting of GC,
    SR-SGC, M-SGC and uncoded is replayed, and the fastest trains until the next probe. Jobs under way at a change
    begin again; gradients stay exact. As many models are trained at once as the longest delay asks for.

    Args:
        workers: n.
        cluster: the engine.
        slope: seconds that one worker needs for all the data, beside a round's fixed costs (`fit_slope`).
        probe, keep: rounds; default 20 and 200.
        bursts, window: the longest B and W that are tried.
        lr, momentum, mu: as of `CodedTraining`.

    The metrics are those of `CodedTraining`, and ``load``, the scheme's.

    Source: Krishnan Ramkumar and others (2023), section 4.3.

    >>> from thalweg import Stop, solve
    >>> from thalweg.distributed.coding import VirtualCluster
    >>> X = torch.arange(8.0)[:, None] / 8
    >>> line = DataParallel(lambda: torch.nn.Linear(1, 1), lambda out, y: ((out[:, 0] - y) ** 2).sum(), X, 2 * X[:, 0])
    >>> late = np.tile(1.0 + 9.0 * np.eye(4), (75, 1))  # one straggler a round
    >>> cluster = VirtualCluster(DelayProfile(late, slope=0.5))
    >>> method = SelectedCoding(4, cluster, slope=0.5, probe=10, keep=40, lr=0.5)
    >>> loads = solve(line, method, stop=Stop(steps=60)).history["load"]
    >>> float(loads[0]), bool(loads[20] > 0.25)
    (0.25, True)
    """

    workers: int
    cluster: Cluster
    slope: float
    probe: int = 20
    keep: int = 200
    bursts: int = 2
    window: int = 4
    lr: float = 0.1
    momentum: float = 0.0
    mu: float = 0.2

    def __post_init__(self) -> None:
        require(self.workers >= 2, "SelectedCoding needs workers >= 2", got=self.workers)
        require_positive(self, "slope", zero=True)
        require(
            self.probe >= 2 and self.keep >= 1,
            "SelectedCoding needs probe >= 2, keep >= 1",
            got=(self.probe, self.keep),
        )
        require(
            1 <= self.bursts < self.window,
            "SelectedCoding needs 1 <= bursts < window",
            got=(self.bursts, self.window),
        )
        self._training(Uncoded(self.workers))  # refuses rates that are out of range

    def _training(self, scheme: Scheme) -> CodedTraining:
        return CodedTraining(scheme, self.cluster, self.lr, self.momentum, self.mu)

    def _scheme(self, state: SelectedState) -> Scheme:
        return KINDS[state.kind](self.workers, *state.parameters)

    def init(self, problem: DataParallel, seed: int) -> SelectedState:
        count = self.window - 1 + self.bursts  # M-SGC's delay is W - 2 + B
        models = torch.stack([problem.start(seed + k) for k in range(count)])
        metrics = problem.metrics(models[0]) | {"seconds": 0.0, "late": 0.0, "jobs": 0.0, "faults": 0.0}
        state = SelectedState(
            x=models[0].clone(),
            metrics=metrics | {"load": Uncoded(self.workers).load},
            models=models,
            velocity=torch.zeros_like(models),
            seen=np.empty((0, self.workers)),
        )
        return self._probing(problem, state)

    def _probing(self, problem: DataParallel, state: SelectedState) -> SelectedState:
        self.cluster.begin(problem, Uncoded(self.workers))
        return replace(
            state,
            kind="Uncoded",
            parameters=(),
            left=self.probe,
            master=None,
            seen=np.empty((0, self.workers)),
        )

    def step(self, problem: DataParallel, state: SelectedState) -> SelectedState:
        if state.left == 0:
            state = self._chosen(problem, state) if len(state.seen) else self._probing(problem, state)
        elif state.master is None and state.round:
            self.cluster.begin(problem, self._scheme(state))  # resumed
        scheme = self._scheme(state)
        done = self._training(scheme).step(problem, state)
        seen = state.seen
        if isinstance(scheme, Uncoded) and done.arrived is not None:
            row = np.nan_to_num(done.arrived, nan=done.seconds - state.seconds)
            seen = np.vstack([seen, row])[-self.probe :]
        return replace(done, metrics={**done.metrics, "load": scheme.load}, left=state.left - 1, seen=seen)

    def _chosen(self, problem: DataParallel, state: SelectedState) -> SelectedState:
        profile = DelayProfile(state.seen, slope=self.slope)
        best = plan(profile, self.mu, most_B=self.bursts, most_W=self.window).best
        parameters = {
            "Uncoded": (),
            "GradientCoding": ("s",),
            "SelectiveRepeat": ("B", "W", "lam"),
            "Multiplexed": ("B", "W", "lam"),
        }[type(best).__name__]
        self.cluster.begin(problem, best)
        return replace(
            state,
            kind=type(best).__name__,
            parameters=tuple(int(getattr(best, k)) for k in parameters),
            left=self.keep,
            master=None,
            seen=np.empty((0, self.workers)),
        )
