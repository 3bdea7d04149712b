"""A program's behaviour on a few fixed numbers, by which programs are joined that differ only in words."""

from __future__ import annotations

import functools
import hashlib
import math

import numpy as np

from thalweg.core.seeding import generator
from thalweg.discovery.abstract import without_dead
from thalweg.discovery.functions import Value
from thalweg.discovery.interpreter import Rule
from thalweg.discovery.program import Program, Signature

STEPS, NUMBERS, DIGITS, SCALE = 3, 16, 4, 0.02


@functools.cache
def _probe(signature: Signature) -> tuple[tuple[Value, ...], ...]:
    """Inputs of each step; tensors of 16 normal numbers, numbers that fall from 1."""
    draw = generator(0xD15C)
    found = []
    for step in range(STEPS):
        tensors: dict[str, Value] = {
            name: 0.1 * draw.standard_normal(NUMBERS) for name, _ in signature.inputs
        }
        numbers = 1.0 - 0.37 * step
        found.append(tuple(tensors[name] if kind == "tensor" else numbers for name, kind in signature.inputs))
    return tuple(found)


def behaviour(program: Program) -> str | None:
    """A name for what the first output is in three steps, None where that is not finite.

    The numbers' directions count to four digits and their scale to 2 %, so that constants which do not matter do not
    part programs. Two programs with one name may still differ later, or at other scales.

    Cost: three calls of the program, some 100 microseconds for ten statements.
    """
    rule, signature = Rule(without_dead(program)), program.signature
    places = {name: k for k, (name, _) in enumerate(signature.inputs)}
    outputs = [name for name, _ in signature.outputs]
    memory: dict[str, Value] = {}
    digest = hashlib.blake2b(digest_size=12)
    for given in _probe(signature):
        inputs = list(given)
        for name in signature.memory:
            inputs[places[name]] = memory.get(name, 0.0 * np.asarray(inputs[places[name]]))
        found = rule(*inputs)
        memory = dict(zip(outputs, found, strict=True))
        with np.errstate(all="ignore"):
            first = np.atleast_1d(np.asarray(found[0]))
            scale = float(np.sqrt((first * first).mean()))
        if not math.isfinite(scale):
            return None
        if scale > 0:
            digest.update((np.round(first / scale, DIGITS) + 0.0).tobytes())
            digest.update(str(round(math.log(scale) / SCALE)).encode())
    return digest.hexdigest()
