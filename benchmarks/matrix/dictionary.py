"""28: a stream's basis, minibatch by minibatch, against MiniBatchDictionaryLearning; one polar factor by two ways."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.decomposition import MiniBatchDictionaryLearning

from benchmarks.race import Row, race
from thalweg.matrix import OnlineDictionary, SparseStream, recovery_error
from thalweg.numerics.polar import newton_schulz, polar_factor


def rows() -> Iterator[Row]:
    """Learners on the same minibatches, the error of what they found, and polar factors."""
    for n, size, count in ((20, 16, 500), (64, 64, 200)):
        stream = SparseStream(n, 0.1, seed=0)
        batches = list(stream.batches(size, count))

        def learn(model: Any, batches: Any = batches) -> Any:
            for Y in batches:
                model.partial_fit(Y)
            return model.components_.T

        (ours, D), (peer, E) = race(
            lambda learn=learn: learn(OnlineDictionary(batch_size=10**6, random_state=0)),
            lambda n=n, size=size, learn=learn: learn(
                MiniBatchDictionaryLearning(n, alpha=0.3, batch_size=size, random_state=0)
            ),
            rounds=2,
        )
        errors = recovery_error(D, stream.basis), recovery_error(E / np.linalg.norm(E, axis=0), stream.basis)
        yield Row(
            "28",
            f"n = {n}, {count} minibatches of {size}",
            ours,
            "MiniBatchDictionaryLearning",
            peer,
            *errors,
        )
    for n in (20, 64, 128):
        A = np.random.default_rng(0).standard_normal((n, n))
        (ours, _), (peer, _) = race(lambda A=A: polar_factor(A), lambda A=A: newton_schulz(A), rounds=20)
        yield Row("28", f"a polar factor, n = {n}", ours, "24 steps of Newton and Schulz", peer)


def growth(steps: int = 10_000) -> int:
    """Bytes that memory grows by from the first tenth of so many steps to their end."""
    model, stream = OnlineDictionary(random_state=0), SparseStream(20, 0.1).batches(16)
    tracemalloc.start()
    for Y in itertools.islice(stream, steps // 10):
        model.partial_fit(Y)
    before = tracemalloc.get_traced_memory()[0]
    for Y in itertools.islice(stream, steps - steps // 10):
        model.partial_fit(Y)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return after - before
