"""Search among actions with features, whose rewards are nearly linear in few of them."""

from thalweg.online.actions.elimination import NetElimination
from thalweg.online.actions.method import ActionSearch
from thalweg.online.actions.net import Net, NetSize
from thalweg.online.actions.problem import ActionTable
from thalweg.online.actions.search import FoundAction, GapCertificate, Search

__all__ = [
    "ActionSearch",
    "ActionTable",
    "FoundAction",
    "GapCertificate",
    "Net",
    "NetElimination",
    "NetSize",
    "Search",
]
