"""Small random changes of programs: insert a statement, delete one, change an argument.

Chen et al. (2023), section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thalweg.core import InvalidParameter
from thalweg.core.validation import is_real, require, require_counts
from thalweg.discovery.functions import FUNCTIONS, Function, function
from thalweg.discovery.program import Argument, Program, Statement

#: Of arguments that are drawn, the share of variables; the others are constants.
VARIABLES = 0.75


@dataclass(frozen=True)
class Mutations:
    """How children differ from their parents.

    Args:
        insert, delete, alter: weights of the three changes, >= 0. Alike by default, so that programs do not grow.
        functions: names that statements are drawn from; all 45 by default.
        most: statements a program may have; longer ones are not inserted into. Default 64.

    A constant is changed to a N(0, 1) draw or multiplied by 2^a, a ~ N(0, 1), one as often as the other.

    Raises:
        InvalidParameter: weights that are negative or all zero, no functions.
        UnknownName: a function that is not in the language.

    >>> from thalweg.discovery import ADAMW
    >>> child = Mutations(insert=1, delete=0, alter=0).child(ADAMW, np.random.default_rng(0))
    >>> len(child) - len(ADAMW)
    1
    """

    insert: float = 1.0
    delete: float = 1.0
    alter: float = 1.0
    functions: tuple[str, ...] = tuple(FUNCTIONS)
    most: int = 64

    def __post_init__(self) -> None:
        weights = (self.insert, self.delete, self.alter)
        fits = all(is_real(w) and 0 <= w < np.inf for w in weights) and sum(weights) > 0
        require(fits, "Mutations needs weights insert, delete, alter >= 0, not all 0", got=weights)
        require(len(self.functions) > 0, "Mutations needs at least one function")
        require_counts(self, "most")
        for name in self.functions:
            function(name)

    def child(self, parent: Program, draw: np.random.Generator) -> Program:
        """The parent with one change, valid or not."""
        n = len(parent)
        weights = np.array(
            [self.insert if n < self.most else 0.0, self.delete * (n > 0), self.alter * (n > 0)]
        )
        if weights.sum() == 0:
            raise InvalidParameter(
                f"No change is allowed of a program of {n} statements: insertion, deletion and alteration have "
                "weight 0 there."
            )
        kind = int(draw.choice(3, p=weights / weights.sum()))
        statements = list(parent.statements)
        if kind == 0:
            statements.insert(int(draw.integers(n + 1)), self._drawn(parent, draw))
        elif kind == 1:
            del statements[int(draw.integers(n))]
        else:
            k = int(draw.integers(n))
            statements[k] = self._altered(statements[k], _names(parent), draw)
        return Program(parent.signature, tuple(statements))

    def grown(self, empty: Program, statements: int, draw: np.random.Generator) -> Program:
        """A random program of so many statements."""
        program = empty
        for _ in range(statements):
            at = int(draw.integers(len(program) + 1))
            body = (*program.statements[:at], self._drawn(program, draw), *program.statements[at:])
            program = Program(empty.signature, body)
        return program

    def _drawn(self, program: Program, draw: np.random.Generator) -> Statement:
        known: Function = FUNCTIONS[self.functions[int(draw.integers(len(self.functions)))]]
        names = _names(program)
        fresh = next(f"x{k}" for k in range(len(names) + 1) if f"x{k}" not in names)
        targets = [*names, fresh]
        arguments = tuple(_argument(names, draw) for _ in range(known.arity))
        return Statement(targets[int(draw.integers(len(targets)))], known.name, arguments)

    def _altered(self, statement: Statement, names: list[str], draw: np.random.Generator) -> Statement:
        k = int(draw.integers(len(statement.arguments)))
        old = statement.arguments[k]
        new: Argument
        if isinstance(old, str):
            others = [name for name in names if name != old]
            new = others[int(draw.integers(len(others)))] if others else old
        elif draw.random() < 0.5:
            new = float(draw.standard_normal())
        else:
            new = float(old * 2.0 ** draw.standard_normal())
        arguments = (*statement.arguments[:k], new, *statement.arguments[k + 1 :])
        return Statement(statement.target, statement.function, arguments)


def _names(program: Program) -> list[str]:
    """Variables of the program, in order of appearance."""
    given = [name for name, _ in (*program.signature.inputs, *program.signature.outputs)]
    return list(dict.fromkeys([*given, *(s.target for s in program.statements)]))


def _argument(names: list[str], draw: np.random.Generator) -> Argument:
    if draw.random() < VARIABLES:
        return names[int(draw.integers(len(names)))]
    return float(draw.standard_normal())
