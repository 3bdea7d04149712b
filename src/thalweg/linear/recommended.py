"""The methods for linear systems by name, and which of them suits a system."""

from __future__ import annotations

import scipy.sparse as sp

from thalweg.core import Method, recommended
from thalweg.core.by_name import MethodsByName
from thalweg.linear.krylov import GMRES, SSORCG, ConjugateGradient
from thalweg.linear.problem import SYMMETRY_TOLERANCE, LinearSystem
from thalweg.linear.sequence import LearnedSolver, LinearSystemSequence
from thalweg.linear.sequence_solver import omega_grid
from thalweg.online import TsallisINF

#: The area's methods, by the names that tables and the command use.
METHODS = MethodsByName(
    "thalweg.linear",
    {
        "adam-training": "AdamTraining",
        "cg": "ConjugateGradient",
        "deep-conjugate-direction": "DeepConjugateDirection",
        "deflated-cg": "DeflatedCG",
        "direct": "Direct",
        "flexible-cg": "FlexibleCG",
        "gauss-seidel": "GaussSeidel",
        "gmres": "GMRES",
        "instance-optimal": "InstanceOptimal",
        "jacobi": "Jacobi",
        "learned": "LearnedSolver",
        "red-black-sor": "RedBlackSOR",
        "sor": "SOR",
        "ssor": "SSOR",
        "ssor-cg": "SSORCG",
    },
)


@recommended.register
def for_a_system(problem: LinearSystem) -> Method[LinearSystem]:
    """SSOR-preconditioned CG where A is symmetric with a positive diagonal, GMRES otherwise."""
    if hasattr(problem.A, "to_csr"):
        return ConjugateGradient()
    if not sp.issparse(problem.A):
        return GMRES()
    spd_like = problem.asymmetry <= SYMMETRY_TOLERANCE and (problem.csr.diagonal() > 0).all()
    return SSORCG(omega=1.2) if spd_like else GMRES()


@recommended.register
def for_a_sequence(problem: LinearSystemSequence) -> LearnedSolver:
    """SSOR-preconditioned CG with omega learned by Tsallis-INF."""
    return LearnedSolver(TsallisINF(20), omega_grid(SSORCG))
