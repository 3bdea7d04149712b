"""The wish for a new optimizer: update rules and schedules as programs, searched by evolution."""

from thalweg.discovery.abstract import Rejection, check, live, structural_hash, without_dead
from thalweg.discovery.behaviour import behaviour
from thalweg.discovery.cache import LossCache
from thalweg.discovery.evolution import RandomPrograms, RegularizedEvolution
from thalweg.discovery.functions import FUNCTIONS
from thalweg.discovery.interpreter import Rule, run_batch, skeleton
from thalweg.discovery.mutation import Mutations
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
