"""Decisions to make as the data comes: bandits that `act` and `learn`."""

from thalweg.online.cheb_cb import ChebCB
from thalweg.online.policy import Binned, Fixed, OutsideRange, Policy
from thalweg.online.problem import LossTable, Play
from thalweg.online.recommended import METHODS
from thalweg.online.tsallis_inf import TsallisINF, tsallis_probabilities

__all__ = [
    "METHODS",
    "Binned",
    "ChebCB",
    "Fixed",
    "LossTable",
    "OutsideRange",
    "Play",
    "Policy",
    "TsallisINF",
    "tsallis_probabilities",
]
