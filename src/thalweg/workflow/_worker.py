"""The process behind `Sandbox`: reads calls as lines of JSON, answers each with one. Stands alone, run as a script."""

from __future__ import annotations

import builtins
import ctypes
import decimal
import importlib
import json
import os
import platform
import random
import resource
import struct
import sys
import types

SAFE_BUILTINS = [
    "abs",
    "all",
    "any",
    "ascii",
    "bin",
    "bool",
    "bytearray",
    "bytes",
    "callable",
    "chr",
    "complex",
    "dict",
    "divmod",
    "enumerate",
    "filter",
    "float",
    "format",
    "frozenset",
    "hash",
    "hex",
    "int",
    "isinstance",
    "issubclass",
    "iter",
    "len",
    "list",
    "map",
    "max",
    "min",
    "next",
    "oct",
    "ord",
    "pow",
    "property",
    "range",
    "repr",
    "reversed",
    "round",
    "set",
    "slice",
    "sorted",
    "staticmethod",
    "classmethod",
    "str",
    "sum",
    "tuple",
    "zip",
    "object",
    "super",
    "type",
    "None",
    "True",
    "False",
    "NotImplemented",
    "Ellipsis",
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "Exception",
    "IndexError",
    "KeyError",
    "LookupError",
    "NotImplementedError",
    "OverflowError",
    "RecursionError",
    "RuntimeError",
    "StopIteration",
    "TypeError",
    "ValueError",
    "ZeroDivisionError",
    "MemoryError",
]

#: System calls that a running interpreter needs for memory, time and its two pipes: numbers of x86_64 and aarch64.
ALLOWED = {
    "x86_64": (0xC000003E, (0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 28, 35, 39, 60, 96, 98, 100, 131, 186,
                            201, 202, 228, 229, 230, 231, 262, 273, 318, 334)),
    "aarch64": (0xC00000B7, (57, 62, 63, 64, 79, 80, 93, 94, 98, 99, 101, 113, 114, 115, 124, 132, 134, 135, 139, 153,
                             165, 169, 172, 178, 214, 215, 216, 222, 226, 233, 278, 293)),
}  # fmt: skip


def limit(megabytes: int) -> None:
    """Limits of the operating system for this process."""
    size = megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def closed_to_the_system() -> bool:
    """Refuse all system calls but `ALLOWED`, for good; whether that could be done."""
    known = ALLOWED.get(platform.machine())
    if sys.platform != "linux" or known is None:
        return False
    arch, numbers = known
    load, equal, answer = 0x20, 0x15, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000  # allow, EPERM, end the process
    rules = [(load, 0, 0, 4), (equal, 1, 0, arch), (answer, 0, 0, kill), (load, 0, 0, 0)]
    rules += [(equal, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    rules += [(answer, 0, 0, refuse), (answer, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    program = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) != 0:
        return False
    done: bool = libc.prctl(22, 2, ctypes.c_char_p(program), 0, 0) == 0
    return done


#: Functions that read attributes by their names in a string, which no look at the text sees.
BY_NAME = {"attrgetter", "methodcaller", "Formatter"}


def facade(name: str) -> types.SimpleNamespace:
    """What a module makes public, without the modules that it uses."""
    module = importlib.import_module(name)
    public = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    return types.SimpleNamespace(
        **{
            n: getattr(module, n)
            for n in public
            if n not in BY_NAME and not isinstance(getattr(module, n), types.ModuleType)
        }
    )


def shared_parts(module: str, names: types.SimpleNamespace) -> list[tuple[str, object]]:
    """What code could change in a module for later runs: classes with those they derive from, functions, contexts."""
    found: dict[int, tuple[str, object]] = {}
    for name, value in vars(names).items():
        for part in value.__mro__ if isinstance(value, type) else (value,):
            if hasattr(part, "__dict__") or hasattr(part, "prec"):
                found.setdefault(id(part), (f"{module}.{getattr(part, '__name__', name)}", part))
    return list(found.values())


def state(part: object) -> object:
    """Something that is another once an attribute of ``part`` has been set."""
    if hasattr(part, "prec"):
        return repr(part)  # a context of decimal keeps its numbers in C
    return [(name, id(value)) for name, value in vars(part).items() if not name.startswith("_abc")]


def encode(value: object) -> object:
    """A value as JSON keeps it; kinds that JSON lacks are told by a word."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value) is list:
        return [encode(v) for v in value]
    if type(value) is dict:
        return {"dict": [[encode(k), encode(v)] for k, v in value.items()]}
    if type(value) in (tuple, set, frozenset):
        return {type(value).__name__: [encode(v) for v in value]}  # type: ignore[attr-defined]
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    raise TypeError(f"a value of type {type(value).__name__} does not go into the sandbox nor out of it")


def decode(value: object) -> object:
    """The value that `encode` was given."""
    if isinstance(value, list):
        return [decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, items),) = value.items()
    if kind == "dict":
        return {decode(k): decode(v) for k, v in items}
    if kind == "complex":
        return complex(*items)
    return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind]([decode(v) for v in items])


def answered(
    call: dict[str, object],
    modules: dict[str, types.SimpleNamespace],
    codes: dict[str, types.CodeType],
    loaded: dict[str, types.SimpleNamespace],
) -> dict[str, object]:
    """Run one call; what it imports stands in ``loaded`` then."""

    def load(name: str, *_: object) -> object:
        if name not in modules:
            raise ImportError(f"{name} is not among the imports allowed here: {', '.join(sorted(modules))}")
        if name not in loaded:  # a copy for this call alone
            loaded[name] = types.SimpleNamespace(**vars(modules[name]))
        return loaded[name]

    allowed = {name: getattr(builtins, name) for name in SAFE_BUILTINS}
    allowed.update(__import__=load, __build_class__=builtins.__build_class__, print=lambda *_, **__: None)
    source = str(call["code"])
    space: dict[str, object] = {"__builtins__": allowed, "__name__": "sandbox"}
    random.seed(0)
    try:
        if source not in codes:
            codes[source] = compile(source, "<code>", "exec")
        exec(codes[source], space)  # noqa: S102
        arguments, named = decode(call["arguments"]), decode(call["named"])
        if str(call["function"]) not in space:
            raise NameError(f"the code defines no {call['function']}")
        value = space[str(call["function"])](*arguments, **named)  # type: ignore[operator, misc, arg-type]
        return {"value": encode(value)}
    except BaseException as error:  # noqa: BLE001
        line, at = None, error.__traceback__
        while at is not None:
            if at.tb_frame.f_code.co_filename == "<code>":
                line = at.tb_lineno
            at = at.tb_next
        if isinstance(error, SyntaxError):
            line = error.lineno
        return {"error": type(error).__name__, "message": words(error)[:2000], "line": line}


def words(error: BaseException) -> str:
    """The message of an exception; code may have made one whose message raises when it is read."""
    try:
        return str(error)
    except BaseException as inner:  # noqa: BLE001
        return f"its message cannot be read: {type(inner).__name__}"


def main() -> None:
    """Serve until the input ends."""
    setting = json.loads(sys.argv[1])
    modules = {name: facade(name) for name in setting["imports"]}
    shared = {name: shared_parts(name, names) for name, names in modules.items()}
    before = {name: [state(part) for _, part in parts] for name, parts in shared.items()}
    context = decimal.getcontext().copy()
    sys.modules["sandbox"] = types.ModuleType("sandbox")  # where dataclasses look for their names
    os.environ.clear()
    limit(setting["megabytes"])
    closed = closed_to_the_system()
    reader, writer = sys.stdin.buffer, sys.stdout.buffer
    writer.write(json.dumps({"closed": closed}).encode() + b"\n")
    writer.flush()
    codes: dict[str, types.CodeType] = {}
    while line := reader.readline():
        loaded: dict[str, types.SimpleNamespace] = {}
        decimal.setcontext(context.copy())
        reply = answered(json.loads(line), modules, codes, loaded)
        for name in loaded:
            states = zip(shared[name], before[name], strict=True)
            changed = [part for (part, value), old in states if state(value) != old]
            if (
                changed
            ):  # later runs would see it, and json itself may be what was changed: nothing more is run here
                words = f"the code changed {changed[0]}, which is the same in other runs"
                writer.write(f'{{"error": "Refused", "message": "{words}", "last": true}}\n'.encode())
                writer.flush()
                return
        try:
            text = json.dumps(reply)
        except (MemoryError, RecursionError, ValueError) as error:
            text = json.dumps(
                {
                    "error": type(error).__name__,
                    "message": f"the result cannot be sent: {error}",
                    "line": None,
                }
            )
        writer.write(text.encode() + b"\n")
        writer.flush()
        if len(codes) > 1000:
            codes.clear()


if __name__ == "__main__":
    main()
