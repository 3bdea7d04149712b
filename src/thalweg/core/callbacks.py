"""What watches a run: a progress bar, a checkpoint, TensorBoard, MLflow. Any callable taking the run will do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from thalweg.core.errors import CheckpointMismatch, MissingExtra, UnreadableFile
from thalweg.core.fingerprint import fingerprint
from thalweg.core.result import History
from thalweg.core.run import Best, Run
from thalweg.core.stop import Status
from thalweg.core.tree import load_tree, require_alike, restoring, save_tree
from thalweg.core.validation import is_real, is_whole, require


class Callback:
    """Base of callbacks that also want to know when a run starts and finishes."""

    def start(self, run: Run) -> None:
        """Called once before the first step."""

    def __call__(self, run: Run) -> object:
        """Called after every step; a true value ends the run."""

    def finish(self, run: Run, status: Status | None) -> None:
        """Called once at the end, also after an error (``status`` is then None)."""


class Progress(Callback):
    """A live line with steps, metrics and time; the bar is the share of the budget used.

    Drawn at most ten times a second, on standard error.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def start(self, run: Run) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[numbers]}"))
        self._bar = Bar(*columns, TimeElapsedColumn(), console=Console(stderr=True), auto_refresh=False)
        self._task = self._bar.add_task(run.method.name, total=1.0, numbers="")
        self._bar.start()

    def __call__(self, run: Run) -> None:
        now = time.perf_counter()
        if now < self._next:
            return
        self._next = now + 0.1
        self._draw(run)

    def finish(self, run: Run, status: Status | None) -> None:
        self._draw(run)
        self._bar.stop()

    def _draw(self, run: Run) -> None:
        shares = [0.0]
        if run.stop.steps and run.stop.steps != "auto":
            shares.append(run.steps / run.stop.steps)
        if run.stop.seconds:
            shares.append(run.seconds / run.stop.seconds)
        numbers = "  ".join(f"{name} {value:.3g}" for name, value in run.state.metrics.items())
        self._bar.update(self._task, completed=max(shares), numbers=f"step {run.steps}  {numbers}")
        self._bar.refresh()


class Checkpoint(Callback):
    """Write the whole run to ``path`` every so often and at the end; ``solve(..., resume=path)`` goes on.

    Args:
        path: the file; replaced atomically, so that a kill at any moment leaves a whole one.
        every: steps between two writes.

    The file holds plain data (no code) and is tied to the problem, the method and the seed by content.
    """

    def __init__(self, path: str | Path, every: int = 100) -> None:
        require(every >= 1, "Checkpoint(every=) needs a number of steps >= 1", got=every)
        self.path = Path(path)
        self.every = every

    def start(self, run: Run) -> None:
        self._identity = _identity(run)

    def __call__(self, run: Run) -> None:
        if run.steps % self.every == 0:
            self._save(run)

    def finish(self, run: Run, status: Status | None) -> None:
        if status is not None:
            self._save(run)

    def _save(self, run: Run) -> None:
        best = {"value": run.best.value, "step": run.best.step, "saved": run.best.saved, "x": run.best.x}
        tree = self._identity | {
            "steps": run.steps,
            "seconds": run.seconds,
            "state": run.state.tree(),
            "best": best,
            "first": run.first,
            "history": run.history.tree(),
        }
        save_tree(self.path, tree)

    @staticmethod
    def restore(run: Run, path: str | Path) -> None:
        """Put the checkpoint at ``path`` into a fresh ``run``, or raise `CheckpointMismatch`."""
        tree = load_tree(path)
        if not isinstance(tree, dict):
            raise UnreadableFile(f"{path} is not a checkpoint.")
        for what, expected in _identity(run).items():
            if tree.get(what) != expected:
                raise CheckpointMismatch(
                    f"{path} was written for another {what}. Resume with the {what} it was started with, "
                    "or start afresh without resume=."
                )
        with restoring(path, "a checkpoint"):
            fits = (
                is_whole(tree["steps"])
                and tree["steps"] >= 0
                and is_real(tree["seconds"])
                and tree["seconds"] >= 0
            )
            require(fits, "steps and seconds have to be numbers >= 0", error=UnreadableFile)
            require_alike("first", 0.0, tree["first"])
            run.steps, run.seconds, run.first = tree["steps"], tree["seconds"], tree["first"]
            run.state = run.state.restored(tree["state"])
            run.history = History.from_tree(tree["history"], run.history.limit)
            run.best = Best(**tree["best"])


def _identity(run: Run) -> dict[str, Any]:
    return {"problem": run.problem.fingerprint(), "method": fingerprint(run.method), "seed": run.seed}


class TensorBoard(Callback):
    """Write every metric of every step as a TensorBoard scalar under ``log_dir``.

    Raises:
        MissingExtra: when tensorboard is not installed.
    """

    def __init__(self, log_dir: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra("tensorboard", "track") from None
        self._writer = SummaryWriter(str(log_dir))

    def __call__(self, run: Run) -> None:
        for name, value in run.state.metrics.items():
            self._writer.add_scalar(name, value, run.steps)

    def finish(self, run: Run, status: Status | None) -> None:
        self._writer.flush()


class MLflow(Callback):
    """Log every metric of every step to MLflow: to the run that is active, or to one of its own.

    Method, problem and seed are logged as parameters of a run of its own, the status as its tag. MLflow's tracking URI
    and experiment are the user's to set.

    Args:
        name: of a run of its own. Default: the method's.
        every: steps between two entries; the last step is always one. Default 1.

    Raises:
        MissingExtra: when mlflow is not installed.
    """

    def __init__(self, name: str = "", every: int = 1) -> None:
        require(is_whole(every) and every >= 1, "MLflow needs every >= 1", got=every)
        try:
            import mlflow
        except ImportError:
            raise MissingExtra("mlflow", "track") from None
        self._mlflow, self._name, self._every = mlflow, name, every
        self._is_own, self._logged = False, -1

    def start(self, run: Run) -> None:
        if self._mlflow.active_run() is not None:
            return
        self._is_own = True
        self._mlflow.start_run(run_name=self._name or run.method.name)
        told = {"method": run.method.name, "problem": type(run.problem).__name__, "seed": run.seed}
        self._mlflow.log_params(told)

    def __call__(self, run: Run) -> None:
        if run.steps % self._every == 0:
            self._log(run)

    def _log(self, run: Run) -> None:
        if run.steps != self._logged:
            self._logged = run.steps
            self._mlflow.log_metrics({k: float(v) for k, v in run.state.metrics.items()}, step=run.steps)

    def finish(self, run: Run, status: Status | None) -> None:
        if run.steps > 0:
            self._log(run)
        if self._is_own:
            self._is_own = False
            self._mlflow.set_tag("status", "error" if status is None else status.value)
            self._mlflow.end_run("FAILED" if status is None else "FINISHED")
