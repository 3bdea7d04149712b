"""``A x = b``, once or in a sequence."""

from thalweg.linear.krylov import GMRES, SSORCG, ConjugateGradient, Direct, ssor_preconditioner
from thalweg.linear.problem import LinearSystem
from thalweg.linear.relaxation import SOR, SSOR, GaussSeidel, Jacobi, RedBlackSOR, optimal_omega
from thalweg.linear.sequence import (
    InstanceOptimal,
    LearnedSolver,
    LinearSystemSequence,
    SequenceSolver,
    golden_section,
    omega_grid,
)
from thalweg.linear.workloads import HeatEquation, ListedSystems, ShiftedLaplacians

#: The methods for one system, by the names that the command uses.
METHODS = {
    "cg": ConjugateGradient,
    "direct": Direct,
    "gauss-seidel": GaussSeidel,
    "gmres": GMRES,
    "jacobi": Jacobi,
    "red-black-sor": RedBlackSOR,
    "sor": SOR,
    "ssor": SSOR,
    "ssor-cg": SSORCG,
}

__all__ = [
    "GMRES",
    "METHODS",
    "SOR",
    "SSOR",
    "SSORCG",
    "ConjugateGradient",
    "Direct",
    "GaussSeidel",
    "HeatEquation",
    "InstanceOptimal",
    "Jacobi",
    "LearnedSolver",
    "LinearSystem",
    "LinearSystemSequence",
    "ListedSystems",
    "RedBlackSOR",
    "SequenceSolver",
    "ShiftedLaplacians",
    "golden_section",
    "omega_grid",
    "optimal_omega",
    "ssor_preconditioner",
]
