"""Rerun studies: in parallel, with live progress, each kept as soon as it is done."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

from thalweg.catalogue import SYSTEMS, System, find
from thalweg.core.processes import end_with, is_alive
from thalweg.core.validation import require
from thalweg.studies.evidence import SCALES, Scale
from thalweg.workbench.code import code_of
from thalweg.workbench.machine import machine
from thalweg.workbench.record import Record, is_current, kept

ENGINES = ("loky", "ray", "sequential")
#: How folders of notes are called; the number of the process follows.
NOTES = ".progress-"


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

    What is kept there and was made by the same code is not run again. Studies that measure seconds (``timed = True``
    in their module) run one at a time after the others, with the machine to themselves.

    Args:
        scale: ``"smoke"``, ``"quick"`` or ``"full"``.
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
    require(jobs is None or jobs >= 1, "reproduce needs jobs >= 1", got=jobs)
    chosen = [find(name) for name in systems] or SYSTEMS
    chosen = sorted(dict.fromkeys(chosen), key=lambda s: s.number)
    folder = Path(folder)
    todo = [s for s in chosen if fresh or not is_current(kept(folder, s, scale))]
    failures = _run_all(todo, scale, folder, engine, jobs or os.cpu_count() or 1, watch) if todo else []
    failed = {f.system.number for f in failures}
    return [Record.load(kept(folder, s, scale)) for s in chosen if s.number not in failed], failures


def _run_all(
    todo: list[System], scale: Scale, folder: Path, engine: str, jobs: int, watch: Watch | None
) -> list[Failure]:
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    prefix = f"{NOTES}{os.getpid()}-"
    with _ended_by_sigterm(), tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as name:
        notes = Path(name)
        alone = [s for s in todo if _is_timed(s)] if len(todo) > 1 else []
        together = [s for s in todo if s not in alone]
        with _Watching(todo, notes, watch):
            outcomes = _run_together(together, scale, folder, notes, engine, jobs)
            outcomes += [_run_one(s, scale, folder, notes) for s in alone]
    return [outcome for outcome in outcomes if outcome is not None]


def _sweep(folder: Path) -> None:
    """Remove the notes of runs that were killed."""
    for left in folder.glob(f"{NOTES}*"):
        owner = left.name.removeprefix(NOTES).partition("-")[0]
        if not (owner.isdigit() and is_alive(int(owner))):
            shutil.rmtree(left, ignore_errors=True)


def _run_together(
    todo: list[System], scale: Scale, folder: Path, notes: Path, engine: str, jobs: int
) -> list[Failure | None]:
    if engine == "sequential" or jobs == 1 or not todo:
        return [_run_one(s, scale, folder, notes) for s in todo]
    import joblib

    if engine == "ray":
        _register_ray()
    # Each worker gets its share of the cores, so that studies do not fight for them.
    threads = max(1, (os.cpu_count() or 1) // jobs) if engine == "loky" else None
    parent = os.getpid() if engine == "loky" else None
    tasks = [joblib.delayed(_run_one)(s, scale, folder, notes, parent) for s in todo]
    with joblib.parallel_config(backend=engine, n_jobs=min(jobs, len(todo)), inner_max_num_threads=threads):
        return list(joblib.Parallel()(tasks))


def _is_timed(system: System) -> bool:
    """Whether a study's claims are about seconds. One that cannot be imported fails later, where it is run."""
    try:
        return bool(getattr(importlib.import_module(f"thalweg.studies.{system.study}"), "timed", False))
    except Exception:  # noqa: BLE001 -- told where the study is run
        return False


def _register_ray() -> None:
    from thalweg.core.ray_engine import start_ray

    start_ray()
    from ray.util.joblib import register_ray

    register_ray()


def _run_one(
    system: System, scale: Scale, folder: Path, notes: Path, parent: int | None = None
) -> Failure | None:
    """Run one study in a worker of ``parent``; what it is doing goes to a note that the parent reads."""
    if parent is not None:
        end_with(parent)
    import torch

    threads = os.environ.get("OMP_NUM_THREADS")
    if threads:
        torch.set_num_threads(int(threads))

    def tell(share: float, what: str) -> None:
        _write_note(notes / system.number, f"{share:.0%} {what}")

    tell(0.0, "starting")
    begin = time.perf_counter()
    try:
        code = code_of(system.study)
        study = importlib.import_module(f"thalweg.studies.{system.study}")
        evidence = study.run(scale, tell)
        record = Record(system, scale, evidence, time.perf_counter() - begin, machine(), code)
        record.save(kept(folder, system, scale))
    except Exception:  # noqa: BLE001 -- one study that fails must not take the others with it
        tell(1.0, "failed")
        return Failure(system, traceback.format_exc())
    tell(1.0, f"done in {record.seconds:.0f} s")
    return None


def _write_note(note: Path, text: str) -> None:
    """Replace a note. Where its folder is gone the run has been ended, and nobody reads it."""
    new = note.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        new.write_text(text, encoding="utf-8")
        os.replace(new, note)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, which ends a process at once, leave through the blocks around, so that they tidy up.

    Only in the main thread, and only where nobody else handles it.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Watching:
    """Read the workers' notes and hand them to ``watch`` while the block runs."""

    def __init__(self, todo: list[System], notes: Path, watch: Watch | None) -> None:
        self._todo, self._notes, self._watch = todo, notes, watch
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        if self._watch is not None:
            self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._watch is not None:
            self._thread.join()
            self._watch(self._read())

    def _follow(self) -> None:
        while self._watch is not None and not self._over.wait(0.25):
            self._watch(self._read())

    def _read(self) -> dict[str, str]:
        def note(system: System) -> str:
            path = self._notes / system.number
            return path.read_text(encoding="utf-8") if path.exists() else "waiting"

        return {f"{s.number} {s.slug}": note(s) for s in self._todo}
