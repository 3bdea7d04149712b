"""Start, kill at a random moment, look at what is left, start again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

#: The variable by which a run's processes are known, whatever their parents are by then.
MARK = "THALWEG_ENDURANCE"
#: Seconds after a kill until a process that is still there is an orphan; most seconds of a whole run.
GRACE, LONGEST = 6.0, 600.0
COMMAND = (str(Path(sys.executable).with_name("thalweg")),)


@dataclass(frozen=True)
class Workload:
    """A command that keeps what it has done.

    Args:
        name: for the table.
        words: of the command, from the folder it runs in; called before each start, so that a resumed run may say so.
        prepare: makes the files that the command reads.
        answer: what a finished folder holds, to be compared.
        alike: whether two answers agree: the same bits, or as accurate.
        whole: what is wrong with the files of a folder after a kill, empty where nothing is.
        command: what ``words`` follow.
    """

    name: str
    words: Callable[[Path], Sequence[str]]
    prepare: Callable[[Path], None]
    answer: Callable[[Path], object]
    alike: Callable[[object, object], bool]
    whole: Callable[[Path], str]
    command: tuple[str, ...] = COMMAND


@dataclass
class Outcome:
    """What a workload went through: kills by signal, and everything that went wrong."""

    kills: dict[str, int] = field(default_factory=lambda: {"SIGKILL": 0, "SIGTERM": 0})
    runs: int = 0
    orphans: int = 0
    differ: int = 0
    broken: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    litter: int = 0


def endure(workload: Workload, where: Path, kills: dict[str, int], seed: int = 0) -> Outcome:
    """Kill runs of a workload as often as said, each at a moment drawn from the length of an undisturbed run."""
    rng = np.random.default_rng(seed)
    outcome = Outcome()
    # Kernels that a first run compiles and those that later ones load differ in the last bits of their sums.
    _whole_run(workload, _fresh(workload, where / "first"), outcome)
    calm = _fresh(workload, where / "calm")
    started = time.perf_counter()
    _whole_run(workload, calm, outcome)
    length = time.perf_counter() - started
    expected = workload.answer(calm)
    left = [name for name, count in kills.items() for _ in range(count)]
    rng.shuffle(left)
    while left:
        folder = _fresh(workload, where / f"run{outcome.runs}")
        outcome.runs += 1
        for _ in range(4):
            if not left:
                break
            name = left.pop()
            if _killed(workload, folder, getattr(signal, name), rng.uniform(0.0, length), outcome):
                outcome.kills[name] += 1
            elif name in kills:
                left.insert(0, name)  # it had ended before: that was no kill
                break
        _whole_run(workload, folder, outcome)
        if not workload.alike(workload.answer(folder), expected):
            outcome.differ += 1
        litter = _litter(folder)
        outcome.broken += [f"litter: {path}" for path in litter]
        outcome.litter += len(litter)
    return outcome


def _fresh(workload: Workload, folder: Path) -> Path:
    folder.mkdir(parents=True)
    workload.prepare(folder)
    return folder


def _start(workload: Workload, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    mark = uuid.uuid4().hex
    environment = {**os.environ, MARK: mark, "OMP_NUM_THREADS": "1"}
    with open(folder.with_suffix(".log"), "ab") as log:
        process = subprocess.Popen(  # noqa: S603 -- our own command
            [*workload.command, *workload.words(folder)],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return process, mark


def _whole_run(workload: Workload, folder: Path, outcome: Outcome) -> None:
    process, mark = _start(workload, folder)
    try:
        code = process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        code = -1
    if code not in (0, 1):
        outcome.failed.append(f"{folder.name}: status {code}")
    _count_orphans(mark, outcome)


def _killed(workload: Workload, folder: Path, which: int, after: float, outcome: Outcome) -> bool:
    """Whether the run was still there to be killed."""
    process, mark = _start(workload, folder)
    try:
        process.wait(after)
        return False
    except subprocess.TimeoutExpired:
        pass
    process.send_signal(which)
    try:
        process.wait(GRACE * 5)
    except subprocess.TimeoutExpired:
        outcome.failed.append(
            f"{folder.name}: still there {GRACE * 5:g} s after {signal.Signals(which).name}"
        )
        process.kill()
        process.wait()
    _count_orphans(mark, outcome)
    if told := workload.whole(folder):
        outcome.broken.append(told)
    return True


def _count_orphans(mark: str, outcome: Outcome) -> None:
    """Processes that carry the mark when the grace is over; they are ended, by their ids."""
    until = time.perf_counter() + GRACE
    while (left := _marked(mark)) and time.perf_counter() < until:
        time.sleep(0.1)
    outcome.orphans += len(left)
    for pid in left:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            outcome.broken.append(f"left behind: {words[:160]}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _marked(mark: str) -> list[int]:
    needle, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if needle in (entry / "environ").read_bytes() and _state(entry) != "Z":
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _state(entry: Path) -> str:
    return (entry / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]


def _litter(folder: Path) -> list[Path]:
    """Files that only a killed write leaves: hidden ones beside those that it meant."""
    return [path for path in folder.rglob(".*") if not path.name.endswith(".lock")]
