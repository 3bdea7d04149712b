"""The preference task: a world, a model of its reward, and who says what is better."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import torch
from scipy.special import log_expit, softmax
from torch import Tensor

from thalweg.bilevel.alignment.episodes import Episodes
from thalweg.bilevel.alignment.mdp import TabularMDP
from thalweg.bilevel.alignment.objectives import Objective, expected
from thalweg.bilevel.alignment.policies import Policy, SoftmaxPolicy, TablePolicy
from thalweg.bilevel.alignment.rewards import RewardModel
from thalweg.bilevel.alignment.segments import Array, Segments
from thalweg.bilevel.alignment.soft import soft_policy
from thalweg.bilevel.alignment.store import PairStore
from thalweg.bilevel.alignment.teacher import ScriptedTeacher, Teacher
from thalweg.bilevel.alignment.trajectories import Enumerated
from thalweg.core import InvalidProblem, Problem, Stop
from thalweg.core.seeding import generator
from thalweg.core.validation import check_vector, is_real, is_whole, require

#: Episodes by which an answer in a world of `Episodes` is judged.
JUDGED = 20
#: Returns closer than this share of their size are equal: all policies are alike, and there is no share.
EQUAL = 1e-9


class Aligned(NamedTuple):
    """An answer: parameters of the reward, shape (m,), and of the policy, shape (n,)."""

    reward: Array
    policy: Array


@dataclass(frozen=True, eq=False)
class PreferenceTask(Problem):
    """Train a reward from preferences about what its own policy does, and the policy with it.

    Args:
        world: a `TabularMDP`, or `Episodes` of a Gymnasium environment.
        reward: the model, such as ``TableReward(world.states, world.actions)``.
        teacher: answers for pairs; None where all answers are in the store.
        store: pairs that are labelled already.
        scores: a score of each state and action, shape (S, A) or (S,), for the objective ``utility``: the leader's
            payoff, the designer's.
        policy: the policies among which the lower level chooses; by default a softmax table, or what fits the episodes.
        length: steps of the segments that are compared; by default 1 in worlds without end, all of a life in others.
        entropy: weight of the policy's entropy in the lower level, in units of the model's reward. Default 0.1 in
            worlds without end, else 0.
        ridge: lam, of ``-(lam/2)|theta|^2`` in the lower level. Default 0.05 in worlds with an end, else 0. A softmax
            has no best parameters without one of the two.

    An answer is the reward's parameters, shape (m,), judged by the policy that is best for it, or `Aligned`, judged by
    its own policy. The metrics, as far as they can be known: ``return``, the true discounted return; ``share``, that
    return between the uniform policy's (0) and (1) that of the policy trained on the true reward, in worlds with a
    horizon that of the best policy; above one where less entropy pays; ``loglik``, the expected log-likelihood of
    labels of the policy's own pairs, exact in tables; ``utility``, the expected score; ``agreement`` and
    ``store_loglik``, of the stored labels. A higher ``loglik`` is *not* a better policy: look at ``return``.

    Raises:
        InvalidProblem: parts that do not fit one another, neither answers nor scores, a lower level without a maximum.

    >>> from thalweg.bilevel.alignment import TableReward, gridworld
    >>> world = gridworld(3, traps=1)
    >>> task = PreferenceTask(world, TableReward(9, 4), ScriptedTeacher(beta=3.0))
    >>> round(task.metrics(world.reward.ravel())["share"], 6)
    1.0
    """

    world: TabularMDP | Episodes
    reward: RewardModel
    teacher: Teacher | None = None
    store: PairStore | None = None
    scores: Array | None = None
    policy: Policy = None  # type: ignore[assignment]  # chosen by the world from here on
    length: int = None  # type: ignore[assignment]
    entropy: float = None  # type: ignore[assignment]
    ridge: float = None  # type: ignore[assignment]
    _cache: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        world = self.world
        for name, fits, what in (
            ("world", isinstance(world, TabularMDP | Episodes), "a TabularMDP or Episodes"),
            ("reward", isinstance(self.reward, RewardModel), "a RewardModel, such as TableReward"),
            ("teacher", self.teacher is None or hasattr(self.teacher, "label"), "a teacher, with label()"),
            ("store", self.store is None or isinstance(self.store, PairStore), "a PairStore"),
        ):
            if not fits:
                raise InvalidProblem(
                    f"PreferenceTask: {name} is a {type(getattr(self, name)).__name__}; expected {what}."
                )
        endless = self.is_endless
        defaults = {
            "policy": TablePolicy(world.states, world.actions)
            if isinstance(world, TabularMDP)
            else world.policy(),
            "length": 1 if endless else world.horizon,
            "entropy": 0.1 if endless else 0.0,
            "ridge": 0.0 if endless else 0.05,
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.teacher is None and self.store is None and self.scores is None:
            raise InvalidProblem("PreferenceTask needs a teacher, a store of labelled pairs, or scores.")
        for name in ("entropy", "ridge"):
            value = getattr(self, name)
            require(
                is_real(value) and 0 <= value < np.inf,
                f"PreferenceTask needs {name} >= 0",
                got=value,
                error=InvalidProblem,
            )
        if self.entropy == 0 and self.ridge == 0:
            raise InvalidProblem(
                "PreferenceTask: entropy and ridge are both 0, so that the best softmax lies at infinity and has no "
                "derivative. Give entropy > 0, or ridge > 0."
            )
        longest = np.inf if world.horizon is None else world.horizon
        require(
            is_whole(self.length) and 1 <= self.length <= longest,
            f"PreferenceTask needs 1 <= length <= {longest}",
            got=self.length,
            error=InvalidProblem,
        )
        if isinstance(world, TabularMDP):
            if not isinstance(self.policy, SoftmaxPolicy):
                raise InvalidProblem(
                    "PreferenceTask: a table has numbered actions; give a TablePolicy or NetworkPolicy."
                )
            self._check_table(world)
        elif self.scores is not None:
            raise InvalidProblem(
                "PreferenceTask: scores are tables; Episodes have their own reward for score."
            )

    def _check_table(self, world: TabularMDP) -> None:
        start = self.reward.start(0)
        expected_shape = (world.states, world.actions)
        try:
            found = self.reward.table(start, *expected_shape).shape
        except (ValueError, RuntimeError, IndexError) as error:
            raise InvalidProblem(
                f"PreferenceTask: the reward model does not fit the world: {error}"
            ) from error
        if found != expected_shape:
            raise InvalidProblem(
                f"PreferenceTask: the reward model is of {found} states and actions, the world of {expected_shape}."
            )
        if self.store is not None:
            self.store.check_fits(world.states, world.actions)
        if self.scores is not None:
            object.__setattr__(self, "scores", world.checked_table("scores", self.scores))
        if isinstance(self.teacher, ScriptedTeacher) and world.reward is None:
            raise InvalidProblem(
                "PreferenceTask: a ScriptedTeacher needs the world's true reward, TabularMDP(reward=)."
            )

    @property
    def is_endless(self) -> bool:
        """Whether the world is a table without a horizon."""
        return isinstance(self.world, TabularMDP) and self.world.horizon is None

    @property
    def table(self) -> TabularMDP:
        """The world, where it is a table; else `InvalidProblem`."""
        if not isinstance(self.world, TabularMDP):
            raise InvalidProblem("The world is made of Episodes; what is asked for needs a TabularMDP.")
        return self.world

    @property
    def asked(self) -> Teacher:
        """The teacher; `InvalidProblem` where there is none."""
        if self.teacher is None:
            raise InvalidProblem(
                "Pairs are drawn for a teacher; this task has none. Fit a store by Alternation."
            )
        return self.teacher

    def policy_table(self, theta: Tensor) -> Array:
        """The chances of a softmax policy in a world of numbers, shape (S, A)."""
        with torch.no_grad():
            logits = cast(SoftmaxPolicy, self.policy).logits(theta, np.arange(self.world.states))
        return logits.softmax(-1).numpy()

    def recommended_stop(self) -> Stop:
        """150 steps of the reward."""
        return Stop(steps=150)

    @cached_property
    def enumerated(self) -> Enumerated:
        """All trajectories of a table with a horizon."""
        return Enumerated.of(self.table)

    @cached_property
    def preferred(self) -> Array:
        """The scripted teacher's ``P(i preferred to j)``: of states with actions, or of all trajectories.

        Raises:
            InvalidProblem: a teacher who can only be asked, or who skips pairs.
        """
        teacher, world = self.teacher, self.world
        if not isinstance(teacher, ScriptedTeacher) or not isinstance(world, TabularMDP):
            raise InvalidProblem(
                "Exact expectations need a table and a ScriptedTeacher, whose chances are known. Give pairs=, the "
                "number of pairs that are drawn a step."
            )
        if teacher.skip > -np.inf:
            raise InvalidProblem("Exact expectations have no teacher who skips pairs. Give pairs=.")
        true = cast(Array, world.reward)
        if self.is_endless:
            if self.length != 1:
                raise InvalidProblem(
                    f"Exact expectations compare single steps; length is {self.length}. Give pairs=, or length=1."
                )
            sums = true.ravel()
        else:
            if self.length != world.horizon:
                raise InvalidProblem(
                    f"Exact expectations compare whole lives of {world.horizon} steps; length is {self.length}."
                )
            s = self.enumerated.segments
            sums = teacher.sums(true[s.observations, s.actions])
        return teacher.probability(sums[:, None], sums[None, :])

    @property
    def piece_scores(self) -> Array:
        """The score of each state and action, or of each trajectory, flat."""
        if self.scores is None:
            raise InvalidProblem("The objective 'utility' needs PreferenceTask(scores=).")
        if self.is_endless:
            return self.scores.ravel()
        s = self.enumerated.segments
        powers = self.world.discount ** np.arange(s.length, dtype=np.float64)
        found: Array = self.scores[s.observations, s.actions] @ powers
        return found

    def rollouts(self, theta: Tensor, n: int, rng: np.random.Generator) -> tuple[Segments, Array | None]:
        """``n`` lives under a policy, and the true rewards of their steps where there are any."""
        world = self.world
        if isinstance(world, Episodes):
            return world.rollouts(lambda seen, stream: self.policy.act(theta, seen, stream), n, rng)
        found = world.rollouts(self.policy_table(theta), n, cast(int, world.horizon), rng)
        return found, self.true_rewards(found)

    def true_rewards(self, segments: Segments) -> Array | None:
        """Of the steps, in tables that know it."""
        if not isinstance(self.world, TabularMDP) or self.world.reward is None:
            return None
        found: Array = self.world.reward[segments.observations, segments.actions]
        return found

    def policy_of(self, nu: Array) -> Array:
        """The best policy for a reward in a table, shape (S, A)."""
        world = self.table
        table = self.reward.table(nu, world.states, world.actions)
        if self.is_endless:
            return soft_policy(world, table, self.entropy).policy
        start = np.zeros((world.states, world.actions))
        found: Array = softmax(self.enumerated.solved(table, self.ridge, start)[0].theta, axis=1)
        return found

    def metrics(self, x: Array | Aligned) -> dict[str, float]:
        """See the class."""
        if isinstance(x, Aligned):
            nu = check_vector("x.reward", x.reward, self.reward.size)
            theta = check_vector("x.policy", x.policy, self.policy.size)
        else:
            nu, theta = check_vector("x", x, self.reward.size), None
        found: dict[str, float] = {}
        world = self.world
        if isinstance(world, Episodes):
            if theta is None:
                raise InvalidProblem(
                    "PreferenceTask: an answer in a world of Episodes is an Aligned(reward, policy)."
                )
            _, rewards = self.rollouts(torch.from_numpy(theta), JUDGED, generator(0, 0x7D9))
            found["return"] = float(cast(Array, rewards).sum(1).mean())
        else:
            policy = self.policy_of(nu) if theta is None else self.policy_table(torch.from_numpy(theta))
            found |= self._table_metrics(world, nu, policy)
        if self.store is not None:
            found |= self._store_metrics(self.store, nu)
        return found

    def _table_metrics(self, world: TabularMDP, nu: Array, policy: Array) -> dict[str, float]:
        found: dict[str, float] = {}
        if world.reward is not None:
            found["return"] = world.value(policy, world.reward)
            random, best = self._ends(world)
            if best - random > EQUAL * (abs(best) + abs(random)):
                found["share"] = (found["return"] - random) / (best - random)
        if self.scores is not None:
            found["utility"] = world.value(policy, self.scores)
        exact = (
            isinstance(self.teacher, ScriptedTeacher) and self.teacher.skip == -np.inf and self.length == 1
        )
        if exact and self.is_endless:
            found["loglik"] = self.exact_objective("loglik", nu, policy)
        return found

    def exact_objective(self, objective: Objective, nu: Array, policy: Array) -> float:
        """G of a reward and a policy, shape (S, A), in a world without end, over single steps drawn by occupancy."""
        world = self.table
        moves = np.einsum("sa,sat->ts", policy, world.transitions)
        states = np.linalg.solve(np.eye(world.states) - world.discount * moves, world.start)
        chances = ((1.0 - world.discount) * states[:, None] * policy).ravel()
        returns = self.reward.table(nu, world.states, world.actions).ravel()
        if objective == "utility":
            return expected(objective, chances, returns, scores=self.piece_scores).value
        return expected(objective, chances, returns, self.preferred).value

    def _ends(self, world: TabularMDP) -> tuple[float, float]:
        """True returns of the uniform policy, and of the policy trained on the true reward or the best of all."""
        true = cast(Array, world.reward)
        if not self._cache:
            uniform = np.full((world.states, world.actions), 1.0 / world.actions)
            self._cache["random"] = world.value(uniform, true)
            if self.is_endless:
                best = world.value(soft_policy(world, true, self.entropy).policy, true)
            else:
                best = world.best_value(true)
            self._cache["best"] = best
        return self._cache["random"], self._cache["best"]

    def _store_metrics(self, store: PairStore, nu: Array) -> dict[str, float]:
        powers = self.world.discount ** np.arange(store.length, dtype=np.float64)
        with torch.no_grad():
            at = torch.from_numpy(nu)
            a, b = (self.reward.steps(at, side).numpy() @ powers for side in (store.first, store.second))
        y, ahead = store.targets, a - b
        decided = y != 0.5
        right = np.where(ahead == 0, 0.5, (ahead > 0) == (y == 1.0))[decided]
        told = float((y * log_expit(ahead) + (1.0 - y) * log_expit(-ahead)).mean())
        return {"agreement": float(right.mean()), "store_loglik": told}
