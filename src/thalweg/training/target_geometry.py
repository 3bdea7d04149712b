"""How far a target is from another: the divergences that a target surrogate keeps close by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.core import InvalidProblem

GeometryName = Literal["euclidean", "kl", "diagonal", "newton", "adam"]
GEOMETRIES = ("euclidean", "kl", "diagonal", "newton", "adam")
#: Keeps a metric positive before gradients have come in.
EPSILON = 1e-8

#: Largest step for a mean loss to be majorised, ``1/L`` with L the largest curvature of the loss in z, by its shape.
#: Squared error, the mean over N numbers: second derivative 2/N. Logistic: the sigmoid's slope is at most 1/4, so
#: 1/(4N). Softmax over n rows: ``diag(p) - p p'`` has eigenvalues of at most 1/2, so 1/(2n).
STEPS: dict[str, Callable[[torch.Size], float]] = {
    "mse": lambda shape: math.prod(shape) / 2.0,
    "logistic": lambda shape: 4.0 * math.prod(shape),
    "softmax": lambda shape: 2.0 * math.prod(shape[:-1]),
}


@dataclass
class TargetGeometry:
    """A divergence from the last target, and the gradient that goes with it.

    ``"euclidean"``: ``|z - z_t|^2/2``. ``"kl"``: z are logits, the target is ``p = softmax(z)``, and the divergence
    is ``KL(p, p_t)``. ``"diagonal"``: AdaGrad's metric, one number an output. ``"newton"``: the online Newton step's,
    from outer products of the rows' gradients. ``"adam"``: Adam's momentum and metric for each number of z, whose
    shape then has to stay.
    """

    name: GeometryName
    state: dict[str, Any] = field(default_factory=dict)

    def target(self, z: Tensor) -> Tensor:
        """What the expensive loss is a function of."""
        return z.softmax(-1) if self.name == "kl" else z

    def observed(self, gradient: Tensor) -> Tensor:
        """Take note of a gradient; returns the one for the surrogate's linear part."""
        if self.name == "diagonal":
            self.state["squares"] = self.state.get("squares", 0.0) + gradient.square().mean(0)
        elif self.name == "newton":
            rows = gradient.reshape(-1, gradient.shape[-1])
            outer = rows.T @ rows / len(rows)
            self.state["outer"] = self.state.get("outer", torch.zeros_like(outer)) + outer
        elif self.name == "adam":
            return self._adam(gradient)
        return gradient

    def divergence(self, new: Tensor, old: Tensor) -> Tensor:
        """Of targets, summed over all rows."""
        if self.name == "kl":
            return (new * (new.clamp_min(1e-30).log() - old.clamp_min(1e-30).log())).sum()
        gap = new - old
        if self.name == "euclidean":
            return 0.5 * gap.square().sum()
        if self.name == "newton":
            outer = self.state["outer"]
            metric = outer + EPSILON * torch.eye(len(outer), dtype=outer.dtype, device=outer.device)
            return 0.5 * ((gap.reshape(-1, len(outer)) @ metric) * gap.reshape(-1, len(outer))).sum()
        metric = self.state["metric"] if self.name == "adam" else self.state["squares"].sqrt()
        return 0.5 * ((metric + EPSILON) * gap.square()).sum()

    def _adam(self, gradient: Tensor, betas: tuple[float, float] = (0.9, 0.999)) -> Tensor:
        s = self.state
        if "first" in s and s["first"].shape != gradient.shape:
            raise InvalidProblem(
                f"geometry 'adam' needs the same rows each step: z had shape {tuple(s['first'].shape)}, now "
                f"{tuple(gradient.shape)}. Use full batches, or 'diagonal'."
            )
        s["count"] = s.get("count", 0) + 1
        for name, beta, value in (("first", betas[0], gradient), ("second", betas[1], gradient.square())):
            s[name] = beta * s.get(name, torch.zeros_like(gradient)) + (1 - beta) * value
        s["metric"] = (s["second"] / (1 - betas[1] ** s["count"])).sqrt()
        first: Tensor = s["first"] / (1 - betas[0] ** s["count"])
        return first
