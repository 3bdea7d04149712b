"""What fits the files that were looked at, in the order in which it is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thalweg.core import UnreadableFile
from thalweg.workbench.advice import matrices, several, tables
from thalweg.workbench.advice.kinds import Advice, Rule
from thalweg.workbench.advice.sight import Sight, look_at_all

#: In the order in which they are told.
RULES: tuple[Rule, ...] = (
    tables.sequences,
    several.networks,
    several.instances,
    matrices.ratings,
    several.adapted,
    several.pictures,
    several.picture,
    several.clouds,
    matrices.linear_system,
    tables.regression,
    tables.groups,
    tables.norms,
    tables.times,
    matrices.game,
    tables.stream,
    tables.widths,
    tables.recipes,
)


def advise(paths: Sequence[Path], header: bool | None = None) -> tuple[list[Sight], list[Advice]]:
    """What the files hold, and what they may be a problem of: what fits first.

    Args:
        paths: the files of one problem.
        header: whether tables begin with a line of names; seen by itself.

    Raises:
        UnreadableFile: a file that nothing here reads.
        InvalidProblem: no file, one twice.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "A.csv"
    >>> _ = path.write_text("2,1\\n1,2\\n")
    >>> sights, found = advise([path])
    >>> found[0].what, found[0].fits
    ('a linear system A x = b', True)
    """
    sights = look_at_all(paths, header)
    found = [advice for rule in RULES if (advice := rule(sights)) is not None]
    return sights, sorted(found, key=lambda advice: not advice.fits)


def refuse_nothing(sights: Sequence[Sight], found: Sequence[Advice]) -> None:
    """Refuse files of which nothing is known, in a line that says how to go on.

    Raises:
        UnreadableFile: no rule has a word for them.
    """
    if not found:
        listed = ", ".join(str(sight.path) for sight in sights)
        raise UnreadableFile(
            f"Nothing here takes {listed} as they are. `thalweg find WORDS` searches by what you have in words."
        )
