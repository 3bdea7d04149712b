"""Files that appear whole or not at all."""

from __future__ import annotations

import glob
import os
import secrets
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from thalweg.core.errors import InvalidParameter
from thalweg.core.processes import is_alive

ARRAY_ENDINGS = (".npz", ".npy", ".csv")
#: Files beside which this process has looked for what killed ones left.
_SWEPT: set[Path] = set()


def check_target(path: str | Path, endings: Sequence[str] = ()) -> Path:
    """Refuse a ``path`` that cannot be written, before any work: a folder, in one that takes no files, or another
    ending than ``endings``.

    >>> check_target("answer.npy", (".npy", ".csv")).name
    'answer.npy'
    """
    target = Path(path)
    with _told(target):
        is_folder, is_file, exists = target.is_dir(), target.is_file(), target.exists()
    if is_folder:
        raise InvalidParameter(f"{path} is a folder; name a file in it.")
    parent = next((p for p in target.absolute().parents if p.exists()), None)
    if parent is not None and not parent.is_dir():
        raise InvalidParameter(f"{path} cannot be written: {parent} is a file, not a folder.")
    if parent is not None and (is_file or not exists) and not os.access(parent, os.W_OK | os.X_OK):
        raise InvalidParameter(
            f"{path} cannot be written: you may not make files in {parent}. Name another folder."
        )
    if endings and target.suffix.lower() not in endings:
        known = f"{', '.join(endings[:-1])} or {endings[-1]}" if len(endings) > 1 else endings[0]
        raise InvalidParameter(f"{path} has an unknown ending; expected {known}.")
    return target


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open ``path`` for writing bytes; it takes the new content only when the block ends without an error.

    A new file has the mode that the umask leaves; one that is overwritten keeps its own, and a link is followed.
    What is no file (a terminal, a pipe, /dev/null) is written to as it stands. Half-written files that killed processes
    of this machine left beside it are removed, the first time that this process writes it.
    """
    target = Path(os.path.realpath(check_target(path)))
    with _told(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            yield file
        return
    _sweep(target)
    temporary = target.parent / f"{_unfinished(target)}{os.getpid()}-{secrets.token_hex(6)}"
    try:
        with _told(target):
            opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(opened, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _told(target: Path) -> Iterator[None]:
    """What the system refuses, as a word on the file that was to be written."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InvalidParameter(f"{target} cannot be written: {why}. Name another file.") from error


def _unfinished(target: Path) -> str:
    """How the names of files begin that this machine has begun to write for a target; the process follows."""
    return f".{target.name[:150]}.{socket.gethostname()[:50]}-"


def _sweep(target: Path) -> None:
    if target in _SWEPT:
        return
    _SWEPT.add(target)
    begin = _unfinished(target)
    for left in target.parent.glob(f"{glob.escape(begin)}*"):
        owner = left.name.removeprefix(begin).partition("-")[0]
        if owner.isdigit() and not is_alive(int(owner)):
            with suppress(OSError):  # another's, or gone
                left.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    with atomic_write(path) as file:
        file.write(text.encode())


def save_array(path: str | Path, values: NDArray[Any]) -> None:
    """Write one array as ``.npz``, ``.npy`` or ``.csv``, by the ending of ``path``, atomically, with all its digits."""
    ending = check_target(path, ARRAY_ENDINGS).suffix.lower()
    if ending == ".csv" and (values.ndim > 2 or values.dtype.kind not in "fiub"):
        raise InvalidParameter(
            f"{path}: a .csv file holds real numbers in rows; use .npz or .npy for this array."
        )
    with atomic_write(path) as file:
        if ending == ".npz":
            np.savez(file, values=values)
        elif ending == ".npy":
            np.save(file, values)
        else:
            np.savetxt(file, values, fmt="%.17g" if values.dtype.kind == "f" else "%d", delimiter=",")
