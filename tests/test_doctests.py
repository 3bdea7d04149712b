"""Every example in a public docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import thalweg

MODULES = [m.name for m in pkgutil.walk_packages(thalweg.__path__, "thalweg.") if "__main__" not in m.name]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_hold(name):
    module = importlib.import_module(name)
    failed = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed
    assert failed == 0
