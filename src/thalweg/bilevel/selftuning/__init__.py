"""Networks that tune their regularisation while they train: STN and Delta-STN."""

from thalweg.bilevel.selftuning.dropout import HyperDropout
from thalweg.bilevel.selftuning.gates import Gate
from thalweg.bilevel.selftuning.layers import Context, Tuned
from thalweg.bilevel.selftuning.network import SelfTuned, register_layer, self_tuning
from thalweg.bilevel.selftuning.regularisers import (
    cross_entropy_by_example,
    cutout,
    input_noise,
    label_smoothing,
    weight_decay,
)
from thalweg.bilevel.selftuning.scheduled import ScheduledTraining, schedule_of
from thalweg.bilevel.selftuning.space import HyperParameter, HyperSpace
from thalweg.bilevel.selftuning.tuner import SelfTuner, SelfTuningTask

__all__ = [
    "Context",
    "Gate",
    "HyperDropout",
    "HyperParameter",
    "HyperSpace",
    "ScheduledTraining",
    "SelfTuned",
    "SelfTuner",
    "SelfTuningTask",
    "Tuned",
    "cross_entropy_by_example",
    "cutout",
    "input_noise",
    "label_smoothing",
    "register_layer",
    "schedule_of",
    "self_tuning",
    "weight_decay",
]
