"""A small recurrent network over characters."""

from __future__ import annotations

from torch import Tensor, nn


class Recurrent(nn.Module):
    """Logits of the next character, shape (batch, length, alphabet), of codes, shape (batch, length)."""

    def __init__(self, alphabet: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(alphabet, width)
        self.inner = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, alphabet)

    def forward(self, codes: Tensor) -> Tensor:
        hidden, _ = self.inner(self.embedding(codes))
        logits: Tensor = self.head(hidden)
        return logits
