"""The methods of inverse problems by name, and which of them suits a problem."""

from __future__ import annotations

from thalweg.core import Method, recommended
from thalweg.inverse.classical import CGSense, FilteredBackProjection, PseudoInverse
from thalweg.inverse.ddnm import DDNM
from thalweg.inverse.ddrm import DDRM
from thalweg.inverse.dds import DDS
from thalweg.inverse.diffpir import DiffPIR
from thalweg.inverse.dps import DPS, MCG
from thalweg.inverse.problem import InverseProblem
from thalweg.inverse.total_variation import TVADMM

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {
    "dds": DDS,
    "ddnm": DDNM,
    "ddrm": DDRM,
    "diffpir": DiffPIR,
    "dps": DPS,
    "mcg": MCG,
    "tv": TVADMM,
    "pinv": PseudoInverse,
    "fbp": FilteredBackProjection,
    "cg": CGSense,
}


@recommended.register
def for_inverse_problem(problem: InverseProblem) -> TVADMM:
    """Total variation, which needs no denoiser: which one suits the images, a problem cannot tell."""
    return TVADMM()
