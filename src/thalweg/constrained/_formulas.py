"""Formulas as data: text is parsed to a tree, held against what a formula may hold, and only then made SymPy's."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence

import sympy

from thalweg.core import InvalidProblem, UnknownName

_CIRCULAR = ("sin", "cos", "tan", "asin", "acos", "atan", "atan2")
_HYPERBOLIC = ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh")
#: What a formula may call, all twice differentiable inside their domains.
FUNCTIONS = (*_CIRCULAR, *_HYPERBOLIC, "exp", "log", "sqrt")
#: What is known but has kinks or jumps.
KINKED = {"abs", "sign", "max", "min", "floor", "ceil", "ceiling", "round", "heaviside", "piecewise", "mod"}
_KINKS = (sympy.Abs, sympy.sign, sympy.Max, sympy.Min)
CONSTANTS = {"pi": sympy.pi, "E": sympy.E}
#: Deeper trees, and longer powers, are refused: they would take for ever.
DEPTH, POWER = 100, 1000
#: Numbers beyond a float64.
LARGEST = 1e308

_SUMS, _PRODUCTS = (ast.Add, ast.Sub), (ast.Mult, ast.Div)


def read_formula(text: str, unknowns: Sequence[sympy.Symbol]) -> sympy.Expr:
    """``text`` in ``x1 ... xn`` as an expression, nothing of it evaluated as Python.

    Takes numbers, the unknowns, pi, E, ``+ - * / **`` (``^`` is a power too), parentheses and `FUNCTIONS`.

    Raises:
        InvalidProblem: anything else.

    >>> read_formula("2*x1 - sin(pi/2)", sympy.symbols(["x1"]))
    2*x1 - 1
    """
    if not isinstance(text, str):
        raise InvalidProblem(f"A formula is text such as 'x1**2'; got {type(text).__name__}.")
    return _Reader(text, unknowns).formula()


class _Reader:
    def __init__(self, text: str, unknowns: Sequence[sympy.Symbol]) -> None:
        self.text, self.source = text, text.strip().replace("^", "**")
        self.names: dict[str, sympy.Expr] = {str(x): x for x in unknowns} | CONSTANTS

    def formula(self) -> sympy.Expr:
        self._refuse_equation()
        try:
            tree = ast.parse(self.source, mode="eval").body
        except (SyntaxError, ValueError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else str(error)
            raise self._refusal(f"cannot be read: {reason}") from error
        except (RecursionError, MemoryError) as error:
            raise self._refusal("is too long, or nested too deeply") from error
        return self.read(tree, 0)

    def read(self, node: ast.expr, depth: int) -> sympy.Expr:
        """The expression of one node, each of whose numbers a float64 holds."""
        if depth > DEPTH:
            raise self._refusal(f"is nested deeper than {DEPTH} levels")
        return self._held(self._read(node, depth + 1))

    def _read(self, node: ast.expr, depth: int) -> sympy.Expr:
        match node:
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                return sympy.sympify(node.value)
            case ast.Name(id=name):
                return self._named(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.read(operand, depth)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.read(operand, depth)
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                return sympy.Add(*self._terms(node, _SUMS, depth, sympy.Mul, sympy.S.NegativeOne))
            case ast.BinOp(op=ast.Mult() | ast.Div()):
                return sympy.Mul(*self._terms(node, _PRODUCTS, depth, self._inverse, sympy.S.NegativeOne))
            case ast.BinOp(op=ast.Pow(), left=left, right=right):
                return self._power(self.read(left, depth), self.read(right, depth))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self._called(name, node, args, depth)
        raise self._refusal(f"holds {self._shown(node)!r}, which has no place in a formula")

    def _terms(
        self,
        node: ast.expr,
        kinds: tuple[type[ast.operator], ...],
        depth: int,
        undo: Callable[[sympy.Expr, sympy.Expr], sympy.Expr],
        by: sympy.Expr,
    ) -> list[sympy.Expr]:
        """The terms of a sum or a product of any length, those that are taken away undone."""
        terms = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, kinds):
            term = self.read(node.right, depth)
            terms.append(undo(term, by) if isinstance(node.op, ast.Sub | ast.Div) else term)
            node = node.left
        return [self.read(node, depth), *reversed(terms)]

    def _inverse(self, term: sympy.Expr, by: sympy.Expr) -> sympy.Expr:
        if term.is_zero:
            raise self._refusal("divides by zero")
        return term**by

    def _power(self, base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
        if exponent.is_number and abs(float(exponent)) > POWER:
            raise self._refusal(f"holds a power beyond {POWER}")
        if base.is_zero and exponent.is_number and exponent.is_negative:
            raise self._refusal("divides by zero")
        return base**exponent

    def _named(self, name: str) -> sympy.Expr:
        if name in self.names:
            return self.names[name]
        n = len(self.names) - len(CONSTANTS)
        raise InvalidProblem(f"The formula {self.text!r} names {name}; the unknowns are x1 to x{n}.")

    def _called(self, name: str, node: ast.Call, args: list[ast.expr], depth: int) -> sympy.Expr:
        if name.lower() in KINKED:
            raise self._refusal(f"is not twice differentiable: {self._shown(node)}")
        if name not in FUNCTIONS:
            known = UnknownName("function", name, FUNCTIONS)
            raise self._refusal(
                f"calls an unknown function {name}. {str(known).partition('. ')[2].rstrip('.')}"
            )
        least, most = {"atan2": (2, 2), "log": (1, 2)}.get(name, (1, 1))
        if not least <= len(args) <= most:
            raise self._refusal(f"gives {name} {len(args)} arguments; it takes {most}")
        return getattr(sympy, name)(*(self.read(a, depth) for a in args))

    def _held(self, found: sympy.Expr) -> sympy.Expr:
        """``found`` where all its numbers are real and in the range of a float64, long ones rounded to it."""
        if found.has(*_KINKS):  # of sqrt(x1**2), say
            raise self._refusal(
                f"is not twice differentiable: it holds {min(map(str, found.atoms(*_KINKS)))}"
            )
        if found.has(sympy.I, sympy.zoo, sympy.oo, -sympy.oo, sympy.nan):
            raise self._refusal("has a part that is no real number")
        numbers = found.atoms(sympy.Number)
        value = found.evalf() if found.is_number else sympy.S.Zero
        if not value.is_Number:
            raise self._refusal("has a part that is no real number")
        if any(abs(v) > LARGEST for v in (value, *numbers)):
            raise self._refusal("holds a number beyond the range of floating point")
        long = {v: sympy.Float(v, 15) for v in numbers if v.is_Rational and max(abs(v.p), v.q) > 2**53}
        return found.xreplace(long) if long else found

    def _refuse_equation(self) -> None:
        """``a = b`` and ``a <= b`` are no formulas: say what to write for them."""
        source = self.text.strip()
        if re.search(r"\b(if|else|and|or|not)\b", source):
            return  # no equation of two formulas
        for sign in ("<=", ">=", "==", "<", ">", "="):
            sides = [side.strip() for side in source.split(sign)]
            if len(sides) == 2 and all(side and side.count("(") == side.count(")") for side in sides):
                left, right = sides if ">" not in sign else reversed(sides)
                minus = " - " if " " in source else "-"
                right = right if right.replace(".", "").isalnum() else f"({right})"
                where = "" if set(sign) == {"="} else " and give it as at_most_zero (--at-most-zero)"
                raise self._refusal(f"is no expression: write {left}{minus}{right} for {source}{where}")

    def _shown(self, node: ast.expr) -> str:
        """The text of a node, cut where it is long."""
        found = ast.get_source_segment(self.source, node) or ""
        return found if len(found) <= 60 else f"{found[:57]}..."

    def _refusal(self, why: str) -> InvalidProblem:
        shown = self.text if len(self.text) <= 80 else f"{self.text[:77]}..."
        return InvalidProblem(f"The formula {shown!r} {why}.")
