"""A prompt is improved by criticism that goes back through the trace; replies are played back, without a network.

python examples/improve_a_prompt.py
python examples/improve_a_prompt.py MODEL   # asks a model of your own, at OPENAI_BASE_URL
"""

from __future__ import annotations

import sys
from pathlib import Path

from thalweg.workflow import Feedback, LanguageModel, Node, bundle, node
from thalweg.workflow.optimizers import TextGrad
from thalweg.workflow.trainer import WorkflowTrainer

#: Replies by request. They were written by a stand-in that follows rules, so that this file runs everywhere.
REPLIES = Path(__file__).with_name("improve_a_prompt_replies")

TICKETS = {
    "My card was charged twice for one order.": "billing",
    "The app closes itself when I open a photo.": "fault",
    "How do I change the language of the page?": "question",
    "I want my money back for last month.": "billing",
}
JUDGES = {
    "The invoice shows the wrong amount.": "billing",
    "Nothing happens when I press the button.": "fault",
    "Where do I find my order number?": "question",
    "Please give me my money back.": "billing",
}


def main(model: LanguageModel | None = None, rounds: int = 2) -> tuple[list[float], str]:
    """Shares of right answers on tickets set apart, round by round, and the prompt that was found."""
    asked = LanguageModel("stand-in", cache=REPLIES, replay=True) if model is None else model
    prompt = node("Sort this ticket.", trainable=True, name="prompt", description="stands before each ticket")

    @bundle("what the model answers to a prompt and a ticket")
    def answer(prompt: str, ticket: str) -> str:
        return asked.complete([{"role": "user", "content": f"{prompt}\n{ticket}"}], max_tokens=256)

    def program(ticket: object) -> Node:
        return answer(prompt, node(ticket, name="ticket"))

    def judged(ticket: object, said: object) -> Feedback:
        right = {**TICKETS, **JUDGES}[str(ticket)]
        if said == right:
            return Feedback(1.0, "Right.")
        return Feedback(0.0, f"Expected the one word {right!r}, nothing else; got {said!r}.")

    trainer = WorkflowTrainer(program, TextGrad([prompt], asked), judged, batch=4, patience=2)
    found = trainer.fit(list(TICKETS), list(JUDGES), rounds)
    print(f"right on tickets set apart, by round: {found.scores}\nthe prompt: {prompt.data}")
    return found.scores, str(prompt.data)


if __name__ == "__main__":
    main(LanguageModel(sys.argv[1]) if len(sys.argv) > 1 else None)
