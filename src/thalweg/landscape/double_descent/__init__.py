"""Double descent: whether a peak of the test error threatens a setting, where, and what helps."""

from thalweg.landscape.double_descent.data import LinearTeacher, Rows, Split
from thalweg.landscape.double_descent.families import Family, FeatureModels, Measured
from thalweg.landscape.double_descent.features import Columns, RandomFeatures
from thalweg.landscape.double_descent.networks import Networks, small_cnn, two_layer
from thalweg.landscape.double_descent.optimizers import (
    CGLS,
    LBFGS,
    SGD,
    EarlyStopping,
    Exact,
    GradientDescent,
    HeavyBall,
    LastLayer,
    Ridge,
    Torch,
)
from thalweg.landscape.double_descent.scanning import DescentMap, Scan, descent_map, scan
from thalweg.landscape.double_descent.spectrum import Condition, Spectrum

__all__ = [
    "CGLS",
    "LBFGS",
    "SGD",
    "Columns",
    "Condition",
    "DescentMap",
    "EarlyStopping",
    "Exact",
    "Family",
    "FeatureModels",
    "GradientDescent",
    "HeavyBall",
    "LastLayer",
    "LinearTeacher",
    "Measured",
    "Networks",
    "RandomFeatures",
    "Ridge",
    "Rows",
    "Scan",
    "Spectrum",
    "Split",
    "Torch",
    "descent_map",
    "scan",
    "small_cnn",
    "two_layer",
]
