"""Learn a policy from an expert who is asked about the states that the policy itself comes to.

Ross, Gordon and Bagnell (2011), "A reduction of imitation learning and structured prediction to no-regret online
learning" (DAgger); Lavington et al. (2023), section 5.2, where the expert's answers are the expensive part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from thalweg.core import InvalidProblem, Method, NotFinite, Problem, State, Status, Stop
from thalweg.core.validation import require, require_counts
from thalweg.numerics.markov import made_environment
from thalweg.training.surrogate import TargetSurrogate

if TYPE_CHECKING:
    from gymnasium import Env

Vector = NDArray[np.float64]
Actions = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ImitationTask(Problem):
    """An environment, an expert, and a policy that is to do as the expert does.

    Args:
        environment: a name of Gymnasium's registry, with vectors as observations and discrete or bounded actions.
        expert: takes observations, shape (n, d); gives actions, shape (n,) if discrete, else (n, k).
        policy: makes the network: observations to logits, one an action, or to actions.
        rounds: the budget; each has ``interactions`` steps in the environment, and as many answers of the expert.
        episodes: with which an answer is judged, from seeds of their own.

    The metrics of an answer are ``loss``, its distance from the expert on the states it comes to itself (the
    cross-entropy, or the mean squared error), and ``return``, the mean over the episodes.

    Raises:
        MissingExtra: without Gymnasium.
    """

    environment: str
    expert: Callable[[Vector], Actions]
    policy: Callable[[], nn.Module]
    rounds: int = 50
    interactions: int = 200
    episodes: int = 5

    def __post_init__(self) -> None:
        require_counts(self, "rounds", "interactions", "episodes")
        self.make().close()

    def make(self) -> Env[Vector, Any]:
        """A fresh environment."""
        return cast("Env[Vector, Any]", made_environment(self.environment))

    def discrete(self, environment: Env[Vector, Any]) -> bool:
        """Whether actions are numbers of a list."""
        return hasattr(environment.action_space, "n")

    def loss(self, answers: Tensor, actions: Tensor) -> Tensor:
        """Distance of the policy's outputs from the expert's actions."""
        if actions.dtype == torch.int64:
            return functional.cross_entropy(answers, actions)
        return functional.mse_loss(answers, actions)

    @torch.no_grad()
    def rollout(
        self, environment: Env[Vector, Any], policy: nn.Module, steps: int, seed: int
    ) -> tuple[Vector, list[float]]:
        """Observations of ``steps`` steps of the policy, shape (steps, d), and the returns of the finished episodes."""
        discrete = self.discrete(environment)
        seen, returns, total = [], [], 0.0
        observation, _ = environment.reset(seed=seed)
        for _ in range(steps):
            seen.append(np.asarray(observation, dtype=np.float64))
            answer = policy(torch.as_tensor(seen[-1], dtype=torch.float32)[None])[0].numpy()
            if not np.isfinite(answer).all():
                raise NotFinite("The policy's outputs are not finite. Lower the learner's rate.")
            action = int(answer.argmax()) if discrete else self._bounded(environment, answer)
            observation, reward, ended, cut, _ = environment.step(action)
            total += float(reward)
            if ended or cut:
                returns.append(total)
                total = 0.0
                observation, _ = environment.reset()
        return np.array(seen), returns or [total]

    def asked(self, observations: Vector) -> tuple[Tensor, Tensor]:
        """Observations and the expert's actions, as tensors for training."""
        actions = torch.as_tensor(np.asarray(self.expert(observations)))
        if len(actions) != len(observations):
            raise InvalidProblem(
                f"The expert gave {len(actions)} actions for {len(observations)} observations; expected as many."
            )
        whole = actions.dtype in (torch.int32, torch.int64, torch.bool)
        return torch.as_tensor(
            observations, dtype=torch.float32
        ), actions.long() if whole else actions.float()

    def recommended_stop(self) -> Stop:
        """The task's own rounds."""
        return Stop(steps=None)

    def metrics(self, x: nn.Module) -> dict[str, float]:
        """``loss`` and ``return`` of the policy x."""
        environment = self.make()
        limit = environment.spec.max_episode_steps or 1000
        losses, returns = [], []
        for episode in range(self.episodes):
            seen, some = self.rollout(environment, x, limit, seed=10_000 + episode)
            returns.append(some[0])
            with torch.no_grad():
                observations, actions = self.asked(seen)
                losses.append(float(self.loss(x(observations), actions)))
        environment.close()
        return {"loss": float(np.mean(losses)), "return": float(np.mean(returns))}

    @staticmethod
    def _bounded(environment: Env[Vector, Any], answer: NDArray[np.float32]) -> NDArray[np.float32]:
        space = environment.action_space
        return np.asarray(np.clip(answer, space.low, space.high).astype(space.dtype))


@dataclass(kw_only=True)
class ImitationState(State):
    """``x`` is the live policy; ``calls`` counts gradients of the loss."""

    x: nn.Module
    learner: Optimizer
    observations: list[Tensor] = field(default_factory=list)  # a round each, (interactions, d); of data="all"
    actions: list[Tensor] = field(default_factory=list)  # the expert's, at those
    round: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Imitate(Method[ImitationTask, ImitationState]):
    """Online imitation: each round the policy acts, the expert is asked, and the learner updates.

    Args:
        learner: makes the optimizer of the policy's parameters: any of torch's, or a `TargetSurrogate`.
        data: ``"round"``, what the last round saw (online gradient descent); ``"all"``, everything so far (DAgger,
            follow the leader).
        updates: of a plain optimizer a round; each needs the loss's gradient anew.
        label: what tables call it.

    The metrics of a step are ``loss`` on the round's states before the update, ``interactions`` and
    ``gradient_calls``.
    """

    in_place: ClassVar[bool] = True

    learner: Callable[[Iterable[nn.Parameter]], Optimizer]
    data: Literal["round", "all"] = "round"
    updates: int = 1
    label: str = "Imitate"

    def __post_init__(self) -> None:
        require(self.data in ("round", "all"), "Imitate needs data 'round' or 'all'", got=self.data)
        require(self.updates >= 1, "Imitate needs updates >= 1", got=self.updates)

    @property
    def name(self) -> str:
        """The label."""
        return self.label

    def init(self, problem: ImitationTask, seed: int) -> ImitationState:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            policy = problem.policy()
        return ImitationState(x=policy, learner=self.learner(policy.parameters()), seed=seed)

    def step(self, problem: ImitationTask, state: ImitationState) -> ImitationState:
        environment = problem.make()
        seed = 1_000 * state.seed + state.round
        seen, _ = problem.rollout(environment, state.x, problem.interactions, seed=seed)
        environment.close()
        observations, actions = problem.asked(seen)
        with torch.no_grad():
            loss = float(problem.loss(state.x(observations), actions))
        if not math.isfinite(loss):
            raise NotFinite(
                f"The loss is {loss} in round {state.round + 1}, after {state.calls} updates. Lower the learner's rate."
            )
        if self.data == "all":
            state.observations.append(observations)
            state.actions.append(actions)
            observations, actions = torch.cat(state.observations), torch.cat(state.actions)
        calls = self._update(problem, state, observations, actions)
        state.round += 1
        state.calls += calls
        state.metrics = {
            "loss": loss,
            "interactions": float(state.round * problem.interactions),
            "gradient_calls": float(state.calls),
        }
        if state.round == problem.rounds:
            state.status, state.message = Status.EXHAUSTED, f"The task's {problem.rounds} rounds are done."
        return state

    def _update(
        self, problem: ImitationTask, state: ImitationState, observations: Tensor, actions: Tensor
    ) -> int:
        if isinstance(state.learner, TargetSurrogate):
            state.learner.step(lambda: state.x(observations), lambda z: problem.loss(z, actions))
            return 1

        def closure() -> Tensor:
            state.learner.zero_grad()
            with torch.enable_grad():
                loss = problem.loss(state.x(observations), actions)
                loss.backward()
            return loss

        for _ in range(self.updates):
            state.learner.step(closure)  # type: ignore[arg-type]  # torch takes a tensor too
        return self.updates
