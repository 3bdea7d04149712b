"""One distribution to carry to another: entropic optimal transport and Schrodinger bridges from samples."""

from thalweg.transport.annealing import annealed
from thalweg.transport.bridge import Bridge
from thalweg.transport.bridge_matching import BridgeMatching
from thalweg.transport.estimator import LightBridge, eps_figure, eps_path
from thalweg.transport.full_batch import FullBatch
from thalweg.transport.light_bridge import LightSB
from thalweg.transport.pairs import (
    bw2,
    bw2_uvp,
    conditional_bw2_uvp,
    energy_distance,
    eot_pair,
    exact_bridge,
    sliced_w2,
)
from thalweg.transport.problem import EntropicTransport
from thalweg.transport.recommended import METHODS
from thalweg.transport.snapshots import earth_mover, leave_one_time_out

__all__ = [
    "METHODS",
    "Bridge",
    "BridgeMatching",
    "EntropicTransport",
    "FullBatch",
    "LightBridge",
    "LightSB",
    "annealed",
    "bw2",
    "bw2_uvp",
    "conditional_bw2_uvp",
    "earth_mover",
    "energy_distance",
    "eot_pair",
    "eps_figure",
    "eps_path",
    "exact_bridge",
    "leave_one_time_out",
    "sliced_w2",
]
