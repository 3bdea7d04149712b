"""A-PARL where everything is sampled: policy gradients below, pairs of the policy's own episodes above.

Chakraborty, Bedi, Koppel, Wang, Manocha, Wang and Huang (2024), "PARL" (arXiv 2308.02585), algorithm 1; Hessian
products by automatic differentiation, `TrajectorySurrogate`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.bilevel.alignment.levels import counted, is_worth, score_weights, spread
from thalweg.bilevel.alignment.mdp import TabularMDP
from thalweg.bilevel.alignment.method import SILENT, Term, adam, check_bounded, cosine, store_slope
from thalweg.bilevel.alignment.objectives import Objective, check_objective
from thalweg.bilevel.alignment.problem import Aligned, PreferenceTask
from thalweg.bilevel.alignment.segments import Array, Segments
from thalweg.bilevel.alignment.surrogate import InverseName, TrajectorySurrogate, responses
from thalweg.bilevel.alignment.trajectories import Clipped, Trajectories
from thalweg.core import InvalidProblem, Method, NotFinite, State, UnknownName
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require

#: Groups of pairs, and of lives, by whose differences the noise of the term is told; each costs a solve.
GROUPS = 4


@dataclass(kw_only=True)
class SampledAlignmentState(State):
    """``x`` is an `Aligned`; Adam's two moments of both levels."""

    x: Aligned
    upper: tuple[Array, Array]  # (m,) each
    lower: tuple[Array, Array]  # (n,) each
    seed: int
    step: int = 0
    lower_step: int = 0

    def tree(self) -> dict[str, Any]:
        """The state as plain data, for a checkpoint."""
        tree = super().tree()
        return {**tree, "x": list(tree["x"])}

    def restored(self, tree: dict[str, Any]) -> Self:
        """This freshly initialised state with the values of ``tree`` put in."""
        return super().restored({**tree, "x": Aligned(*tree["x"])})


@dataclass(frozen=True)
class SampledAPARL(Method[PreferenceTask, SampledAlignmentState]):
    """A-PARL from samples alone: any policy, any reward model, Gymnasium's environments.

    Use it where the world is no table, or too large to be solved. Where it is one, `APARL` is exact below and far
    cheaper. What the term costs in noise is told each step; with less than some hundred pairs it is rarely used.

    Args:
        objective: as `APARL`; ``"utility"`` scores whole episodes by the world's own reward.
        step_size: Adam's, of the reward. Default 3e-4, for networks; tables and features take 0.05.
        policy_step: Adam's, of the policy. Default 0.01.
        inner_steps: K, policy-gradient steps at each step. Default 20.
        episodes: for each of them, and for the Hessian. Default 32.
        pairs: N, of segments of fresh episodes, put to the teacher at each step. Default 64.
        term: as `APARL`.
        inverse: how the lower level's curvature is inverted: ``"cg"``, ``"neumann"`` or ``"dense"``, see `responses`.
        products: most Hessian products of a solve. Default 20.
        damping: floor of the curvature's eigenvalues where a sample's are lower. Default 0.01; a ridge larger than that
            takes its place.
        penalty: as `APARL`.

    The metrics of a step: ``return`` (true, of the pairs' episodes, undiscounted, where known), ``value``, ``term``,
    ``cosine``, ``noise`` (the term's standard error: of pairs, their labels, and the lives by which curvature is
    known), ``used``, ``lower_gradient`` (length of the lower level's gradient), ``damping``, ``clipped``
    (how often damping was raised, or eigenvalues were).

    Cost per step: ``(inner_steps + 1) episodes + 2 pairs`` episodes played; a gradient for each inner step and four
    more, eight solves of at most ``products`` Hessian products. No matrix of n x n but with ``"dense"``.

    >>> from thalweg import Stop, solve
    >>> from thalweg.bilevel.alignment import ScriptedTeacher, TableReward, gridworld
    >>> task = PreferenceTask(gridworld(3, traps=1, horizon=6), TableReward(9, 4), ScriptedTeacher())
    >>> method = SampledAPARL(step_size=0.05, inner_steps=2, episodes=8, pairs=8)
    >>> solve(task, method, stop=Stop(steps=2)).steps
    2
    """

    objective: Objective = "loglik+versus"
    step_size: float = 3e-4
    policy_step: float = 0.01
    inner_steps: int = 20
    episodes: int = 32
    pairs: int = 64
    term: Term = "auto"
    inverse: InverseName = "cg"
    products: int = 20
    damping: float = 0.01
    penalty: float = 1e-3

    def __post_init__(self) -> None:
        check_objective(self.objective)
        for name, known in (("term", get_args(Term)), ("inverse", get_args(InverseName))):
            if getattr(self, name) not in known:
                raise UnknownName(name, getattr(self, name), known)
        for name in ("step_size", "policy_step", "damping"):
            value = getattr(self, name)
            require(is_real(value) and 0 < value < np.inf, f"SampledAPARL needs {name} > 0", got=value)
        fits = is_real(self.penalty) and 0 <= self.penalty < np.inf
        require(fits, "SampledAPARL needs penalty >= 0", got=self.penalty)
        for name, least in (("inner_steps", 1), ("episodes", 2), ("pairs", 2), ("products", 1)):
            value = getattr(self, name)
            require(is_whole(value) and value >= least, f"SampledAPARL needs {name} >= {least}", got=value)

    def init(self, problem: PreferenceTask, seed: int) -> SampledAlignmentState:
        """Reward and policy at their starts."""
        if problem.is_endless:
            raise InvalidProblem("SampledAPARL plays whole lives: give TabularMDP(horizon=), or take APARL.")
        if problem.teacher is None and self.objective != "utility":
            raise InvalidProblem(
                f"The objective {self.objective!r} needs a teacher for the pairs that are drawn."
            )
        if problem.store is not None:
            check_bounded(problem.store, self.penalty)
        nu, theta = problem.reward.start(seed), problem.policy.start(seed).numpy()
        return SampledAlignmentState(
            x=Aligned(nu, theta),
            upper=(np.zeros_like(nu), np.zeros_like(nu)),
            lower=(np.zeros_like(theta), np.zeros_like(theta)),
            seed=seed,
        )

    def step(self, problem: PreferenceTask, state: SampledAlignmentState) -> SampledAlignmentState:
        """K policy-gradient steps, a question to the teacher, a step of the reward."""
        rng = generator(state.seed, state.step, 0x5A)
        nu, theta = (torch.from_numpy(part.copy()) for part in state.x)
        moments, k = state.lower, state.lower_step
        gap = 0.0
        for _ in range(self.inner_steps):
            slope = self._surrogate(problem, theta, nu, rng).gradient.numpy()
            gap = float(np.linalg.norm(slope))
            moved, *rest = adam(theta.numpy(), slope, *moments, k, self.policy_step)
            theta, moments, k = torch.from_numpy(moved), (rest[0], rest[1]), k + 1
        asked = _asked(problem, self.objective, theta, nu, self.pairs, rng)
        direct = asked.direct - 2.0 * self.penalty * state.x.reward
        if problem.store is not None and self.objective in ("loglik", "loglik+versus"):
            share = len(problem.store) / (len(problem.store) + self.pairs)
            slope = store_slope(problem.reward, problem.store, problem.world.discount, state.x.reward)[1]
            direct = (1.0 - share) * direct + share * slope
        through, noise, damping, raised = np.zeros_like(direct), 0.0, 0.0, 0
        if self.term != "off":
            through, noise, damping, raised = self._through(problem, theta, nu, asked, rng)
        used = self.term == "on" or (self.term == "auto" and is_worth(through, noise))
        whole = direct + through if used else direct
        x, *upper = adam(state.x.reward, whole, *state.upper, state.step, self.step_size)
        if not (np.isfinite(x).all() and bool(torch.isfinite(theta).all())):
            raise NotFinite("Reward or policy are not finite: take smaller step sizes, or a larger penalty.")
        known = {} if asked.true is None else {"return": asked.true}
        return SampledAlignmentState(
            x=Aligned(x, theta.numpy()),
            upper=(upper[0], upper[1]),
            lower=moments,
            seed=state.seed,
            step=state.step + 1,
            lower_step=k,
            calls=state.calls + (0 if self.objective == "utility" else self.pairs),
            metrics=known
            | {
                "value": asked.value,
                "term": float(np.linalg.norm(through)),
                "cosine": cosine(through, asked.direct),
                "noise": noise,
                "used": float(used),
                "lower_gradient": gap,
                "damping": damping,
                "clipped": float(raised),
            },
            message="" if asked.answered else SILENT.format(self.pairs),
        )

    def _surrogate(
        self, problem: PreferenceTask, theta: Tensor, nu: Tensor, rng: np.random.Generator
    ) -> TrajectorySurrogate:
        lives, _ = problem.rollouts(theta, self.episodes, rng)
        return TrajectorySurrogate(
            problem.policy,
            problem.reward,
            lives,
            theta,
            nu,
            discount=problem.world.discount,
            entropy=problem.entropy,
            ridge=problem.ridge,
        )

    def _through(
        self, problem: PreferenceTask, theta: Tensor, nu: Tensor, asked: _Asked, rng: np.random.Generator
    ) -> tuple[Array, float, float, int]:
        """The term, its standard error, the damping, and how often it was raised."""
        below = self._surrogate(problem, theta, nu, rng)
        floor = max(problem.ridge, self.damping)
        found = responses(below.hessian_product, asked.sources, self.inverse, floor, steps=self.products)
        by_pairs = torch.stack([below.mixed_transposed(x) for x in found.x]).numpy()
        # J' M^{-1} b moves with its lives by dJ' x + J' M^{-1} dH x, x = M^{-1} b: these are others than the pairs'
        curved, mixed = below.by_groups(found.x.mean(0), min(GROUPS, self.episodes))
        answered = torch.stack([below.mixed_transposed(x) for x in found.solve(curved)])
        noise = math.hypot(spread(by_pairs), spread((mixed + answered).numpy()))
        return by_pairs.mean(0), noise, found.damping, found.raised


@dataclass(frozen=True, eq=False)
class _Asked:
    """G's estimate, its direct derivative, ``grad_theta G`` by groups, the true return, any answers."""

    value: float
    direct: Array
    sources: Tensor
    true: float | None
    answered: bool


def _asked(
    task: PreferenceTask,
    objective: Objective,
    theta: Tensor,
    nu: Tensor,
    pairs: int,
    rng: np.random.Generator,
) -> _Asked:
    lives, true = task.rollouts(theta, 2 * pairs, rng)
    starts = _starts(lives, task.length, rng)
    steps = starts[:, None] + np.arange(task.length)
    pieces = _taken(lives, steps)
    powers = torch.from_numpy(task.world.discount ** np.arange(task.length, dtype=np.float64))
    seen = None if true is None else np.take_along_axis(true, steps, axis=1)
    direct = np.zeros(len(nu))
    kept = np.ones(pairs, dtype=bool)
    if objective == "utility":
        scored = task.scores[lives.observations, lives.actions] if task.scores is not None else true
        if scored is None:
            raise InvalidProblem(
                "The objective 'utility' needs PreferenceTask(scores=), or a world with a reward."
            )
        worth = scored @ (task.world.discount ** np.arange(lives.length, dtype=np.float64))
        value, weights = float(worth.mean()), (worth - worth.mean()).reshape(2, -1) / 2.0
        ends = np.full(2 * pairs, lives.length - 1)
    else:
        known = None if seen is None else (seen[:pairs], seen[pairs:])
        y = task.asked.label(pieces[:pairs], pieces[pairs:], known, rng)
        kept, ends = ~np.isnan(y), steps[:, -1]
        at = nu.detach().requires_grad_()
        sums = task.reward.steps(at, pieces) @ powers
        ahead, label = sums[:pairs] - sums[pairs:], torch.from_numpy(np.where(kept, y, 0.5))
        log = torch.nn.functional.logsigmoid
        likelihood = label * log(ahead) + (1.0 - label) * log(-ahead)
        told = likelihood[torch.from_numpy(kept)].sum() / max(int(kept.sum()), 1)
        value = float(y[kept].mean()) if objective == "versus" and kept.any() else float(told.detach())
        if objective != "versus":
            direct = torch.autograd.grad(told, at)[0].numpy()
        weights = score_weights(objective, np.where(kept, y, 0.5), likelihood.detach().numpy(), kept)
    return _Asked(
        value,
        direct,
        _sources(task, lives, theta, weights, kept, ends),
        None if true is None else float(true.sum(1).mean()),
        bool(kept.any()),
    )


def _sources(
    task: PreferenceTask,
    lives: Segments,
    theta: Tensor,
    weights: Array,
    kept: NDArray[np.bool_],
    ends: NDArray[np.int64],
) -> Tensor:
    """``grad_theta G`` of each group of pairs. A segment's chance is that of all actions until its end."""
    at = theta.detach().requires_grad_()
    so_far = task.policy.log_prob(at, lives).cumsum(1)
    scores = so_far.gather(1, torch.from_numpy(ends)[:, None])[:, 0] * torch.from_numpy(weights.ravel())
    pairs = len(kept)
    each = scores[:pairs] + scores[pairs:]
    rows = np.flatnonzero(kept)
    groups = min(GROUPS, max(len(rows), 1))
    found = []
    for k in range(groups):
        own = torch.from_numpy(rows[k::groups])
        total = each[own].sum() / max(len(own), 1)
        found.append(torch.autograd.grad(total, at, retain_graph=True)[0])
    return torch.stack(found)


def _starts(lives: Segments, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Where the compared segment of each life begins: anywhere in its lived steps where it fits."""
    room = np.maximum(lives.lived.sum(1) - length, 0)
    return np.minimum((rng.random(len(lives)) * (room + 1)).astype(np.int64), lives.length - length)


def _taken(lives: Segments, steps: NDArray[np.int64]) -> Segments:
    rows = np.arange(len(lives))[:, None]
    return Segments(lives.observations[rows, steps], lives.actions[rows, steps], lives.lived[rows, steps])


def trajectory_gradient(
    task: PreferenceTask, nu: Array, theta: Array, objective: Objective, pairs: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """The direct derivative and the term from one sample of ``2 pairs`` lives, by the formulas for softmax tables.

    For tables with a horizon; the same lives serve the pairs and the curvature. The eigenvalues of the sampled Hessian
    are raised to the ridge.

    Args:
        task: with a `TabularMDP` that has a horizon, and ``length`` of whole lives.
        nu, theta: shapes (m,) and (S, A).
        objective, pairs, rng: as `sampled_ascent`.

    >>> from thalweg.bilevel.alignment import ScriptedTeacher, TableReward, gridworld
    >>> task = PreferenceTask(gridworld(2, traps=0, horizon=3), TableReward(4, 4), ScriptedTeacher())
    >>> direct, term = trajectory_gradient(task, np.zeros(16), np.zeros((4, 4)), "loglik", 64, np.random.default_rng(0))
    >>> direct.shape, term.shape
    ((16,), (16,))
    """
    world = task.world
    if not isinstance(world, TabularMDP) or world.horizon is None or task.length != world.horizon:
        raise InvalidProblem(
            "trajectory_gradient needs a TabularMDP with a horizon, and segments of whole lives."
        )
    shape = (world.states, world.actions)
    lives, true = task.rollouts(torch.from_numpy(theta.ravel()), 2 * pairs, rng)
    table = task.reward.table(nu, *shape)[lives.observations, lives.actions]
    even = np.full(2 * pairs, 0.5 / pairs)
    sample = Trajectories(lives, theta, table, even, world.discount, task.ridge)
    known = None if true is None else (true[:pairs], true[pairs:])
    y = task.asked.label(lives[:pairs], lives[pairs:], known, rng)
    kept = ~np.isnan(y)
    y = np.where(kept, y, 0.5)
    ahead = sample.returns[:pairs] - sample.returns[pairs:]
    likelihood = -(y * np.logaddexp(0.0, -ahead) + (1.0 - y) * np.logaddexp(0.0, ahead))
    n = max(int(kept.sum()), 1)
    error = np.where(kept, y - 1.0 / (1.0 + np.exp(-ahead)), 0.0) / n
    powers = world.discount ** np.arange(lives.length, dtype=np.float64)
    by_returns = np.concatenate([error, -error])
    direct = task.reward.pull(nu, counted(lives, by_returns[:, None] * powers, shape))
    if objective == "versus":
        direct = np.zeros_like(direct)
    weights = score_weights(objective, y, likelihood, kept).ravel() / n
    x = Clipped.of(sample.hessian(), task.ridge).solve(sample.scores.T @ weights)
    return direct, task.reward.pull(nu, counted(lives, sample.mixed_transposed(x), shape))
