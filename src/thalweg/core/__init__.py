"""The vocabulary: Problem, Method, Result, and the one loop `solve`."""

from thalweg.core.callbacks import Callback, Checkpoint, MLflow, Progress, TensorBoard
from thalweg.core.contestant import contestant
from thalweg.core.errors import (
    CheckpointMismatch,
    InvalidParameter,
    InvalidProblem,
    MissingExtra,
    NotFinite,
    ThalwegError,
    Unbounded,
    UnknownName,
    UnreadableFile,
)
from thalweg.core.figure import Figure, Series, Surface
from thalweg.core.method import Method, State
from thalweg.core.problem import Problem
from thalweg.core.recommended import recommended
from thalweg.core.result import History, Result
from thalweg.core.run import Run
from thalweg.core.solve import solve
from thalweg.core.stop import Status, Stop

__all__ = [
    "Callback",
    "Checkpoint",
    "CheckpointMismatch",
    "Figure",
    "History",
    "InvalidParameter",
    "InvalidProblem",
    "MLflow",
    "Method",
    "MissingExtra",
    "NotFinite",
    "Problem",
    "Progress",
    "Result",
    "Run",
    "Series",
    "State",
    "Status",
    "Stop",
    "Surface",
    "TensorBoard",
    "ThalwegError",
    "Unbounded",
    "UnknownName",
    "UnreadableFile",
    "contestant",
    "recommended",
    "solve",
]
