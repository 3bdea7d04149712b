"""Ten labelled digits a class, and the rest of the data without labels: propagated over a graph of neighbours.

Run it: ``python examples/few_labels.py``. It prints the accuracy on the unlabelled digits, beside that of a classifier
which sees the labelled ones alone.
"""

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from thalweg.convex import LabelPropagation
from thalweg.datasets import load


def main(labelled: int = 10, seed: int = 0) -> tuple[float, float]:
    """Accuracy with and without the unlabelled digits."""
    data = load("digits")
    rng = np.random.default_rng(seed)
    known = np.concatenate(
        [rng.choice(np.flatnonzero(data.y == k), labelled, replace=False) for k in np.unique(data.y)]
    )
    hidden = np.setdiff1d(np.arange(len(data.y)), known)
    labels = np.full(len(data.y), -1)
    labels[known] = data.y[known]
    spread = LabelPropagation(n_neighbors=8, tol=1e-4).fit(data.X, labels).transduction_[hidden]
    alone = KNeighborsClassifier(3).fit(data.X[known], data.y[known]).predict(data.X[hidden])
    return float((spread == data.y[hidden]).mean()), float((alone == data.y[hidden]).mean())


if __name__ == "__main__":
    print("accuracy with and without the unlabelled digits:", *(f"{a:.3f}" for a in main()))
