"""Equal content, equal hash; other content, another hash."""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp
import sympy
import torch
from torch import nn

from thalweg.constrained import EqualityConstrained, NewtonSQP
from thalweg.core import Checkpoint, CheckpointMismatch, Stop, solve
from thalweg.core.fingerprint import fingerprint

SCALE = 2.0


def scaled(x):
    return SCALE * x


def with_default(x, by=1.0):
    return x + by


def closed_over(value):
    return lambda x: x + value


def counting(n):
    return n if n == 0 else counting(n - 1)


class Shift:
    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x + self.by

    def moved(self, x):
        return x - self.by


@dataclass(frozen=True)
class Affine:
    a: np.ndarray

    def value(self, x):
        return self.a @ x


x1 = sympy.Symbol("x1")

DIFFERENT = {
    "constant": (lambda x: x + 1, lambda x: x + 2),
    "operation": (lambda x: x + 1, lambda x: x - 1),
    "inner function": (lambda x: [y + 1 for y in x], lambda x: [y + 2 for y in x]),
    "closure": (closed_over(1.0), closed_over(2.0)),
    "array closed over": (closed_over(np.ones(3)), closed_over(np.zeros(3))),
    "default": (with_default, lambda x, by=2.0: x + by),
    "partial": (functools.partial(with_default, by=1.0), functools.partial(with_default, by=2.0)),
    "bound method": (Shift(1.0).moved, Shift(2.0).moved),
    "another method": (Shift(1.0).moved, Shift(1.0).__call__),
    "callable object": (Shift(1.0), Shift(2.0)),
    "method of a dataclass": (Affine(np.ones(2)).value, Affine(np.zeros(2)).value),
    "formula": (x1**2, x1**3),
    "compiled formula": (sympy.lambdify(x1, x1**2 + 3), sympy.lambdify(x1, x1**2 + 4)),
    "activation": (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2), nn.Tanh())),
    "sparse": (sp.eye_array(3, format="csr"), 2.0 * sp.eye_array(3, format="csr")),
    "dtype": (np.ones(3), np.ones(3, dtype=np.float32)),
    "shape": (np.ones((2, 3)), np.ones((3, 2))),
    "order of a list": ([1, 2], [2, 1]),
    "split of strings": (["ab", "c"], ["a", "bc"]),
    "generator": (np.random.default_rng(0), np.random.default_rng(1)),
    "zero-dimensional tensor": (torch.tensor(1.0), torch.tensor(2.0)),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_things_that_differ_have_different_hashes(kind):
    torch.manual_seed(0)
    one, other = DIFFERENT[kind]
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(other)


def test_equal_functions_are_equal_wherever_they_were_made():
    assert fingerprint(closed_over(3)) == fingerprint(closed_over(3))
    assert fingerprint(Shift(1.0).moved) == fingerprint(Shift(1.0).moved)
    assert fingerprint(sympy.lambdify(x1, sympy.sin(x1))) == fingerprint(sympy.lambdify(x1, sympy.sin(x1)))


def test_a_number_of_the_module_that_a_function_uses_counts(monkeypatch):
    before = fingerprint(scaled)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert fingerprint(scaled) != before


def test_circles_end():
    nested = []
    nested.append(nested)
    assert fingerprint(nested) == fingerprint(nested)
    assert fingerprint(counting) == fingerprint(counting)


def test_the_hash_is_the_same_in_another_process():
    script = (
        "from thalweg.core.fingerprint import fingerprint\n"
        "def f(x, y={'b': 2.0, 'a': 1}): return [x + i for i in (1, 2)] + list({'q', 'r', 's'})\n"
        "print(fingerprint([f, {'k': 1.5, 'j': (2, None)}, {'x', 'y', 'z'}]))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_a_checkpoint_of_another_formula_is_refused(tmp_path):
    one = EqualityConstrained.from_formulas("(x1-3)**2+x2**4", ["x1+x2-1"], [0.5, 0.5])
    other = EqualityConstrained.from_formulas("(x1+30)**2+x2**4", ["x1+x2-100"], [0.5, 0.5])
    same = EqualityConstrained.from_formulas("(x1-3)**2+x2**4", ["x1+x2-1"], [0.5, 0.5])
    path = tmp_path / "c"
    solve(one, NewtonSQP(), stop=Stop(steps=3), callbacks=[Checkpoint(path)])
    with pytest.raises(CheckpointMismatch, match="another problem"):
        solve(other, NewtonSQP(), stop=Stop(steps=3), resume=path)
    assert solve(same, NewtonSQP(), stop=Stop(steps=3), resume=path).steps == 3
