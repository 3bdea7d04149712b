"""The file of a search for rates: what was tried, the stages, and the weights at the stage's beginning and now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from thalweg.core import CheckpointMismatch
from thalweg.core.tree import load_tree, save_tree
from thalweg.training.rate_search import Candidate, Stage
from thalweg.training.snapshot import Snapshot

Search = tuple[dict[str, Any], list[Candidate], list[Stage], Snapshot, Snapshot]


def write_search(
    path: Path,
    tree: Mapping[str, Any],
    candidates: Sequence[Candidate],
    stages: Sequence[Stage],
    snapshot: Snapshot,
    here: Snapshot | None,
) -> None:
    """Write a search, atomically; ``here`` where the weights are not those of the stage's beginning."""
    parts = {
        "candidates": [asdict(c) for c in candidates],
        "stages": [asdict(s) for s in stages],
        "snapshot": snapshot.state_dict(),
        "here": None if here is None else here.state_dict(),
    }
    save_tree(path, {**tree, **parts})


def read_search(path: Path, settings: Mapping[str, Any]) -> Search:
    """What `write_search` wrote: the rest of its tree, candidates, stages, the stage's beginning, and now.

    Raises:
        CheckpointMismatch: it was saved with other settings, or by something else.
    """
    tree = load_tree(path)
    if not isinstance(tree, dict) or not {"settings", "machine", "snapshot"} <= tree.keys():
        raise CheckpointMismatch(f"{path} was not saved by AutoLRS. Use another path.")
    if tree["settings"] != settings:
        changed = [k for k, v in settings.items() if tree["settings"].get(k) != v]
        raise CheckpointMismatch(
            f"{path} was saved with another {', '.join(changed)}. Use those, or another path."
        )
    snapshot = Snapshot.from_state_dict(tree["snapshot"])
    here = snapshot if tree["here"] is None else Snapshot.from_state_dict(tree["here"])
    candidates = [Candidate(**c) for c in tree["candidates"]]
    return tree, candidates, [Stage(**s) for s in tree["stages"]], snapshot, here
