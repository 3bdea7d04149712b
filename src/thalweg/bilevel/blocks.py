"""Proximal gradient steps block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.bilevel._trees import ravel
from thalweg.bilevel.composite import SHRINK, TRIALS, Composite, InnerMethod, InnerState, slack


@dataclass(kw_only=True)
class BlockState(InnerState):
    """As `InnerState`, with the length of each block's step."""

    step_sizes: list[float]


@dataclass(frozen=True)
class BlockDescent(InnerMethod[BlockState]):
    """Cyclic block coordinate descent: each tensor of x in turn takes a proximal gradient step of its own length.

    Lengths are found by backtracking and kept. The penalty has to be separable over the tensors: ``prox`` is given all
    of them, and the one in turn is taken from its answer.

    Cost per step: a gradient and at least one value of f for each block.

    Source: Beck and Tetruashvili (2013), "On the convergence of block coordinate descent type methods".

    >>> from thalweg import Stop, solve
    >>> blocks = (torch.zeros(2), torch.zeros(1))
    >>> problem = Composite(lambda x, y: (x[0].sum() + 10 * x[1].sum() - y).square(), blocks, torch.tensor(3.0))
    >>> x = solve(problem, BlockDescent(), stop=Stop(below={"residual": 1e-4})).x
    >>> round(float(x[0].sum() + 10 * x[1].sum()), 3)
    3.0
    """

    def init(self, problem: Composite, seed: int) -> BlockState:
        sizes = [1.0] * len(pytree.tree_leaves(problem.x0))
        return BlockState(**vars(self._begun(problem)), step_sizes=sizes)

    def step(self, problem: Composite, state: BlockState) -> BlockState:
        leaves, structure = pytree.tree_flatten(problem.tree(state.at))
        sizes, gaps = list(state.step_sizes), []
        for i in range(len(leaves)):
            of_block = _of_block(problem, leaves, structure, i)
            gradient, value = torch.func.grad_and_value(of_block)(leaves[i])
            for _ in range(TRIALS):
                moved = [*leaves[:i], leaves[i] - sizes[i] * gradient, *leaves[i + 1 :]]
                answer = problem.prox(pytree.tree_unflatten(moved, structure), problem.theta_g, sizes[i])
                new = pytree.tree_leaves(answer)[i]
                move = new - leaves[i]
                model = value + (gradient * move).sum() + move.square().sum() / (2.0 * sizes[i])
                if float((of_block(new) - model).detach()) <= slack(value):
                    break
                sizes[i] /= SHRINK
            gaps.append(move.abs().max() / sizes[i])
            leaves = [*leaves[:i], new, *leaves[i + 1 :]]
        at = ravel(leaves)
        after = replace(state, step_sizes=sizes)
        return self._moved(problem, after, at, problem.value(at), torch.stack(gaps).max())


def _of_block(
    problem: Composite, leaves: list[Tensor], structure: pytree.TreeSpec, i: int
) -> Callable[[Tensor], Tensor]:
    """f as a function of one block, the others as they are."""

    def of_block(block: Tensor) -> Tensor:
        changed = [*leaves[:i], block, *leaves[i + 1 :]]
        return problem.f(pytree.tree_unflatten(changed, structure), problem.theta_f)

    return of_block
