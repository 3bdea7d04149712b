"""Dropout, weight decay and cutout tuned while a network trains: a convolutional one on digits, an LSTM on text.

Run it: python examples/self_tuned_networks.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thalweg import Stop, solve
from thalweg.bilevel.selftuning import (
    HyperParameter,
    HyperSpace,
    SelfTuner,
    SelfTuningTask,
    cutout,
    weight_decay,
)
from thalweg.datasets import load, load_text


class Language(nn.Module):
    """The next character from those before."""

    def __init__(self, alphabet: int, width: int = 48) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(alphabet, width), nn.LSTM(width, width, batch_first=True)
        self.drop, self.head = nn.Dropout(), nn.Linear(width, alphabet)

    def forward(self, codes: Tensor) -> Tensor:
        return self.head(self.drop(self.lstm(self.embedding(codes))[0]))


def digits() -> SelfTuningTask:
    data = load("digits")
    X = torch.tensor(data.X / 16.0, dtype=torch.float32).reshape(-1, 1, 8, 8)
    y = torch.tensor(data.y, dtype=torch.int64)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(1024, 10)
    )
    return SelfTuningTask(
        lambda: network,
        HyperSpace(
            HyperParameter("dropout", 0.1, high=0.95),
            HyperParameter("decay", 1e-4, scale="log"),
            HyperParameter("side", 1.0, high=6.0, integer=True),
        ),
        (X[:200], y[:200]),
        (X[200:500], y[200:500]),
        (X[500:], y[500:]),
        dropout={"3": "dropout"},
        augment=cutout("side"),
        penalties=[weight_decay("decay")],
        batch_size=32,
    )


def text() -> SelfTuningTask:
    corpus = load_text(characters=20_000)
    windows = torch.tensor(corpus.windows(24), dtype=torch.int64)
    inputs, targets = windows[:, :-1], windows[:, 1:]
    return SelfTuningTask(
        lambda: Language(len(corpus.alphabet)),
        HyperSpace(HyperParameter("dropout", 0.05, high=0.95)),
        (inputs[:100], targets[:100]),
        (inputs[100:300], targets[100:300]),
        (inputs[300:700], targets[300:700]),
        dropout={"drop": "dropout"},
        batch_size=32,
    )


def main(steps: int = 600) -> dict[str, tuple[float, float]]:
    ends = {}
    for name, task in (("digits", digits()), ("text", text())):
        method = SelfTuner(
            optimizer=torch.optim.Adam, options={"lr": 3e-3}, hyper_rate=0.02, warmup=steps // 20
        )
        found = solve(task, method, stop=Stop(steps=steps))
        first, last = found.history.metrics[0], found.history.metrics[-1]
        print(f"{name}: validation loss {found.metrics['validation']:.3f}, test {found.metrics['test']:.3f}")
        for parameter in task.space.names:
            print(f"    {parameter}: {first[parameter]:.3g} -> {last[parameter]:.3g}")
        plain = found.x.export()  # an ordinary network with the weights at the last hyper-parameters
        assert abs(task.metrics(plain)["test"] - found.metrics["test"]) < 1e-4
        ends[name] = first["dropout"], last["dropout"]
    return ends


if __name__ == "__main__":
    main()
