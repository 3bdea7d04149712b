"""A function's text as a parameter: what may replace it, and what is said of its errors."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from thalweg.core import InvalidProblem


@dataclass(frozen=True)
class Signature:
    """The constraint of trainable code: one function of this name and these arguments."""

    name: str
    arguments: str
    words: str

    def reason(self, value: object) -> str | None:
        """Why a text is refused, or None."""
        if not isinstance(value, str):
            return f"must be the text of a function; got {type(value).__name__}"
        try:
            tree = ast.parse(value)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return f"is no Python: {error}"
        found = [d for d in tree.body if isinstance(d, ast.FunctionDef | ast.AsyncFunctionDef)]
        mine = [d for d in found if d.name == self.name]
        if len(mine) != 1:
            return f"must define the function {self.name} once; it defines {', '.join(d.name for d in found) or 'none'}"
        if mine[0].decorator_list:
            return f"must define {self.name} without decorators"
        if ast.unparse(mine[0].args) != self.arguments:
            return f"must keep the signature {self.name}({self.arguments}); got ({ast.unparse(mine[0].args)})"
        return None


def source_of(function: Callable[..., object]) -> tuple[str, Signature]:
    """The text of a function without its decorators, and the constraint that it gives.

    Raises:
        InvalidProblem: the text cannot be read, as of a lambda or of code typed into a bare interpreter; another
            decorator stands below, whose work the text does not show.
    """
    name = getattr(function, "__name__", repr(function))
    if hasattr(function, "__wrapped__"):
        raise InvalidProblem(
            f"{name} has a decorator below bundle, and its text alone would run without it. Put that one above bundle, "
            "or its work into the function."
        )
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError) as error:
        raise InvalidProblem(f"The source of {name} cannot be read: {error}. Define it in a file.") from None
    found = tree.body[0]
    if not isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef) or found.name != name:
        raise InvalidProblem(f"{name} is no function defined by def; trainable code has to be one.")
    lines = inspect.getsource(function).splitlines()
    text = textwrap.dedent("\n".join(lines[found.lineno - 1 :])) + "\n"  # comments stay
    words = f"a function {name}({ast.unparse(found.args)})"
    doc = ast.get_docstring(found)
    return text, Signature(
        name, ast.unparse(found.args), f"{words}: {' '.join(doc.split())}" if doc else words
    )


def compiled(text: str, function: Callable[..., object], itself: object) -> Callable[..., object]:
    """The function that a text defines, with the globals and the free variables of ``function``.

    Its own name stands for ``itself`` inside of it, or for the new function where that is None.
    """
    name = str(getattr(function, "__name__", ""))
    space = dict(getattr(function, "__globals__", {}))
    cells = inspect.getclosurevars(function).nonlocals
    space.update(cells)
    exec(compile(text, f"<{name}>", "exec"), space)  # noqa: S102
    made = space[name]
    if itself is not None:
        space[name] = itself
    assert callable(made)  # noqa: S101
    found: Callable[..., object] = made
    return found


def annotated(text: str, line: int | None, message: str) -> str:
    """A text with a comment at the line that failed.

    >>> print(annotated("def f():\\n    return 1 / 0", 2, "ZeroDivisionError: division by zero"))
    def f():
        return 1 / 0  # <-- ZeroDivisionError: division by zero
    """
    lines = text.rstrip().splitlines()
    if line is None or not 1 <= line <= len(lines):
        return f"{text.rstrip()}\n# {message}"
    lines[line - 1] += f"  # <-- {message}"
    return "\n".join(lines)
