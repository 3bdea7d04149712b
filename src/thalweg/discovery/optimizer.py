"""Programs as optimizers of torch, and as modules that are written to a file."""

from __future__ import annotations

import keyword
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem
from thalweg.core.files import atomic_write, check_target
from thalweg.core.validation import is_real, require
from thalweg.discovery.abstract import check, without_dead
from thalweg.discovery.interpreter import Rule
from thalweg.discovery.program import ADAMW, Program, parse

Options = dict[str, object]


class ProgramOptimizer(Optimizer):
    """An update rule that is a program: ``w = w - update`` for each tensor, with two memories at most.

    A subclass names its own ``program``; `optimizer_class` makes one.

    Args:
        params: parameters or groups.
        lr: the schedule's value, 1 by default: the base rate is a constant of the program. Schedulers of torch change
            it as they do any other.

    Raises:
        InvalidParameter: lr < 0.
        InvalidProblem: sparse or complex gradients; a program that does not run.
        CheckpointMismatch: a state that another program left.

    Cost per step: the program's functions, each a pass over the tensors; one or two tensors kept a parameter.

    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = ProgramOptimizer(model.parameters())  # AdamW, as the search begins with
    >>> model(torch.ones(3)).sum().backward(); optimizer.step()
    """

    program: ClassVar[Program] = ADAMW

    def __init__(self, params: Iterable[Tensor] | Iterable[Options], lr: float = 1.0) -> None:
        rejection = check(self.program)
        if rejection is not None:
            raise InvalidProblem(f"The program does not run: {rejection.words}.")
        self._rule = Rule(without_dead(self.program))
        super().__init__(params, {"lr": lr, "program": self.program.source})

    def add_param_group(self, param_group: Options) -> None:
        """Add parameters, perhaps with an ``lr`` of their own."""
        lr = param_group.get("lr", self.defaults["lr"])
        fits = isinstance(lr, Tensor) or (is_real(lr) and 0 <= lr < math.inf)
        require(fits, f"{type(self).__name__} needs a finite lr >= 0", got=lr)
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: Options) -> None:
        """Go on from a `state_dict` of this program."""
        groups = state_dict.get("param_groups")
        saved = {group.get("program") for group in groups} if isinstance(groups, list) else set()
        if saved != {self.program.source}:
            raise CheckpointMismatch(
                f"The state is not of the program of this {type(self).__name__}. Load it into the "
                "optimizer that left it."
            )
        super().load_state_dict(state_dict)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; ``closure`` re-evaluates the model and returns the loss."""
        loss: float | None = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        self._update(p, float(group["lr"]))
        return loss

    def _update(self, p: Tensor, lr: float) -> None:
        g = p.grad
        if g is None or g.is_sparse or g.is_complex():
            raise InvalidProblem(
                f"{type(self).__name__} takes dense real gradients. Use sparse=False in embeddings, and "
                "torch.view_as_real for complex parameters."
            )
        state = self.state[p]
        shape = p.shape if p.ndim else (1,)  # to a program a number is no tensor
        if not state:
            state["m"], state["v"] = (torch.zeros_like(p) for _ in range(2))
        given = [tensor.reshape(shape) for tensor in (p, g, state["m"], state["v"])]
        update, m, v = self._rule(*given, lr)
        state["m"], state["v"] = (torch.as_tensor(x).reshape(p.shape) for x in (m, v))
        p.sub_(torch.as_tensor(update).reshape(p.shape))


def optimizer_class(program: Program, name: str = "Discovered") -> type[ProgramOptimizer]:
    """An optimizer's class made of a program, for training and for `thalweg.compare`.

    Raises:
        InvalidParameter: a name that cannot be a class's.

    >>> from thalweg.discovery import LION
    >>> optimizer_class(LION, "SearchedLion")([torch.nn.Parameter(torch.ones(2))]).defaults["lr"]
    1.0
    """
    fits = name.isidentifier() and not keyword.iskeyword(name)
    require(fits, "optimizer_class needs a name that Python takes", got=name)
    return type(name, (ProgramOptimizer,), {"program": program, "__doc__": program.source})


_MODULE = '''"""{name}, an optimizer found by a search of programs.

>>> import torch
>>> x = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
>>> optimizer = {name}([x])
>>> for _ in range(3):
...     optimizer.zero_grad()
...     (x * x).sum().backward()
...     optimizer.step()
>>> [round(v, 9) for v in x.tolist()]
{expected}
"""

from thalweg.discovery import ProgramOptimizer, parse

SOURCE = """\\
{source}
"""


class {name}(ProgramOptimizer):
    """``lr`` is the schedule's value; the base rate is in the program."""

    program = parse(SOURCE)
'''


def write_optimizer(program: Program, path: str | Path, name: str = "Discovered") -> None:
    """Write a program as a Python module with a class of torch, and a doctest of its first steps.

    Raises:
        InvalidParameter: another ending than .py, or a name that cannot be a class's.
        InvalidProblem: a program that does not run.
    """
    target = check_target(path, (".py",))
    made = optimizer_class(program, name)
    x = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = made([x])
    for _ in range(3):
        optimizer.zero_grad()
        (x * x).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    expected = [round(v, 9) for v in x.tolist()]
    text = _MODULE.format(name=name, source=program.source, expected=expected)
    with atomic_write(target) as file:
        file.write(text.encode())


def read_program(path: str | Path) -> Program:
    """The program of a file: of a module that `write_optimizer` wrote, or of a function alone. Nothing in it is run."""
    import ast

    try:
        text = Path(path).read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError) as error:
        raise InvalidParameter(f"{path} holds no program: {error}.") from error
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SOURCE":
            value = node.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                return parse(value.value.strip())
    return parse(text)
