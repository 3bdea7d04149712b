"""``thalweg dictionary``: an orthonormal basis of a table, also of one that somebody still writes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from thalweg.cli.options import Header, Json, Seed
from thalweg.cli.output import check_outputs, strict_json, write_arrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from thalweg.datasets import GrowingTable, NewRows
    from thalweg.matrix import OnlineDictionary

#: Seconds between two looks at a file that has nothing new, and between two checkpoints.
LOOK, KEEP = 0.5, 10.0
#: Bad lines that are told one by one; the others are counted.
TOLD = 10
#: Floors of momentum and step for streams that drift.
DRIFT = (0.1, 0.02)


def learn_dictionary(
    table: Annotated[Path, typer.Argument(help="Readings: a row a sample, a column a sensor.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the basis here: .npz with mean and names, .npy or .csv of atoms, a row each."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more lines; Ctrl-C ends.")] = False,
    columns: Annotated[str, typer.Option(help="The columns to use, by commas; all by default.")] = "",
    window: Annotated[int, typer.Option(min=1, help="So many rows in sequence make one sample.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Samples a step.")] = 16,
    passes: Annotated[int, typer.Option(min=1, help="Times over the file; 1 with --follow.")] = 1,
    loss: Annotated[str, typer.Option(help="l3, l4 or smooth-l1.")] = "l3",
    center: Annotated[bool, typer.Option(help="Subtract a running mean.")] = True,
    whiten: Annotated[bool, typer.Option(help="For mixtures that are not orthogonal.")] = False,
    drift: Annotated[bool, typer.Option("--drift", help="For streams that change: never settle.")] = False,
    clip: Annotated[
        float | None, typer.Option(help="Quantile at which codes are cut, for heavy tails.")
    ] = None,
    missing: Annotated[str, typer.Option(help="Rows with missing cells: skip, fill or refuse.")] = "skip",
    bad: Annotated[
        str, typer.Option(help="Lines that are no row: skip, told and counted, or refuse.")
    ] = "skip",
    samples: Annotated[int | None, typer.Option(min=1, help="End after so many samples.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.0, help="End after so many seconds.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Keep basis and place in the file here, as it goes.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on from a checkpoint.")] = None,
    seed: Seed = 0,
    header: Header = None,
    as_json: Json = False,
) -> None:
    """Learn an orthonormal basis in which the rows of a table are sparse, in constant memory.

    Ctrl-C keeps the basis. A line that is half written waits; a file that is cut or replaced is read anew, and that is
    told. Exit status 1 if the file was not read to its end.
    """
    from thalweg.core import InvalidParameter
    from thalweg.datasets import GrowingTable
    from thalweg.matrix import OnlineDictionary

    check_outputs([(out, (".npz", ".npy", ".csv"))], [table, resume, checkpoint])
    check_outputs([(checkpoint, ())], [table])
    for option, value, known in (
        ("bad", bad, ("skip", "refuse")),
        ("missing", missing, ("skip", "fill", "refuse")),
    ):
        if value not in known:
            raise InvalidParameter(f"--{option} is {' or '.join(known)}; got {value!r}.")
    if follow and passes > 1:
        raise InvalidParameter("--passes goes over a file that has an end; it does not go with --follow.")
    model = OnlineDictionary(
        cast(Any, loss),  # words that the estimator checks
        batch_size=batch,
        center=center,
        whiten=whiten,
        missing=cast(Any, missing),
        clip=clip,
        random_state=seed,
        momentum_floor=DRIFT[0] if drift else 0.0,
        step_floor=DRIFT[1] if drift else 0.0,
    )
    model._validate_params()
    wanted = [name.strip() for name in columns.split(",")] if columns else None
    reader = GrowingTable(table, columns=wanted, header=header, follow=follow)
    run = Run(model, reader, window, passes, refuses=bad == "refuse", follows=follow)
    if resume is not None:
        run.resume(resume)
    with run.shown(quiet=as_json):
        status = run.until(samples, seconds, checkpoint)
    kept = checkpoint if checkpoint is not None and run.keep(checkpoint) else None
    run.flush(samples)
    told = run.told(status)
    if out is not None:
        write_arrays(out, run.arrays())
    if as_json:
        typer.echo(strict_json({**told, "out": None if out is None else str(out)}))
    else:
        for line in run.said(status):
            typer.echo(line)
        for what, path in (("Basis", out), ("Checkpoint", kept)):
            if path is not None:
                typer.echo(f"{what}: {path}")
    raise typer.Exit(1 if status == "interrupted" and not follow else 0)


class Run:
    """One run over a file: rows are read, joined into samples, learned, and what happens on the way is told."""

    def __init__(
        self,
        model: OnlineDictionary,
        reader: GrowingTable,
        window: int,
        passes: int,
        *,
        refuses: bool,
        follows: bool,
    ) -> None:
        self.model, self.reader, self.window, self.passes = model, reader, window, passes
        self.refuses, self.follows = refuses, follows
        self.rows = self.bad = self.done = 0  # rows read, bad lines, passes made
        self.events: list[str] = []
        self.first_bad: list[int] = []
        self._pending: NDArray[np.float64] | None = None
        self._ended = threading.Event()
        self._screen: Any = None

    def until(
        self, samples: int | None, seconds: float | None, checkpoint: Path | None
    ) -> Literal["finished", "interrupted", "budget used"]:
        """Read and learn until the file's end, a budget's end, or Ctrl-C."""
        start = kept = time.monotonic()
        with _ctrl_c(self._ended):
            while True:
                new = self.reader.read()
                self._take(new, samples)
                now = time.monotonic()
                self._draw(waiting=new.at_end and self.follows)
                if checkpoint is not None and now - kept >= KEEP and self._has_learned():
                    self.keep(checkpoint)
                    kept = now
                if self._ended.is_set():
                    return "interrupted"
                if (samples is not None and self._seen() >= samples) or (
                    seconds is not None and now - start >= seconds
                ):
                    return "budget used"
                if new.at_end and not self.follows:
                    self.done += 1
                    if self.done >= self.passes:
                        return "finished"
                    self.flush(samples)
                    self._pending = None
                    self.reader.restart()
                if new.at_end and self.follows:
                    self._ended.wait(LOOK)

    def _take(self, new: NewRows, samples: int | None) -> None:
        """Learn from what a reading brought, in whole minibatches; the rest waits for more rows."""
        import numpy as np

        from thalweg.core import InvalidProblem

        for event in new.events:
            self.events.append(event)
            self._tell(event)
        for line in new.bad:
            if self.refuses:
                raise InvalidProblem(
                    f"{self.reader.path}: line {line.line} {line.why}. (--bad skip leaves it out.)"
                )
            self.bad += self.done == 0
            if len(self.first_bad) < TOLD and self.done == 0:
                self.first_bad.append(line.line)
                more = " Further ones are counted only." if len(self.first_bad) == TOLD else ""
                self._tell(f"{self.reader.path}: line {line.line} {line.why}; left out.{more}")
        if not len(new.values):
            return
        self.rows += len(new.values)
        rows = new.values if self._pending is None else np.vstack([self._pending, new.values])
        self._pending = self._learned(rows, self.model.batch_size * self.window, samples)

    def _learned(self, rows: NDArray[np.float64], unit: int, samples: int | None) -> NDArray[np.float64]:
        """Learn from as many whole units of rows as there are, and return the others."""
        whole = len(rows) - len(rows) % unit
        if samples is not None:
            whole = min(whole, max(samples - self._seen(), 0) * self.window)
        for first in range(0, whole, 64 * unit):  # so that Ctrl-C is heard
            if self._ended.is_set() and first:
                return rows[first:]
            part = rows[first : min(first + 64 * unit, whole)]
            self.model.partial_fit(part.reshape(len(part) // self.window, -1))
        return rows[whole:]

    def flush(self, samples: int | None) -> None:
        """Learn from the samples that wait, also in a smaller minibatch; a checkpoint has them waiting still."""
        if self._pending is None:
            return
        if (
            self.window <= len(self._pending) < self.window * self.model.batch_size
        ):  # more: it was interrupted there
            self._pending = self._learned(self._pending, self.window, samples)

    def _has_learned(self) -> bool:
        return hasattr(self.model, "state_")

    def _seen(self) -> int:
        """Samples met: learned from, of zeros, or with missing cells."""
        if not self._has_learned():
            return 0
        skipped = self.model.n_incomplete_ if self.model.missing == "skip" else 0
        return self.model.n_samples_seen_ + self.model.n_zero_ + skipped

    def keep(self, path: Path) -> bool:
        """Write a checkpoint, once there is something to keep: the basis, the place in the file, rows that wait."""
        from thalweg.core.tree import save_tree

        if not self._has_learned():
            return False
        counts = {"rows": self.rows, "bad": self.bad, "done": self.done, "first_bad": self.first_bad}
        save_tree(
            path,
            {
                "model": self.model.state_dict(),
                "reader": self.reader.state_dict(),
                "window": self.window,
                "pending": self._pending,
                "counts": counts,
                "events": self.events,
            },
        )
        return True

    def resume(self, path: Path) -> None:
        """Take over a checkpoint."""
        from thalweg.core import CheckpointMismatch
        from thalweg.core.tree import load_tree, restoring

        with restoring(path, "a checkpoint of thalweg dictionary"):
            tree = load_tree(path)
            if tree["window"] != self.window:
                raise CheckpointMismatch(
                    f"{path} was made with --window {tree['window']}, not {self.window}."
                )
            self.model.load_state_dict(tree["model"])
            saved = tuple(tree["reader"]["names"])
            if self.reader.wanted is not None and tuple(self.reader.wanted) != saved:
                raise CheckpointMismatch(f"{path} was made of the columns {', '.join(saved)}.")
            self.reader.load_state_dict(tree["reader"])
            self._pending, counts = tree["pending"], tree["counts"]
            self.rows, self.bad, self.done = counts["rows"], counts["bad"], counts["done"]
            self.first_bad, self.events = list(counts["first_bad"]), list(tree["events"])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What ``--out`` holds."""
        import numpy as np

        names = np.array(self.reader.names, dtype=str)
        return {"components": self.model.components_, "mean": self.model.mean_, "names": names}

    def told(self, status: str) -> dict[str, object]:
        """The outcome as plain data.

        Raises:
            InvalidProblem: not one sample was learned from.
        """
        from thalweg.core import InvalidProblem

        if not self._has_learned() or not self.model.n_steps_:
            width = self.reader.width or 1
            raise InvalidProblem(
                f"{self.reader.path}: nothing was learned from {self.rows} rows of {width} columns: each sample "
                f"(--window {self.window}) was of zeros, or had missing cells, or none was whole. "
                f"{self.bad} lines were bad."
            )
        model = self.model
        counts = {"steps": model.n_steps_, "samples": model.n_samples_seen_, "zero": model.n_zero_}
        lines = {
            "rows": self.rows,
            "bad_lines": self.bad,
            "first_bad_lines": self.first_bad,
            "events": self.events,
        }
        waiting = 0 if self._pending is None else len(self._pending)
        about = {"status": status, "n": len(model.components_), "gap": model.gap_, "passes": self.done}
        return {**about, **counts, "incomplete": model.n_incomplete_, "rows_waiting": waiting, **lines}

    def said(self, status: str) -> Iterator[str]:
        """The outcome in a few lines."""
        told, model = self.told(status), self.model
        learned = f"{told['samples']} samples of {told['n']} entries in {told['steps']} steps"
        yield f"{status}: {learned}; gap {model.gap_:.3g}."
        left = {"of zeros": model.n_zero_, "with missing cells": model.n_incomplete_, "bad lines": self.bad}
        if any(left.values()):
            filled = " (filled)" if model.missing == "fill" and model.n_incomplete_ else ""
            listed = ", ".join(f"{count} {what}" for what, count in left.items() if count)
            yield f"Beside them: {listed}{filled}."
        if told["n"] == 1:
            yield "One column has one basis only: --window 32 makes samples of 32 rows in sequence."
        elif model.gap_ > 0.2:
            yield "The basis still moves (gap above 0.2): more samples, or --passes, would help."

    @contextmanager
    def shown(self, quiet: bool) -> Iterator[None]:
        """A live line on a terminal, on standard error."""
        import sys

        if quiet or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            self._screen = bar, bar.add_task("reading", total=None)
            yield
        self._screen = None

    def _draw(self, waiting: bool) -> None:
        if self._screen is None or not self._has_learned():
            return
        bar, task = self._screen
        said = f"{self.model.n_samples_seen_} samples  gap {self.model.gap_:.3g}  {self.bad} bad lines"
        bar.update(task, description=said + ("  waiting for more" if waiting else ""))

    def _tell(self, text: str) -> None:
        if self._screen is not None:
            self._screen[0].console.print(text, markup=False, highlight=False)
        else:
            typer.echo(text, err=True)


@contextmanager
def _ctrl_c(ended: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set the event, between two minibatches; a second Ctrl-C breaks off at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(number: int, frame: FrameType | None) -> None:
        if ended.is_set():
            raise KeyboardInterrupt
        ended.set()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
