"""``A x = b``, once or in a sequence."""

from thalweg.linear.deep_conjugate import DeepConjugateDirection, direction_preconditioner
from thalweg.linear.direct import Direct
from thalweg.linear.direction_network import (
    DirectionNetwork,
    ResidualDirection,
    SymmetricDirection,
    load_direction,
    pretrained_direction,
    save_direction,
)
from thalweg.linear.direction_training import AdamTraining, DirectionLearning, train_direction
from thalweg.linear.flexible import DeflatedCG, FlexibleCG
from thalweg.linear.fluid import SmokePlume
from thalweg.linear.incomplete_cholesky import incomplete_cholesky
from thalweg.linear.krylov import GMRES, SSORCG, ConjugateGradient, ssor_preconditioner
from thalweg.linear.poisson import AIR, FLUID, SOLID, PoissonGrid
from thalweg.linear.problem import LinearSystem
from thalweg.linear.recommended import METHODS
from thalweg.linear.relaxation import SOR, SSOR, GaussSeidel, Jacobi, RedBlackSOR, optimal_omega
from thalweg.linear.sequence import InstanceOptimal, LearnedSolver, LinearSystemSequence
from thalweg.linear.sequence_solver import NotSolved, SequenceSolver, golden_section, omega_grid
from thalweg.linear.workloads import HeatEquation, ListedSystems, ShiftedLaplacians

__all__ = [
    "AIR",
    "FLUID",
    "GMRES",
    "METHODS",
    "SOLID",
    "SOR",
    "SSOR",
    "SSORCG",
    "AdamTraining",
    "ConjugateGradient",
    "DeepConjugateDirection",
    "DeflatedCG",
    "Direct",
    "DirectionLearning",
    "DirectionNetwork",
    "FlexibleCG",
    "GaussSeidel",
    "HeatEquation",
    "InstanceOptimal",
    "Jacobi",
    "LearnedSolver",
    "LinearSystem",
    "LinearSystemSequence",
    "ListedSystems",
    "NotSolved",
    "PoissonGrid",
    "RedBlackSOR",
    "ResidualDirection",
    "SequenceSolver",
    "ShiftedLaplacians",
    "SmokePlume",
    "SymmetricDirection",
    "direction_preconditioner",
    "golden_section",
    "incomplete_cholesky",
    "load_direction",
    "omega_grid",
    "optimal_omega",
    "pretrained_direction",
    "save_direction",
    "ssor_preconditioner",
    "train_direction",
]
