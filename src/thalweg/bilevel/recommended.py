"""The methods for nested problems by name, and which of them suits a problem."""

from __future__ import annotations

from thalweg.bilevel.alignment.method import APARL, Alternation
from thalweg.bilevel.alignment.objectives import Objective
from thalweg.bilevel.alignment.pebble import PEBBLE
from thalweg.bilevel.alignment.problem import PreferenceTask
from thalweg.bilevel.alignment.sampled import SampledAPARL
from thalweg.bilevel.alignment.surf import SURF
from thalweg.bilevel.alignment.teacher import ScriptedTeacher
from thalweg.bilevel.anderson import Anderson
from thalweg.bilevel.blocks import BlockDescent
from thalweg.bilevel.borep import BOREP
from thalweg.bilevel.composite import Composite
from thalweg.bilevel.descent import AID, BOME, ITD, TTSA, StocBiO
from thalweg.bilevel.mirror_descent import MirrorDescent
from thalweg.bilevel.newton import Newton
from thalweg.bilevel.penalty import MomentumPenalty, Penalty
from thalweg.bilevel.problem import Bilevel
from thalweg.bilevel.proximal_gradient import ProximalGradient
from thalweg.bilevel.selftuning.scheduled import ScheduledTraining
from thalweg.bilevel.selftuning.tuner import SelfTuner, SelfTuningTask
from thalweg.bilevel.single_loop import MASOBA, MRBO, SABA
from thalweg.core import Method, recommended

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {
    "a-parl": APARL,
    "aid": AID,
    "alternation": Alternation,
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
    "pebble": PEBBLE,
    "penalty": Penalty,
    "proximal-gradient": ProximalGradient,
    "saba": SABA,
    "scheduled-training": ScheduledTraining,
    "sampled-a-parl": SampledAPARL,
    "self-tuner": SelfTuner,
    "stocbio": StocBiO,
    "surf": SURF,
    "ttsa": TTSA,
}


@recommended.register
def for_composites(problem: Composite) -> ProximalGradient:
    """FISTA."""
    return ProximalGradient()


@recommended.register
def for_two_levels(problem: Bilevel) -> AID | Penalty:
    """Implicit differentiation where gradients are exact and the lower level is free; else the penalty method.

    Where gradients are exact the penalty is fixed at 0.01: the answer is stationary for the penalised objective, within
    about a hundredth of the bilevel one.
    """
    if problem.upper_batches is not None or problem.lower_batches is not None:
        return Penalty()
    return AID() if problem.y_set is None else Penalty(penalty=0.01)


@recommended.register
def for_self_tuning(problem: SelfTuningTask) -> SelfTuner:
    """STN with its defaults."""
    return SelfTuner()


@recommended.register
def for_preferences(problem: PreferenceTask) -> APARL | SampledAPARL:
    """A-PARL: exact below in tables without end, else sampled.

    A store of labelled pairs without a teacher is fitted by `Alternation`; scores by ``objective="utility"``.
    """
    if problem.teacher is None and problem.store is not None:
        return Alternation()
    objective: Objective = "loglik+versus" if problem.teacher is not None else "utility"
    if problem.is_endless:
        exact = isinstance(problem.teacher, ScriptedTeacher | None) and problem.length == 1
        return APARL(objective, pairs=None if exact else 64)
    return SampledAPARL(objective)
