"""Named files from the network, checked against their SHA-256, or from a folder without one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from thalweg.core import UnreadableFile


@dataclass(frozen=True)
class Download:
    """A file to fetch once: its name in the folder, where it comes from, and its checksum."""

    file: str
    url: str
    sha256: str


CALIFORNIA_HOUSING = Download(
    "cal_housing.tgz",
    "https://ndownloader.figshare.com/files/5976036",
    "aaa5c9a6afe2225cc2aed2723682ae403280c4a3695a2ddda4ffb5d8215ea681",
)
COVERTYPE = Download(
    "covtype.data.gz",
    "https://ndownloader.figshare.com/files/5976039",
    "614360d0257557dd1792834a85a1cdebfadc3c4f30b011d56afee7ffb5b15771",
)


def data_folder() -> Path:
    """Where downloaded files are kept: ``THALWEG_DATA``, or the user's cache folder."""
    import pooch

    named = os.environ.get("THALWEG_DATA")
    return Path(named) if named else Path(pooch.os_cache("thalweg"))


def fetch(download: Download) -> Path:
    """The local path of a file, downloaded on first use.

    Raises:
        UnreadableFile: no network, or a file whose checksum is not the right one; says what to place where.
    """
    import pooch

    folder = data_folder()
    try:
        path = pooch.retrieve(
            download.url, known_hash=f"sha256:{download.sha256}", fname=download.file, path=folder
        )
    except (OSError, ValueError) as error:
        raise UnreadableFile(
            f"{download.file} is not in {folder} and could not be downloaded ({type(error).__name__}). "
            f"Place the file from {download.url} (SHA-256 {download.sha256[:12]}...) at "
            f"{folder / download.file}, or point THALWEG_DATA to a folder that has it."
        ) from error
    return Path(path)
