"""Which code a study runs, read from the sources: what it hashes to, and where it has changed.

The graph of imports is read from the text of the modules, not from ``sys.modules`` after a run: it is the same
whatever else the process has imported, it sees imports inside functions that a small scale never reaches, and it is
there *before* anything runs, so that a kept study can be told from a stale one without loading torch. What it cannot
see is a module imported by a name made at run time. The library does that for names that load on first use, which
the package's ``__init__.pyi`` tells, and for an area's ``recommended.py``, which counts with its package.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import thalweg
from thalweg.core import InvalidProblem

ROOT = Path(thalweg.__file__).parent

#: When a file was last written and changed in any way, which file it is, and its length.
Stamp: TypeAlias = tuple[int, int, int, int]

#: Files inside packages that are no data: what Python and Numba write, and the marker of types.
_NO_DATA = (".py", ".pyc", ".nbi", ".nbc", ".typed")


def code_of(study: str, root: Path = ROOT) -> dict[str, str]:
    """File -> hash of all that a study's module runs: itself, and every module of the library that it imports.

    Followed through: imports at the top and inside functions, the packages around a module, and data files that lie
    beside the modules (pretrained weights). Comments count; line endings do not.

    Args:
        study: a module of ``thalweg.studies``.
        root: the folder of the package, for sources elsewhere.

    Raises:
        InvalidProblem: there is no such module.

    Cost: reads some hundred files once a process, half a second; then some tens of milliseconds.

    >>> sorted(code_of("rex_schedule"))[0]
    'core/__init__.py'
    """
    there, start = _files(root), f"studies/{study}.py"
    if start not in there:
        raise InvalidProblem(f"There is no study '{study}' in {root / 'studies'}.")
    todo, seen = [start], {start}
    while todo:
        for found in _reached(todo.pop(), root, there):
            if found not in seen:
                seen.add(found)
                todo.append(found)
    folders = {(root / name).parent for name in seen}
    data = {file.relative_to(root).as_posix() for folder in folders for file in _data(folder, root)}
    return {name: _hash(root / name, _stamp(root / name)) for name in sorted(seen | data)}


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The files that differ between two answers of `code_of`, those in one only included, sorted.

    >>> changed({"a.py": "1", "b.py": "2"}, {"a.py": "1", "b.py": "3", "c.py": "4"})
    ['b.py', 'c.py']
    """
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _files(root: Path) -> frozenset[str]:
    """All files of the package, relative to its folder."""
    found = []
    for folder, _, names in os.walk(root):
        inner = Path(folder).relative_to(root).as_posix()
        found += names if inner == "." else [f"{inner}/{name}" for name in names]
    return frozenset(found)


def _reached(name: str, root: Path, there: frozenset[str]) -> Iterator[str]:
    """The files that running file ``name`` imports from the library, and the packages that it lies in."""
    for module in _imports_of(root / name, _stamp(root / name), root):
        parts = module.split(".")[1:]
        # Importing a.b.c runs the tops of a and a.b too. The top of the library itself only names its parts, which
        # load when they are asked for: it counts, with all that it names, where something is asked of it.
        packages = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        wanted = [f"{package}/__init__.py" for package in packages]
        wanted.append(f"{packages[-1]}.py" if parts else "__init__.py")
        yield from (file for file in wanted if file in there)
        for depth, package in enumerate(packages, 1):
            yield from _on_first_use(package, parts[depth:], root, there)
    folder = name.rpartition("/")[0]
    if folder and f"{folder}/__init__.py" in there:
        yield f"{folder}/__init__.py"


def _on_first_use(package: str, names: list[str], root: Path, there: frozenset[str]) -> Iterator[str]:
    """What a package whose names load on first use loads for the first of ``names``, and to recommend methods."""
    stub = f"{package}/__init__.pyi"
    if stub not in there:
        return
    if f"{package}/recommended.py" in there:
        yield f"{package}/recommended.py"
    for inner in _told(root / stub, _stamp(root / stub)).get(names[0], ()) if names else ():
        yield from (
            file for file in (f"{package}/{inner}.py", f"{package}/{inner}/__init__.py") if file in there
        )


@functools.cache
def _told(stub: Path, stamp: Stamp) -> dict[str, list[str]]:
    """The modules, as paths, that a stub imports each name from."""
    found: dict[str, list[str]] = {}
    for node in ast.parse(stub.read_bytes(), str(stub)).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found.setdefault(alias.name, []).append(node.module.replace(".", "/"))
    return found


@functools.cache
def _imports_of(path: Path, stamp: Stamp, root: Path) -> tuple[str, ...]:
    module = ".".join(["thalweg", *path.relative_to(root).with_suffix("").parts])
    package = module.split(".")[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            # What is imported may be a name of the module or a module itself: those that are no file are dropped.
            found += [source, *(f"{source}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(name for name in found if name.split(".")[0] == "thalweg"))


def _stamp(path: Path) -> Stamp:
    """What is another where a file has changed."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def _data(folder: Path, root: Path) -> Iterator[Path]:
    """Data beside the modules of a package, and in its folders that are no packages; not at the top."""
    if folder == root:
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name != "__pycache__" and not (path / "__init__.py").exists():
            yield from _data(path, root)
        elif path.is_file() and path.suffix not in _NO_DATA and not path.name.startswith("."):
            yield path


@functools.cache
def _hash(path: Path, stamp: Stamp) -> str:
    content = path.read_bytes()
    if path.suffix == ".py":
        content = content.replace(b"\r\n", b"\n")
    return hashlib.sha256(content).hexdigest()[:16]
