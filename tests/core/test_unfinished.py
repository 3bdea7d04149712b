"""What killed processes left half written is removed by the next one that writes there, and nothing else is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from thalweg.core import files
from thalweg.core.files import atomic_write, write_text

DYING = """
import os, signal, sys
from thalweg.core.files import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_the_next_process_sweeps_what_a_killed_one_left(tmp_path):
    path = tmp_path / "kept [1]*.npz"
    done = subprocess.run([sys.executable, "-c", DYING, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert len(hidden(tmp_path)) == 1
    write_text(path, "whole")
    assert hidden(tmp_path) == []
    assert path.read_text() == "whole"


def test_what_lives_is_elsewhere_or_is_another_file_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_SWEPT", set())
    here, dead = socket.gethostname()[:50], 2**22 + 1  # beyond the largest number of a process
    stay = [
        f".kept.{here}-{os.getpid()}-ab",
        f".kept.other-{dead}-ab",
        f".kept2.{here}-{dead}-ab",
        ".kept.npz",
    ]
    for name in [*stay, f".kept.{here}-{dead}-ab"]:
        (tmp_path / name).write_text("x")
    with atomic_write(tmp_path / "kept") as file:
        assert len(hidden(tmp_path)) == len(stay) + 1  # and the one that is being written
        file.write(b"x")
    assert hidden(tmp_path) == sorted(stay)
