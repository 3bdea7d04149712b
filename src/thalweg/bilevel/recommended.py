"""The methods for nested problems by name, and which of them suits a problem."""

from __future__ import annotations

from typing import Any

from thalweg.bilevel.blocks import BlockDescent
from thalweg.bilevel.borep import BOREP
from thalweg.bilevel.descent import AID, BOME, ITD, TTSA, StocBiO
from thalweg.bilevel.inner import Anderson, Composite, MirrorDescent, Newton, ProximalGradient
from thalweg.bilevel.penalty import MomentumPenalty, Penalty
from thalweg.bilevel.problem import Bilevel
from thalweg.bilevel.selftuning.scheduled import ScheduledTraining
from thalweg.bilevel.selftuning.tuner import SelfTuner, SelfTuningTask
from thalweg.bilevel.single_loop import MASOBA, MRBO, SABA
from thalweg.core import Method, recommended

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method[Any, Any]]] = {
    "aid": AID,
    "anderson": Anderson,
    "block-descent": BlockDescent,
    "bo-rep": BOREP,
    "bome": BOME,
    "itd": ITD,
    "ma-soba": MASOBA,
    "mirror-descent": MirrorDescent,
    "momentum-penalty": MomentumPenalty,
    "mrbo": MRBO,
    "newton": Newton,
    "penalty": Penalty,
    "proximal-gradient": ProximalGradient,
    "saba": SABA,
    "scheduled-training": ScheduledTraining,
    "self-tuner": SelfTuner,
    "stocbio": StocBiO,
    "ttsa": TTSA,
}


@recommended.register
def for_composites(problem: Composite) -> ProximalGradient:
    """FISTA."""
    return ProximalGradient()


@recommended.register
def for_two_levels(problem: Bilevel) -> Penalty:
    """The double-loop penalty method: it needs gradients only."""
    return Penalty()


@recommended.register
def for_self_tuning(problem: SelfTuningTask) -> SelfTuner:
    """STN with its defaults."""
    return SelfTuner()
