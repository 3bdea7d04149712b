"""Functions as operators of a trace, and their text as a parameter.

Cheng, Nie and Swaminathan (2024), arXiv 2406.16218, section 3.1.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import cast, overload

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.workflow._guarded import marks
from thalweg.workflow._primitives import Operator
from thalweg.workflow.code import annotated, compiled, source_of
from thalweg.workflow.errors import ExecutionError, MissingInputs, SandboxError
from thalweg.workflow.nodes import READ, Form, MessageNode, Node, Reading, failure, plain
from thalweg.workflow.parameters import ParameterNode, node
from thalweg.workflow.propagate import ancestors
from thalweg.workflow.sandbox import Sandbox

_BOXES: list[Sandbox] = []
#: Values whose code runs when they are read, and that give what they hold once.
LATER = (Iterator, AsyncIterator, Coroutine)


class Bundle:
    """A function that is one operator of the trace: what `bundle` makes.

    ``parameter`` is its text where it is trainable, None otherwise.
    """

    def __init__(self, function: Callable[..., object], options: Options, owner: object = None) -> None:
        functools.update_wrapper(self, function)
        self.function, self.options, self._owner = function, options, owner
        name = str(getattr(function, "__name__", "bundle"))
        words = options.description or " ".join((inspect.getdoc(function) or "").split())
        self.operator = Operator(name, function, words)
        try:
            self._signature = inspect.signature(function)
        except ValueError:
            raise InvalidProblem(
                f"bundle: {name} does not tell its arguments. Put it into a function of your own."
            ) from None
        kinds = [p.kind for p in self._signature.parameters.values()]
        plain = all(
            kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            for kind in kinds
        )
        self._positional = len(kinds) if plain else -1  # so many plain arguments need no binding
        self._later_value = inspect.iscoroutinefunction(function)
        self.parameter: ParameterNode | None = None
        self._made: tuple[str, Callable[..., object]] | None = None
        if options.trainable:
            if inspect.iscoroutinefunction(function) and not options.in_process:
                raise InvalidParameter(f"{name}: the sandbox runs no coroutines; pass in_process=True.")
            text, constraint = source_of(function)
            self.parameter = ParameterNode(text, name, words, constraint)

    def __get__(self, owner: object, kind: type | None = None) -> Bundle | functools.partial[object]:
        """As a method: its first argument is the object, which is no node. Trainable text is one for the class."""
        return self if owner is None else functools.partial(self, owner)

    def __call__(self, *arguments: object, **named: object) -> object:
        """The node of the value; a coroutine of it where the function is one.

        Raises:
            ExecutionError: the function raised.
            MissingInputs: it read nodes that it was not passed.
        """
        if named or len(arguments) != self._positional:
            try:
                bound = self._signature.bind(*arguments, **named)
            except TypeError as error:
                raise TypeError(f"{self.operator.name}{self._signature}: {error}") from None
            arguments, named = bound.args, bound.kwargs
        names = ("",) * len(arguments) + tuple(named)
        given = [a if isinstance(a, Node) else node(a) for a in (*arguments, *named.values())]
        if (outer := READ.get()) is not None:
            outer.read.extend(given)
        if self._later_value:
            return self._later(given, names)
        return self._finished(given, names, self._run)

    async def _later(self, given: list[Node], names: tuple[str, ...]) -> Node:
        call = _Call(self, given, names)
        with call:
            call.value = await cast(Awaitable[object], call.start())
        return call.node()

    def _finished(self, given: list[Node], names: tuple[str, ...], run: Callable[[_Call], object]) -> Node:
        call = _Call(self, given, names)
        with call:
            call.value = run(call)
        return call.node()

    def _run(self, call: _Call) -> object:
        text = self.parameter
        if text is None or self.options.in_process:
            return call.start()
        positional, named = call.arguments()
        return self.options.box().call(str(text._data), self.operator.name, positional, named)

    def current(self) -> Callable[..., object]:
        """The function as its text is now."""
        if self.parameter is None:
            return self.function
        text = str(self.parameter._data)
        if self._made is None or self._made[0] != text:
            itself = None if self.options.overwrite_python_recursion else self
            self._made = text, compiled(text, self.function, itself)
        return self._made[1]


class Options:
    """What `bundle` was told."""

    def __init__(
        self,
        description: str,
        trainable: bool,
        traceable_code: bool,
        catch_execution_error: bool,
        allow_external_dependencies: bool,
        overwrite_python_recursion: bool,
        in_process: bool,
        sandbox: Sandbox | None,
    ) -> None:
        self.description, self.trainable, self.traceable_code = description, trainable, traceable_code
        self.catch_execution_error, self.allow_external = catch_execution_error, allow_external_dependencies
        self.overwrite_python_recursion, self.in_process = overwrite_python_recursion, in_process
        self.sandbox = sandbox
        if traceable_code and trainable and not in_process:
            raise InvalidParameter(
                "bundle: code that is traced inside runs in this process; pass in_process=True."
            )

    def box(self) -> Sandbox:
        """The sandbox: its own, or the one that all share."""
        if self.sandbox is not None:
            return self.sandbox
        if not _BOXES:
            _BOXES.append(Sandbox())
        return _BOXES[0]


class _Call:
    """One run of a bundle: what it reads, what it raises, what comes of it."""

    def __init__(self, bundle: Bundle, given: list[Node], names: tuple[str, ...]) -> None:
        self.bundle, self.given, self.names = bundle, given, names
        self.traced = bundle.options.traceable_code
        self.form = Form(names)
        self.form.entries = tuple(Node(g._data, "input") for g in given) if self.traced else ()
        self.value: object = None
        self.error: Exception | None = None
        self.reading = Reading()
        self._before = marks([g._data for g in given])

    def arguments(self) -> tuple[list[object], dict[str, object]]:
        """What the function is called with: plain values, or nodes where its inside is traced."""
        values: Sequence[object] = self.form.entries if self.traced else [g._data for g in self.given]
        pairs = list(zip(self.names, values, strict=True))
        return [v for n, v in pairs if not n], {n: v for n, v in pairs if n}

    def start(self) -> object:
        """Call the function in this process."""
        positional, named = self.arguments()
        return self.bundle.current()(*positional, **named)

    def __enter__(self) -> None:
        self._token = READ.set(None if self.traced else self.reading)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        READ.reset(self._token)
        if not isinstance(error, Exception) or isinstance(error, MissingInputs):
            return False
        self.error = error
        return self.bundle.options.catch_execution_error

    def node(self) -> Node:
        """The node of the value, or the error that carries the node of the exception."""
        extra = self._outside()
        parents = (*self.given, *extra)
        text = self.bundle.parameter
        if text is not None:
            parents = (*parents, text)
        self.form.names = (*self.names, *["" for _ in extra], *(["code"] if text is not None else []))
        if self.error is not None:
            raise failure(self.bundle.operator, parents, self.error, self.form, self._words()) from self.error
        if marks([g._data for g in self.given]) != self._before:
            raise InvalidProblem(
                f"{self.bundle.operator.name} changed one of its inputs in place. Let it return a changed copy."
            )
        if isinstance(self.value, LATER):
            raise InvalidProblem(
                f"{self.bundle.operator.name} returned a {type(self.value).__name__}: its work would be done after the "
                "call, unseen, and its values given out once. Let it return a list, or await it."
            )
        if isinstance(self.value, Node) and self.traced:
            self.form.inner = self.value
        value = self.value._data if isinstance(self.value, Node) else plain(self.value)
        return MessageNode(value, parents, self.bundle.operator, self.form)

    def _outside(self) -> list[Node]:
        """Nodes that were read and not passed; `MissingInputs` unless that is allowed."""
        if self.traced:
            end = self.error.node if isinstance(self.error, ExecutionError) else self.value
            inside = ancestors(end) if isinstance(end, Node) else []
            passed = set(self.form.entries)
            found: list[Node] = [n for n in inside if isinstance(n, ParameterNode) and n not in passed]
        else:
            passed = {*self.given, *self.reading.made}
            found = [n for n in dict.fromkeys(self.reading.read) if n not in passed]
        if found and not self.bundle.options.allow_external:
            raise MissingInputs(
                f"{self.bundle.operator.name} read {', '.join(n.name for n in found)} without being passed it. Pass it "
                "as an argument, or set allow_external_dependencies=True."
            )
        return found

    def _words(self) -> str:
        error, text = self.error, self.bundle.parameter
        assert error is not None  # noqa: S101
        if text is None and isinstance(error, ExecutionError) and isinstance(error.node, Node):
            return str(error.node._data)  # of a bundle inside: its words are enough
        message = str(error) if isinstance(error, SandboxError) else f"{type(error).__name__}: {error}"
        if text is None:
            return message
        line = error.line if isinstance(error, SandboxError) else None
        if line is None and isinstance(error, SyntaxError):
            line = error.lineno
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == f"<{self.bundle.operator.name}>":
                line = frame.lineno
        return f"{message}\n{annotated(str(text._data), line, message)}"


@overload
def bundle(description: Callable[..., object]) -> Bundle: ...
@overload
def bundle(
    description: str = "",
    *,
    trainable: bool = False,
    traceable_code: bool = False,
    catch_execution_error: bool = True,
    allow_external_dependencies: bool = False,
    overwrite_python_recursion: bool = False,
    in_process: bool = False,
    sandbox: Sandbox | None = None,
) -> Callable[[Callable[..., object]], Bundle]: ...
def bundle(
    description: str | Callable[..., object] = "",
    *,
    trainable: bool = False,
    traceable_code: bool = False,
    catch_execution_error: bool = True,
    allow_external_dependencies: bool = False,
    overwrite_python_recursion: bool = False,
    in_process: bool = False,
    sandbox: Sandbox | None = None,
) -> Bundle | Callable[[Callable[..., object]], Bundle]:
    """Make a function one operator of the trace. It gets plain values; its value is a node.

    What it does in threads of its own is not looked at.

    Args:
        description: what it does, told to models; its docstring by default.
        trainable: its text is a parameter. New texts keep name and signature. They run in a `Sandbox`.
        traceable_code: the function gets nodes, and what happens inside is kept: see `expand`.
        catch_execution_error: exceptions become an `ExecutionError` with a node; otherwise they pass as they are.
        allow_external_dependencies: nodes that it reads without being passed become inputs too.
        overwrite_python_recursion: in this process, its own name in trainable code is the plain function.
        in_process: run trainable code in this process, with all its rights and globals, without limits.
        sandbox: where trainable code runs; one with default limits is shared otherwise.

    Raises:
        InvalidProblem: trainable, and the text cannot be read. When it is called: it changed an input in place, or
            returned a generator.

    Cost: some ten microseconds a call and the function's own; 0.1 ms more in the sandbox.

    >>> @bundle
    ... def double(x): return 2 * x
    >>> double(node(4)).data
    8
    """
    if not (isinstance(description, str) or callable(description)):
        raise InvalidParameter(f"bundle takes a function, or a description; got {description!r}.")
    options = Options(
        "" if callable(description) else description,
        trainable,
        traceable_code,
        catch_execution_error,
        allow_external_dependencies,
        overwrite_python_recursion,
        in_process,
        sandbox,
    )
    return (
        Bundle(description, options) if callable(description) else lambda function: Bundle(function, options)
    )


def expand(output: Node) -> list[Node]:
    """The nodes of the traced run inside a bundle's call, parents before children; empty where none was kept.

    Its roots named ``input`` stand for ``output.parents``, in their order.
    """
    form = output._form
    return [] if form is None or form.inner is None else ancestors(form.inner)[::-1]
