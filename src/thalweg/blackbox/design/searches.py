"""Searches that only ask a model for scores: policy gradients, evolution, Bayesian optimisation, chance, none."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thalweg.blackbox.design.encoders import Encoder
from thalweg.blackbox.design.masked import MaskedLetters
from thalweg.blackbox.design.problem import SequenceTable
from thalweg.blackbox.design.proxy import proxy_of
from thalweg.blackbox.design.space import Codes, nearest, one_hot
from thalweg.blackbox.parameters import Categorical
from thalweg.blackbox.space import Space
from thalweg.blackbox.study import Study
from thalweg.core import InvalidProblem, Method, NotFinite, State, Status
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require

Array = NDArray[np.float64]
#: Numbers of a search distribution up to which `EvolvedLetters` learns their covariance, and not its diagonal alone.
DENSE = 400


@dataclass(kw_only=True)
class SearchState(State):
    """``x`` are the best designs so far by the model, ``values`` what it says of them; ``parts`` the search's own."""

    x: Codes
    values: Array
    parts: dict[str, Array] = field(default_factory=dict)
    seed: int = 0
    steps: int = 0


@dataclass(frozen=True, kw_only=True)
class _ModelSearch(Method[SequenceTable, SearchState]):
    """What searches share: the ridge on an encoder's features scores, the best ``n`` that differ are kept."""

    encoder: Encoder = field(default_factory=MaskedLetters)
    steps: int = 60

    def __post_init__(self) -> None:
        name = type(self).__name__
        require(isinstance(self.encoder, Encoder), f"{name}: encoder is an Encoder", got=self.encoder)
        require(is_whole(self.steps) and self.steps >= 1, f"{name} needs steps >= 1", got=self.steps)

    def init(self, problem: SequenceTable, seed: int) -> SearchState:
        starts = problem.starts()
        values = proxy_of(problem, self.encoder, seed).predict(starts)
        return SearchState(x=starts, values=values, parts=self.begun(problem), seed=seed)

    @abstractmethod
    def begun(self, problem: SequenceTable) -> dict[str, Array]:
        """The search's own numbers before the first step."""

    @abstractmethod
    def searched(
        self, problem: SequenceTable, state: SearchState, score: Callable[[Codes], Array]
    ) -> tuple[Codes, Array, dict[str, Array]]:
        """New designs with their scores, and the search's numbers after the step."""

    def step(self, problem: SequenceTable, state: SearchState) -> SearchState:
        proxy = proxy_of(problem, self.encoder, state.seed)
        codes, values, parts = self.searched(problem, state, proxy.predict)
        every = np.concatenate([state.x, codes])
        told = np.concatenate([state.values, values])
        _, first = np.unique(every, axis=0, return_index=True)
        order = first[np.argsort(-told[first], kind="stable")]
        chosen = np.resize(order[: problem.n], problem.n)
        after = SearchState(
            x=every[chosen],
            values=told[chosen],
            parts=parts,
            seed=state.seed,
            steps=state.steps + 1,
            calls=state.calls + len(codes),
            metrics={"loss": -float(told[chosen].mean())},
        )
        if after.steps >= self.steps:
            better = int((after.x[:, None] != problem.starts()[None]).any(2).all(1).sum())
            after.status = Status.CONVERGED if better else Status.STALLED
            after.message = f"{self.steps} steps done; {better} of {len(after.x)} designs are no start."
        return after


@dataclass(frozen=True, kw_only=True)
class LetterPolicy(_ModelSearch):
    """REINFORCE: letters drawn by position from probabilities that move to what the model scores high.

    Args:
        encoder: default `MaskedLetters`. steps: default 60. samples: drawn a step, default 256.
        step_size: of the logits, default 1.

    Source: Williams (1992). Cost per step: the encoder forward on ``samples`` sequences.
    """

    samples: int = 256
    step_size: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            is_whole(self.samples) and self.samples >= 2, "LetterPolicy needs samples >= 2", got=self.samples
        )
        usable = is_real(self.step_size) and 0 < self.step_size < math.inf
        require(usable, "LetterPolicy needs step_size > 0", got=self.step_size)

    def begun(self, problem: SequenceTable) -> dict[str, Array]:
        often = one_hot(problem.starts(), problem.space.letters).mean(0)
        return {"logits": np.where(problem.space.table, np.log(often + 0.05), -np.inf)}

    def searched(
        self, problem: SequenceTable, state: SearchState, score: Callable[[Codes], Array]
    ) -> tuple[Codes, Array, dict[str, Array]]:
        space, logits = problem.space, state.parts["logits"]
        drawn = generator(state.seed, 0x05, 7, state.steps)
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        levels = drawn.random((self.samples, space.positions, 1))
        codes = np.minimum((p.cumsum(1) < levels).sum(2), space.letters - 1)
        codes = _near(problem, space.mended(codes))
        values = score(codes)
        gain = (values - values.mean()) / (values.std() + 1e-12)
        slope = np.einsum("s,sla->la", gain, one_hot(codes, space.letters) - p) / self.samples
        logits = logits + self.step_size * np.where(space.table, slope, 0.0)
        return codes, values, {"logits": logits}


@dataclass(frozen=True, kw_only=True)
class EvolvedLetters(_ModelSearch):
    """CMA-ES on the logits of one sequence; the largest letter of each position is asked about.

    Up to 400 logits the whole covariance is learned, beyond that its diagonal.

    Args:
        encoder: default `MaskedLetters`. steps: default 200. samples: a generation, default ``4 + 3 ln(logits)``.
        spread: first standard deviation, the start's letter being one ahead, default 0.5.

    Source: Hansen (2016), arXiv 1604.00772; Ros and Hansen (2008) for the diagonal. Cost per step: the encoder forward
    on a generation, and ``O(d^3)`` for d logits, or ``O(d)``.
    """

    steps: int = 200
    samples: int | None = None
    spread: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        some = self.samples is None or (is_whole(self.samples) and self.samples >= 4)
        require(some, "EvolvedLetters needs samples >= 4", got=self.samples)
        usable = is_real(self.spread) and 0 < self.spread < math.inf
        require(usable, "EvolvedLetters needs spread > 0", got=self.spread)

    def begun(self, problem: SequenceTable) -> dict[str, Array]:
        mean = one_hot(problem.starts()[:1], problem.space.letters).ravel()
        d = len(mean)
        C = np.eye(d) if d <= DENSE else np.ones(d)
        return {"mean": mean, "C": C, "p": np.zeros(d), "ps": np.zeros(d), "sigma": np.array(self.spread)}

    def searched(
        self, problem: SequenceTable, state: SearchState, score: Callable[[Codes], Array]
    ) -> tuple[Codes, Array, dict[str, Array]]:
        space, parts = problem.space, state.parts
        mean, C, p, ps, sigma = (parts[k] for k in ("mean", "C", "p", "ps", "sigma"))
        d, drawn = len(mean), generator(state.seed, 0x05, 8, state.steps)
        count = self.samples or 4 + int(3 * math.log(d))
        if C.ndim == 2:
            values, axes = np.linalg.eigh(C)
            root = np.sqrt(np.maximum(values, 1e-20))
        else:
            axes, root = np.eye(1), np.sqrt(C)
        z = drawn.standard_normal((count, d))
        steps = (z * root) @ axes.T if C.ndim == 2 else z * root
        with np.errstate(over="ignore", invalid="ignore"):  # told in the next line
            points = mean + sigma * steps
        if not np.isfinite(points).all():
            raise NotFinite("The search distribution is not finite; try a smaller spread.")
        points = points.reshape(count, space.positions, space.letters)
        codes = _near(problem, np.where(space.table, points, -np.inf).argmax(2))
        told = score(codes)
        # Hansen's constants, his table 1, without negative weights.
        half = count // 2
        weights = math.log(half + 0.5) - np.log(np.arange(1, half + 1))
        weights /= weights.sum()
        m = 1 / float((weights**2).sum())
        cs, cc = (m + 2) / (d + m + 5), (4 + m / d) / (d + 4 + 2 * m / d)
        c1 = 2 / ((d + 1.3) ** 2 + m)
        cm = min(1 - c1, 2 * (m - 2 + 1 / m) / ((d + 2) ** 2 + m))
        if C.ndim == 1:
            c1, cm = c1 * (d + 2) / 3, min(1 - c1 * (d + 2) / 3, cm * (d + 2) / 3)
        damping = 1 + cs + 2 * max(0.0, math.sqrt((m - 1) / (d + 1)) - 1)
        best = np.argsort(-told, kind="stable")[:half]
        step = weights @ steps[best]
        white = (weights @ z[best]) @ axes.T if C.ndim == 2 else weights @ z[best]
        ps = (1 - cs) * ps + math.sqrt(cs * (2 - cs) * m) * white
        expected = math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d * d))
        long = float(np.linalg.norm(ps))
        moves = long / math.sqrt(1 - (1 - cs) ** (2 * (state.steps + 1))) < (1.4 + 2 / (d + 1)) * expected
        p = (1 - cc) * p + moves * math.sqrt(cc * (2 - cc) * m) * step
        outer = np.outer if C.ndim == 2 else np.multiply
        spread = (steps[best].T * weights) @ steps[best] if C.ndim == 2 else weights @ steps[best] ** 2
        C = (1 - c1 - cm) * C + c1 * outer(p, p) + cm * spread
        sigma = sigma * math.exp(min(1.0, cs / damping * (long / expected - 1)))
        return (
            codes,
            told,
            {
                "mean": mean + float(parts["sigma"]) * step,
                "C": C,
                "p": p,
                "ps": ps,
                "sigma": np.asarray(sigma),
            },
        )


@dataclass(frozen=True, kw_only=True)
class ImprovementDesign(_ModelSearch):
    """Bayesian optimisation with batches by expected improvement, the model of the table taken for the experiment.

    A Gaussian process over the letters begins with the best rows; each step asks for ``q`` sequences.

    Args:
        encoder: default `MaskedLetters`. steps: default 8. q: default 4. rows: it begins with, default 64.

    Raises:
        InvalidProblem: more than 64 positions, which are too many for its process.

    Cost per step: a fit of the process, seconds.
    """

    steps: int = 8
    q: int = 4
    rows: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("q", "rows"):
            value = getattr(self, name)
            require(is_whole(value) and value >= 1, f"ImprovementDesign needs {name} >= 1", got=value)

    def begun(self, problem: SequenceTable) -> dict[str, Array]:
        if problem.space.positions > 64:
            raise InvalidProblem(
                f"ImprovementDesign takes at most 64 positions; got {problem.space.positions}. Fix some, or take "
                "BidirectionalDesign."
            )
        return {"seen": problem.starts()[: self.rows].astype(float)}

    def searched(
        self, problem: SequenceTable, state: SearchState, score: Callable[[Codes], Array]
    ) -> tuple[Codes, Array, dict[str, Array]]:
        space, seen = problem.space, state.parts["seen"].astype(np.int64)
        free = np.flatnonzero(space.table.sum(1) > 1)
        letters = {str(i): [int(a) for a in np.flatnonzero(space.table[i])] for i in free}
        study = Study(
            Space({name: Categorical(choices) for name, choices in letters.items()}),
            "maximize",
            acquisition="logei",
            noise="none",
            initial=1,
            seed=state.seed + state.steps,
        )
        seen = np.unique(seen, axis=0)
        for row, value in zip(seen, score(seen), strict=True):
            study.tell({str(i): int(row[i]) for i in free}, float(value))
        asked = np.repeat(problem.starts()[:1], self.q, 0)
        for row, trial in zip(asked, study.ask(self.q), strict=True):
            for i in free:
                row[i] = trial.point[str(i)]
        codes = _near(problem, asked)
        return codes, score(codes), {"seen": np.concatenate([seen, codes]).astype(float)}


@dataclass(frozen=True, kw_only=True)
class RandomMutation(Method[SequenceTable, SearchState]):
    """Each start with a few letters changed by chance; no model is asked.

    Args:
        changes: letters, default 1, at most the space's ``edits``.

    Cost: nothing to speak of; one step.
    """

    changes: int = 1

    def __post_init__(self) -> None:
        some = is_whole(self.changes) and self.changes >= 1
        require(some, "RandomMutation needs changes >= 1", got=self.changes)

    def init(self, problem: SequenceTable, seed: int) -> SearchState:
        return SearchState(x=problem.starts(), values=np.zeros(problem.n), seed=seed)

    def step(self, problem: SequenceTable, state: SearchState) -> SearchState:
        drawn, space, codes = generator(state.seed, 0x05, 9), problem.space, problem.starts().copy()
        free = np.flatnonzero(space.table.sum(1) > 1)
        for row in codes:
            for i in drawn.permutation(free)[: self.changes]:
                row[i] = drawn.choice([a for a in np.flatnonzero(space.table[i]) if a != row[i]])
        codes = space.within(codes, problem.starts())
        return SearchState(
            x=codes, values=state.values, seed=state.seed, steps=1, status=Status.CONVERGED, message="Drawn."
        )


@dataclass(frozen=True, kw_only=True)
class BestRows(Method[SequenceTable, SearchState]):
    """The table's best rows, as they are: what every design has to beat. One step, no cost."""

    def init(self, problem: SequenceTable, seed: int) -> SearchState:
        return SearchState(x=problem.starts(), values=np.zeros(problem.n), seed=seed)

    def step(self, problem: SequenceTable, state: SearchState) -> SearchState:
        return SearchState(
            x=state.x, values=state.values, seed=state.seed, steps=1, status=Status.CONVERGED, message="Rows."
        )


def _near(problem: SequenceTable, codes: Codes) -> Codes:
    """Designs brought into the space, each close enough to its nearest start."""
    starts = problem.starts()
    return problem.space.within(codes, starts[nearest(codes, starts)[1]])
