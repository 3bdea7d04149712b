"""The policies by name, and which of them suits a table of losses."""

from __future__ import annotations

from thalweg.core import InvalidParameter, Method, recommended
from thalweg.core.contestant import contestant
from thalweg.online.cheb_cb import ChebCB
from thalweg.online.policy import Fixed, Policy
from thalweg.online.problem import LossTable, Play, PlayState
from thalweg.online.tsallis_inf import TsallisINF

#: The area's policies, by the names that tables use.
METHODS: dict[str, type[Policy]] = {"cheb-cb": ChebCB, "fixed": Fixed, "tsallis-inf": TsallisINF}


@recommended.register
def for_losses(problem: LossTable) -> Play:
    """Tsallis-INF: the best of both worlds, stochastic and adversarial losses."""
    return Play(TsallisINF(problem.arms))


@contestant.register
def of_losses(problem: LossTable, entrant: object) -> Method[LossTable, PlayState]:
    """Any policy of `thalweg.online`."""
    if isinstance(entrant, Method):
        return entrant
    if isinstance(entrant, Policy):
        return Play(entrant)
    raise InvalidParameter(f"A LossTable is compared by policies such as TsallisINF(arms); got {entrant!r}.")
