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
from collections.abc import Iterator, Mapping
from pathlib import Path

import thalweg
from thalweg.core import InvalidProblem

ROOT = Path(thalweg.__file__).parent

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

    Cost: reads about a hundred files once, some tens of milliseconds.

    >>> sorted(code_of("rex_schedule"))[0]
    'core/__init__.py'
    """
    start = root / "studies" / f"{study}.py"
    if not start.exists():
        raise InvalidProblem(f"There is no study '{study}' in {start.parent}.")
    todo, seen = [start], {start}
    while todo:
        for found in _reached(todo.pop(), root):
            if found not in seen:
                seen.add(found)
                todo.append(found)
    data = {file for folder in {path.parent for path in seen} for file in _data(folder, root)}
    return {path.relative_to(root).as_posix(): _hash(path) for path in sorted(seen | data)}


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The files that differ between two answers of `code_of`, those in one only included, sorted.

    >>> changed({"a.py": "1", "b.py": "2"}, {"a.py": "1", "b.py": "3", "c.py": "4"})
    ['b.py', 'c.py']
    """
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _reached(path: Path, root: Path) -> Iterator[Path]:
    """The files that running ``path`` imports from the library, and the packages that it lies in."""
    for module in _imports(path, root):
        parts = module.split(".")[1:]
        # Importing a.b.c runs the tops of a and a.b too. The top of the library itself only names its parts, which
        # load when they are asked for: it counts, with all that it names, where something is asked of it.
        packages = [root.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
        wanted = [*packages, root.joinpath(*parts).with_suffix(".py")] if parts else [root / "__init__.py"]
        yield from (file for file in wanted if file.exists())
        for depth in range(1, len(parts) + 1):
            yield from _on_first_use(root.joinpath(*parts[:depth]), parts[depth:])
    top = path.parent / "__init__.py"
    if path.parent != root and top.exists():
        yield top


def _on_first_use(package: Path, names: list[str]) -> Iterator[Path]:
    """What a package whose names load on first use loads for the first of ``names``, and to recommend methods."""
    stub = package / "__init__.pyi"
    if not stub.exists():
        return
    if (package / "recommended.py").exists():
        yield package / "recommended.py"
    for node in ast.parse(stub.read_bytes()).body:
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and names[:1]
            and names[0] in {a.name for a in node.names}
        ):
            inner = package.joinpath(*node.module.split("."))
            yield from (file for file in (inner.with_suffix(".py"), inner / "__init__.py") if file.exists())


@functools.cache
def _imports_of(path: Path, stamp: tuple[int, int], root: Path) -> tuple[str, ...]:
    module = ".".join(["thalweg", *path.relative_to(root).with_suffix("").parts])
    package = module.split(".")[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            # What is imported may be a name of the module or a module itself: those that are no file are dropped.
            found += [source, *(f"{source}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(name for name in found if name.split(".")[0] == "thalweg"))


def _imports(path: Path, root: Path) -> tuple[str, ...]:
    status = path.stat()
    return _imports_of(path, (status.st_mtime_ns, status.st_size), root)


def _data(folder: Path, root: Path) -> Iterator[Path]:
    """Data beside the modules of a package, and in its folders that are no packages; not at the top."""
    if folder == root:
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name != "__pycache__" and not (path / "__init__.py").exists():
            yield from _data(path, root)
        elif path.is_file() and path.suffix not in _NO_DATA and not path.name.startswith("."):
            yield path


def _hash(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".py":
        content = content.replace(b"\r\n", b"\n")
    return hashlib.sha256(content).hexdigest()[:16]
