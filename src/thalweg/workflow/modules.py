"""Programs with parameters: find them, save them, load them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from thalweg.core import CheckpointMismatch, InvalidProblem, UnreadableFile
from thalweg.core.files import write_text
from thalweg.workflow._worker import decode, encode
from thalweg.workflow.bundles import Bundle
from thalweg.workflow.parameters import ParameterNode


class Module:
    """Base of a program with parameters: nodes, trainable bundles and modules among its attributes, in containers too.

    >>> from thalweg.workflow import node
    >>> class Line(Module):
    ...     def __init__(self):
    ...         self.slope = node(1.0, trainable=True)
    ...     def __call__(self, x):
    ...         return self.slope * x
    >>> line = Line()
    >>> line(3.0).data, list(line.parameters_dict())
    (3.0, ['slope'])
    """

    def parameters(self) -> list[ParameterNode]:
        """Each parameter once."""
        return list(dict.fromkeys(self.parameters_dict().values()))

    def parameters_dict(self) -> dict[str, ParameterNode]:
        """Each parameter by its path: ``layer.weights.0``."""
        return parameters_by_name(self._things(), {id(self)})

    def _things(self) -> dict[str, object]:
        """Bundles of its classes, and its attributes."""
        own = {
            n: v
            for kind in reversed(type(self).__mro__)
            for n, v in vars(kind).items()
            if isinstance(v, Bundle)
        }
        return {**own, **vars(self)}

    def save(self, path: str | Path) -> None:
        """Write the values of the parameters as JSON.

        Raises:
            InvalidProblem: a value that is no plain data.
        """
        save_parameters(self.parameters_dict(), path)

    def load(self, path: str | Path) -> None:
        """Take the values of a file that `save` wrote: data, never code that runs.

        Raises:
            UnreadableFile: no such file.
            CheckpointMismatch: other parameters, or values that these refuse; nothing is changed then.
        """
        load_parameters(self.parameters_dict(), path)


def save_parameters(held: Mapping[str, ParameterNode], path: str | Path) -> None:
    """Write the values of named parameters as JSON; `InvalidProblem` where one is no plain data."""
    try:
        values = {name: encode(p._data) for name, p in held.items()}
    except TypeError as error:
        raise InvalidProblem(f"Parameters are not saved: {error}; only plain data are.") from None
    write_text(path, json.dumps({"thalweg": "parameters", "values": values}, indent=1))


def load_parameters(held: Mapping[str, ParameterNode], path: str | Path) -> None:
    """Set named parameters to the values of such a file; raises as `Module.load` does."""
    try:
        read = json.loads(Path(path).read_text(encoding="utf-8"))
        values = {name: decode(value) for name, value in read["values"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableFile(f"{path} is no file of parameters: {error}") from error
    if set(held) != set(values):
        odd = sorted(set(held) ^ set(values))
        raise CheckpointMismatch(f"{path} has other parameters: {', '.join(odd)} on one side only.")
    for name, parameter in held.items():
        reason = parameter.refusal(values[name])
        if reason is not None:
            raise CheckpointMismatch(f"{path}: {name} {reason}.")
    for name, parameter in held.items():
        parameter.set(values[name])


def parameters_by_name(
    names: Mapping[str, object], without: Collection[int] = ()
) -> dict[str, ParameterNode]:
    """The parameters among named things: nodes, trainable bundles, modules, and containers of them, by their paths.

    ``without``: identities of modules and containers that are looked through already.
    """
    seen = set(without)
    return dict(found for name, value in names.items() for found in _parameters(name, value, seen))


def _parameters(name: str, value: object, seen: set[int]) -> Iterator[tuple[str, ParameterNode]]:
    if isinstance(value, ParameterNode):
        yield name, value
        return
    if isinstance(value, Bundle):
        if value.parameter is not None:
            yield name, value.parameter
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Module):
        for inner, thing in value._things().items():
            yield from _parameters(f"{name}.{inner}", thing, seen)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _parameters(f"{name}.{i}", item, seen)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _parameters(f"{name}.{key}", item, seen)
