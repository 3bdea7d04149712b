"""Real data behind one loader: packaged sets at once, the user's files, and a few named downloads."""

from thalweg.datasets.files import load_matrix, load_vector
from thalweg.datasets.load import DATASETS, Dataset, load
from thalweg.datasets.series import load_series
from thalweg.datasets.text import TEXTS, Corpus, load_text

__all__ = [
    "DATASETS",
    "TEXTS",
    "Corpus",
    "Dataset",
    "load",
    "load_matrix",
    "load_series",
    "load_text",
    "load_vector",
]
