# The public names: type checkers read this file, and so does lazy_loader at run time.
from .cycle_direction import CycleDirection as CycleDirection
from .deep_conjugate import DeepConjugateDirection as DeepConjugateDirection
from .deep_conjugate import direction_preconditioner as direction_preconditioner
from .direct import Direct as Direct
from .direction_files import load_direction as load_direction
from .direction_files import pretrained_direction as pretrained_direction
from .direction_files import save_direction as save_direction
from .direction_network import DirectionNetwork as DirectionNetwork
from .direction_network import ResidualDirection as ResidualDirection
from .direction_training import AdamTraining as AdamTraining
from .direction_training import DirectionLearning as DirectionLearning
from .direction_training import OneStepLearning as OneStepLearning
from .direction_training import UnrolledLearning as UnrolledLearning
from .direction_training import train_direction as train_direction
from .flexible import DeflatedCG as DeflatedCG
from .flexible import FlexibleCG as FlexibleCG
from .fluid import SmokePlume as SmokePlume
from .incomplete_cholesky import incomplete_cholesky as incomplete_cholesky
from .krylov import GMRES as GMRES
from .krylov import SSORCG as SSORCG
from .krylov import ConjugateGradient as ConjugateGradient
from .krylov import ssor_preconditioner as ssor_preconditioner
from .multigrid import CycleWeights as CycleWeights
from .multigrid import MultigridCycle as MultigridCycle
from .poisson import AIR as AIR
from .poisson import FLUID as FLUID
from .poisson import SOLID as SOLID
from .poisson import PoissonGrid as PoissonGrid
from .problem import LinearSystem as LinearSystem
from .recommended import METHODS as METHODS
from .relaxation import SOR as SOR
from .relaxation import SSOR as SSOR
from .relaxation import GaussSeidel as GaussSeidel
from .relaxation import Jacobi as Jacobi
from .relaxation import RedBlackSOR as RedBlackSOR
from .relaxation import optimal_omega as optimal_omega
from .sequence import InstanceOptimal as InstanceOptimal
from .sequence import LearnedSolver as LearnedSolver
from .sequence import LinearSystemSequence as LinearSystemSequence
from .sequence_solver import NotSolved as NotSolved
from .sequence_solver import SequenceSolver as SequenceSolver
from .sequence_solver import golden_section as golden_section
from .sequence_solver import omega_grid as omega_grid
from .workloads import HeatEquation as HeatEquation
from .workloads import ListedSystems as ListedSystems
from .workloads import ShiftedLaplacians as ShiftedLaplacians

__all__ = [
    "AIR",
    "AdamTraining",
    "ConjugateGradient",
    "CycleDirection",
    "CycleWeights",
    "DeepConjugateDirection",
    "DeflatedCG",
    "Direct",
    "DirectionLearning",
    "DirectionNetwork",
    "FLUID",
    "FlexibleCG",
    "GMRES",
    "GaussSeidel",
    "HeatEquation",
    "InstanceOptimal",
    "Jacobi",
    "LearnedSolver",
    "LinearSystem",
    "LinearSystemSequence",
    "ListedSystems",
    "METHODS",
    "MultigridCycle",
    "NotSolved",
    "OneStepLearning",
    "PoissonGrid",
    "RedBlackSOR",
    "ResidualDirection",
    "SOLID",
    "SOR",
    "SSOR",
    "SSORCG",
    "SequenceSolver",
    "ShiftedLaplacians",
    "SmokePlume",
    "UnrolledLearning",
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
