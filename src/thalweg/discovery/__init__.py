"""The wish for a new optimizer: update rules and schedules as programs, searched by evolution."""

from thalweg.discovery.abstract import Rejection, check, live, structural_hash, without_dead
from thalweg.discovery.cache import LossCache
from thalweg.discovery.evolution import RandomPrograms, RegularizedEvolution
from thalweg.discovery.functions import FUNCTIONS
from thalweg.discovery.funnelling import Funnelled, funnel
from thalweg.discovery.interpreter import Rule
from thalweg.discovery.mutation import Mutations
from thalweg.discovery.optimizer import ProgramOptimizer, optimizer_class, read_program, write_optimizer
from thalweg.discovery.probing import behaviour
from thalweg.discovery.problem import ProgramSearch
from thalweg.discovery.program import (
    ADAMW,
    LION,
    OPTIMIZER,
    PUBLISHED_RAW,
    SCHEDULE,
    Program,
    Signature,
    Statement,
    parse,
)
from thalweg.discovery.proxies import PROXIES, DigitsMLP, DigitsSchedule, NetworkProxy
from thalweg.discovery.recommended import METHODS
from thalweg.discovery.searching import Discovery, search
from thalweg.discovery.simplification import Change, Simplified, simplified
from thalweg.discovery.watching import ProgramWatch

__all__ = [
    "ADAMW",
    "Change",
    "DigitsMLP",
    "DigitsSchedule",
    "Discovery",
    "FUNCTIONS",
    "Funnelled",
    "LION",
    "LossCache",
    "METHODS",
    "Mutations",
    "NetworkProxy",
    "OPTIMIZER",
    "PROXIES",
    "PUBLISHED_RAW",
    "Program",
    "ProgramOptimizer",
    "ProgramSearch",
    "ProgramWatch",
    "RandomPrograms",
    "RegularizedEvolution",
    "Rejection",
    "Rule",
    "SCHEDULE",
    "Signature",
    "Simplified",
    "Statement",
    "behaviour",
    "check",
    "funnel",
    "live",
    "optimizer_class",
    "parse",
    "read_program",
    "search",
    "simplified",
    "structural_hash",
    "without_dead",
    "write_optimizer",
]
