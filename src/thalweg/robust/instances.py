"""Instances in files: JSON of one's own, and the two published formats.

Knapsacks ``RKP_UN_n20_R1000_H100_h40_dev0.1_d0.5`` of Arslan and Detienne (2022): a line with n and the capacity, then
a line an item: number, profit, loss, repair, weight, penalty. Gamma is ``dev`` times n. Capital budgeting
``CB_n10_xi4_s1`` of Dumouchelle et al. (2024): a line with seed, n, factors, budget and most loan; costs; revenues; n
lines of phi; n of psi.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np

from thalweg.core import InvalidProblem, UnknownName, UnreadableFile
from thalweg.core.files import write_text
from thalweg.robust.budgeting import CapitalBudgeting
from thalweg.robust.facility import FacilityLocation
from thalweg.robust.knapsack import RobustKnapsack
from thalweg.robust.milp import Array
from thalweg.robust.problem import TwoStageRobust

#: Classes by the names that files and the command use.
PROBLEMS: dict[str, type[RobustKnapsack] | type[CapitalBudgeting] | type[FacilityLocation]] = {
    "knapsack": RobustKnapsack,
    "budgeting": CapitalBudgeting,
    "facility": FacilityLocation,
}


def load_instance(
    path: str | Path, problem: str | None = None, *, gamma: float | None = None, loans: bool = False
) -> TwoStageRobust:
    """Read an instance.

    Args:
        path: ``.json`` as `save_instance` writes it, or a published file.
        problem: ``"knapsack"``, ``"budgeting"`` or ``"facility"``. Default: what the file, or its name, says.
        gamma: of a knapsack or of facilities; default: the file's. A published knapsack has it in its name.
        loans: of a published capital budgeting file: whether its loans are allowed.

    Raises:
        UnreadableFile: no such file, or a line that is none of the format's; it is named.
        InvalidProblem: what stands there is no problem of the class.
    """
    place = Path(path)
    if problem is not None and problem not in PROBLEMS:
        raise UnknownName("problem", problem, PROBLEMS)
    try:
        text = place.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UnreadableFile(f"No file {place}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{place} cannot be read as text: {error}") from error
    if text.lstrip().startswith("{"):
        return _from_json(place, text, problem, gamma, loans)
    kind = problem or {"RKP": "knapsack", "CB": "budgeting"}.get(place.name.split("_")[0])
    if kind == "knapsack":
        return _published_knapsack(place, text, gamma)
    if kind == "budgeting":
        if gamma is not None:
            raise InvalidProblem(f"{place}: capital budgeting has no gamma; its factors lie in [-1, 1].")
        return _published_budgeting(place, text, loans)
    raise UnreadableFile(
        f"{place} is no instance: expected JSON, or a published file RKP_... (knapsack) or CB_... (budgeting); "
        "problem= says which where the name does not."
    )


def save_instance(problem: TwoStageRobust, path: str | Path) -> None:
    """Write a knapsack, capital budgeting or facility problem as JSON.

    Raises:
        InvalidProblem: a problem of another class.
    """
    for name, kind in PROBLEMS.items():
        if type(problem) is kind:
            given = {f.name: getattr(problem, f.name) for f in fields(kind) if f.init}
            plain = {key: np.asarray(value).tolist() for key, value in given.items()}
            write_text(path, json.dumps({"problem": name, **plain}, indent=1))
            return
    raise InvalidProblem(f"save_instance writes {', '.join(PROBLEMS)}; got a {type(problem).__name__}.")


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON; of two values under one key neither is the right one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found


def _from_json(
    path: Path, text: str, problem: str | None, gamma: float | None, loans: bool
) -> TwoStageRobust:
    try:
        found = json.loads(text, object_pairs_hook=_each_once)
    except ValueError as error:
        raise UnreadableFile(f"{path} is no JSON: {error}.") from error
    said = found.pop("problem", problem)
    if not isinstance(said, str) or said not in PROBLEMS:
        raise InvalidProblem(f'{path} names no problem; expected "problem": one of {", ".join(PROBLEMS)}.')
    if problem is not None and said != problem:
        raise InvalidProblem(f"{path} holds a {said} problem; {problem} was asked for.")
    if loans:
        raise InvalidProblem(
            f"{path}: loans are said by most_loan in JSON; the option is for published files."
        )
    kind = PROBLEMS[said]
    known = [f.name for f in fields(kind) if f.init]
    if gamma is not None:
        if "gamma" not in known:
            raise InvalidProblem(f"{path}: {said} has no gamma.")
        found["gamma"] = gamma
    for name in found:
        if name not in known:
            raise UnknownName(f"entry of {path}", name, known)
    needed = [
        f.name for f in fields(kind) if f.init and f.name not in found and not _has_default(kind, f.name)
    ]
    if needed:
        raise InvalidProblem(f"{path} lacks {', '.join(needed)}.")
    return kind(**found)


def _has_default(kind: type, name: str) -> bool:
    return name in vars(kind)


def _lines(path: Path, text: str) -> list[tuple[int, Array]]:
    """The numbers of each line that is not blank, with its number."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                found.append((number, np.array([float(cell) for cell in line.split()])))
            except ValueError as error:
                raise UnreadableFile(f"{path}, line {number}: {error}; expected numbers.") from error
    if not found:
        raise UnreadableFile(f"{path} is empty; expected an instance.")
    return found


def _row(path: Path, lines: list[tuple[int, Array]], at: int, count: int, what: str) -> Array:
    if at >= len(lines):
        raise UnreadableFile(f"{path} ends before {what}.")
    number, values = lines[at]
    if len(values) != count:
        raise UnreadableFile(f"{path}, line {number}: {len(values)} numbers; expected {count}, {what}.")
    return values


def _count(path: Path, value: float, what: str) -> int:
    if not (value >= 1 and float(value).is_integer()):
        raise UnreadableFile(f"{path}, line 1: {value:g} is no number of {what}.")
    return int(value)


def _published_knapsack(path: Path, text: str, gamma: float | None) -> RobustKnapsack:
    lines = _lines(path, text)
    head = lines[0][1]
    if len(head) < 2:
        raise UnreadableFile(f"{path}, line {lines[0][0]}: expected n and the capacity.")
    table = np.array([_row(path, lines, k, 6, "those of an item") for k in range(1, len(lines))])
    n = _count(path, float(head[0]), "items")
    if len(table) != n:
        raise UnreadableFile(f"{path} has {len(table)} items; its first line says {n}.")
    if len(set(table[:, 0])) != n:
        raise UnreadableFile(f"{path}: numbers of items come twice; expected one line for each.")
    if gamma is None:
        said = re.search(r"_dev([0-9.]*[0-9])", path.name)
        if said is None:
            raise InvalidProblem(f"{path}: its name does not say gamma (..._dev0.1_...); pass gamma=.")
        gamma = float(said.group(1)) * n
    _, profit, loss, repair, weight, penalty = table.T
    return RobustKnapsack(weight, profit, loss, penalty, repair, float(head[1]), gamma)


def _published_budgeting(path: Path, text: str, loans: bool) -> CapitalBudgeting:
    lines = _lines(path, text)
    head = _row(path, lines, 0, 5, "seed, n, factors, budget and most loan")
    n, factors = _count(path, float(head[1]), "projects"), _count(path, float(head[2]), "factors")
    cost, revenue = (
        _row(path, lines, k, n, f"{w} of the projects") for k, w in ((1, "costs"), (2, "revenues"))
    )
    phi, psi = (
        np.array([_row(path, lines, first + i, factors, f"{name} of project {i}") for i in range(n)])
        for name, first in (("phi", 3), ("psi", 3 + n))
    )
    if len(lines) > 3 + 2 * n:
        raise UnreadableFile(f"{path}, line {lines[3 + 2 * n][0]}: nothing is expected after psi.")
    most = float(head[4]) if loans else 0.0
    return CapitalBudgeting(cost, revenue, phi, psi, float(head[3]), most_loan=most)
