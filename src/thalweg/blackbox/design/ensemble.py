"""Small networks trained apart on one table: their mean is a second opinion, their spread the doubt."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from thalweg.core.seeding import torch_generator

MEMBERS, STEPS, BATCH = 5, 400, 256
#: Weights of a first layer, about: more features have fewer units.
MOST = 2**16


class Ensemble:
    """Five networks D - D / 2 - 1, each with weights and batches of its own.

    Features are standardised, so that their unit does not matter. A tenth of the rows is held out, and ``correlation``
    is the rank correlation there. Beyond 362 features there are fewer units, 65 536 / D.

    Args:
        H: features, shape (n, D). y: standardised scores, shape (n,).

    Cost: about ``6 x 5 members x 400 steps x 256 min(D^2 / 2, 65 536)`` operations once.
    """

    @torch.enable_grad()
    def __init__(self, H: Tensor, y: Tensor, seed: int, members: int = MEMBERS) -> None:
        n, D = H.shape
        drawn = torch_generator(seed, 0x05, 4)
        order = torch.randperm(n, generator=drawn)
        held = order[: n // 10]
        train = order[n // 10 :]
        self._centre, spread = H.mean(0), H.std(0)
        # A feature that is constant on the table says nothing there, and would say anything elsewhere.
        self._scale = torch.where(spread > 1e-9 * spread.max(), 1 / spread, 0.0)
        width = max(min(D // 2, MOST // D), 8)
        shapes = ((members, D, width), (members, 1, width), (members, width, 1), (members, 1, 1))
        self._parts = [
            (torch.randn(shape, generator=drawn) * (math.sqrt(2 / shape[1]) if shape[1] > 1 else 0.0))
            for shape in shapes
        ]
        for part in self._parts:
            part.requires_grad_()
        X, t = ((H - self._centre) * self._scale).float(), y.float()
        adam = torch.optim.AdamW(self._parts, lr=2e-3, weight_decay=1e-2)
        batch = min(BATCH, len(train))
        for step in range(STEPS):
            for group in adam.param_groups:
                group["lr"] = 2e-3 * (1 + math.cos(math.pi * step / STEPS)) / 2
            rows = train[torch.randint(len(train), (members, batch), generator=drawn)]
            loss = (self._outputs(X[rows], self._parts) - t[rows]).square().mean(1).sum()
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        self._parts = [part.detach().double() for part in self._parts]
        told = self(H[held]).mean(0) if len(held) > 2 else held.double()
        self.correlation = _rank_correlation(told, y[held]) if len(held) > 2 else math.nan

    @staticmethod
    def _outputs(x: Tensor, parts: list[Tensor]) -> Tensor:
        first, bias, second, last = parts
        return (functional.silu(x @ first + bias) @ second + last)[..., 0]

    def __call__(self, h: Tensor) -> Tensor:
        """What each member says, shape (members, n)."""
        return self._outputs((h - self._centre) * self._scale, self._parts)


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])
