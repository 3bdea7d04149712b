"""A network to train: optimizers and learning-rate schedules for PyTorch."""

from thalweg.training.flow import LionKFlow, SmoothFunction
from thalweg.training.kernels import (
    L1,
    Custom,
    GroupL2,
    HalfSquare,
    Huber,
    Kernel,
    Lp,
    PseudoHuber,
    ThresholdedL1,
    TopK,
)
from thalweg.training.lion import Lion, LionK
from thalweg.training.profiles import PROFILES, Profile, Rex
from thalweg.training.schedules import REX, ProfileSchedule
from thalweg.training.task import Train, TrainingTask, accuracy, cross_entropy

__all__ = [
    "L1",
    "PROFILES",
    "REX",
    "Custom",
    "GroupL2",
    "HalfSquare",
    "Huber",
    "Kernel",
    "Lion",
    "LionK",
    "LionKFlow",
    "Lp",
    "Profile",
    "ProfileSchedule",
    "PseudoHuber",
    "Rex",
    "SmoothFunction",
    "ThresholdedL1",
    "TopK",
    "Train",
    "TrainingTask",
    "accuracy",
    "cross_entropy",
]
