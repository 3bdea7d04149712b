"""Run code that nobody has read: in a process of its own, with limits, without files, network or other processes."""

from __future__ import annotations

import ast
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from thalweg.core import InvalidParameter
from thalweg.core.validation import is_real, is_whole, require
from thalweg.workflow._worker import decode, encode
from thalweg.workflow.errors import SandboxError

IMPORTS = ("math", "cmath", "random", "statistics", "itertools", "functools", "collections", "heapq", "bisect",
           "fractions", "decimal", "string", "re", "json", "dataclasses", "operator", "copy")  # fmt: skip
_WORKER = Path(__file__).with_name("_worker.py")
#: Text of a reply; more is refused.
MOST_BYTES = 16 * 2**20


class Sandbox:
    """A process that runs functions given as text, and gives back their plain values.

    Four layers. The text is read first: names and attributes that begin with an underscore, and imports beside
    ``imports``, are refused. The interpreter lacks ``open``, ``eval``, ``getattr`` and their kin. The system limits
    memory and files. On Linux (x86_64, aarch64) a seccomp filter refuses all system calls but those for memory, time
    and the two pipes: no file, socket or process, whatever the interpreter does; where ``bwrap`` is installed and
    works, its namespaces stand around it. `protections` says which of these are in force. Elsewhere the first three
    hold, which are no wall against an attacker. Windows is refused.

    Args:
        seconds: longest time of a call; then the process is ended.
        megabytes: most memory of the process, the interpreter's own included.
        imports: the modules that code may import; their public names only.

    Values that go in and out: None, truth values, numbers, texts, lists, tuples, sets, dictionaries. ``random`` begins
    at one seed in each call, a set of texts has one order in all processes, and nothing is kept from call to call: code
    that changes a class of a module is refused.

    Raises:
        InvalidParameter: limits that are none; a module that is not Python's own.
        SandboxError: the code raised, ran too long, died, or was refused.

    Cost: 50 ms to start, then about 0.1 ms a call.

    >>> with Sandbox() as box:
    ...     box.call("def f(x): return x + 1", "f", (1,))
    2
    """

    def __init__(self, seconds: float = 5.0, megabytes: int = 512, imports: Sequence[str] = IMPORTS) -> None:
        require(is_real(seconds) and 0 < seconds < float("inf"), "Sandbox needs seconds > 0", got=seconds)
        fits = is_whole(megabytes) and 64 <= megabytes < 2**40
        require(fits, "Sandbox needs a whole number of megabytes >= 64", got=megabytes)
        listed = isinstance(imports, Sequence) and not isinstance(imports, str)
        require(listed, "Sandbox: imports is a tuple of modules, such as ('math',)", got=imports)
        for name in imports:
            if str(name).partition(".")[0] not in sys.stdlib_module_names:
                raise InvalidParameter(
                    f"Sandbox: {name!r} is no module of the standard library, and no other can be imported there. Use "
                    "in_process=True for code you trust."
                )
        if sys.platform == "win32":
            raise InvalidParameter(
                "The sandbox needs Linux or macOS. Use in_process=True for code you trust."
            )
        self.seconds, self.megabytes, self.imports = seconds, megabytes, tuple(imports)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[[subprocess.Popen[bytes]], Sandbox] | None = None
        self._closed = self._wrapped = False

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Sandbox], tuple[object, ...]]:
        return Sandbox, (self.seconds, self.megabytes, self.imports)  # elsewhere it has a process of its own

    def close(self) -> None:
        """End the process; the next call starts another."""
        if self._end is not None:
            self._end()
        self._process = self._end = None

    def protections(self) -> dict[str, bool]:
        """What is in force: ``process``, ``language``, ``limits``, ``seccomp``, ``bubblewrap``."""
        with self._lock:
            self._started()
        return {
            "process": True,
            "language": True,
            "limits": True,
            "seccomp": self._closed,
            "bubblewrap": self._wrapped,
        }

    def call(
        self,
        code: str,
        function: str,
        arguments: Sequence[object] = (),
        named: Mapping[str, object] | None = None,
    ) -> object:
        """The value of ``function(*arguments, **named)``, where ``code`` defines it."""
        check_code(code, self.imports)
        try:
            request = {
                "code": code,
                "function": function,
                "arguments": encode(list(arguments)),
                "named": encode(dict(named or {})),
            }
            text = json.dumps(request).encode() + b"\n"
        except TypeError as error:
            raise SandboxError("Refused", f"{error}; pass plain data, or use in_process=True") from None
        except (ValueError, RecursionError) as error:
            raise SandboxError(
                "Refused", f"an argument is too large or too deep to be sent: {error}"
            ) from None
        with self._lock:
            reply = self._exchange(self._started(), text)
            if reply.get("last"):
                self.close()
        if "error" in reply:
            line, message = reply.get("line"), str(reply["message"])
            if reply["error"] == "MemoryError" and not message:
                message = f"more than the {self.megabytes} megabytes of this sandbox"
            raise SandboxError(str(reply["error"]), message, line if isinstance(line, int) else None)
        return decode(reply["value"])

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        wrapper = _bubblewrap()
        for prefix in [wrapper, []] if wrapper else [[]]:
            process = self._spawn(prefix)
            try:
                hello = self._exchange(process, b"", seconds=max(20.0, self.seconds))
            except SandboxError:
                if not prefix:
                    raise
                continue  # an installed bubblewrap that this system does not let make namespaces
            self._closed, self._wrapped = bool(hello["closed"]), bool(prefix)
            return process
        raise SandboxError("Died", "the sandbox's process did not start")

    def _spawn(self, prefix: list[str]) -> subprocess.Popen[bytes]:
        setting = {"megabytes": self.megabytes, "imports": self.imports}
        process = subprocess.Popen(  # noqa: S603
            [*prefix, sys.executable, "-P", "-s", "-S", str(_WORKER), json.dumps(setting)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0"},  # the order of a set of texts is one in all processes
            cwd=tempfile.gettempdir(),
            start_new_session=True,
        )
        self._process, self._end = process, weakref.finalize(self, _ended, process)
        return process

    def _exchange(
        self, process: subprocess.Popen[bytes], request: bytes, seconds: float | None = None
    ) -> dict[str, object]:
        """Send a line, wait for one; both within the time."""
        limit = self.seconds if seconds is None else seconds
        until = time.monotonic() + limit
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101, PT018
        os.set_blocking(stdin.fileno(), False)
        sent, received = memoryview(request), bytearray()
        while not received.endswith(b"\n"):
            left = until - time.monotonic()
            ready = select.select([stdout], [stdin] if sent else [], [], max(left, 0.0))
            if left <= 0 or not (ready[0] or ready[1]):
                self.close()
                raise SandboxError("Timeout", f"no answer within {limit:g} seconds")
            try:
                if ready[1]:
                    sent = sent[os.write(stdin.fileno(), sent) :]
                part = os.read(stdout.fileno(), 1 << 16) if ready[0] else None
            except BrokenPipeError:
                part = b""
            if part == b"":
                self.close()
                raise SandboxError("Died", "the process ended; memory or a forbidden system call may be why")
            received += part or b""
            if len(received) > MOST_BYTES:
                self.close()
                raise SandboxError("Refused", f"the result is longer than {MOST_BYTES} bytes")
        try:
            found: object = json.loads(bytes(received).splitlines()[0])
        except (ValueError, IndexError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self.close()
            raise SandboxError("Died", "the process gave no readable answer")
        return found


def check_code(code: str, imports: Sequence[str] = IMPORTS) -> None:
    """Refuse what may not stand in code for the sandbox; syntax errors too.

    Raises:
        SandboxError: with the line.

    >>> check_code("import os", imports=("math",))
    Traceback (most recent call last):
    thalweg.workflow.errors.SandboxError: Refused: import of os; allowed are math
    """
    if not isinstance(code, str):
        raise SandboxError("Refused", f"code is a text; got {type(code).__name__}")
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SandboxError("SyntaxError", str(error), getattr(error, "lineno", None)) from None
    for part in ast.walk(tree):
        wrong = _forbidden(part, imports)
        if wrong:
            raise SandboxError("Refused", wrong, getattr(part, "lineno", None))


#: How names of attributes begin that lead from an object to the interpreter.
INNER = ("_", "gi_", "cr_", "ag_", "tb_", "f_", "co_")


def _forbidden(part: ast.AST, imports: Sequence[str]) -> str:
    name = {
        ast.Attribute: "attr",
        ast.Name: "id",
        ast.FunctionDef: "name",
        ast.ClassDef: "name",
        ast.arg: "arg",
    }
    field = name.get(type(part))
    if field is not None and str(getattr(part, field)).startswith("__"):
        allowed = isinstance(part, ast.FunctionDef) and part.name in ("__init__", "__call__", "__repr__")
        return "" if allowed else f"the name {getattr(part, field)}"
    read = [part.attr] if isinstance(part, ast.Attribute) else []
    if isinstance(part, ast.MatchClass):  # a pattern reads attributes, too
        read = part.kwd_attrs
    inner = [attribute for attribute in read if attribute.startswith(INNER)]
    if inner:
        return f"the attribute {inner[0]}"
    wanted: list[str] = []
    if isinstance(part, ast.Import):
        wanted = [alias.name for alias in part.names]
    if isinstance(part, ast.ImportFrom):
        wanted = ["." * part.level + (part.module or "")]
    outside = [w for w in wanted if w not in imports]
    return f"import of {outside[0]}; allowed are {', '.join(imports)}" if outside else ""


def _bubblewrap() -> list[str]:
    """The command that puts namespaces around a process, where it is installed."""
    found = shutil.which("bwrap")
    if found is None:
        return []
    return [
        found,
        "--ro-bind",
        "/",
        "/",
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
    ]


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait()
