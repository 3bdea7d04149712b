"""`torch.nn.LSTM` whose weights respond to hyper-parameters, for each example its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from thalweg.bilevel.selftuning.layers import Context, Tuned
from thalweg.core import InvalidProblem
from thalweg.core.validation import require


class TunedLSTM(Tuned):
    """An LSTM that responds. The loop over time is Python's; a plain ``nn.LSTM`` is oneDNN's, some four times as fast.

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
        h, c = start
        w, v = f"weight_hh_l{layer}", f"bias_hh_l{layer}"
        driven = self._product(x, f"weight_ih_l{layer}", f"bias_ih_l{layer}")
        together = not self.context.linear and self.responds(w) and self.responds(v) == self.plain.bias
        step = self._recurrence(w, v, len(x)) if together else (lambda h: self._product(h, w, v))
        outs = []
        for now in driven.unbind(1):
            sums = now + step(h)
            gates, g = torch.sigmoid(sums), torch.tanh(sums.chunk(4, 1)[2])
            i, f, _, o = gates.chunk(4, 1)
            c = torch.addcmul(f * c, i, g)
            h = o * torch.tanh(c)
            outs.append(h)
        return torch.stack(outs, 1), (h, c)

    def _recurrence(self, weight: str, bias: str, rows: int) -> Callable[[Tensor], Tensor]:
        """`_product` of a state, both weights in one matrix: the loop over time is made of small operations."""
        g, first = self.gate(weight, rows), getattr(self.plain, weight)
        both = torch.cat([first, self.gate_of(weight).response]).T
        shift = None
        if self.plain.bias:
            shift = getattr(self.plain, bias) + self.gate(bias, rows) * self.gate_of(bias).response

        def product(h: Tensor) -> Tensor:
            plain, response = (h @ both).chunk(2, 1)
            out = torch.addcmul(plain, g, response)
            return out if shift is None else out + shift

        return product

    def _product(self, x: Tensor, weight: str, bias: str) -> Tensor:
        """``x W(u)' + b(u)``."""
        w, linear = getattr(self.plain, weight), self.context.linear
        b = getattr(self.plain, bias) if self.plain.bias else None
        at = forward_ad.unpack_dual(x).primal if linear else x
        change = x.new_zeros(())
        if self.responds(weight):
            g = self.gate(weight, len(x))
            change = functional.linear(at, self.gate_of(weight).response) * (g if x.ndim == 2 else g[:, None])
        if self.responds(bias):
            c = self.gate(bias, len(x)) * self.gate_of(bias).response
            change = change + (c if x.ndim == 2 else c[:, None])
        if not linear:
            return functional.linear(x, w, b) + change
        held = functional.linear(x, w.detach(), b.detach() if b is not None else None)
        return held + forward_ad.make_dual(torch.zeros_like(change), change)
