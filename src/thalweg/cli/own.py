"""What a user's own Python file defines: ``FILE.py:NAME``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def from_file(text: str) -> tuple[object, ModuleType]:
    """The thing that ``FILE.py:NAME`` names, and the module that the file is; its code is run.

    Raises:
        UnreadableFile: no such file. InvalidParameter: no Python file, or no name. UnknownName: it has no such name.
    """
    from thalweg.core import InvalidParameter, UnknownName, UnreadableFile

    path, _, name = text.rpartition(":")
    if not (path and name):
        raise InvalidParameter(f"{text!r} names nothing in a file; expected FILE.py:NAME.")
    if not Path(path).is_file():
        raise UnreadableFile(f"No file {path}; expected FILE.py:NAME.")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise InvalidParameter(f"{path} is no Python file; expected FILE.py:NAME.")
    module = importlib.util.module_from_spec(spec)
    folder, held = str(Path(path).parent.resolve()), list(sys.path)
    sys.path.insert(0, folder)  # files beside it are imported as they are by `python FILE.py`
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = held
    if not hasattr(module, name):
        public = [known for known in vars(module) if not known.startswith("_")]
        raise UnknownName("function or class", name, public, see=f"It should stand in {path}.")
    return getattr(module, name), module
