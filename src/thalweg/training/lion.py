"""Lion and the Lion-K family of optimizers.

Chen, Liang, Huang et al. (2023), "Symbolic discovery of optimization algorithms", program 1, for Lion; Chen,
Liu, Liang and Liu (2024), "Lion secretly solves constrained optimization", equation (5), for Lion-K.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypedDict, Unpack, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.core.validation import is_real, require
from thalweg.training import _lion_pass
from thalweg.training._lion_state import taken_in
from thalweg.training.convex_functions import L1, ConvexFunction

#: A parameter, its momentum and its gradient.
Triple: TypeAlias = tuple[Tensor, Tensor, Tensor]


class LionK(Optimizer):
    """Momentum through the subgradient of a convex K, with decoupled weight decay.

    ``x += lr (dK(-(b1 m + (1 - b1) g)) - lam x)``, then ``m = b2 m + (1 - b2) g``. In the long run it
    minimises ``f(x) + K*(lam x)/lam``: K and the weight decay choose a bound or a
    penalty (`convex_functions`).

    Args:
        params: parameters or parameter groups; every option can be set per group.
        lr: step size. For Lion a third of AdamW's to begin with; long trainings take a tenth, too.
        betas: (b1, b2) in [0, 1): how the update and the momentum mix the gradient in.
        weight_decay: lam >= 0. For Lion larger than AdamW's by as much as the rate is smaller.
        max_norm: the bound on the weights instead, ``weight_decay = 1/max_norm``: in the norm dual to K, for
            Lion on the largest absolute weight.
        K: a `ConvexFunction`; `L1`, the default, is Lion.
        implicit_decay: ``x = (x + lr u)/(1 + lr lam)``, which stays inside the bound for any ``lr``.
        momentum_dtype: keep the momentum in, say, ``torch.bfloat16``: half the memory.
        maximize: go uphill.
        foreach: few launches over many tensors; by default wherever the tensors are on a GPU.
        fused: one pass over the memory: on the CPU for `L1` in float32 and float64, compiled by
            ``torch.compile`` on a GPU. By default on the CPU for each tensor that it can take.
        capturable: keep a tensor ``lr`` on its device, for CUDA graphs.
        differentiable: let gradients flow through the step.

    Raises:
        InvalidParameter: an option outside its range, or two that exclude each other.
        InvalidProblem: sparse or complex gradients.

    A NaN in a gradient stays in the momentum, and that weight moves no more, but for its decay.

    Cost per step: memory traffic of 20 bytes a parameter fused in float32 (AdamW: 28); one momentum kept.

    >>> import torch
    >>> from thalweg.training import LionK
    >>> x = torch.nn.Parameter(torch.tensor([3.0, -3.0]))
    >>> optimizer = LionK([x], lr=0.01, max_norm=1.0)
    >>> for _ in range(1000):
    ...     optimizer.zero_grad(); (x - torch.tensor([5.0, 0.5])).square().sum().backward(); optimizer.step()
    >>> [round(v, 1) for v in x.tolist()]  # 5 is out of bounds
    [1.0, 0.5]
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        max_norm: float | None = None,
        K: ConvexFunction | None = None,
        implicit_decay: bool = False,
        momentum_dtype: torch.dtype | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "max_norm": max_norm,
            "K": L1() if K is None else K,
            "implicit_decay": implicit_decay,
            "momentum_dtype": momentum_dtype,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own, checked like the constructor's.

        A group's own ``weight_decay`` takes the place of the constructor's ``max_norm``, and the other way round.
        """
        own = {name for name in ("weight_decay", "max_norm") if param_group.get(name) is not None}
        group = {**self.defaults, **param_group}
        if own == {"weight_decay"}:
            group["max_norm"] = None
        elif own == {"max_norm"}:
            group["weight_decay"] = 0.0
        name = type(self).__name__
        if group["max_norm"] is not None:
            valid = is_real(group["max_norm"]) and group["max_norm"] > 0
            require(valid, f"{name} needs max_norm > 0", got=group["max_norm"])
            if group["weight_decay"]:
                raise InvalidParameter(
                    "Give max_norm or weight_decay, not both: the one is the inverse of the other."
                )
            group["weight_decay"] = 1.0 / group["max_norm"]
            group["max_norm"] = None
        _check_group(name, group)
        super().add_param_group(group)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state as plain data; each K is written by its text, and compared on loading."""
        state = super().state_dict()
        for group in state["param_groups"]:
            group["K"] = repr(group["K"])
            group["momentum_dtype"] = group["momentum_dtype"] and str(group["momentum_dtype"])
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`, or from lion-pytorch's.

        Raises:
            CheckpointMismatch: another optimizer's, or one of other groups, parameters or K.
        """
        super().load_state_dict(taken_in(state_dict, self.param_groups))
        # The base class casts state to the parameter's dtype.
        for group in self.param_groups:
            for p in group["params"]:
                if group["momentum_dtype"] is not None and p in self.state:
                    self.state[p]["exp_avg"] = self.state[p]["exp_avg"].to(group["momentum_dtype"])

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
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                with torch.set_grad_enabled(group["differentiable"]):
                    self._update(group, params)
        return loss

    def optimality_gap(self) -> float:
        """Fenchel gap of the composite problem at the current weights and ``.grad``: zero where stationary.

        For a convex loss, and full-batch gradients, it bounds ``F(x) - min F``. Infinite while the weights
        are out of bounds. Groups without weight decay count the norm of their gradient by K.
        """
        total = 0.0
        with torch.no_grad():
            for group in self.param_groups:
                K, decay = group["K"], group["weight_decay"]
                for p in group["params"]:
                    if p.grad is not None:
                        g = -p.grad if group["maximize"] else p.grad
                        gap = K.fenchel_gap(p, g, decay) if decay else K.value(-g)
                        total += float(gap)
        return total

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        grads = [_usable_gradient(p) for p in params]
        momenta = [self._momentum(p, group["momentum_dtype"]) for p in params]
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        lr = group["lr"]
        compiling = torch.compiler.is_compiling()
        if isinstance(lr, Tensor) and not (group["capturable"] or group["differentiable"] or compiling):
            lr = float(lr)
        rule = {
            "betas": group["betas"],
            "lr": lr,
            "weight_decay": group["weight_decay"],
            "implicit": group["implicit_decay"],
        }
        triples = list(zip(params, momenta, grads, strict=True))
        for kind, some in self._by_kind(group, triples, compiling or isinstance(lr, Tensor)).items():
            columns = [list(column) for column in zip(*some, strict=True)]
            if kind in ("float32", "float64"):
                _lion_pass.lion_pass(*columns, **rule)
            elif kind == "compiled":
                _compiled()(*columns, K=group["K"], **rule)
            elif kind == "foreach":
                _foreach_step(*columns, K=group["K"], **rule)
            else:
                for p, m, g in some:
                    _single_step(p, m, g, K=group["K"], **rule)

    def _by_kind(self, group: dict[str, Any], triples: list[Triple], traced: bool) -> dict[str, list[Triple]]:
        """Parameters, momenta and gradients by the kind of step that each can have."""
        fused, foreach = group["fused"], group["foreach"]
        flat = type(group["K"]) is L1 and not traced and not group["differentiable"]
        flat = flat and bool(fused or (fused is None and not foreach))
        kinds: dict[str, list[Triple]] = {}
        for triple in triples:
            on_gpu = triple[0].device.type == "cuda"
            if flat and _lion_pass.supported(triple):
                kind = str(triple[0].dtype).removeprefix("torch.")
            elif fused and on_gpu:
                kind = "compiled"
            elif fused and not traced:
                raise InvalidParameter(
                    "fused=True on the CPU needs K = L1(), dense tensors in float32 or float64, and the momentum and "
                    "the gradient laid out alike. Leave fused=None to have it where it can be had."
                )
            elif foreach is None:
                kind = "foreach" if on_gpu and not group["differentiable"] else "single"
            else:
                # Torch's foreach on the CPU rounds the numbers that it multiplies 16-bit tensors by.
                kind = "foreach" if foreach and (on_gpu or triple[0].itemsize > 2) else "single"
            kinds.setdefault(kind, []).append(triple)
        return kinds

    def _momentum(self, p: Tensor, dtype: torch.dtype | None) -> Tensor:
        state = self.state[p]
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)
        momentum: Tensor = state["exp_avg"]
        return momentum


class Options(TypedDict, total=False):
    """Options of `Lion` that it shares with `LionK`, which says what they are."""

    max_norm: float | None
    implicit_decay: bool
    momentum_dtype: torch.dtype | None
    maximize: bool
    foreach: bool | None
    fused: bool | None
    capturable: bool
    differentiable: bool


class Lion(LionK):
    """Lion: the sign of momentum, half of AdamW's memory, and ``|x|_inf <= 1/weight_decay`` in the long run.

    `LionK` with `L1` for K; the options are the same. It pays at large batches and with its own learning
    rate: begin at a third of AdamW's, and three times its weight decay. A tenth is for long trainings.

    Source: Chen et al. (2023), program 1.

    >>> import torch
    >>> from thalweg.training import Lion
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = Lion(model.parameters(), lr=1e-3, weight_decay=0.1)
    >>> model(torch.ones(3)).sum().backward(); optimizer.step()
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        if "K" in options:
            raise InvalidParameter("Lion is LionK with L1 for K. For another one use LionK.")
        super().__init__(params, lr, betas, weight_decay, **options)


def _check_group(name: str, group: dict[str, Any]) -> None:
    lr, betas, decay = group["lr"], group["betas"], group["weight_decay"]
    fits = (is_real(lr) or (isinstance(lr, Tensor) and lr.numel() == 1)) and 0 <= float(lr) < math.inf
    require(fits, f"{name} needs a finite lr >= 0", got=lr)
    fits = (
        isinstance(betas, tuple | list) and len(betas) == 2 and all(is_real(b) and 0 <= b < 1 for b in betas)
    )
    require(fits, f"{name} needs two betas in [0, 1)", got=betas)
    fits = is_real(decay) and 0 <= decay < math.inf
    require(fits, f"{name} needs a finite weight_decay >= 0", got=decay)
    require(isinstance(group["K"], ConvexFunction), f"{name} needs a ConvexFunction", got=group["K"])
    if group["foreach"] and group["fused"]:
        raise InvalidParameter(f"{name}: foreach and fused exclude each other.")
    if group["differentiable"] and (group["foreach"] or group["fused"]):
        raise InvalidParameter(
            f"{name}: differentiable=True works tensor by tensor; leave foreach and fused unset."
        )


def _usable_gradient(p: Tensor) -> Tensor:
    g = p.grad
    if g is None:
        raise InvalidProblem("A parameter has no gradient. Call backward() before step().")
    if g.is_sparse:
        raise InvalidProblem(
            "Lion does not take sparse gradients: the sign of momentum is dense. Use sparse=False in the "
            "embedding, or torch.optim.SparseAdam for its parameters."
        )
    if g.is_complex():
        raise InvalidProblem("Lion does not take complex parameters. Split them with torch.view_as_real.")
    return g


def _single_step(
    p: Tensor,
    m: Tensor,
    g: Tensor,
    *,
    K: ConvexFunction,
    betas: tuple[float, float],
    lr: float | Tensor,
    weight_decay: float,
    implicit: bool,
) -> None:
    b1, b2 = betas
    momentum = m.to(g.dtype)
    direction = K.subgradient(momentum.mul(-b1).add(g, alpha=b1 - 1.0))
    if weight_decay and not implicit:
        p.mul_(1.0 - lr * weight_decay)
    p.add_(direction * lr)
    if weight_decay and implicit:
        p.div_(1.0 + lr * weight_decay)
    m.copy_(momentum.mul(b2).add(g, alpha=1.0 - b2))


def _foreach_step(
    params: list[Tensor],
    momenta: list[Tensor],
    grads: list[Tensor],
    *,
    K: ConvexFunction,
    betas: tuple[float, float],
    lr: float | Tensor,
    weight_decay: float,
    implicit: bool,
) -> None:
    b1, b2 = betas
    wide = [m.to(g.dtype) for m, g in zip(momenta, grads, strict=True)]
    mixed = torch._foreach_mul(wide, -b1)
    torch._foreach_add_(mixed, grads, alpha=b1 - 1.0)
    directions = list(K.subgradients(mixed))
    torch._foreach_mul_(directions, lr)
    if weight_decay and not implicit:
        torch._foreach_mul_(params, 1.0 - lr * weight_decay)
    torch._foreach_add_(params, directions)
    if weight_decay and implicit:
        torch._foreach_div_(params, 1.0 + lr * weight_decay)
    torch._foreach_mul_(wide, b2)
    torch._foreach_add_(wide, grads, alpha=1.0 - b2)
    for m, w in zip(momenta, wide, strict=True):
        if m is not w:
            m.copy_(w)


_COMPILED: list[Callable[..., None]] = []


def _compiled() -> Callable[..., None]:
    """The foreach step compiled into few kernels, once for all optimizers."""
    if not _COMPILED:
        _COMPILED.append(torch.compile(_foreach_step))
    return _COMPILED[0]
