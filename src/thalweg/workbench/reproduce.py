"""Rerun studies: in parallel, with live progress, each kept as soon as it is done."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalweg.catalogue import System, find, with_study
from thalweg.core import InvalidProblem, UnreadableFile
from thalweg.core.files import write_text
from thalweg.core.validation import require
from thalweg.studies.evidence import SCALES, Evidence, Scale
from thalweg.workbench.machine import machine

ENGINES = ("loky", "ray", "sequential")


@dataclass(frozen=True)
class Record:
    """A finished study as it is kept: whose it is, at which scale, what came out, where and how long."""

    system: System
    scale: Scale
    evidence: Evidence
    seconds: float
    machine: dict[str, str]

    def save(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        data = {
            "system": self.system.number,
            "scale": self.scale,
            "seconds": self.seconds,
            "machine": self.machine,
            "evidence": self.evidence.to_dict(),
        }
        write_text(path, json.dumps(data, allow_nan=False, indent=1))

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read what `save` wrote; `UnreadableFile` if it is absent or damaged."""
        try:
            data = json.loads(path.read_text())
            evidence = Evidence.from_dict(data["evidence"])
            return cls(find(data["system"]), data["scale"], evidence, data["seconds"], data["machine"])
        except FileNotFoundError:
            raise UnreadableFile(f"No file {path}.") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnreadableFile(
                f"{path} is not a kept study, or is damaged: {error!r}. Delete it."
            ) from error


@dataclass(frozen=True)
class Failure:
    """A study that raised instead of coming back."""

    system: System
    trace: str


Watch = Callable[[dict[str, str]], None]


def reproduce(
    systems: Sequence[str] = (),
    *,
    scale: Scale = "quick",
    folder: str | Path = "runs",
    engine: str = "loky",
    jobs: int | None = None,
    fresh: bool = False,
    watch: Watch | None = None,
) -> tuple[list[Record], list[Failure]]:
    """Rerun the studies of ``systems`` (numbers or slugs; all by default) and keep each in ``folder``.

    Args:
        scale: ``"smoke"``, ``"quick"`` or ``"paper"``.
        engine: a joblib backend: ``"loky"`` processes; ``"ray"``, connected to a cluster before or started here;
            or ``"sequential"``.
        jobs: studies at once; by default as many as cores.
        fresh: run again what is already kept.
        watch: called several times a second with what each study is doing.

    Returns:
        the records in catalogue order, earlier ones included, and the studies that failed.
    """
    require(scale in SCALES, f"reproduce: scale is one of {', '.join(SCALES)}", got=scale)
    require(engine in ENGINES, f"reproduce: engine is one of {', '.join(ENGINES)}", got=engine)
    chosen = [find(name) for name in systems] or with_study()
    for system in chosen:
        if not system.study:
            raise InvalidProblem(
                f"{system.number} {system.slug} has no study yet. `thalweg list` shows which have."
            )
    chosen.sort(key=lambda s: s.number)
    folder = Path(folder)
    todo = [s for s in chosen if fresh or not _kept(folder, s, scale).exists()]
    failures = _run_all(todo, scale, folder, engine, jobs or os.cpu_count() or 1, watch) if todo else []
    failed = {f.system.number for f in failures}
    return [Record.load(_kept(folder, s, scale)) for s in chosen if s.number not in failed], failures


def _kept(folder: Path, system: System, scale: Scale) -> Path:
    return folder / f"{system.number}-{system.slug}.{scale}.json"


def _run_all(
    todo: list[System], scale: Scale, folder: Path, engine: str, jobs: int, watch: Watch | None
) -> list[Failure]:
    import joblib

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".progress-") as notes:
        tasks = [joblib.delayed(_run_one)(s, scale, folder, Path(notes)) for s in todo]
        with _Watching(todo, Path(notes), watch):
            if engine == "sequential" or jobs == 1:
                outcomes = [_run_one(s, scale, folder, Path(notes)) for s in todo]
            else:
                # Each worker gets its share of the cores, so that studies do not fight for them.
                if engine == "ray":
                    _register_ray()
                threads = max(1, (os.cpu_count() or 1) // jobs) if engine == "loky" else None
                with joblib.parallel_config(
                    backend=engine, n_jobs=min(jobs, len(todo)), inner_max_num_threads=threads
                ):
                    outcomes = joblib.Parallel()(tasks)
    return [outcome for outcome in outcomes if outcome is not None]


def _register_ray() -> None:
    from thalweg.distributed._ray import start_ray

    start_ray()
    from ray.util.joblib import register_ray

    register_ray()


def _run_one(system: System, scale: Scale, folder: Path, notes: Path) -> Failure | None:
    """Run one study in a worker; what it is doing goes to a note that the parent reads."""
    import torch

    threads = os.environ.get("OMP_NUM_THREADS")
    if threads:
        torch.set_num_threads(int(threads))
    note = notes / system.number

    def tell(share: float, what: str) -> None:
        write_text(note, f"{share:.0%} {what}")

    tell(0.0, "starting")
    begin = time.perf_counter()
    try:
        study = importlib.import_module(f"thalweg.studies.{system.study}")
        evidence = study.run(scale, tell)
        record = Record(system, scale, evidence, time.perf_counter() - begin, machine())
        record.save(_kept(folder, system, scale))
    except Exception:
        # One study that fails must not take the others with it.
        tell(1.0, "failed")
        return Failure(system, traceback.format_exc())
    tell(1.0, f"done in {record.seconds:.0f} s")
    return None


class _Watching:
    """Read the workers' notes and hand them to ``watch`` while the block runs."""

    def __init__(self, todo: list[System], notes: Path, watch: Watch | None) -> None:
        self._todo, self._notes, self._watch = todo, notes, watch
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        if self._watch is not None:
            self._thread.start()

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        if self._watch is not None:
            self._thread.join()
            self._watch(self._read())

    def _follow(self) -> None:
        assert self._watch is not None
        while not self._over.wait(0.25):
            self._watch(self._read())

    def _read(self) -> dict[str, str]:
        def note(system: System) -> str:
            path = self._notes / system.number
            return path.read_text() if path.exists() else "waiting"

        return {f"{s.number} {s.slug}": note(s) for s in self._todo}
