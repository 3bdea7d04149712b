"""Gradients of several losses on shared parameters, and the step that a combiner makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.adaptation.combiners import Combination, GradientCombiner
from thalweg.core import InvalidProblem

#: The share of the largest gradient below which another is nothing.
NOTHING = 1e-20


def objective_gradients(
    losses: Sequence[Tensor], shared: Iterable[Tensor], *, batched: bool = False
) -> Tensor:
    """The gradient of each loss on the shared parameters, shape (losses, parameters); the graph is kept.

    Args:
        losses: scalars of one graph, or of several.
        shared: parameters; one that a loss does not reach counts as zero there.
        batched: all losses in one pass of `torch.func`'s vectorization, where every operation allows it.

    Raises:
        InvalidProblem: no loss, a loss that is no scalar, no parameter that takes a gradient.

    Cost: a backward pass for each loss.

    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> objective_gradients([x.sum(), (x**2).sum()], [x])
    tensor([[1., 1.],
            [2., 4.]])
    """
    places = [p for p in shared if p.requires_grad]
    if not places:
        raise InvalidProblem(
            "No shared parameter takes a gradient: the backbone is frozen. Set requires_grad on a part of it."
        )
    if not losses or any(loss.numel() != 1 for loss in losses):
        raise InvalidProblem("objective_gradients needs one scalar loss or more.")
    if batched:
        stacked = torch.stack([loss.reshape(()) for loss in losses])
        rows = torch.eye(len(losses), dtype=stacked.dtype, device=stacked.device)
        found = torch.autograd.grad(
            stacked, places, rows, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
        parts = [
            torch.zeros(len(losses), p.numel(), dtype=p.dtype, device=p.device) if g is None else g.flatten(1)
            for g, p in zip(found, places, strict=True)
        ]
        return torch.cat(parts, 1)
    return torch.stack([_flat(loss, places) for loss in losses])


def _flat(loss: Tensor, places: Sequence[Tensor]) -> Tensor:
    if not loss.requires_grad:
        return torch.cat([torch.zeros_like(p).reshape(-1) for p in places])
    found = torch.autograd.grad(loss, places, retain_graph=True, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in zip(found, places, strict=True)]
    )


def combined(
    G: Tensor, combiner: GradientCombiner, losses: Sequence[Tensor], reached: float
) -> tuple[Tensor, Combination, NDArray[np.float64]]:
    """``m G' a``, shape (parameters,), the combination, and ``G G'``; unusable objectives take no part.

    A last row of G beyond the losses' is the guide's gradient.

    >>> from thalweg.adaptation.conflict import MGDA
    >>> combined(torch.eye(2), MGDA(), [torch.ones(()), torch.ones(())], 0.0)[0]
    tensor([1., 1.])
    """
    products = _products(G)
    m = len(losses)
    c = products[:m, m] if len(G) > m else None
    values = torch.stack([loss.detach().double().reshape(()) for loss in losses]).cpu().numpy()
    told = combiner.combine(products[:m, :m], c, values, reached)
    a = m * torch.as_tensor(told.weights, dtype=G.dtype, device=G.device)
    if told.dropped:
        kept = [i for i in range(m) if i not in told.dropped]
        return a[kept] @ G[kept], told, products
    return a @ G[:m], told, products


def _products(G: Tensor) -> NDArray[np.float64]:
    """``G G'``; rows are divided by their sizes where squares would vanish or overflow in their own type.

    A row that is nothing beside the largest is taken for zero: it belongs to an objective that is solved.
    """
    found = G @ G.T
    limits, squares = torch.finfo(G.dtype), found.diagonal()
    if not bool(((squares >= limits.tiny / limits.eps) & (squares < torch.inf)).all()):
        largest = G.abs().amax(1)
        usable = (largest > 0) & (largest < torch.inf)
        size = torch.where(usable, largest, 1.0)
        solved = usable & (largest <= NOTHING * torch.where(usable, largest, 0.0).max())
        rows, size = torch.where(solved[:, None], 0.0, G / size[:, None]), size.double()
        return np.asarray(((rows @ rows.T).double() * size * size[:, None]).cpu().numpy())
    return np.asarray(found.double().cpu().numpy())


def put_gradient(shared: Iterable[Tensor], flat: Tensor) -> None:
    """Make a flat gradient the ``.grad`` of the parameters that take one; they share its memory.

    >>> p = nn.Parameter(torch.zeros(2, 1))
    >>> put_gradient([p], torch.tensor([1.0, 2.0])); p.grad.shape
    torch.Size([2, 1])
    """
    at = 0
    for p in shared:
        if p.requires_grad:
            p.grad = flat[at : at + p.numel()].view_as(p)
            at += p.numel()


def combined_backward(
    losses: Sequence[Tensor],
    shared: Iterable[nn.Parameter],
    combiner: GradientCombiner,
    *,
    own: Iterable[nn.Parameter] = (),
    guide: Tensor | None = None,
    reached: float = 0.0,
    batched: bool = False,
) -> Combination:
    """In the place of ``loss.backward()`` in a loop with several losses.

    Args:
        losses: m scalars.
        shared: parameters on which they conflict; their ``.grad`` becomes ``m sum_i a_i g_i``.
        combiner: gives a.
        own: parameters that get the gradient of the plain sum, such as heads.
        guide: a loss that steers, for guided combiners; it trains nothing.
        reached: see `GradientCombiner.combine`.
        batched: see `objective_gradients`.

    Raises:
        InvalidProblem: see `objective_gradients` and the combiner.
        NotFinite: no loss has a finite gradient.

    Cost: a backward pass for each loss and for the guide, and one for ``own`` if there are any.

    >>> from thalweg.adaptation.conflict import MGDA
    >>> body, heads = nn.Linear(3, 2), nn.Linear(2, 2)
    >>> losses = heads(body(torch.ones(4, 3))).square().mean(0).unbind()
    >>> combined_backward(losses, body.parameters(), MGDA(), own=heads.parameters()).weights.sum().round(6)
    np.float64(1.0)
    """
    places, owned = list(shared), [p for p in own if p.requires_grad]
    steered = [*losses] if guide is None else [*losses, guide]
    G = objective_gradients(steered, places, batched=batched)
    flat, told, _ = combined(G, combiner, losses, reached)
    if owned:
        usable = [
            loss for i, loss in enumerate(losses) if i not in told.dropped or bool(torch.isfinite(loss))
        ]
        found = torch.autograd.grad(torch.stack(usable).sum(), owned, allow_unused=True)
        for p, g in zip(owned, found, strict=True):
            p.grad = g
    put_gradient(places, flat)
    return told


def parted(
    loss: Tensor, features: Sequence[Tensor], heads: Sequence[Tensor]
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """The gradient of a loss on features that are leaves, and on parameters above them; None where it does not reach.

    >>> z = torch.ones(2, requires_grad=True)
    >>> parted(z.sum(), [z], [])
    ([tensor([1., 1.])], [])
    """
    if not loss.requires_grad:
        return [None] * len(features), [None] * len(heads)
    found: list[Tensor | None] = [
        *torch.autograd.grad(loss, [*features, *heads], retain_graph=True, allow_unused=True)
    ]
    return found[: len(features)], found[len(features) :]


def through(
    features: Sequence[Tensor], gradients: Sequence[Tensor | None], shared: Sequence[Tensor], row: Tensor
) -> None:
    """Carry a gradient on features to the shared parameters, into ``row``, shape (parameters,).

    >>> w, row = torch.ones(2, requires_grad=True), torch.empty(2)
    >>> through([3 * w], [torch.ones(2)], [w], row)
    >>> row
    tensor([3., 3.])
    """
    reached = [(z, g) for z, g in zip(features, gradients, strict=True) if g is not None]
    if not reached:
        row.zero_()
        return
    outputs, along = zip(*reached, strict=True)
    found = torch.autograd.grad(outputs, shared, along, retain_graph=True, allow_unused=True)
    at = 0
    for g, p in zip(found, shared, strict=True):
        place = row[at : at + p.numel()]
        if g is None:
            place.zero_()
        else:
            place.copy_(g.reshape(-1))
        at += p.numel()
