"""A pipeline of code and model calls, traced as it runs, and improved from what is said of its output."""

from thalweg.workflow.bundles import Bundle, bundle, expand
from thalweg.workflow.constraints import Bounds, Choices
from thalweg.workflow.errors import BudgetSpent, ExecutionError, MissingInputs, ModelError, SandboxError
from thalweg.workflow.llm import LanguageModel
from thalweg.workflow.modules import Module
from thalweg.workflow.nodes import ExceptionNode, MessageNode, Node
from thalweg.workflow.parameters import ParameterNode, node
from thalweg.workflow.propagate import (
    Feedback,
    GraphPropagator,
    Propagator,
    SumPropagator,
    TraceGraph,
    backward,
    subgraph,
)
from thalweg.workflow.sandbox import Sandbox

__all__ = [
    "Bounds",
    "BudgetSpent",
    "Bundle",
    "Choices",
    "ExceptionNode",
    "ExecutionError",
    "Feedback",
    "GraphPropagator",
    "LanguageModel",
    "MessageNode",
    "MissingInputs",
    "ModelError",
    "Module",
    "Node",
    "ParameterNode",
    "Propagator",
    "Sandbox",
    "SandboxError",
    "SumPropagator",
    "TraceGraph",
    "backward",
    "bundle",
    "expand",
    "node",
    "subgraph",
]
