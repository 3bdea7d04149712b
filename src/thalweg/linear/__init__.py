"""``A x = b``, once or in a sequence."""

from thalweg.linear.krylov import GMRES, SSORCG, ConjugateGradient, Direct, ssor_preconditioner
from thalweg.linear.problem import LinearSystem
from thalweg.linear.relaxation import SOR, SSOR, GaussSeidel, Jacobi, RedBlackSOR, optimal_omega

__all__ = [
    "GMRES",
    "SOR",
    "SSOR",
    "SSORCG",
    "ConjugateGradient",
    "Direct",
    "GaussSeidel",
    "Jacobi",
    "LinearSystem",
    "RedBlackSOR",
    "optimal_omega",
    "ssor_preconditioner",
]
