"""thalweg: published optimization systems with one vocabulary, tested, fast, and with evidence.

The names below load on first use, so that ``import thalweg`` stays instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thalweg import (
        bilevel,
        blackbox,
        constrained,
        convex,
        core,
        datasets,
        distributed,
        equilibrium,
        linear,
        numerics,
        online,
        training,
    )
    from thalweg.core import Checkpoint, Method, Problem, Progress, Result, Status, Stop, TensorBoard, solve
    from thalweg.workbench import compare

__version__ = "0.1.0"

_CORE = ("Checkpoint", "Method", "Problem", "Progress", "Result", "Status", "Stop", "TensorBoard", "solve")
_SUBPACKAGES = (
    "bilevel",
    "blackbox",
    "constrained",
    "convex",
    "core",
    "datasets",
    "distributed",
    "equilibrium",
    "linear",
    "numerics",
    "online",
    "training",
)

__all__ = [
    "Checkpoint",
    "Method",
    "Problem",
    "Progress",
    "Result",
    "Status",
    "Stop",
    "TensorBoard",
    "bilevel",
    "blackbox",
    "compare",
    "constrained",
    "convex",
    "core",
    "datasets",
    "distributed",
    "equilibrium",
    "linear",
    "numerics",
    "online",
    "solve",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _CORE:
        return getattr(importlib.import_module("thalweg.core"), name)
    if name == "compare":
        return importlib.import_module("thalweg.workbench").compare
    if name in _SUBPACKAGES:
        return importlib.import_module(f"thalweg.{name}")
    raise AttributeError(f"module 'thalweg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
