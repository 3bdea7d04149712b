# The public names: type checkers read this file, and so does lazy_loader at run time.
from .actions import ActionSearch as ActionSearch
from .actions import ActionTable as ActionTable
from .actions import EpsilonGreedy as EpsilonGreedy
from .actions import ExploreThenCommit as ExploreThenCommit
from .actions import FoundAction as FoundAction
from .actions import GapCertificate as GapCertificate
from .actions import GOptimal as GOptimal
from .actions import LazyElimination as LazyElimination
from .actions import LinUCB as LinUCB
from .actions import NetElimination as NetElimination
from .actions import NetSize as NetSize
from .actions import OptimalDesign as OptimalDesign
from .actions import PhasedElimination as PhasedElimination
from .actions import RandomActions as RandomActions
from .actions import Search as Search
from .actions import SparseDesign as SparseDesign
from .actions import g_optimal_design as g_optimal_design
from .cheb_cb import ChebCB as ChebCB
from .encoding import Encoded as Encoded
from .encoding import RowEncoder as RowEncoder
from .encoding import encode as encode
from .encoding import group_rules as group_rules
from .experts import AdaNormalHedge as AdaNormalHedge
from .experts import Specialists as Specialists
from .groups import By as By
from .groups import TimeIntervals as TimeIntervals
from .groups import Where as Where
from .groupwise import GroupwiseRegressor as GroupwiseRegressor
from .ledger import Hindsight as Hindsight
from .ledger import regret_curve as regret_curve
from .mdp import AdversarialMDP as AdversarialMDP
from .mdp import EpisodeLearner as EpisodeLearner
from .mdp import LogBarrier as LogBarrier
from .mdp import MagnitudeReduced as MagnitudeReduced
from .perturbed_leader import BlumLykouris as BlumLykouris
from .perturbed_leader import GroupwiseLeader as GroupwiseLeader
from .perturbed_leader import PerturbedLeader as PerturbedLeader
from .perturbed_leader import ShortestPath as ShortestPath
from .perturbed_leader import horizon_noise as horizon_noise
from .play import Play as Play
from .policy import Binned as Binned
from .policy import Fixed as Fixed
from .policy import OutsideRange as OutsideRange
from .policy import Policy as Policy
from .predict import Groupwise as Groupwise
from .predict import OneForAll as OneForAll
from .problem import LossTable as LossTable
from .recommended import METHODS as METHODS
from .rows import RowLearner as RowLearner
from .stream import GroupedStream as GroupedStream
from .tsallis_inf import TsallisINF as TsallisINF
from .tsallis_inf import tsallis_probabilities as tsallis_probabilities

__all__ = [
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
    "METHODS",
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
