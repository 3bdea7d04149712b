"""The methods for linear systems by name, and which of them suits a system."""

from __future__ import annotations

import scipy.sparse as sp

from thalweg.core import Method, recommended
from thalweg.core.by_name import MethodsByName
from thalweg.linear.direct import Direct
from thalweg.linear.krylov import GMRES, SSORCG, ConjugateGradient
from thalweg.linear.multigrid import MultigridCycle
from thalweg.linear.poisson import PoissonGrid
from thalweg.linear.problem import SYMMETRY_TOLERANCE, LinearSystem
from thalweg.linear.sequence import LearnedSolver, LinearSystemSequence
from thalweg.linear.sequence_solver import omega_grid
from thalweg.online import TsallisINF

#: Rows up to which sparse factors are cheap whatever the pattern: full ones take 128 MB.
SMALL = 4000

#: The area's methods, by the names that tables and the command use.
METHODS = MethodsByName(
    "thalweg.linear",
    {
        "adam-training": "direction_training.AdamTraining",
        "cg": "krylov.ConjugateGradient",
        "deep-conjugate-direction": "deep_conjugate.DeepConjugateDirection",
        "deflated-cg": "flexible.DeflatedCG",
        "direct": "direct.Direct",
        "flexible-cg": "flexible.FlexibleCG",
        "gauss-seidel": "relaxation.GaussSeidel",
        "gmres": "krylov.GMRES",
        "instance-optimal": "sequence.InstanceOptimal",
        "jacobi": "relaxation.Jacobi",
        "learned": "sequence.LearnedSolver",
        "red-black-sor": "relaxation.RedBlackSOR",
        "sor": "relaxation.SOR",
        "ssor": "relaxation.SSOR",
        "ssor-cg": "krylov.SSORCG",
    },
)


@recommended.register
def for_a_system(problem: LinearSystem) -> Method[LinearSystem]:
    """CG with a learned multigrid cycle on a grid of cells, SSOR-preconditioned CG where A is symmetric with a positive
    diagonal; otherwise a direct solve up to `SMALL` rows, on which GMRES often stalls, and GMRES beyond.
    """
    if isinstance(problem.A, PoissonGrid):
        return ConjugateGradient(MultigridCycle(problem.A))
    if hasattr(problem.A, "to_csr"):
        return ConjugateGradient()
    if not sp.issparse(problem.A):
        return GMRES()
    if problem.asymmetry <= SYMMETRY_TOLERANCE and (problem.csr.diagonal() > 0).all():
        return SSORCG(omega=1.2)
    return Direct() if problem.csr.shape[0] <= SMALL else GMRES()


@recommended.register
def for_a_sequence(problem: LinearSystemSequence) -> LearnedSolver:
    """SSOR-preconditioned CG with omega learned by Tsallis-INF."""
    return LearnedSolver(TsallisINF(20), omega_grid(SSORCG))
