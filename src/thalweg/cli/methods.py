"""Methods as text: ``sor:omega=1.8`` names one with its options."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from thalweg.core import InvalidParameter, Method, Problem, UnknownName

#: Makes a method: its class, or a function of the problem and of options that text can say.
Maker = Callable[..., Method]


@dataclass(frozen=True)
class Option:
    """One option of a method: its name, the types it takes, and its default; ``required`` where it has none."""

    name: str
    kinds: tuple[object, ...]
    default: object = None
    required: bool = False

    def read(self, method: str, text: str) -> object:
        """The value that ``text`` says, or an error that names what was expected."""
        for kind in self.kinds:
            found = _read(kind, text)
            if found is not _NOT:
                return found
        choices = [c for kind in self.kinds if isinstance(kind, _Choices) for c in kind.names]
        if choices:
            raise UnknownName(f"{self.name} of {method}", text, choices)
        raise InvalidParameter(f"{method}: {self.name} needs {self.expected}; got {text!r}.")

    @property
    def expected(self) -> str:
        """The types in words."""
        return (
            " or ".join(_WORDS.get(kind, str(kind)) for kind in self.kinds) or "a value that text cannot say"
        )


@dataclass(frozen=True)
class _Choices:
    names: tuple[str, ...]

    def __str__(self) -> str:
        return "one of " + ", ".join(self.names)


_NOT = object()
_WORDS: dict[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    type(None): "none",
}


def options(maker: Maker) -> dict[str, Option]:
    """The options of a method that text can say, and those that it must be given."""
    found = {}
    for name, parameter in inspect.signature(maker).parameters.items():
        if name == "problem":
            continue
        required = parameter.default is parameter.empty
        kinds = _kinds(_hint(maker, name))
        if kinds or required:
            found[name] = Option(name, kinds, None if required else parameter.default, required)
    return found


def _hint(maker: Maker, name: str) -> object:
    """The annotation of one parameter; ``object`` where it names what is imported for type checkers only."""
    kinds = maker.__mro__ if isinstance(maker, type) else ()
    made: Any = next((vars(kind)["__init__"] for kind in kinds if "__init__" in vars(kind)), maker)
    alone = types.SimpleNamespace(__annotations__={name: made.__annotations__.get(name, object)})
    names = vars(sys.modules[made.__module__]) if hasattr(made, "__module__") else {}
    try:
        return typing.get_type_hints(alone, globalns={**names, **made.__globals__}).get(name, object)
    except NameError:
        return object


def parsed(text: str, methods: Mapping[str, Maker], problem: Problem, area: str) -> Method:
    """The method that ``name:option=value,option=value`` names, for ``problem``.

    Raises:
        UnknownName: no such method or option.
        InvalidParameter: a value of the wrong kind, or an option that has no default left out.
    """
    see = f"`thalweg list {area}` shows all."
    name, _, rest = text.partition(":")
    if name not in methods:
        raise UnknownName("method", name, methods, see=see)
    maker, known = methods[name], options(methods[name])
    values = option_values(name, rest, known, see=f"`thalweg show {name}` explains them.")
    missing = [o for o in known.values() if o.required and o.name not in values]
    unsayable = [o.name for o in missing if not o.kinds]
    if unsayable:
        raise InvalidParameter(
            f"{name} needs {', '.join(unsayable)}, which text cannot say. Use it from Python: `thalweg show {name}`."
        )
    if missing:
        example = ",".join(f"{o.name}=VALUE" for o in missing)
        raise InvalidParameter(f"{name} needs {', '.join(o.name for o in missing)}: write {name}:{example}.")
    if "problem" in inspect.signature(maker).parameters:
        return maker(problem, **values)
    return maker(**values)


def option_values(name: str, text: str, known: Mapping[str, Option], see: str = "") -> dict[str, object]:
    """The values that ``option=value,option=value`` gives, each option once; ``name`` is theirs in messages."""
    values: dict[str, object] = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if key not in known:
            raise UnknownName(f"option of {name}", key, known, see=see)
        if not equals:
            raise InvalidParameter(f"{name}: write {key}=VALUE; got {item!r}.")
        if key in values:
            raise InvalidParameter(f"{name}: {key} is said twice. Say it once.")
        values[key] = known[key].read(name, value)
    return values


def is_ready(maker: Maker) -> bool:
    """Whether the method can be had without any option."""
    return not any(option.required for option in options(maker).values())


def _kinds(hint: object) -> tuple[object, ...]:
    """The plain types of an annotation, in the order in which a text is tried; numbers before words."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return (_Choices(tuple(str(a) for a in typing.get_args(hint))),)
    if origin in (typing.Union, types.UnionType):
        found = [kind for part in typing.get_args(hint) for kind in _kinds(part)]
        return tuple(sorted(set(found), key=lambda k: _ORDER.index(k) if k in _ORDER else len(_ORDER)))
    return (hint,) if hint in _ORDER else ()


_ORDER: list[object] = [type(None), bool, int, float, str]


def _read(kind: object, text: str) -> object:
    if kind is type(None):
        return None if text.lower() == "none" else _NOT
    if kind is bool:
        return {"true": True, "false": False, "yes": True, "no": False}.get(text.lower(), _NOT)
    if isinstance(kind, _Choices):
        return text if text in kind.names else _NOT
    if kind is str:
        return text
    try:
        return int(text) if kind is int else float(text) if kind is float else _NOT
    except ValueError:
        return _NOT
