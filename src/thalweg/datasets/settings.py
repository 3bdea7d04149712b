"""Settings in TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path

from thalweg.core import UnreadableFile
from thalweg.datasets._text import read_text, reading


def load_toml(path: str | Path) -> dict[str, object]:
    """The tables of a ``.toml`` file, read as UTF-8 on every machine, as its standard says.

    Raises:
        UnreadableFile: the file is absent, empty, not UTF-8, or no TOML; says the line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "space.toml").write_bytes(b"[rate]\\nlow = 0.1")
    ...     load_toml(Path(folder, "space.toml"))
    {'rate': {'low': 0.1}}
    """
    path = Path(path)
    with reading(path, "settings in .toml"):
        text = read_text(path)
        try:
            return tomllib.loads(text)
        except ValueError as error:
            raise UnreadableFile(f"{path} is no TOML file: {error}.") from error
