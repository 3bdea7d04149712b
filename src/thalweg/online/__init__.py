"""Decisions to make as the data comes: bandits that `act` and `learn`, episodes, predictions good on every group."""

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
    "AdaNormalHedge",
    "AdversarialMDP",
    "Binned",
    "BlumLykouris",
    "By",
    "ChebCB",
    "Encoded",
    "EpisodeLearner",
    "Fixed",
    "GroupedStream",
    "Groupwise",
    "GroupwiseLeader",
    "GroupwiseRegressor",
    "Hindsight",
    "LogBarrier",
    "LossTable",
    "MagnitudeReduced",
    "OneForAll",
    "OutsideRange",
    "PerturbedLeader",
    "Play",
    "Policy",
    "RowEncoder",
    "RowLearner",
    "ShortestPath",
    "Specialists",
    "TimeIntervals",
    "TsallisINF",
    "Where",
    "encode",
    "group_rules",
    "horizon_noise",
    "regret_curve",
    "tsallis_probabilities",
]
