"""A finished study as it is kept: in ``runs/``, to be skipped next time, or in ``evidence/``, for readers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from thalweg.catalogue import System, find
from thalweg.core import UnreadableFile
from thalweg.core.files import write_text
from thalweg.core.validation import require
from thalweg.studies.evidence import SCALES, Evidence, Scale
from thalweg.workbench.code import ROOT, changed, code_of


@dataclass(frozen=True)
class Record:
    """A finished study: whose it is, at which scale, what came out, where, how long, and by which code.

    Args:
        system: whose study.
        scale: how much was run.
        evidence: what came out.
        seconds: how long it took.
        machine: where, see `machine.machine`.
        code: hashes of the files that ran, by name, see `code.code_of`.
    """

    system: System
    scale: Scale
    evidence: Evidence
    seconds: float
    machine: Mapping[str, str]
    code: Mapping[str, str] = field(default_factory=dict)

    def changed(self) -> list[str]:
        """The files of the library that are not as they were when this was measured; empty for the same code."""
        return changed(self.code, code_of(self.system.study))

    def save(self, path: Path) -> None:
        """Write it as strict JSON, atomically."""
        data = {
            "system": self.system.number,
            "scale": self.scale,
            "seconds": self.seconds,
            "machine": dict(self.machine),
            "code": dict(self.code),
            "evidence": self.evidence.to_dict(),
        }
        write_text(path, json.dumps(data, allow_nan=False, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read what `save` wrote; `UnreadableFile` if it is absent or damaged."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            evidence = Evidence.from_dict(data["evidence"])
            require(data["scale"] in SCALES, "the scale is one of " + ", ".join(SCALES), got=data["scale"])
            place, code = data["machine"], data["code"]
            return cls(find(data["system"]), data["scale"], evidence, float(data["seconds"]), place, code)
        except FileNotFoundError:
            raise UnreadableFile(f"No file {path}.") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnreadableFile(
                f"{path} is not a kept study, or is damaged: {error!r}. Delete it."
            ) from error


def kept(folder: Path, system: System, scale: Scale) -> Path:
    """Where a finished study is kept in a folder of runs."""
    return folder / f"{system.number}-{system.slug}.{scale}.json"


def is_current(path: Path) -> bool:
    """Whether ``path`` holds a finished study that was made by the code that is here now."""
    try:
        return not Record.load(path).changed()
    except UnreadableFile:
        return False


def evidence_folder() -> Path:
    """The folder of recorded evidence: ``evidence`` of the checkout that runs, else of the working directory."""
    checkout = ROOT.parents[1]
    return (checkout if (checkout / "pyproject.toml").exists() else Path()) / "evidence"


def write_recorded(records: Iterable[Record], folder: Path) -> list[Path]:
    """Write finished studies of the full scale as recorded evidence, ``<NN>-<slug>.json``; returns the paths.

    Raises:
        InvalidParameter: a study of another scale; nothing is written then.
    """
    records = list(records)
    for record in records:
        require(
            record.scale == "full",
            "Recorded evidence is what the full scale gave: `thalweg reproduce --scale full --record`",
            got=f"{record.system.slug} at {record.scale} scale",
        )
    paths = [folder / f"{record.system.number}-{record.system.slug}.json" for record in records]
    for record, path in zip(records, paths, strict=True):
        record.save(path)
    return paths


def read_recorded(folder: Path) -> dict[str, Record]:
    """Recorded evidence by the system's number, in order; empty where there is none."""
    found = [Record.load(path) for path in sorted(folder.glob("[0-9][0-9]-*.json"))]
    return {record.system.number: record for record in found}
