"""An area's methods by name, each loaded when it is looked at."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

from thalweg.core.method import Method


class MethodsByName(Mapping[str, type[Method]]):
    """Name to method, for an area some of whose methods take long to import.

    Args:
        package: the area's.
        names: the name that tables and the command use -> the module in ``package``, a point, and the class.

    >>> methods = MethodsByName("thalweg.linear", {"cg": "krylov.ConjugateGradient"})
    >>> methods["cg"].__name__, list(methods)
    ('ConjugateGradient', ['cg'])
    """

    def __init__(self, package: str, names: Mapping[str, str]) -> None:
        self.package, self.names = package, dict(names)

    def __getitem__(self, name: str) -> type[Method]:
        module, _, kind = self.names[name].rpartition(".")
        found: type[Method] = getattr(importlib.import_module(f"{self.package}.{module}"), kind)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
