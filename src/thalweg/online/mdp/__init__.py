"""Episodes in a Markov decision process with linear features, whose losses change arbitrarily."""

from thalweg.online.mdp.adversaries import block_losses, fixed_losses, sinusoidal_losses, switching_losses
from thalweg.online.mdp.bonus import dilated_bonus
from thalweg.online.mdp.constants import Constants
from thalweg.online.mdp.covariance import (
    geometric_resampling,
    inverse_covariance,
    resampling_length,
    samples_needed,
)
from thalweg.online.mdp.environments import (
    grid,
    lock,
    lock_losses,
    measured_dynamics,
    random_linear_mdp,
    tabular,
)
from thalweg.online.mdp.epochs import EpochLearner, SimulatorFree
from thalweg.online.mdp.estimators import negative_mean, plain_estimates, reduced_estimates
from thalweg.online.mdp.features import FeatureLearner, Rollouts
from thalweg.online.mdp.ftrl import entropy_probabilities, log_barrier_probabilities
from thalweg.online.mdp.gymnasium_world import GymnasiumWorld
from thalweg.online.mdp.learner import EpisodeLearner
from thalweg.online.mdp.linear import FeatureWorld, LinearLearner, SimulatedWorld
from thalweg.online.mdp.methods import (
    EpisodicMethod,
    LogBarrier,
    LuoWeiLee,
    MagnitudeReduced,
    PlainEntropy,
    RegularizedLeader,
    UniformPolicy,
)
from thalweg.online.mdp.problem import AdversarialMDP, Dynamics, NotLinear

__all__ = [
    "AdversarialMDP",
    "Constants",
    "Dynamics",
    "EpisodeLearner",
    "EpochLearner",
    "FeatureLearner",
    "EpisodicMethod",
    "FeatureWorld",
    "GymnasiumWorld",
    "LinearLearner",
    "LogBarrier",
    "LuoWeiLee",
    "MagnitudeReduced",
    "NotLinear",
    "PlainEntropy",
    "RegularizedLeader",
    "Rollouts",
    "SimulatedWorld",
    "SimulatorFree",
    "UniformPolicy",
    "block_losses",
    "dilated_bonus",
    "entropy_probabilities",
    "fixed_losses",
    "geometric_resampling",
    "grid",
    "inverse_covariance",
    "lock",
    "lock_losses",
    "log_barrier_probabilities",
    "measured_dynamics",
    "negative_mean",
    "plain_estimates",
    "random_linear_mdp",
    "reduced_estimates",
    "resampling_length",
    "samples_needed",
    "sinusoidal_losses",
    "switching_losses",
    "tabular",
]
