"""Opening the user's files: compression, encoding, line ends, and errors that name the file."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from thalweg.core import ThalwegError, UnreadableFile

_COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}
_FIRST_BYTES = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz"}
_WIDE = (b"\xff\xfe", b"\xfe\xff")

#: What readers of other libraries raise for a file that they cannot take.
_FOREIGN = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    StopIteration,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def reading(path: Path, kinds: str) -> Iterator[None]:
    """Turn whatever a reader raises into an `UnreadableFile` that names the file and what was expected."""
    if path.is_dir():
        raise UnreadableFile(f"{path} is a folder. Expected {kinds}.")
    if not path.is_file():
        raise UnreadableFile(f"No file {path}. Expected {kinds}.")
    try:
        yield
    except ThalwegError:
        raise
    except _FOREIGN as error:
        said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UnreadableFile(f"{path} could not be read as {kinds}: {said}.") from error


def ending(path: Path) -> str:
    """The ending that says what a file holds, in small letters: ``.csv`` for ``T.CSV`` and for ``t.csv.gz``.

    >>> ending(Path("T.CSV.gz"))
    '.csv'
    """
    name = path.name[: -len(path.suffix)] if is_compressed(path) else path.name
    return Path(name).suffix.lower()


def title(path: Path) -> str:
    """The name of a file without its endings: ``t`` for ``t.csv.gz``."""
    return Path(path.stem).stem if is_compressed(path) else path.stem


def is_compressed(path: Path) -> bool:
    """Whether the name ends in ``.gz``, ``.bz2`` or ``.xz``."""
    return path.suffix.lower() in _COMPRESSED


def read_bytes(path: Path) -> bytes:
    r"""What a text file holds in UTF-8: unpacked, without a byte order mark, lines ended by ``\n`` alone.

    Raises:
        UnreadableFile: the file is empty, no text, or compressed under a name that does not say so.
    """
    content = path.read_bytes()
    if is_compressed(path):
        content = _COMPRESSED[path.suffix.lower()](content)
    for first, suffix in _FIRST_BYTES.items():
        if content.startswith(first):
            raise UnreadableFile(f"{path} is compressed; its name must end in {suffix}.")
    if content.startswith(_WIDE):
        raise UnreadableFile(f"{path} is not UTF-8 but UTF-16; save it as UTF-8.")
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise UnreadableFile(f"{path} is empty.")
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise UnreadableFile(f"{path} is no text: line {line} holds a zero byte.")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableFile(
            f"{path} is not UTF-8 (byte 0x{content[error.start]:02x} in line {line}); save it as UTF-8."
        ) from None
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in content else content


def read_text(path: Path) -> str:
    """`read_bytes`, decoded."""
    return read_bytes(path).decode()
