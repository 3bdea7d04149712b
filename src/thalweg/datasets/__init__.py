"""Real data behind one loader: packaged sets at once, the user's files, and a few named downloads."""

from thalweg.datasets.fitting import Fit, FittingTask
from thalweg.datasets.frames import load_frame
from thalweg.datasets.growing import BadLine, GrowingTable, NewRows
from thalweg.datasets.images import Images, image_files, load_images
from thalweg.datasets.labelled import Dataset
from thalweg.datasets.load import DATASETS, load
from thalweg.datasets.matrices import (
    NamedMatrix,
    load_arrays,
    load_matrix,
    load_named_matrix,
    load_right_sides,
    load_vector,
)
from thalweg.datasets.ratings import Ratings, load_pairs, load_ratings
from thalweg.datasets.series import load_series
from thalweg.datasets.settings import load_toml
from thalweg.datasets.tensors import load_tensor
from thalweg.datasets.text import TEXTS, Corpus, load_text

__all__ = [
    "DATASETS",
    "TEXTS",
    "BadLine",
    "Corpus",
    "Dataset",
    "Fit",
    "FittingTask",
    "GrowingTable",
    "Images",
    "NamedMatrix",
    "NewRows",
    "Ratings",
    "image_files",
    "load",
    "load_arrays",
    "load_frame",
    "load_images",
    "load_matrix",
    "load_named_matrix",
    "load_pairs",
    "load_ratings",
    "load_series",
    "load_tensor",
    "load_text",
    "load_toml",
    "load_right_sides",
    "load_vector",
]
