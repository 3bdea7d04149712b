"""The Lasso's path on your own table: which columns enter first, and which strength predicts best.

Run it: ``python examples/lasso_path.py table.csv target-column``; without arguments it takes the diabetes data.
"""

import sys

import numpy as np
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from thalweg.convex import Lasso, lasso_path
from thalweg.datasets import load


def main(table: str = "diabetes", target: str | None = None) -> tuple[list[str], float]:
    """Names of the columns in the order they enter, and the best strength by cross-validation."""
    data = load(table, target=target)
    X = StandardScaler().fit_transform(data.X)
    y = np.asarray(data.y, dtype=float)
    alphas, coefs, gaps = lasso_path(X, y - y.mean(), alphas=50, tol=1e-8)
    entered = [int(np.argmax(row != 0)) if row.any() else len(alphas) for row in coefs]
    names = data.feature_names or tuple(f"column {i}" for i in range(X.shape[1]))
    order = [names[i] for i in np.argsort(entered, kind="stable")]
    scores = [
        cross_val_score(make_pipeline(StandardScaler(), Lasso(alpha)), data.X, y, cv=5).mean()
        for alpha in alphas[::5]
    ]
    best = float(alphas[::5][int(np.argmax(scores))])
    print("columns enter in this order:", ", ".join(order))
    print(
        f"best strength {best:.3g} (R2 {max(scores):.3f}); largest duality gap on the path {gaps.max():.2g}"
    )
    return order, best


if __name__ == "__main__":
    main(*sys.argv[1:3])
