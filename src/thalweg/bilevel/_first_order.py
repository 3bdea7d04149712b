"""First derivatives outside every transform: one evaluation of the condition, whose graph serves all that follows.

`_root.vjp` is the same for derivatives that are differentiated again; there every product is a function of torch's,
which costs several times as much.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import _engine_run_backward

from thalweg.bilevel._call import Call
from thalweg.bilevel._trees import ravel, unravel


def outside_transforms() -> bool:
    """No transform of torch.func is at work, nor autograd's forward mode."""
    inside = torch._C._functorch.peek_interpreter_stack() is not None
    return not inside and forward_ad._current_level < 0


def is_final(tensors: Sequence[Tensor]) -> bool:
    """Nobody differentiates what is computed from these tensors now."""
    watched = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return not watched and outside_transforms()


def first_vjp(
    call: Call, tensors: Sequence[Tensor], x: Sequence[Tensor], v: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """``-v' (d1 F)^-1 d2 F`` for the tensors that are wanted, without a graph."""
    places = [i for i, (t, w) in enumerate(zip(tensors, wanted, strict=True)) if w and t.is_floating_point()]
    found: list[Tensor | None] = [None] * len(tensors)
    if not places:
        return found
    graph = _Graph(call, tensors, x, places)
    call.check(ravel([value.detach() for value in graph.values]))
    u = call.solved(graph.pulled, v, graph.pushed)
    for i, slope in zip(places, graph.pulled_in_theta(-u), strict=True):
        found[i] = slope
    return found


class _Graph:
    """The condition at one place, and products with its derivatives by autograd's engine."""

    def __init__(
        self, call: Call, tensors: Sequence[Tensor], x: Sequence[Tensor], places: Sequence[int]
    ) -> None:
        theta = [t.detach() for t in tensors]
        for i in places:
            theta[i].requires_grad_()
        self.x = [leaf.detach().requires_grad_() for leaf in x]
        self.theta = [theta[i] for i in places]
        with torch.enable_grad():
            self.values = call.value(theta, self.x)
        self.differentiable = [value.requires_grad for value in self.values]
        self.outputs = tuple(value for value in self.values if value.requires_grad)
        self.single = len(self.x) == len(self.outputs) == 1  # nothing to split and to join

    def pulled(self, w: Tensor) -> Tensor:
        """``(d1 F)' w``, flat."""
        if self.single:
            slope = _run(self.outputs, (w.reshape(self.x[0].shape),), self.x)[0]
            return torch.zeros_like(w) if slope is None else slope.reshape(-1)
        return ravel(self._slopes(w, self.x, keep=True))

    def pulled_in_theta(self, w: Tensor) -> list[Tensor]:
        """``(d2 F)' w`` for the wanted tensors; the graph is gone afterwards."""
        return self._slopes(w, self.theta, keep=False)

    def pushed(self, w: Tensor) -> Tensor:
        """``(d1 F) w``, flat: the transpose of the transpose."""
        dummy, transposed = self._transposed
        slopes = torch.autograd.grad(transposed, dummy, w, retain_graph=True, materialize_grads=True)
        return slopes[0]

    @functools.cached_property
    def _transposed(self) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            dummy = torch.zeros_like(ravel(self.values)).detach().requires_grad_()
            pairing = torch.dot(ravel(self.values), dummy)
            slopes = torch.autograd.grad(pairing, self.x, create_graph=True, materialize_grads=True)
            return dummy, ravel(slopes)

    def _slopes(self, w: Tensor, inputs: Sequence[Tensor], keep: bool) -> list[Tensor]:
        parts = unravel(w, self.values)
        seeds = tuple(part for part, wanted in zip(parts, self.differentiable, strict=True) if wanted)
        slopes = _run(self.outputs, seeds, inputs, keep)
        return [torch.zeros_like(t) if s is None else s for t, s in zip(inputs, slopes, strict=True)]


def _run(
    outputs: tuple[Tensor, ...], seeds: tuple[Tensor, ...], inputs: Sequence[Tensor], keep: bool = True
) -> Sequence[Tensor | None]:
    """`torch.autograd.grad` without its checks, which take as long as a small product."""
    if not outputs:
        return [None] * len(inputs)
    found: Sequence[Tensor | None] = _engine_run_backward(
        outputs, seeds, keep, False, tuple(inputs), allow_unreachable=True, accumulate_grad=False
    )
    return found
