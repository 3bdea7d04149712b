"""The loop over time of an LSTM with its adjoint by hand: the weights' gradients are one product, not one a step.

Hochreiter and Schmidhuber (1997), "Long short-term memory", with forget gates, in torch's order: input, forget,
candidate, output. ``c' = f c + i g``, ``h' = o tanh(c')``, where the gates are functions of the sums
``W_x x + s_x (*) R_x x + W_h h + s_h (*) R_h h + shift``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from thalweg.bilevel.selftuning.products import Factor, by_weight

#: Rows of a product that is no faster, row by row, with more of them.
ROWS = 512


class Responding(NamedTuple):
    """A matrix, and what responds: R of the same shape, its rows scaled for each example, (batch, rows), or nothing."""

    weight: Tensor
    response: Tensor | None = None
    scale: Tensor | None = None


def recurrence(
    x: Tensor, h: Tensor, c: Tensor, shift: Tensor | None, by_input: Responding, by_state: Responding
) -> tuple[Tensor, Tensor]:
    """The hidden states, shape (batch, times, units), and the last cell, (batch, units).

    Args:
        x: (times, batch, features).
        h, c: (batch, units), the start.
        shift: (batch, 4 units), of the biases.
        by_input, by_state: of the matrices, (4 units, features) and (4 units, units).

    Cost: the products of both matrices and both responses with all inputs and states, once forwards, once for their own
    gradients, once for those of the states and, if they are wanted, inputs.
    """
    inputs = (x, h, c, shift, *by_input, *by_state)
    if in_another_mode() or any(is_dual(v) for v in inputs if v is not None):
        return by_steps(x, h, c, shift, by_input, by_state)
    out, last, _ = _Recurrence.apply(*inputs)
    return out, last


def in_another_mode() -> bool:
    """What torch does to its own operations and not to ours: mixed precision and the transforms of ``torch.func``."""
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return transformed or torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


def is_dual(x: Tensor) -> bool:
    """Whether forward-mode differentiation goes through x."""
    return forward_ad.unpack_dual(x).tangent is not None


def by_steps(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    shift: Tensor | None,
    by_input: Responding,
    by_state: Responding,
    linear: bool = False,
) -> tuple[Tensor, Tensor]:
    """`recurrence` as torch's operations one after another, which can be differentiated in every way.

    ``linear`` makes the responses tangents of forward-mode differentiation (Delta-STN).
    """

    def product(x: Tensor, of: Responding) -> Tensor:
        out = functional.linear(x, of.weight)
        if of.response is None or of.scale is None:
            return out
        at = forward_ad.unpack_dual(x).primal if linear else x
        change = of.scale * functional.linear(at, of.response)
        return out + (forward_ad.make_dual(torch.zeros_like(change), change) if linear else change)

    driven, outs = product(x, by_input), []
    if shift is not None:
        driven = driven + shift
    for now in driven.unbind(0):
        i, f, g, o = (now + product(h, by_state)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outs.append(h)
    return torch.stack(outs, 1), c


@dataclass(frozen=True)
class Course:
    """What a pass over time leaves.

    Args:
        x, by_input, by_state: as in `recurrence`.
        hidden, cell: (times + 1, batch, units), the start first.
        tanh: of the new cells, (times, batch, units).
        gates: at each time, (batch, 4, units), after their squashing functions.
        input_responses, state_responses: at each time R x and R h, (batch, 4 units); none without R.
    """

    x: Tensor
    by_input: Responding
    by_state: Responding
    hidden: Tensor
    cell: Tensor
    tanh: Tensor
    gates: list[Tensor]
    input_responses: list[Tensor]
    state_responses: list[Tensor]

    @property
    def out(self) -> Tensor:
        """The hidden states, shape (batch, times, units), in memory of their own."""
        return self.hidden[1:].transpose(0, 1).contiguous()

    def slopes(self, t: int) -> tuple[Tensor, Tensor]:
        """Of a cell at a time in the sums of its gates, (batch, 4, units): of c' in the first three, of h' with c' held
        in the last. And of h' in c', (batch, units).
        """
        gates, tanh = self.gates[t], self.tanh[t]
        i, _, g, o = gates.unbind(1)
        inner = torch.addcmul(gates, gates, gates, value=-1.0)
        inner[:, 0] *= g
        inner[:, 1] *= self.cell[t]
        torch.addcmul(i, i * g, g, value=-1.0, out=inner[:, 2])
        inner[:, 3] *= tanh
        return inner, torch.addcmul(o, o * tanh, tanh, value=-1.0)


@torch.no_grad()
def course(
    x: Tensor, h: Tensor, c: Tensor, shift: Tensor | None, by_input: Responding, by_state: Responding
) -> Course:
    """A pass over time without a graph; arguments as in `recurrence`."""
    x = x.contiguous()
    (times, batch, _), units = x.shape, h.shape[1]
    hidden, cell = (h.new_empty(times + 1, batch, units) for _ in range(2))
    hidden[0], cell[0] = h, c
    found = Course(x, by_input, by_state, hidden, cell, torch.empty_like(cell[1:]), [], [], [])
    drives = _Drives(found, shift)
    W = Factor(by_state.weight, h)
    R = None if by_state.response is None else Factor(by_state.response, h)
    for t in range(times):
        sums = W(hidden[t], drives(t))
        if R is not None and by_state.scale is not None:
            response = R(hidden[t])
            sums.addcmul_(by_state.scale, response)
            found.state_responses.append(response)
        candidate = torch.tanh(sums[:, 2 * units : 3 * units])
        gates = sums.sigmoid_().view(batch, 4, units)
        gates[:, 2] = candidate
        found.gates.append(gates)
        torch.addcmul(gates[:, 1] * cell[t], gates[:, 0], candidate, out=cell[t + 1])
        torch.tanh(cell[t + 1], out=found.tanh[t])
        torch.mul(gates[:, 3], found.tanh[t], out=hidden[t + 1])
    return found


class _Drives:
    """What inputs and biases add to the sums, some times at once where batches are small."""

    def __init__(self, found: Course, shift: Tensor | None) -> None:
        self.found, self.shift = found, shift
        self.together = -(-ROWS // max(found.x.shape[1], 1))
        rows = found.x[: self.together].flatten(0, 1)
        self.W = Factor(found.by_input.weight, rows)
        response = found.by_input.response
        self.R = None if response is None else Factor(response, rows)
        self.ready: list[Tensor] = []

    def __call__(self, t: int) -> Tensor:
        """At a time, (batch, 4 units); times one after another."""
        if t % self.together == 0:
            self.ready = self._some(self.found.x[t : t + self.together])
        return self.ready[t % self.together]

    def _some(self, x: Tensor) -> list[Tensor]:
        rows, shape = x.flatten(0, 1), (*x.shape[:2], len(self.found.by_input.weight))
        sums = self.W(rows).view(shape)
        if self.R is not None and self.found.by_input.scale is not None:
            responses = self.R(rows).view(shape)
            sums.addcmul_(self.found.by_input.scale, responses)
            self.found.input_responses.extend(responses)
        if self.shift is not None:
            sums += self.shift
        return list(sums)


@dataclass(frozen=True)
class Adjoint:
    """Derivatives in the sums of the gates, shape (times, batch, 4 units), the same times the scales, and those in the
    scales and the start.
    """

    sums: Tensor
    input_scaled: Tensor | None
    state_scaled: Tensor | None
    input_scale: Tensor | None
    state_scale: Tensor | None
    h: Tensor
    c: Tensor


def adjoint(
    found: Course, slopes: Callable[[int], tuple[Tensor, Tensor]], by_hidden: Tensor, by_cell: Tensor
) -> Adjoint:
    """Back from derivatives in what `recurrence` gives."""
    times, batch, units = found.tanh.shape
    by_sums = found.tanh.new_empty(times, batch, 4 * units)
    scales = [found.by_input.scale, found.by_state.scale]
    responses = [found.input_responses, found.state_responses]
    scaled = [None if s is None else torch.empty_like(by_sums) for s in scales]
    by_scale = [None if s is None else torch.zeros_like(s) for s in scales]
    W = Factor(found.by_state.weight.T, by_cell)
    R = None if found.by_state.response is None else Factor(found.by_state.response.T, by_cell)
    dh, dc = torch.zeros_like(by_cell), by_cell
    for t in reversed(range(times)):
        inner, outer = slopes(t)
        dh = by_hidden[:, t] + dh
        dc = torch.addcmul(dc, dh, outer)
        each = by_sums[t].view(batch, 4, units)
        torch.mul(inner[:, :3], dc[:, None], out=each[:, :3])
        torch.mul(inner[:, 3], dh, out=each[:, 3])
        for k in range(2):
            scale, out, total = scales[k], scaled[k], by_scale[k]
            if scale is not None and out is not None and total is not None:
                torch.mul(by_sums[t], scale, out=out[t])
                total.addcmul_(by_sums[t], responses[k][t])
        dc = dc * found.gates[t][:, 1]
        dh = W(by_sums[t])
        if R is not None and scaled[1] is not None:
            dh = R(scaled[1][t], dh)
    return Adjoint(by_sums, scaled[0], scaled[1], by_scale[0], by_scale[1], dh, dc)


#: Of `Course.slopes`, at each time.
Slopes: TypeAlias = list[tuple[Tensor, Tensor]]


class _Context(Protocol):
    """What torch hands to `_Recurrence`, and what it keeps there."""

    course: Course
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...


class _Recurrence(torch.autograd.Function):
    """`by_steps` and its gradient; gradients of that one go through `by_steps` itself."""

    @staticmethod
    def forward(
        x: Tensor,
        h: Tensor,
        c: Tensor,
        shift: Tensor | None,
        wx: Tensor,
        rx: Tensor | None,
        sx: Tensor | None,
        wh: Tensor,
        rh: Tensor | None,
        sh: Tensor | None,
    ) -> tuple[Tensor, Tensor, Course]:
        found = course(x, h, c, shift, Responding(wx, rx, sx), Responding(wh, rh, sh))
        return found.out, found.cell[-1].clone(), found

    @staticmethod
    def setup_context(
        ctx: _Context, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor, Course]
    ) -> None:
        ctx.save_for_backward(*inputs)
        ctx.course = output[2]

    @staticmethod
    def backward(ctx: _Context, by_hidden: Tensor, by_cell: Tensor, _: None) -> tuple[Tensor | None, ...]:
        inputs, needed = ctx.saved_tensors, ctx.needs_input_grad
        if torch.is_grad_enabled():
            wanted = [v for v, need in zip(inputs, needed, strict=True) if need]
            x, h, c, shift, *matrices = inputs
            out = by_steps(x, h, c, shift, Responding(*matrices[:3]), Responding(*matrices[3:]))
            slopes = iter(torch.autograd.grad(out, wanted, (by_hidden, by_cell), create_graph=True))
            return tuple(next(slopes) if need else None for need in needed)
        found = ctx.course
        back = adjoint(found, found.slopes, by_hidden, by_cell)
        x, before = found.x.flatten(0, 1), found.hidden[:-1].flatten(0, 1)

        def weights(k: int, by_sums: Tensor | None, factor: Tensor) -> Tensor | None:
            return by_weight(by_sums.flatten(0, 1), factor) if needed[k] and by_sums is not None else None

        return (
            _by_input(found.by_input, back) if needed[0] else None,
            back.h,
            back.c,
            back.sums.sum(0) if needed[3] else None,
            weights(4, back.sums, x),
            weights(5, back.input_scaled, x),
            back.input_scale,
            weights(7, back.sums, before),
            weights(8, back.state_scaled, before),
            back.state_scale,
        )


def _by_input(of: Responding, back: Adjoint) -> Tensor:
    rows = back.sums.flatten(0, 1)
    by_x = Factor(of.weight.T, rows)(rows)
    if of.response is not None and back.input_scaled is not None:
        by_x = Factor(of.response.T, rows)(back.input_scaled.flatten(0, 1), by_x)
    return by_x.view(*back.sums.shape[:2], of.weight.shape[1])


class _Along(Protocol):
    """What `Tangent` and `_Cotangent` keep."""

    along: tuple[Course, Slopes]


class Tangent(torch.autograd.Function):
    """To first order, along a course: what changes of the sums, h and c make of `recurrence`'s answer.

    It is linear in them: the derivative of its derivative is `_Cotangent`'s, which is `Tangent` again.
    """

    @staticmethod
    def forward(sums: Tensor, h: Tensor, c: Tensor, found: Course, slopes: Slopes) -> tuple[Tensor, Tensor]:
        out = h.new_empty(len(h), len(sums), h.shape[1])
        W = Factor(found.by_state.weight, h)
        for t, change in enumerate(sums):
            inner, outer = slopes[t]
            each = W(h, change).view_as(inner) * inner
            c = torch.addcmul(each[:, :3].sum(1), found.gates[t][:, 1], c)
            h = torch.addcmul(each[:, 3], outer, c)
            out[:, t] = h
        return out, c

    @staticmethod
    def setup_context(
        ctx: _Along, inputs: tuple[Tensor, Tensor, Tensor, Course, Slopes], output: tuple[Tensor, Tensor]
    ) -> None:
        ctx.along = inputs[3:]

    @staticmethod
    def backward(ctx: _Along, by_hidden: Tensor, by_cell: Tensor) -> tuple[Tensor | None, ...]:
        return *_Cotangent.apply(by_hidden, by_cell, *ctx.along), None, None


class _Cotangent(torch.autograd.Function):
    """`Tangent`, transposed."""

    @staticmethod
    def forward(
        by_hidden: Tensor, by_cell: Tensor, found: Course, slopes: Slopes
    ) -> tuple[Tensor, Tensor, Tensor]:
        back = adjoint(found, slopes.__getitem__, by_hidden, by_cell)
        return back.sums, back.h, back.c

    @staticmethod
    def setup_context(
        ctx: _Along, inputs: tuple[Tensor, Tensor, Course, Slopes], output: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        ctx.along = inputs[2:]

    @staticmethod
    def backward(ctx: _Along, *changes: Tensor) -> tuple[Tensor | None, ...]:
        return *Tangent.apply(*changes, *ctx.along), None, None
