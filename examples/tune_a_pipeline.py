"""Hyper-parameters of a scikit-learn pipeline, found through the trace: those that a run does not use are left alone.

python examples/tune_a_pipeline.py
"""

from __future__ import annotations

import warnings

from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from thalweg.workflow import Bounds, Choices, Module, Node, bundle, node
from thalweg.workflow.optimizers import BayesSearch


class Classifier(Module):
    """Standardise, project, classify by one of two kinds of machines."""

    def __init__(self) -> None:
        self.components = node(8, trainable=True, name="components", constraint=Bounds(2, 48, whole=True))
        self.kind = node("linear", trainable=True, name="kind", constraint=Choices(("linear", "radial")))
        self.strength = node(1.0, trainable=True, name="strength", constraint=Bounds(1e-2, 1e2, log=True))
        self.width = node(0.01, trainable=True, name="width", constraint=Bounds(1e-4, 1.0, log=True))

    def pipeline(self) -> Node:
        """The pipeline as it is now; ``width`` takes part in radial ones alone."""
        machine = radial(self.strength, self.width) if self.kind == "radial" else linear(self.strength)
        return assembled(self.components, self.kind, machine)


@bundle("a support vector machine with a radial kernel")
def radial(strength, width):
    return SVC(C=strength, gamma=width)


@bundle("a linear support vector machine")
def linear(strength):
    return LinearSVC(C=strength, max_iter=300)


@bundle("standardised columns, their first components, a classifier")
def assembled(components, kind, machine):
    return make_pipeline(StandardScaler(), PCA(components, random_state=0), machine)


def main(runs: int = 30, examples: int = 300) -> tuple[float, float, dict[str, object]]:
    """Accuracy on rows set apart, before and after, and the values found."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, train_size=examples, random_state=0, stratify=y)
    model = Classifier()
    search = BayesSearch(model.parameters(), "maximize", noise="none", seed=0)
    accuracy = bundle("mean accuracy of three folds")(
        lambda pipeline: cross_val_score(pipeline, X, y, cv=3).mean()
    )
    before = clone(model.pipeline().data).fit(X, y).score(X_test, y_test)
    for _ in range(runs):
        found = accuracy(model.pipeline())
        search.zero_feedback()
        search.backward(found, float(found.data))
        search.step()
    search.restore()
    after = clone(model.pipeline().data).fit(X, y).score(X_test, y_test)
    values = {name: p.data for name, p in model.parameters_dict().items()}
    print(f"accuracy on rows set apart: {before:.3f} before, {after:.3f} after {runs} runs, with {values}")
    return before, after, values


if __name__ == "__main__":
    main()
