"""An LSTM encoder shared by several tasks, each with a ridge-penalised head of its own, trained by BO-REP.

The tasks' sequences come from Markov chains; which of two chains made a sequence is what a head has to tell.
Run it: python examples/hyper_representation.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from thalweg import Stop, solve
from thalweg.bilevel import BOREP, Bilevel, Minibatches, NeumannInverse

TASKS, WORDS, LENGTH, WIDTH = 3, 8, 8, 16


class Encoder(nn.Module):
    """The last state of an LSTM over words."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(WORDS, WIDTH), nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def forward(self, codes: Tensor) -> Tensor:
        return self.lstm(self.embedding(codes))[0][:, -1]


def sequences(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Codes, shape (count, tasks, length), and labels, shape (count, tasks): chain 2t or 2t + 1 for task t."""
    chains = torch.rand(2 * TASKS, WORDS, WORDS, generator=torch.Generator().manual_seed(7)).pow(6)
    labels = torch.randint(2, (count, TASKS), generator=generator)
    chain = chains[labels + 2 * torch.arange(TASKS)]
    codes = [torch.randint(WORDS, (count, TASKS), generator=generator)]
    for _ in range(LENGTH - 1):
        rows = chain.gather(2, codes[-1][:, :, None, None].expand(-1, -1, 1, WORDS)).reshape(-1, WORDS)
        codes.append(torch.multinomial(rows, 1, generator=generator).reshape(count, TASKS))
    return torch.stack(codes, 2), labels


def main(steps: int = 400) -> tuple[float, float]:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    encoder = Encoder()
    train, held, test = (sequences(n, generator) for n in (60, 60, 300))

    def logits(x: dict[str, Tensor], heads: Tensor, codes: Tensor) -> Tensor:
        features = functional_call(encoder, x, codes.flatten(0, 1)).reshape(len(codes), TASKS, WIDTH)
        return torch.einsum("ctf,tf->ct", features, heads[:, :-1]) + heads[:, -1]

    def upper(x: dict[str, Tensor], heads: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits(x, heads, batch[0]), batch[1].float())

    def lower(x: dict[str, Tensor], heads: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return upper(x, heads, batch) + 0.01 * heads.square().sum()

    def judge(x: dict[str, Tensor], heads: Tensor) -> dict[str, float]:
        return {"accuracy": float(((logits(x, heads, test[0]) > 0) == test[1].bool()).double().mean())}

    problem = Bilevel(
        upper,
        lower,
        encoder,
        torch.zeros(TASKS, WIDTH + 1),
        upper_batches=Minibatches(held, 16),
        lower_batches=Minibatches(train, 16),
        judge=judge,
    )
    method = BOREP(0.1, inverse=NeumannInverse(5, 0.5), inner_step_size=0.5)
    before = solve(problem, method, stop=Stop(steps=0)).metrics["accuracy"]
    after = solve(problem, method, stop=Stop(steps=steps)).metrics["accuracy"]
    print(f"test accuracy of the heads: {before:.3f} on a random encoder, {after:.3f} on a trained one")
    return before, after


if __name__ == "__main__":
    main()
