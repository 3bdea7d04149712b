"""Gradients from many workers of which some are late: codes over workers and over rounds."""

from thalweg.distributed.coding.codes import GradientCode, TooManyStragglers
from thalweg.distributed.coding.master import Master
from thalweg.distributed.coding.ray_cluster import RayCluster
from thalweg.distributed.coding.replay import Plan, Replay, plan, replay, waterfall
from thalweg.distributed.coding.schemes import (
    GradientCoding,
    IgnoreStragglers,
    Ledger,
    Multiplexed,
    Scheme,
    SelectiveRepeat,
    Uncoded,
    WorkItem,
)
from thalweg.distributed.coding.selection import SelectedCoding
from thalweg.distributed.coding.stragglers import (
    DelayProfile,
    bursty_pattern,
    fit_slope,
    gilbert_elliott,
    is_arbitrary,
    is_bursty,
)
from thalweg.distributed.coding.training import Cluster, CodedTraining, DataParallel, VirtualCluster, Worker

__all__ = [
    "Cluster",
    "CodedTraining",
    "DataParallel",
    "DelayProfile",
    "GradientCode",
    "GradientCoding",
    "IgnoreStragglers",
    "Ledger",
    "Master",
    "Multiplexed",
    "Plan",
    "RayCluster",
    "Replay",
    "Scheme",
    "SelectedCoding",
    "SelectiveRepeat",
    "TooManyStragglers",
    "Uncoded",
    "VirtualCluster",
    "WorkItem",
    "Worker",
    "bursty_pattern",
    "fit_slope",
    "gilbert_elliott",
    "is_arbitrary",
    "is_bursty",
    "plan",
    "replay",
    "waterfall",
]
