"""Estimators of convex ReLU networks: scikit-learn's contract, several outputs, certificates, modules."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from thalweg.convex import ConvexReLUClassifier, ConvexReLURegressor


@parametrize_with_checks(
    [ConvexReLURegressor(patterns=8, max_iter=200), ConvexReLUClassifier(patterns=8, max_iter=200)]
)
def test_networks_keep_scikit_learns_contract(estimator, check):
    check(estimator)
