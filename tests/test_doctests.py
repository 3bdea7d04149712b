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
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder().find(module):
        if test.examples:  # to run nothing takes milliseconds
            runner.run(test)
    assert runner.summarize().failed == 0
