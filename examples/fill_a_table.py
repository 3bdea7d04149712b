"""Sensors that drop out: the missing readings, the rank, and how far to trust them.

python examples/fill_a_table.py
"""

from __future__ import annotations

import numpy as np

from thalweg.matrix import MatrixCompletion


def readings(days: int = 365, sensors: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Temperatures: a year, a week and the weather, felt differently by each sensor; and what was recorded of them."""
    rng = np.random.default_rng(seed)
    day = np.arange(days)
    weather = np.convolve(rng.standard_normal(days), np.ones(5) / 5, mode="same")
    causes = np.column_stack([np.sin(2 * np.pi * day / 365), np.cos(2 * np.pi * day / 7), weather])
    truth = 12.0 + causes @ rng.normal(2.0, 1.5, (3, sensors)) + rng.normal(0.0, 1.0, sensors)
    recorded = np.where(
        rng.random(truth.shape) < 0.25, truth + 0.2 * rng.standard_normal(truth.shape), np.nan
    )
    return truth, recorded


def main(days: int = 365) -> tuple[float, float, int]:
    """Root mean square errors on cells that nobody recorded: of the column's mean, and of the model; its rank."""
    truth, recorded = readings(days)
    hidden = np.isnan(recorded)
    model = MatrixCompletion().fit(recorded)
    rows, columns = np.nonzero(hidden)
    error = float(np.sqrt(np.mean((model.predict(rows, columns) - truth[hidden]) ** 2)))
    means = np.nanmean(recorded, axis=0)
    plain = float(np.sqrt(np.mean((means[columns] - truth[hidden]) ** 2)))
    told = model.test_error_
    print(f"{hidden.mean():.0%} of the cells are missing. Rank {model.rank_}.")
    print(f"Error there: {error:.3f} degrees, by the sensor's mean {plain:.3f}.")
    print(
        f"The model's own word for it, noise included: {told.error:.3f} ({told.low:.3f} to {told.high:.3f})."
    )
    return plain, error, model.rank_


if __name__ == "__main__":
    main()
