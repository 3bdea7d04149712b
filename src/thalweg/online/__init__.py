"""Decisions as the data comes: bandits that `act` and `learn`, episodes, searches, predictions good on every group."""

from thalweg.online.actions import (
    ActionSearch,
    ActionTable,
    EpsilonGreedy,
    ExploreThenCommit,
    FoundAction,
    GapCertificate,
    GOptimal,
    LazyElimination,
    LinUCB,
    NetElimination,
    NetSize,
    OptimalDesign,
    PhasedElimination,
    RandomActions,
    Search,
    SparseDesign,
    g_optimal_design,
)
from thalweg.online.cheb_cb import ChebCB
from thalweg.online.encoding import Encoded, RowEncoder, encode, group_rules
from thalweg.online.experts import AdaNormalHedge, Specialists
from thalweg.online.groups import By, TimeIntervals, Where
from thalweg.online.groupwise import GroupwiseRegressor
from thalweg.online.ledger import Hindsight, regret_curve
from thalweg.online.mdp import AdversarialMDP, EpisodeLearner, LogBarrier, MagnitudeReduced
from thalweg.online.perturbed_leader import (
    BlumLykouris,
    GroupwiseLeader,
    PerturbedLeader,
    ShortestPath,
    horizon_noise,
)
from thalweg.online.play import Play
from thalweg.online.policy import Binned, Fixed, OutsideRange, Policy
from thalweg.online.predict import Groupwise, OneForAll
from thalweg.online.problem import LossTable
from thalweg.online.recommended import METHODS
from thalweg.online.rows import RowLearner
from thalweg.online.stream import GroupedStream
from thalweg.online.tsallis_inf import TsallisINF, tsallis_probabilities

__all__ = [
    "METHODS",
    "ActionSearch",
    "ActionTable",
    "AdaNormalHedge",
    "AdversarialMDP",
    "Binned",
    "BlumLykouris",
    "By",
    "ChebCB",
    "Encoded",
    "EpisodeLearner",
    "EpsilonGreedy",
    "ExploreThenCommit",
    "Fixed",
    "FoundAction",
    "GOptimal",
    "GapCertificate",
    "GroupedStream",
    "Groupwise",
    "GroupwiseLeader",
    "GroupwiseRegressor",
    "Hindsight",
    "LazyElimination",
    "LinUCB",
    "LogBarrier",
    "LossTable",
    "MagnitudeReduced",
    "NetElimination",
    "NetSize",
    "OneForAll",
    "OptimalDesign",
    "OutsideRange",
    "PerturbedLeader",
    "PhasedElimination",
    "Play",
    "Policy",
    "RandomActions",
    "RowEncoder",
    "RowLearner",
    "Search",
    "ShortestPath",
    "SparseDesign",
    "Specialists",
    "TimeIntervals",
    "TsallisINF",
    "Where",
    "encode",
    "g_optimal_design",
    "group_rules",
    "horizon_noise",
    "regret_curve",
    "tsallis_probabilities",
]
