"""Read what a model suggests: find the values in its words, and take only those that fit."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import cast

from thalweg.workflow.parameters import ParameterNode


def extract(text: str) -> dict[str, object] | None:
    """The suggested values of a reply, by name; None where there are none to read.

    First the text as JSON, a code fence aside; then what stands between the outermost braces; then pairs of a quoted
    name and a value.

    >>> extract('Sure. ```json\\n{"suggestion": {"x": 3}}\\n```')
    {'x': 3}
    >>> extract('{"suggestion": {"x": 3, "y": "a b"')
    {'x': 3, 'y': 'a b'}
    """
    inside = text[text.find("{") : text.rfind("}") + 1]
    for part in (text, inside):
        try:
            found = json.loads(part, strict=False)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            suggestion = found.get("suggestion", {} if "answer" in found else found)
            return cast("dict[str, object]", suggestion) if isinstance(suggestion, dict) else {}
    _, marked, rest = text.partition('"suggestion"')
    pairs = re.findall(r'"([^"\n]+)"\s*:\s*("(?:[^"\\]|\\.)*"|-?[\w.+-]+|\[[^\]]*\])(?=\s*[,}\n]|\s*$)', rest)
    values = {name: value for name, raw in pairs if (value := _literal(raw)) is not None}
    return values if marked and values else None


def is_termination(text: str) -> bool:
    """Whether the model says that nothing should change."""
    return '"TERMINATE"' in text or text.strip() == "TERMINATE"


def fitted(
    values: Mapping[str, object], parameters: Mapping[str, ParameterNode]
) -> tuple[dict[ParameterNode, object], list[str]]:
    """The values that fit their parameters, and why the others do not.

    A text for what is no text is read as a literal of Python; nothing is converted by its type.
    """
    found, reasons = dict[ParameterNode, object](), list[str]()
    for name, value in values.items():
        parameter = parameters.get(name)
        if parameter is None:
            reasons.append(f"{name} is not among #Variables.")
            continue
        old = parameter._data
        if isinstance(value, str) and not isinstance(old, str):
            read = _literal(value)
            value = value if read is None else read
        if isinstance(value, list) and isinstance(old, tuple):
            value = tuple(value)  # JSON has no tuples
        if isinstance(old, float) and type(value) is int:
            value = float(value)
        reason = parameter.refusal(value)
        if reason is None:
            found[parameter] = value
        else:
            reasons.append(f"{name} {reason}.")
    return found, reasons


def _literal(text: str) -> object:
    try:
        return cast(object, json.loads(text, strict=False))
    except (ValueError, RecursionError):
        pass
    try:
        return cast(object, ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
