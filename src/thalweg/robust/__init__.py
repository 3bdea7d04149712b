"""A decision before the uncertainty, one after: two-stage robust problems, by programs and by a network."""

from thalweg.robust.baselines import ColumnConstraint, KAdaptable, Nominal, RelaxedRecourse, StaticRobust
from thalweg.robust.budgeting import CapitalBudgeting
from thalweg.robust.ccg import NeuralCCG
from thalweg.robust.certified import Certified
from thalweg.robust.facility import FacilityLocation
from thalweg.robust.instances import load_instance, save_instance
from thalweg.robust.knapsack import RobustKnapsack
from thalweg.robust.learning import label_sets, train_value
from thalweg.robust.problem import TwoStageRobust
from thalweg.robust.recommended import METHODS
from thalweg.robust.stages import FirstStage, Pieces, Recourse, WorstCase
from thalweg.robust.uncertainty import UncertaintySet, box_set, budget_set
from thalweg.robust.value_network import (
    ValueNetwork,
    ValueSurrogate,
    load_value,
    pretrained_value,
    save_value,
)

__all__ = [
    "METHODS",
    "CapitalBudgeting",
    "Certified",
    "ColumnConstraint",
    "FacilityLocation",
    "FirstStage",
    "KAdaptable",
    "NeuralCCG",
    "Nominal",
    "Pieces",
    "Recourse",
    "RelaxedRecourse",
    "RobustKnapsack",
    "StaticRobust",
    "ValueSurrogate",
    "TwoStageRobust",
    "UncertaintySet",
    "ValueNetwork",
    "WorstCase",
    "box_set",
    "budget_set",
    "label_sets",
    "load_instance",
    "load_value",
    "pretrained_value",
    "save_instance",
    "save_value",
    "train_value",
]
