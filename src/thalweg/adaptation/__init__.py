"""Labels here, deployment there: domain adaptation whose objectives are settled by a linear programme."""

from thalweg.adaptation.adapt import Adapt
from thalweg.adaptation.alignment import (
    CDAN,
    CORAL,
    DANN,
    JAN,
    MDD,
    MMD,
    AlignmentLoss,
    reversal_strength,
    reverse_gradient,
)
from thalweg.adaptation.combiners import EPO, Combination, FixedWeights, GradientCombiner, PreferenceLP
from thalweg.adaptation.conflict import MGDA, CAGrad, NashMTL, PCGrad, UPGrad
from thalweg.adaptation.estimator import AdaptedClassifier
from thalweg.adaptation.gradients import combined_backward, objective_gradients
from thalweg.adaptation.pareto import ParetoDA
from thalweg.adaptation.problem import AdaptationTask, Adapted
from thalweg.adaptation.recommended import METHODS
from thalweg.adaptation.refine import Refiner, mutual_information
from thalweg.adaptation.report import a_distance, front, run_figures, summary

__all__ = [
    "CDAN",
    "CORAL",
    "DANN",
    "EPO",
    "JAN",
    "MDD",
    "METHODS",
    "MGDA",
    "MMD",
    "Adapt",
    "AdaptationTask",
    "Adapted",
    "AdaptedClassifier",
    "AlignmentLoss",
    "CAGrad",
    "Combination",
    "GradientCombiner",
    "FixedWeights",
    "NashMTL",
    "PCGrad",
    "ParetoDA",
    "PreferenceLP",
    "Refiner",
    "UPGrad",
    "a_distance",
    "combined_backward",
    "front",
    "mutual_information",
    "objective_gradients",
    "reversal_strength",
    "reverse_gradient",
    "run_figures",
    "summary",
]
