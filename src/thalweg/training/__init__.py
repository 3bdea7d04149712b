"""A network to train: optimizers and learning-rate schedules for PyTorch."""

from thalweg.training.armijo import ArmijoSGD
from thalweg.training.autolrs import AutoLRS
from thalweg.training.convex_functions import (
    L1,
    ConvexFunction,
    CustomFunction,
    GroupL2,
    HalfSquare,
    Huber,
    Lp,
    PseudoHuber,
    ThresholdedL1,
    TopK,
)
from thalweg.training.flow import LionKFlow, SmoothFunction
from thalweg.training.forecast import LossForecaster
from thalweg.training.guarantees import bound, conversion_bound
from thalweg.training.imitation import Imitate, ImitationTask
from thalweg.training.lion import Lion, LionK
from thalweg.training.profiles import PROFILES, Profile, Refined, Rex, WarmupPolynomial
from thalweg.training.recommended import METHODS
from thalweg.training.recorder import GradientNormRecorder
from thalweg.training.refinement import fit_warmup_poly, refine
from thalweg.training.schedules import REX, LinearDecay, ProfileSchedule, RefinedSchedule
from thalweg.training.surrogate import TargetLoss, TargetSurrogate
from thalweg.training.task import Train, TrainingTask, accuracy, cross_entropy

__all__ = [
    "METHODS",
    "L1",
    "PROFILES",
    "REX",
    "ArmijoSGD",
    "AutoLRS",
    "CustomFunction",
    "GradientNormRecorder",
    "GroupL2",
    "HalfSquare",
    "Huber",
    "Imitate",
    "ImitationTask",
    "ConvexFunction",
    "LinearDecay",
    "Lion",
    "LionK",
    "LionKFlow",
    "LossForecaster",
    "Lp",
    "Profile",
    "ProfileSchedule",
    "PseudoHuber",
    "Refined",
    "RefinedSchedule",
    "Rex",
    "SmoothFunction",
    "TargetLoss",
    "TargetSurrogate",
    "ThresholdedL1",
    "TopK",
    "Train",
    "TrainingTask",
    "WarmupPolynomial",
    "accuracy",
    "bound",
    "conversion_bound",
    "cross_entropy",
    "fit_warmup_poly",
    "refine",
]
