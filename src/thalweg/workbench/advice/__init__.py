"""Which systems fit the files that a user has, which do not, and the commands to begin with."""

from thalweg.workbench.advice.kinds import Advice
from thalweg.workbench.advice.rules import advise
from thalweg.workbench.advice.sight import Sight, look

__all__ = ["Advice", "Sight", "advise", "look"]
