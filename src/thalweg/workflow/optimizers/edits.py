"""Better code by small edits that are kept when the score is better."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterable

import numpy as np

from thalweg.core import InvalidParameter
from thalweg.core.seeding import generator
from thalweg.core.validation import require
from thalweg.workflow.code import Signature
from thalweg.workflow.optimizers.optimizer import Proposal, WorkflowSearch
from thalweg.workflow.parameters import ParameterNode

_ARITHMETIC: tuple[type[ast.operator], ...] = (ast.Add, ast.Sub, ast.Mult, ast.Div)
_COMPARISONS: tuple[type[ast.cmpop], ...] = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class CodeEdits(WorkflowSearch):
    """Evolution of trainable code: the best text so far, edited at random; an edit stays if its score is better.

    Edits change a number, exchange an operator, a comparison or a name for another in sight, add a term with a name and
    a number, take a term away, or negate. Use it without a model, for short functions of numbers, with some hundred
    runs. A run that raised is told by ``backward(error.node, bad_score)``.

    Args:
        parameters: those of trainable bundles.
        direction: ``"minimize"`` or ``"maximize"``.
        edits: the most edits at once.
        seed: makes the edits repeatable.

    Raises:
        InvalidParameter: a parameter that is no code.

    Cost per step: one run; a millisecond for the edit.
    """

    def __init__(
        self, parameters: Iterable[ParameterNode], direction: str = "minimize", edits: int = 3, seed: int = 0
    ) -> None:
        super().__init__(parameters, direction)
        require(edits >= 1, "CodeEdits needs edits >= 1", got=edits)
        for p in self.parameters:
            if not isinstance(p.constraint, Signature):
                raise InvalidParameter(
                    f"CodeEdits: {p.name} is no code; pass bundle.parameter of a trainable bundle."
                )
        self.edits = edits
        self._rng = generator(seed)
        self._seen: set[str] = set()

    def propose(self) -> Proposal:
        """The best texts with some edits that have not been tried."""
        _, executed, _ = self.loss()
        if not executed:
            return dict(self.best)
        p = executed[int(self._rng.integers(len(executed)))]
        for _ in range(100):
            text = edited(str(self.best[p]), self._rng, 1 + int(self._rng.integers(self.edits)))
            if text not in self._seen and p.refusal(text) is None:
                self._seen.add(text)
                return {**self.best, p: text}
        return dict(self.best)


def edited(text: str, rng: np.random.Generator, count: int = 1) -> str:
    """A text with ``count`` random edits; comments go."""
    tree = ast.parse(text)
    for _ in range(count):
        sites = [(node, edit) for node in ast.walk(tree) for edit in _edits(node)]
        if not sites:
            break
        node, edit = sites[int(rng.integers(len(sites)))]
        edit(node, tree, rng)
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


Edit = Callable[[ast.AST, ast.Module, np.random.Generator], None]


def _edits(node: ast.AST) -> list[Edit]:
    """The edits that a part of the code allows."""
    found: list[Edit] = []
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        found += [_scale] * 2
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        found += [_operator, _drop]
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        found.append(_comparison)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        found.append(_name)
    if isinstance(node, ast.Return | ast.Assign) and node.value is not None:
        found += [_term] * 3 + [_negate]
    return found


def _scale(node: ast.AST, tree: ast.Module, rng: np.random.Generator) -> None:
    assert isinstance(node, ast.Constant)  # noqa: S101
    value = node.value
    assert isinstance(value, int | float)  # noqa: S101
    if isinstance(value, int) and rng.random() < 0.3:
        node.value = value + int(rng.choice([-1, 1]))
    elif rng.random() < 0.15:
        node.value = -value
    else:
        drawn = value * float(np.exp(0.5 * rng.standard_normal())) if value else 0.1 * rng.standard_normal()
        node.value = float(f"{drawn:.4g}")


def _operator(node: ast.AST, tree: ast.Module, rng: np.random.Generator) -> None:
    assert isinstance(node, ast.BinOp)  # noqa: S101
    node.op = _ARITHMETIC[int(rng.integers(len(_ARITHMETIC)))]()


def _drop(node: ast.AST, tree: ast.Module, rng: np.random.Generator) -> None:
    assert isinstance(node, ast.BinOp)  # noqa: S101
    kept = node.left if rng.random() < 0.5 else node.right
    node.left, node.op, node.right = copy.deepcopy(kept), ast.Mult(), ast.Constant(1.0)


def _comparison(node: ast.AST, tree: ast.Module, rng: np.random.Generator) -> None:
    assert isinstance(node, ast.Compare)  # noqa: S101
    node.ops[0] = _COMPARISONS[int(rng.integers(len(_COMPARISONS)))]()


def _name(node: ast.AST, tree: ast.Module, rng: np.random.Generator) -> None:
    assert isinstance(node, ast.Name)  # noqa: S101
    names = _arguments(tree)
    if node.id in names:
        node.id = names[int(rng.integers(len(names)))]


def _term(node: ast.AST, tree: ast.Module, rng: np.random.Generator) -> None:
    assert isinstance(node, ast.Return | ast.Assign) and node.value is not None  # noqa: S101, PT018
    names = _arguments(tree)
    if names and not isinstance(node.value, ast.Tuple | ast.List | ast.Dict):
        weight = ast.Constant(float(f"{rng.standard_normal():.3g}"))
        term = ast.BinOp(weight, ast.Mult(), ast.Name(names[int(rng.integers(len(names)))], ast.Load()))
        node.value = ast.BinOp(node.value, ast.Add(), term)


def _negate(node: ast.AST, tree: ast.Module, rng: np.random.Generator) -> None:
    assert isinstance(node, ast.Return | ast.Assign) and node.value is not None  # noqa: S101, PT018
    if not isinstance(node.value, ast.Tuple | ast.List | ast.Dict):
        node.value = ast.UnaryOp(ast.USub(), node.value)


def _arguments(tree: ast.Module) -> list[str]:
    return [
        a.arg
        for d in ast.walk(tree)
        if isinstance(d, ast.FunctionDef)
        for a in d.args.args
        if a.arg != "self"
    ]
