"""The command, run in this process; and processes that begin at once."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import sys
import traceback
import warnings
from dataclasses import dataclass

from thalweg.cli import main

#: Processes that begin as copies of one that has imported what most of them need: seconds each.
COPIES = multiprocessing.get_context("forkserver")
COPIES.set_forkserver_preload(
    [
        "hypothesis",
        "sklearn.gaussian_process",
        "pytest",
        "torch._dynamo",  # which each of torch's optimizers imports
        "torch.nn.parallel.distributed",
        "torch.distributed.fsdp",
        "thalweg.training",
        "optuna",
        "thalweg.blackbox.sampler",
    ]
)


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def thalweg(*arguments, cwd=None):
    """Run the command in this process: nothing but its exit status and what it prints comes back."""
    out, err = io.StringIO(), io.StringIO()
    before, hook = sys.argv, warnings.showwarning
    sys.argv = ["thalweg", *map(str, arguments)]
    try:
        with contextlib.chdir(cwd or "."), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
                status = 0
            except SystemExit as end:
                status = end.code
            except Exception:
                traceback.print_exc()
                status = 1
    finally:
        sys.argv, warnings.showwarning = before, hook
    return Done(status, out.getvalue(), err.getvalue())
