"""What changes the parameters of a traced program: searches that need no model, and optimizers that ask one."""

from thalweg.workflow.optimizers.bayes import BayesSearch
from thalweg.workflow.optimizers.choice import ChoiceBandit
from thalweg.workflow.optimizers.edits import CodeEdits
from thalweg.workflow.optimizers.gradients import TraceDescent, trace_gradient
from thalweg.workflow.optimizers.optimizer import WorkflowOptimizer, WorkflowSearch
from thalweg.workflow.optimizers.optoprime import OPRO, ChatModel, OptoPrime, OptoPrimeMulti
from thalweg.workflow.optimizers.pattern import PatternSearch
from thalweg.workflow.optimizers.restarts import Restarted, restarted
from thalweg.workflow.optimizers.textgrad import TextGrad

__all__ = [
    "OPRO",
    "BayesSearch",
    "ChatModel",
    "ChoiceBandit",
    "CodeEdits",
    "TraceDescent",
    "OptoPrime",
    "OptoPrimeMulti",
    "PatternSearch",
    "Restarted",
    "TextGrad",
    "WorkflowOptimizer",
    "WorkflowSearch",
    "restarted",
    "trace_gradient",
]
