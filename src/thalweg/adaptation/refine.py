"""Predictions on the target, refined by what tells the domains apart class by class.

Lv et al. (2021), with the product taken of probabilities (Bayes' rule) and not of logits.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.core import InvalidProblem
from thalweg.core.validation import require

Form = Literal["bayes", "scaled logits"]


class Refiner(nn.Module):
    """Domain discriminators, one for each class, and the predictions that they refine.

    ``d_c(x)`` is the chance that a row x of class c comes from the source. With ``p`` the classifier's probabilities,
    ``q_c ~ p_c d_c``: by Bayes' rule the law of the class given x *and* the source, where p is that of both domains
    taken together. It stands on features, and gives them no gradient.

    Args:
        features: width of the features.
        classes: K >= 2.
        hidden: widths of hidden layers; default none, a linear discriminator, for which little data does.
        form: ``"bayes"``; ``"scaled logits"`` multiplies logits by d_c, which raises a class whose logit is negative
            when it should fall. It is there to compare with.

    Source: Lv et al. (2021).

    >>> refiner = Refiner(4, 3)
    >>> refiner.refined(torch.zeros(2, 4), torch.zeros(2, 3)).exp().sum(1)
    tensor([1., 1.])
    """

    def __init__(
        self, features: int, classes: int, hidden: tuple[int, ...] = (), form: Form = "bayes"
    ) -> None:
        super().__init__()
        require(
            features >= 1 and classes >= 2,
            "Refiner needs features >= 1 and classes >= 2",
            got=(features, classes),
        )
        require(form in ("bayes", "scaled logits"), "Refiner needs form 'bayes' or 'scaled logits'", got=form)
        widths, layers = (features, *hidden), list[nn.Module]()
        for a, b in itertools.pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.domain = nn.Sequential(*layers, nn.Linear(widths[-1], classes))
        self.form: Form = form

    def refined(self, features: Tensor, logits: Tensor) -> Tensor:
        """Logarithms of q, shape (n, K), through which a gradient goes to the logits alone."""
        d = self.domain(features.detach()).detach()
        if self.form == "bayes":
            return functional.log_softmax(logits + functional.logsigmoid(d), -1)
        return functional.log_softmax(logits * torch.sigmoid(d), -1)

    def loss(self, source: Tensor, labels: Tensor, target: Tensor, q: Tensor) -> Tensor:
        """The discriminators' loss: source rows at their own class, target rows at each with weight q.

        Args:
            source, target: features, shapes (n, d) and (m, d).
            labels: classes of the source rows.
            q: probabilities of the target rows, shape (m, K).

        Each domain counts half. A class that the batch lacks gets no source term.
        """
        d = self.domain(source.detach()).gather(1, labels[:, None])
        own = functional.softplus(-d).mean()
        other = (q.detach() * functional.softplus(self.domain(target.detach()))).sum(1).mean()
        return 0.5 * (own + other)


def mutual_information(log_q: Tensor) -> Tensor:
    """``H(mean_i q_i) - mean_i H(q_i)``: 0 where all rows say the same, log K where they are sure and even.

    Args:
        log_q: logarithms of probabilities, shape (n, K).

    >>> float(mutual_information(torch.full((4, 2), 0.5).log()))
    0.0
    >>> round(float(mutual_information(torch.eye(2).clamp(min=1e-30).log())), 4)
    0.6931
    """
    if log_q.ndim != 2 or not len(log_q):
        raise InvalidProblem(
            f"mutual_information needs rows of log-probabilities; got shape {tuple(log_q.shape)}."
        )
    log_mean = log_q.logsumexp(0) - math.log(len(log_q))
    return (log_q.exp() * log_q).sum(1).mean() - (log_mean.exp() * log_mean).sum()
