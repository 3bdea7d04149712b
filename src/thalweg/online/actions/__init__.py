"""Search among actions with features, whose rewards are nearly linear in few of them."""

from thalweg.online.actions.elimination import NetElimination
from thalweg.online.actions.g_optimal import GOptimal, OptimalDesign, PhasedElimination, g_optimal_design
from thalweg.online.actions.lazy import LazyElimination
from thalweg.online.actions.method import ActionSearch
from thalweg.online.actions.net import NetSize
from thalweg.online.actions.problem import ActionTable
from thalweg.online.actions.rivals import EpsilonGreedy, LinUCB, RandomActions
from thalweg.online.actions.search import FoundAction, GapCertificate, Search
from thalweg.online.actions.sparse_design import ExploreThenCommit, SparseDesign

__all__ = [
    "ActionSearch",
    "ActionTable",
    "EpsilonGreedy",
    "ExploreThenCommit",
    "FoundAction",
    "GOptimal",
    "GapCertificate",
    "LazyElimination",
    "LinUCB",
    "NetElimination",
    "NetSize",
    "OptimalDesign",
    "PhasedElimination",
    "RandomActions",
    "Search",
    "SparseDesign",
    "g_optimal_design",
]
