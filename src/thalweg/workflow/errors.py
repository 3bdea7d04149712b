"""What goes wrong in a traced run."""

from __future__ import annotations

from thalweg.core import InvalidProblem, ThalwegError


class ExecutionError(ThalwegError):
    """An operator of a traced run raised; ``node`` is the `ExceptionNode` that stands for it in the trace.

    ``except ExecutionError as error: error.node.backward(...)`` sends feedback back from the failure. It is None where
    the error comes from another process.
    """

    def __init__(self, message: str, node: object) -> None:
        super().__init__(message)
        self.node = node

    def __reduce__(self) -> tuple[type[ExecutionError], tuple[object, ...]]:
        return ExecutionError, (str(self), None)


class MissingInputs(InvalidProblem):
    """A bundled function read a node that was not passed to it."""


class SandboxError(ThalwegError):
    """Code in the sandbox raised, ran out of time or memory, or did what is not allowed there.

    ``kind`` is the exception's name there, ``"Timeout"``, ``"Died"`` or ``"Refused"``; ``line`` where it was, if known.
    """

    def __init__(self, kind: str, message: str, line: int | None = None) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind, self.message, self.line = kind, message, line

    def __reduce__(self) -> tuple[type[SandboxError], tuple[object, ...]]:
        return SandboxError, (self.kind, self.message, self.line)


class ModelError(ThalwegError):
    """A language model's endpoint gave no usable answer, or there is none."""


class BudgetSpent(ModelError):
    """The calls or tokens that a client may use are used up."""
