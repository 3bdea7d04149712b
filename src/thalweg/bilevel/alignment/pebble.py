"""The usual ways to learn from few preferences: an ensemble asks what it is unsure of, a replay buffer is relabelled.

Lee, Smith and Abbeel (2021), "PEBBLE" (arXiv 2106.05091). Theirs is a soft actor-critic of continuous actions; here
actions are numbers, and the actor follows the softmax of the critic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

from thalweg.bilevel.alignment.mdp import TabularMDP
from thalweg.bilevel.alignment.method import adam
from thalweg.bilevel.alignment.policies import NetworkPolicy, SoftmaxPolicy
from thalweg.bilevel.alignment.problem import Aligned, PreferenceTask
from thalweg.bilevel.alignment.rewards import encoded
from thalweg.bilevel.alignment.segments import Actions, Array, Segments, joined
from thalweg.core import InvalidProblem, Method, NotFinite, State
from thalweg.core.seeding import generator
from thalweg.core.validation import require_counts, require_positive

#: The policy's temperature where the task has no entropy.
TEMPERATURE = 0.1
#: The share by which the target's parameters follow at each update.
FOLLOW = 0.02


#: Observations, actions and lived steps of the first pieces, then of the second.
Sides: TypeAlias = tuple[Actions, Actions, NDArray[np.bool_], Actions, Actions, NDArray[np.bool_]]


@dataclass(kw_only=True)
class ReplayState(State):
    """``x`` is an `Aligned`; the buffer, the labelled pairs, both levels' Adam, the critic's slow copy."""

    x: Aligned
    seen: Actions  # (episodes, H, ...)
    done: Actions
    lived: NDArray[np.bool_]
    true: Array  # (episodes, H), for the teacher alone
    sides: Sides
    targets: Array  # (labels,)
    upper: tuple[Array, Array]
    lower: tuple[Array, Array]
    critic: Array  # (p,) parameters of Q
    slow: Array  # (p,) those that goals are made of
    seed: int
    step: int = 0
    upper_step: int = 0
    lower_step: int = 0

    def tree(self) -> dict[str, Any]:
        """The state as plain data, for a checkpoint."""
        tree = super().tree()
        return {**tree, "x": list(tree["x"])}

    def restored(self, tree: dict[str, Any]) -> Self:
        """This freshly initialised state with the values of ``tree`` put in."""
        return super().restored({**tree, "x": Aligned(*tree["x"])})

    @property
    def buffer(self) -> Segments:
        """All lives played."""
        return Segments(self.seen, self.done, self.lived)


@dataclass(frozen=True)
class PEBBLE(Method[PreferenceTask, ReplayState]):
    """A reward ensemble and an off-policy learner: few labels, many updates.

    Use it as the rival that labels are counted against, or where episodes are dear and can be used again. Actions
    must be numbers. Its reward is fitted to labels with the pairs' law held fixed.

    Args:
        queries: pairs put to the teacher at a step. Default 10.
        labels: most in all. Default 100.
        candidates: pairs of which the most uncertain are asked, times ``queries``; uncertainty is the standard
            deviation of the members' preference probabilities. Default 10.
        episodes: played at each step. Default 4.
        updates: of the critic at each step. Default 100.
        reward_updates: of the reward at a step that asked. Default 50.
        step_size, policy_step: Adam's, of reward and critic. Default 3e-4 and 5e-4.
        batch: steps for an update of the critic. Default 128.
        pretraining: steps of the world that are played for the entropy of the states before the first question, each
            rewarded by the logarithm of the distance to its fifth neighbour. Default 9000.

    The metrics: ``return`` (true, of the episodes just played, where known), ``labels``, ``reward_loss``,
    ``critic_loss``, ``pretraining`` (1 while it lasts).

    Raises:
        InvalidProblem: actions that are vectors, worlds without end, no teacher.

    Cost per step: ``episodes`` played, ``updates`` critic gradients, the buffer relabelled once after each question.
    Memory: all episodes.

    >>> from thalweg import Stop, solve
    >>> from thalweg.bilevel.alignment import NetworkReward, ScriptedTeacher, gridworld
    >>> task = PreferenceTask(gridworld(3, 1, horizon=6), NetworkReward(9, 4, hidden=(8,)), ScriptedTeacher(), length=3)
    >>> solve(task, PEBBLE(pretraining=20, updates=5), stop=Stop(steps=3)).steps
    3
    """

    queries: int = 10
    labels: int = 100
    candidates: int = 10
    episodes: int = 4
    updates: int = 100
    reward_updates: int = 50
    step_size: float = 3e-4
    policy_step: float = 5e-4
    batch: int = 128
    pretraining: int = 9000

    def __post_init__(self) -> None:
        require_counts(
            self, "queries", "labels", "candidates", "episodes", "updates", "reward_updates", "batch"
        )
        require_counts(self, "pretraining", least=0)
        require_positive(self, "step_size", "policy_step")

    def init(self, problem: PreferenceTask, seed: int) -> ReplayState:
        """An empty buffer."""
        name = type(self).__name__
        if problem.is_endless:
            raise InvalidProblem(f"{name} plays whole lives: give TabularMDP(horizon=), or take APARL.")
        if not isinstance(problem.policy, SoftmaxPolicy):
            raise InvalidProblem(f"{name} needs numbered actions; for vectors take SampledAPARL.")
        if problem.teacher is None:
            raise InvalidProblem(f"{name} needs a teacher.")
        nu, theta = problem.reward.start(seed), problem.policy.start(seed).numpy()
        critic = _values(problem)[0].start(seed).numpy()
        one, true = problem.rollouts(torch.from_numpy(theta), 1, generator(seed, 0x9EB))
        empty = arrays_of(one[:0].cut(0, problem.length))
        return ReplayState(
            x=Aligned(nu, theta),
            seen=one.observations,
            done=one.actions,
            lived=one.lived,
            true=np.zeros(one.lived.shape) if true is None else true,
            sides=(*empty, *empty),
            targets=np.zeros(0),
            upper=(np.zeros_like(nu), np.zeros_like(nu)),
            lower=(np.zeros(len(theta) + len(critic)), np.zeros(len(theta) + len(critic))),
            critic=critic,
            slow=critic.copy(),
            seed=seed,
        )

    def step(self, problem: PreferenceTask, state: ReplayState) -> ReplayState:
        """Play, ask, fit the reward, relabel, and train the critic."""
        rng = generator(state.seed, state.step, 0x9EB)
        lives, true = problem.rollouts(torch.from_numpy(state.x.policy), self.episodes, rng)
        buffer = joined([state.buffer, lives])
        all_true = np.concatenate([state.true, np.zeros(lives.lived.shape) if true is None else true])
        explores = int(state.lived.sum()) < self.pretraining
        sides, targets = state.sides, state.targets
        nu, upper, upper_step, loss = state.x.reward, state.upper, state.upper_step, 0.0
        asked = 0
        if not explores and len(targets) < self.labels:
            asked = min(self.queries, self.labels - len(targets))
            sides, targets = self._ask(problem, nu, buffer, all_true, sides, targets, asked, rng)
        if asked and len(targets):
            for _ in range(self.reward_updates):
                loss, slope = self._fitted(problem, nu, buffer, sides, targets, rng)
                nu, *rest = adam(nu, -slope, *upper, upper_step, self.step_size)
                upper, upper_step = (rest[0], rest[1]), upper_step + 1
        rewards = _spread_out(problem, buffer) if explores else _relabelled(problem, nu, buffer)
        theta, critic, lower, slow, critic_loss = self._trained(problem, state, buffer, rewards, rng)
        if not (np.isfinite(nu).all() and np.isfinite(theta).all() and np.isfinite(critic).all()):
            raise NotFinite("Reward or critic are not finite: take smaller step sizes.")
        known = {} if true is None else {"return": float(true.sum(1).mean())}
        return ReplayState(
            x=Aligned(nu, theta),
            seen=buffer.observations,
            done=buffer.actions,
            lived=buffer.lived,
            true=all_true,
            sides=sides,
            targets=targets,
            upper=upper,
            lower=lower,
            critic=critic,
            slow=slow,
            seed=state.seed,
            step=state.step + 1,
            upper_step=upper_step,
            lower_step=state.lower_step + self.updates,
            calls=state.calls + asked,
            metrics=known
            | {
                "labels": float(len(targets)),
                "reward_loss": loss,
                "critic_loss": critic_loss,
                "pretraining": float(explores),
            },
        )

    def _ask(
        self,
        problem: PreferenceTask,
        nu: Array,
        buffer: Segments,
        true: Array,
        sides: Sides,
        targets: Array,
        asked: int,
        rng: np.random.Generator,
    ) -> tuple[Sides, Array]:
        """The labelled pairs with the most uncertain of some candidates, answered."""
        n = asked * self.candidates
        first, one = drawn_pieces(buffer, true, n, problem.length, rng)
        second, two = drawn_pieces(buffer, true, n, problem.length, rng)
        with torch.no_grad():
            ahead = members_ahead(problem, torch.from_numpy(nu), first, second)  # (members, n)
        doubt = torch.sigmoid(ahead).std(0, correction=0).numpy()
        best = np.argsort(-doubt, kind="stable")[:asked]
        known = (one[best], two[best])
        y = problem.asked.label(first[best], second[best], known, rng)
        kept = best[~np.isnan(y)]
        new = [part for side in (first, second) for part in arrays_of(side[kept])]
        held = tuple(np.concatenate([old, add]) for old, add in zip(sides, new, strict=True))
        return cast(Sides, held), np.append(targets, y[~np.isnan(y)])

    def _fitted(
        self,
        problem: PreferenceTask,
        nu: Array,
        buffer: Segments,
        sides: Sides,
        targets: Array,
        rng: np.random.Generator,
    ) -> tuple[float, Array]:
        """The ensemble's cross-entropy on all labels, each member by itself, and its slope."""
        first, second = Segments(*sides[:3]), Segments(*sides[3:])
        at = torch.from_numpy(nu.copy()).requires_grad_()
        loss = self._loss(problem, at, buffer, first, second, torch.from_numpy(targets), rng)
        (slope,) = torch.autograd.grad(loss, at)
        return float(loss.detach()), slope.numpy()

    def _loss(
        self,
        problem: PreferenceTask,
        nu: Tensor,
        buffer: Segments,
        first: Segments,
        second: Segments,
        targets: Tensor,
        rng: np.random.Generator,
    ) -> Tensor:
        return cross_entropy(members_ahead(problem, nu, first, second), targets)

    def _trained(
        self,
        problem: PreferenceTask,
        state: ReplayState,
        buffer: Segments,
        rewards: Array,
        rng: np.random.Generator,
    ) -> tuple[Array, Array, tuple[Array, Array], Array, float]:
        """Soft actor-critic: Q follows ``r + gamma E[Q' - heat ln pi]``, the policy the softmax of ``Q / heat``."""
        policy = cast(SoftmaxPolicy, problem.policy)
        values, scale = _values(problem)
        heat, gamma, n = problem.entropy or TEMPERATURE, problem.world.discount, len(state.x.policy)
        both, slow = np.concatenate([state.x.policy, state.critic]), state.slow
        moments, k, loss = state.lower, state.lower_step, 0.0
        row, step = np.nonzero(buffer.lived[:, :-1])
        for _ in range(self.updates if len(row) else 0):
            chosen = rng.integers(len(row), size=self.batch)
            i, h = row[chosen], step[chosen]
            now, next_ = buffer.observations[i, h], buffer.observations[i, h + 1]
            goes_on = torch.from_numpy(buffer.lived[i, h + 1].astype(np.float64))
            at = torch.from_numpy(both.copy()).requires_grad_()
            with torch.no_grad():
                logs = policy.logits(at[:n], next_).log_softmax(-1)
                after = (
                    logs.exp() * (scale * values.logits(torch.from_numpy(slow), next_) - heat * logs)
                ).sum(-1)
                goal = torch.from_numpy(rewards[i, h]) + gamma * goes_on * after
            q = scale * values.logits(at[n:], now)
            own = q.gather(1, torch.from_numpy(buffer.actions[i, h])[:, None])[:, 0]
            error = functional.smooth_l1_loss(own / scale, goal / scale)
            logs = policy.logits(at[:n], now).log_softmax(-1)
            behind = (logs.exp() * (heat * logs - q.detach())).sum(-1).mean()
            (slope,) = torch.autograd.grad(error + behind / scale, at)
            both, *rest = adam(both, -slope.numpy(), *moments, k, self.policy_step)
            moments, k, loss = (rest[0], rest[1]), k + 1, float(error.detach())
            slow = slow + FOLLOW * (both[n:] - slow)
        return both[:n], both[n:], moments, slow, loss


def _values(problem: PreferenceTask) -> tuple[NetworkPolicy, float]:
    """A network for Q, and what its outputs are multiplied by: the length of a life."""
    policy, world = problem.policy, problem.world
    hidden = policy.hidden if isinstance(policy, NetworkPolicy) else ()
    numbered = isinstance(world, TabularMDP) or world.numbered_states
    length = min(float(cast(int, world.horizon)), 1.0 / max(1.0 - world.discount, 1e-9))
    return NetworkPolicy(world.states, world.actions, numbered, hidden), length


def drawn_pieces(
    buffer: Segments, true: Array, n: int, length: int, rng: np.random.Generator
) -> tuple[Segments, Array]:
    """``n`` pieces of the buffer's lives, from lived steps where they fit, and their true rewards."""
    rows = rng.integers(len(buffer), size=n)
    room = np.maximum(buffer.lived[rows].sum(1) - length, 0)
    starts = np.minimum((rng.random(n) * (room + 1)).astype(np.int64), buffer.length - length)
    at = (rows[:, None], starts[:, None] + np.arange(length))
    return Segments(buffer.observations[at], buffer.actions[at], buffer.lived[at]), true[at]


def arrays_of(side: Segments) -> tuple[Actions, Actions, NDArray[np.bool_]]:
    """Observations, actions, and which steps were lived."""
    return side.observations, side.actions, side.lived


def cross_entropy(ahead: Tensor, targets: Tensor) -> Tensor:
    """Of preferences by logits (members, N) and targets (N,): the mean over pairs, summed over members."""
    return (
        functional.binary_cross_entropy_with_logits(ahead, targets.expand_as(ahead), reduction="none")
        .mean(1)
        .sum()
    )


def members_ahead(problem: PreferenceTask, nu: Tensor, first: Segments, second: Segments) -> Tensor:
    """By how much each member prefers the first, shape (members, N)."""
    a, b = (
        (problem.reward.members(nu, side) * torch.from_numpy(side.lived)).sum(-1) for side in (first, second)
    )
    return a - b


def _relabelled(problem: PreferenceTask, nu: Array, buffer: Segments) -> Array:
    with torch.no_grad():
        found: Array = problem.reward.steps(torch.from_numpy(nu), buffer).numpy()
    return found


def _spread_out(problem: PreferenceTask, buffer: Segments, neighbours: int = 5) -> Array:
    """``ln(1 + distance)`` of each state to its fifth neighbour in the buffer, over the standard deviation of all."""
    world = problem.world
    numbered = buffer.is_numbered
    points = encoded(buffer.observations[buffer.lived], world.states, numbered).numpy()
    points = points / np.maximum(points.std(0), 1e-8) if not numbered else points
    k = min(neighbours + 1, len(points))
    far = np.asarray(cKDTree(points).query(points, k=[k])[0])[:, 0]
    told = np.log1p(far)
    found = np.zeros(buffer.lived.shape)
    found[buffer.lived] = told / max(float(told.std()), 1e-8)
    return found
