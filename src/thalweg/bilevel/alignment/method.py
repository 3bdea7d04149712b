"""A-PARL and the usual alternation, where the lower level is solved exactly.

Chakraborty, Bedi, Koppel, Wang, Manocha, Wang and Huang (2024), "PARL: a unified framework for policy alignment in
reinforcement learning from human feedback" (arXiv 2308.02585).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import numpy as np
import torch
from torch.nn import functional

from thalweg.bilevel.alignment.levels import Ascent, exact_ascent, is_worth, sampled_ascent
from thalweg.bilevel.alignment.mdp import TabularMDP
from thalweg.bilevel.alignment.objectives import Objective, check_objective
from thalweg.bilevel.alignment.problem import PreferenceTask
from thalweg.bilevel.alignment.rewards import RewardModel
from thalweg.bilevel.alignment.segments import Array
from thalweg.bilevel.alignment.store import PairStore
from thalweg.core import InvalidProblem, Method, NotFinite, State, UnknownName
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require

#: ``auto`` uses the term where it rises above its noise.
Term = Literal["auto", "on", "off"]
#: What is said where a teacher skips all pairs of a step.
SILENT = "The teacher answered none of the last step's {} pairs: nothing was learned from them."
#: A lower level farther from solved than this is told.
UNFINISHED = 1e-6


class LikelihoodIsNotReturn(UserWarning):
    """The objective makes policies whose pairs are easy to tell apart, which are not the policies that people want."""


@dataclass(kw_only=True)
class AlignmentState(State):
    """``x`` are the reward's parameters; ``warm`` is where the lower level begins; Adam's two moments."""

    x: Array  # (m,)
    warm: Array  # (S, A)
    first: Array  # (m,)
    second: Array  # (m,)
    seed: int
    step: int = 0


@dataclass(frozen=True)
class APARL(Method[PreferenceTask, AlignmentState]):
    """Ascent on what people prefer of the policy that a reward leads to, the policy's response included.

    Use it in worlds that are tables: `SampledAPARL` is for the others. With few pairs a step the term through the
        policy
    is noise; ``term="auto"`` leaves it out then.

    Args:
        objective: ``"loglik+versus"``, the default, trains the reward by the log-likelihood of labels with the
            pairs' law held fixed, and the policy's response by its chance to be preferred. ``"loglik"`` is the
            paper's: the whole derivative of the expected log-likelihood, which leads to policies that are easy to
            judge, not to good ones. ``"versus"`` is the second part alone, ``"utility"`` the expected score.
        step_size: Adam's, in units of the reward's parameters. Default 0.05.
        pairs: drawn and put to the teacher at each step, in worlds without end; None, the default, takes exact
            expectations over a scripted teacher.
        term: ``"auto"`` uses the term when its squared length, less what noise adds, exceeds its squared standard
            error; ``"on"`` always, ``"off"`` never. Default ``"auto"``; exact terms have no noise.
        inner_steps: most Newton steps of the lower level at each step. Default 100, which solves it.
        penalty: c, of ``-c |nu|^2`` in the upper level. Default 1e-3.

    The metrics of a step are ``value`` (G or its estimate), ``gradient`` (the length of the whole derivative), ``term``
    (that of its part through the policy), ``cosine`` (between that part and the rest), ``noise`` (standard error of the
    term), ``used`` (1 where the term was used), ``lower_gap``, and ``clipped`` (raised eigenvalues of its Hessian).

    Raises:
        InvalidProblem: a world of `Episodes`, an objective without its answers or scores.
        InvalidParameter, UnknownName: options out of range.

    Warns:
        LikelihoodIsNotReturn: with ``objective="loglik"``.

    Cost per step: see `exact_ascent` and `sampled_ascent`; the term costs less than the alternation's step again.

    >>> from thalweg.bilevel.alignment import APARL, PreferenceTask
    >>> from thalweg import Stop, solve
    >>> from thalweg.bilevel.alignment import ScriptedTeacher, TableReward, gridworld
    >>> task = PreferenceTask(gridworld(3, traps=1), TableReward(9, 4), ScriptedTeacher(beta=3.0))
    >>> solve(task, APARL(), stop=Stop(steps=30)).metrics["share"] > 0.9
    True
    """

    objective: Objective = "loglik+versus"
    step_size: float = 0.05
    pairs: int | None = None
    term: Term = "auto"
    inner_steps: int = 100
    penalty: float = 1e-3

    def __post_init__(self) -> None:
        check_objective(self.objective)
        if self.term not in get_args(Term):
            raise UnknownName("term", self.term, get_args(Term))
        name = type(self).__name__
        fits = is_real(self.step_size) and 0 < self.step_size < np.inf
        require(fits, f"{name} needs step_size > 0", got=self.step_size)
        fits = is_real(self.penalty) and 0 <= self.penalty < np.inf
        require(fits, f"{name} needs penalty >= 0", got=self.penalty)
        for option in ("pairs", "inner_steps"):
            value = getattr(self, option)
            fits = value is None and option == "pairs"
            require(fits or (is_whole(value) and value >= 1), f"{name} needs {option} >= 1", got=value)

    def init(self, problem: PreferenceTask, seed: int) -> AlignmentState:
        """At the model's own start."""
        world, name = problem.world, type(self).__name__
        if not isinstance(world, TabularMDP):
            raise InvalidProblem(
                f"{name} solves the lower level exactly, in tables; for Episodes take SampledAPARL."
            )
        check_regularised(problem, name)
        if self.objective == "utility" and problem.scores is None:
            raise InvalidProblem("The objective 'utility' needs PreferenceTask(scores=).")
        if self.objective != "utility" and problem.teacher is None:
            if problem.store is None:
                raise InvalidProblem(
                    f"The objective {self.objective!r} needs a teacher or a store of labelled pairs."
                )
            if self.term != "off":
                raise InvalidProblem(
                    f"{name}: the stored pairs do not come from the policy, so nothing flows through it. "
                    "Give a teacher, or fit the reward to the store by Alternation."
                )
        if problem.store is not None:
            check_bounded(problem.store, self.penalty)
        if self.objective == "loglik" and self.term != "off":
            warnings.warn(
                "objective='loglik' raises the log-likelihood by policies whose pairs are easy to tell apart; "
                "their true return is often far below that of Alternation. 'loglik+versus' is for good policies.",
                LikelihoodIsNotReturn,
                stacklevel=2,
            )
        x = problem.reward.start(seed)
        table = problem.reward.table(x, world.states, world.actions)
        warm = table if problem.is_endless else np.zeros_like(table)
        return AlignmentState(x=x, warm=warm, first=np.zeros_like(x), second=np.zeros_like(x), seed=seed)

    def step(self, problem: PreferenceTask, state: AlignmentState) -> AlignmentState:
        """Solve the lower level, ask, and move the reward."""
        found = self._ascent(problem, state)
        direct = found.direct - 2.0 * self.penalty * state.x
        used = self.term == "on" or (self.term == "auto" and is_worth(found.term, found.noise))
        whole = direct + found.term if used else direct
        x, first, second = adam(state.x, whole, state.first, state.second, state.step, self.step_size)
        if not np.isfinite(x).all():
            raise NotFinite(
                "The reward's parameters are not finite: take a smaller step_size, or a larger penalty."
            )
        message = ""
        if found.gap > UNFINISHED:
            message = f"The lower level is left at a gap of {found.gap:.2g}: take more inner_steps."
        if found.skipped and found.skipped == found.asked:
            message = SILENT.format(found.asked)
        return AlignmentState(
            x=x,
            warm=found.warm,
            first=first,
            second=second,
            seed=state.seed,
            step=state.step + 1,
            calls=state.calls + found.asked,
            metrics={
                "value": found.value,
                "gradient": float(np.linalg.norm(whole)),
                "term": float(np.linalg.norm(found.term)),
                "cosine": cosine(found.term, found.direct),
                "noise": found.noise,
                "used": float(used),
                "lower_gap": found.gap,
                "clipped": float(found.clipped),
            },
            message=message,
        )

    def _ascent(self, problem: PreferenceTask, state: AlignmentState) -> Ascent:
        store, through = problem.store, self.term != "off"
        if problem.teacher is None and self.objective != "utility":
            store = cast(PairStore, store)
            value, slope = store_slope(problem.reward, store, problem.world.discount, state.x)
            return Ascent(value, slope, np.zeros_like(slope), 0.0, 0.0, 0, state.warm)
        if self.pairs is None:
            found = exact_ascent(
                problem, state.x, self.objective, warm=state.warm, inner_steps=self.inner_steps, term=through
            )
        else:
            rng = generator(state.seed, state.step, 0xA9)
            found = sampled_ascent(
                problem,
                state.x,
                self.objective,
                self.pairs,
                rng,
                warm=state.warm,
                inner_steps=self.inner_steps,
                term=through,
            )
        if store is not None and self.objective in ("loglik", "loglik+versus"):
            _, slope = store_slope(problem.reward, store, problem.world.discount, state.x)
            share = 0.5 if self.pairs is None else len(store) / (len(store) + self.pairs)
            mixed = (1.0 - share) * found.direct + share * slope
            found = replace(found, direct=mixed)
        return found


@dataclass(frozen=True)
class Alternation(APARL):
    """The usual way: the reward is fitted to labels of the policy's pairs, and the policy to the reward, in turns.

    A-PARL without the term through the policy. It is the one for a store of labelled pairs without a teacher, which are
    not the policy's own: then the reward is the labels' penalised maximum-likelihood fit. Options as `APARL`.

    >>> from thalweg import Stop, solve
    >>> from thalweg.bilevel.alignment import PairStore, Segments, TableReward, gridworld
    >>> pairs = PairStore(Segments([[8]], [[0]]), Segments([[0]], [[0]]), [1.0])
    >>> task = PreferenceTask(gridworld(3, traps=1), TableReward(9, 4), store=pairs)
    >>> solve(task, Alternation(), stop=Stop(steps=20)).metrics["agreement"]
    1.0
    """

    objective: Objective = "loglik"
    term: Term = "off"


def check_regularised(problem: PreferenceTask, name: str) -> None:
    """Refuse what an exact lower level does not have: a ridge in worlds without end, an entropy in others."""
    if problem.is_endless and (problem.entropy == 0 or problem.ridge > 0):
        raise InvalidProblem(
            f"{name}: worlds without end are solved with entropy > 0 and ridge = 0; got entropy {problem.entropy:g}, "
            f"ridge {problem.ridge:g}."
        )
    if not problem.is_endless and (problem.ridge == 0 or problem.entropy > 0):
        raise InvalidProblem(
            f"{name}: worlds with a horizon are solved with ridge > 0 and entropy = 0; got entropy "
            f"{problem.entropy:g}, ridge {problem.ridge:g}. SampledAPARL takes both."
        )


def check_bounded(store: PairStore, penalty: float) -> None:
    """Refuse labels that all say the same, without a penalty."""
    if penalty == 0 and store.is_one_sided:
        raise InvalidProblem(
            f"All {len(store)} stored labels prefer the same side, so that the log-likelihood may rise for ever. Give "
            "penalty > 0."
        )


def adam(
    x: Array, gradient: Array, first: Array, second: Array, step: int, rate: float
) -> tuple[Array, Array, Array]:
    """A step uphill of Adam (Kingma and Ba, 2015), with its default constants."""
    first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
    middle, size = first / (1.0 - 0.9 ** (step + 1)), second / (1.0 - 0.999 ** (step + 1))
    return x + rate * middle / (np.sqrt(size) + 1e-8), first, second


def cosine(a: Array, b: Array) -> float:
    """Of the angle between two vectors, 0 where one is zero."""
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else 0.0


def store_slope(reward: RewardModel, store: PairStore, discount: float, nu: Array) -> tuple[float, Array]:
    """The mean log-likelihood of stored labels, and its derivative in nu."""
    at = torch.from_numpy(nu.copy()).requires_grad_()
    powers = torch.from_numpy(discount ** np.arange(store.length, dtype=np.float64))
    ahead = (reward.steps(at, store.first) - reward.steps(at, store.second)) @ powers
    y = torch.from_numpy(store.targets)
    value = (y * functional.logsigmoid(ahead) + (1.0 - y) * functional.logsigmoid(-ahead)).mean()
    (slope,) = torch.autograd.grad(value, at)
    return float(value.detach()), slope.numpy()
