"""`torch.nn.LSTM` whose weights respond to hyper-parameters, for each example its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from thalweg.bilevel.selftuning.layers import Context, Tuned
from thalweg.bilevel.selftuning.recurrence import (
    Responding,
    Tangent,
    by_steps,
    course,
    in_another_mode,
    recurrence,
)
from thalweg.core import InvalidProblem
from thalweg.core.validation import require

#: The matrices of a layer.
MATRICES = "weight_ih", "weight_hh"


class TunedLSTM(Tuned):
    """An LSTM that responds, in about twice the time of a plain one.

    It sums in another order than ``nn.LSTM``: with ``V = 0`` the two agree to rounding, not bit for bit.
    ``batch_first=True``, one direction, no projection; dropout between layers is left to the network.
    """

    plain: nn.LSTM
    example_axes = 2

    def __init__(self, plain: nn.Module, context: Context) -> None:
        if not isinstance(plain, nn.LSTM):
            raise InvalidProblem(f"TunedLSTM converts nn.LSTM; got {type(plain).__name__}.")
        super().__init__(plain, context)
        for ok, what in (
            (plain.batch_first, "batch_first=True"),
            (not plain.bidirectional, "one direction"),
            (plain.proj_size == 0, "no projection"),
            (plain.dropout == 0.0, "dropout=0, and Dropout layers of its own"),
        ):
            require(ok, f"A self-tuning LSTM needs {what}", error=InvalidProblem)

    def forward(  # type: ignore[override]
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if self.context.shift is None or not self.gates:
            out, last = self.plain(x, state)
            return out, last
        if x.ndim == self.example_axes:
            start = None if state is None else (state[0][:, None], state[1][:, None])
            out, (h, c) = self(x[None], start)
            return out[0], (h[:, 0], c[:, 0])
        require(x.shape[1] > 0, "An LSTM needs a sequence of one step at least", error=InvalidProblem)
        hidden, cell = [], []
        for layer in range(self.plain.num_layers):
            start = None if state is None else (state[0][layer], state[1][layer])
            x, (h, c) = self._layer(x, layer, start)
            hidden.append(h)
            cell.append(c)
        return x, (torch.stack(hidden), torch.stack(cell))

    def _layer(
        self, x: Tensor, layer: int, start: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if start is None:
            zero = x.new_zeros(len(x), self.plain.hidden_size)
            start = zero, zero
        run = self._first_order if self.context.linear else self._exact
        out, c = run(x.transpose(0, 1), layer, *start)
        return out, (out[:, -1], c)

    def _exact(self, x: Tensor, layer: int, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x has shape (times, batch, features)."""
        rows = len(h)
        shift, change = self._bias(layer), self._bias_response(layer, rows)
        if shift is not None:
            shift = shift.expand(rows, -1) if change is None else shift + change
        by_input, by_state = (self._responding(f"{name}_l{layer}", rows) for name in MATRICES)
        return recurrence(x, h, c, shift, by_input, by_state)

    def _first_order(self, x: Tensor, layer: int, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The plain layer, which gets no gradient, and as its tangent the response."""
        rows = len(h)
        by_input, by_state = (self._responding(f"{name}_l{layer}", rows) for name in MATRICES)
        by_input, by_state = (m._replace(weight=m.weight.detach()) for m in (by_input, by_state))
        shift, by_biases = self._bias(layer), self._bias_response(layer, rows)
        shift = None if shift is None else shift.detach().expand(rows, -1)
        (at, dx), (h0, dh), (c0, dc) = (forward_ad.unpack_dual(v) for v in (x, h, c))
        if in_another_mode() or any(v.requires_grad for v in (at, h0, c0)):
            if shift is not None and by_biases is not None:
                shift = forward_ad.make_dual(shift.contiguous(), by_biases)
            return by_steps(x, h, c, shift, by_input, by_state, linear=True)
        found = course(at, h0, c0, shift, Responding(by_input.weight), Responding(by_state.weight))
        change = at.new_zeros(len(at), rows, by_state.weight.shape[0])
        if dx is not None:
            change = functional.linear(dx, by_input.weight)
        for v, matrix in ((at, by_input), (found.hidden[:-1], by_state)):
            if matrix.response is not None and matrix.scale is not None:
                change = torch.addcmul(change, matrix.scale, functional.linear(v, matrix.response))
        if by_biases is not None:
            change = change + by_biases
        start = [torch.zeros_like(h0) if v is None else v for v in (dh, dc)]
        out, last = Tangent.apply(change, *start, found, [found.slopes(t) for t in range(len(at))])
        return forward_ad.make_dual(found.out, out), forward_ad.make_dual(found.cell[-1].clone(), last)

    def _responding(self, name: str, rows: int) -> Responding:
        weight: Tensor = getattr(self.plain, name)
        if not self.responds(name):
            return Responding(weight)
        return Responding(weight, self.gate_of(name).response, self.gate(name, rows).expand(rows, -1))

    def _bias(self, layer: int) -> Tensor | None:
        """The sum of both, (4 units,)."""
        if not self.plain.bias:
            return None
        both: Tensor = getattr(self.plain, f"bias_ih_l{layer}") + getattr(self.plain, f"bias_hh_l{layer}")
        return both

    def _bias_response(self, layer: int, rows: int) -> Tensor | None:
        """What both add, (batch, 4 units)."""
        names = [name for name in (f"bias_ih_l{layer}", f"bias_hh_l{layer}") if self.responds(name)]
        changes = [self.gate(name, rows).expand(rows, -1) * self.gate_of(name).response for name in names]
        return torch.stack(changes).sum(0) if changes else None
