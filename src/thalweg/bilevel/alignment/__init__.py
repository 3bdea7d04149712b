"""A reward trained on what its own policy does: preferences, payoffs and scores as a problem of two levels."""

from thalweg.bilevel.alignment.episodes import Episodes
from thalweg.bilevel.alignment.generic import reward_shaping, stackelberg
from thalweg.bilevel.alignment.levels import Ascent, exact_ascent, sampled_ascent
from thalweg.bilevel.alignment.mdp import TabularMDP, gridworld, tabular_gymnasium
from thalweg.bilevel.alignment.method import APARL, Alternation, LikelihoodIsNotReturn
from thalweg.bilevel.alignment.pebble import PEBBLE
from thalweg.bilevel.alignment.policies import GaussianPolicy, NetworkPolicy, SoftmaxPolicy, TablePolicy
from thalweg.bilevel.alignment.problem import Aligned, PreferenceTask
from thalweg.bilevel.alignment.rewards import LinearReward, NetworkReward, RewardModel, TableReward
from thalweg.bilevel.alignment.sampled import SampledAPARL, trajectory_gradient
from thalweg.bilevel.alignment.segments import Segments
from thalweg.bilevel.alignment.soft import SoftSolution, soft_policy
from thalweg.bilevel.alignment.store import OneSidedLabels, PairStore, load_preferences, save_preferences
from thalweg.bilevel.alignment.surf import SURF
from thalweg.bilevel.alignment.surrogate import TrajectorySurrogate, responses
from thalweg.bilevel.alignment.teacher import CallbackTeacher, InconsistentTeacher, ScriptedTeacher
from thalweg.bilevel.alignment.trajectories import Enumerated, Trajectories

__all__ = [
    "APARL",
    "Aligned",
    "Alternation",
    "Ascent",
    "CallbackTeacher",
    "Enumerated",
    "Episodes",
    "GaussianPolicy",
    "InconsistentTeacher",
    "LikelihoodIsNotReturn",
    "LinearReward",
    "PEBBLE",
    "NetworkPolicy",
    "NetworkReward",
    "OneSidedLabels",
    "PairStore",
    "PreferenceTask",
    "RewardModel",
    "SURF",
    "SampledAPARL",
    "ScriptedTeacher",
    "Segments",
    "SoftSolution",
    "SoftmaxPolicy",
    "TrajectorySurrogate",
    "TablePolicy",
    "TableReward",
    "TabularMDP",
    "Trajectories",
    "exact_ascent",
    "gridworld",
    "load_preferences",
    "responses",
    "reward_shaping",
    "sampled_ascent",
    "save_preferences",
    "soft_policy",
    "stackelberg",
    "tabular_gymnasium",
    "trajectory_gradient",
]
