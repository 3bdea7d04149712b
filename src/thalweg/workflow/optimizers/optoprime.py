"""Optimizers that ask a language model for better values.

Cheng, Nie and Swaminathan (2024), arXiv 2406.16218, section 4.1 (OptoPrime); Yang et al. (2023), "Large language models
as optimizers", arXiv 2309.03409 (OPRO).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from thalweg.core import InvalidParameter
from thalweg.core.validation import require
from thalweg.workflow.constraints import described
from thalweg.workflow.errors import ModelError
from thalweg.workflow.nodes import Node
from thalweg.workflow.optimizers.optimizer import Proposal, WorkflowOptimizer
from thalweg.workflow.parameters import ParameterNode
from thalweg.workflow.propagate import TraceGraph, place
from thalweg.workflow.replies import extract, fitted, is_termination

INSTRUCTION = """You improve a program. Below stand the code that ran, what its functions do, and the values in it.
Change the values in #Variables so that the output becomes better according to #Feedback.
#Constraints must be kept. You cannot change #Inputs, #Others or #Code. Names are those before the equals signs.
Answer with JSON only:
{"reasoning": "<why>", "answer": "<an answer, if the feedback asks for one>", "suggestion": {"<name>": <new value>}}
Leave names out that should stay. The values of code are whole functions, as text. If nothing should change, answer
"TERMINATE" instead."""


class ChatModel(Protocol):
    """What a model has to do: `LanguageModel`, or any object with this method."""

    def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        temperature: float = 0.0,
        max_tokens: int = 4096,
        sample: int = 0,
    ) -> str:
        """The text of the reply."""


class ModelOptimizer(WorkflowOptimizer):
    """Base of optimizers that ask a model.

    Args: as of `OptoPrime`. ``log`` holds each prompt and reply.
    """

    temperature = 0.0

    def __init__(
        self,
        parameters: Iterable[ParameterNode],
        model: ChatModel,
        memory_size: int = 0,
        max_tokens: int = 4096,
        ignore_extraction_error: bool = True,
    ) -> None:
        super().__init__(parameters)
        require(memory_size >= 0, f"{type(self).__name__} needs memory_size >= 0", got=memory_size)
        require(max_tokens >= 1, f"{type(self).__name__} needs max_tokens >= 1", got=max_tokens)
        self.model, self.memory_size, self.max_tokens = model, memory_size, max_tokens
        self.ignore_extraction_error = ignore_extraction_error
        self.memory: list[str] = []
        self.log: list[dict[str, str]] = []

    def _suggested(
        self, prompt: str, names: dict[str, ParameterNode], temperature: float, sample: int
    ) -> Proposal:
        messages = [{"role": "user", "content": prompt}]
        found: Proposal = {}
        for last in (False, True):
            reply = self.model.complete(messages, temperature, self.max_tokens, sample)
            self.log.append({"prompt": messages[-1]["content"], "reply": reply})
            if is_termination(reply):
                return {}
            values = extract(reply)
            if values is None:
                reasons = ["The reply held no JSON with a suggestion."]
            else:
                fit, reasons = fitted(values, names)
                found.update(fit)
            if not reasons:
                break
            if last and values is None and not self.ignore_extraction_error:
                raise ModelError(
                    f"{type(self).__name__}: two replies could not be read; the last: {reply[:200]!r}"
                )
            again = "That could not be used: " + " ".join(reasons) + " Answer again, with JSON only."
            messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": again}]
        return found


class OptoPrime(ModelOptimizer):
    """A model reads the trace that was executed, and the feedback, and suggests new values.

    Use it where scores alone say too little: prompts, code, structured values, with errors and words as feedback.
    Values that are of another kind, break a constraint or change a signature are refused with the reason, and the model
    is asked once more; what does not fit then is left out.

    Args:
        parameters: trainable nodes.
        model: a `LanguageModel`, or any object with its ``complete``.
        memory_size: how many past (values, feedback) are told too.
        max_tokens: longest reply.
        ignore_extraction_error: keep the values where a reply cannot be read; raise `ModelError` otherwise.

    ``log`` holds each prompt and reply.

    Cost per step: one request, two where the first reply does not fit.
    """

    def propose(self) -> Proposal:
        """The values that the model suggests, of parameters that were executed."""
        prompt, names = self.prompt()
        return self._suggested(prompt, names, self.temperature, 0)

    def prompt(self) -> tuple[str, dict[str, ParameterNode]]:
        """The words for the model, and the parameters by the names used in them."""
        graph = self.heard()
        text, names = problem(graph, self.parameters)
        past = self.memory[-self.memory_size :] if self.memory_size else []
        variables = "\n".join(f"{n} = {p._data!r}" for n, p in names.items())
        self.memory.append(f"{variables}\nFeedback: {said(graph)}")
        if past:
            text = "#Past values and their feedback\n" + "\n---\n".join(past) + "\n\n" + text
        return f"#Instruction\n{INSTRUCTION}\n\n{text}", names


class OptoPrimeMulti(OptoPrime):
    """`OptoPrime` with several suggestions, from wild to sober, of which ``select`` takes one.

    Args:
        candidates: how many; temperatures go evenly from 1.3 down to 0.
        select: given the proposals, returns one; the last that changes something by default.
    """

    def __init__(
        self,
        parameters: Iterable[ParameterNode],
        model: ChatModel,
        candidates: int = 5,
        select: Callable[[list[Proposal]], Proposal] | None = None,
        memory_size: int = 0,
        max_tokens: int = 4096,
        ignore_extraction_error: bool = True,
    ) -> None:
        super().__init__(parameters, model, memory_size, max_tokens, ignore_extraction_error)
        require(candidates >= 1, "OptoPrimeMulti needs candidates >= 1", got=candidates)
        self.candidates, self.select = candidates, select

    def propose(self) -> Proposal:
        """One of the candidates."""
        prompt, names = self.prompt()
        top = max(1, self.candidates - 1)
        heat = [1.3 * (top - i) / top for i in range(self.candidates)]
        found = [self._suggested(prompt, names, t, i) for i, t in enumerate(heat)]
        if self.select is not None:
            chosen = self.select(found)
            if not any(chosen is f for f in found):
                raise InvalidParameter(
                    "OptoPrimeMulti: select has to return one of the proposals it was given."
                )
            return chosen
        return next((f for f in reversed(found) if f), {})


class OPRO(OptoPrime):
    """The model sees past values and their feedback, and nothing of the program.

    Args: as of `OptoPrime`; ``memory_size`` 10 by default.
    """

    def __init__(
        self,
        parameters: Iterable[ParameterNode],
        model: ChatModel,
        memory_size: int = 10,
        max_tokens: int = 4096,
        ignore_extraction_error: bool = True,
    ) -> None:
        super().__init__(parameters, model, memory_size, max_tokens, ignore_extraction_error)

    def prompt(self) -> tuple[str, dict[str, ParameterNode]]:
        """Past values and feedback only."""
        graph = self.heard()
        names = named(graph.parameters)
        known = {n: p for n, p in ((names[p], p) for p in graph.parameters) if p in self.parameters}
        variables = "\n".join(f"{n} = {p._data!r}" for n, p in known.items())
        self.memory.append(f"{variables}\nFeedback: {said(graph)}")
        past = "\n---\n".join(self.memory[-max(1, self.memory_size) :])
        return (
            f"#Instruction\n{INSTRUCTION}\n\n#Variables and #Feedback, the last are the newest\n{past}",
            known,
        )


def said(graph: TraceGraph) -> str:
    """All feedback of a graph in words."""
    return "\n".join(str(f) for words in graph.feedback.values() for f in words)


def problem(graph: TraceGraph, parameters: Iterable[ParameterNode]) -> tuple[str, dict[str, ParameterNode]]:
    """A graph as the sections of a prompt, and the parameters by their names in it.

    Names are counted within the graph, so that equal runs make equal words.
    """
    mine, nodes = set(parameters), [*graph.inputs, *graph.nodes]
    names = named(nodes)
    variables = {names[p]: p for p in graph.parameters if p in mine}
    outputs = set(graph.feedback)
    code, words = [], dict[str, str]()
    for n in graph.nodes:
        if n.operator is not None:
            pairs = zip(n.argument_names, n.parents, strict=True)
            arguments = ", ".join(f"{a}={names[p]}" if a else names[p] for a, p in pairs)
            code.append(f"{names[n]} = {n.operator.name}({arguments})")
            words.setdefault(n.operator.name, n.operator.description)
    others = [n for n in graph.nodes if n.operator is not None and n not in outputs]
    sections = {
        "Code": code,
        "Documentation": [f"{name}: {text}" for name, text in words.items()],
        "Variables": [shown(name, p) for name, p in variables.items()],
        "Constraints": [
            f"{name}: {text}"
            for name, p in variables.items()
            if (text := " ".join([p.description, described(p.constraint)]).strip())
        ],
        "Inputs": [shown(names[n], n) for n in nodes if n.operator is None and n not in mine],
        "Others": [shown(names[n], n) for n in others],
        "Outputs": [shown(names[n], n) for n in graph.nodes if n in outputs],
        "Feedback": [said(graph)],
    }
    return "\n\n".join(f"#{title}\n" + "\n".join(lines) for title, lines in sections.items()), variables


def shown(name: str, n: Node) -> str:
    """A node's value as a line of a prompt; long ones are cut, but for parameters."""
    text = repr(n._data)
    return f"{name} = {text if isinstance(n, ParameterNode) or len(text) <= 2000 else text[:1997] + '...'}"


def named(nodes: Iterable[Node]) -> dict[Node, str]:
    """A name for each node, counted within them, so that equal runs have equal names."""
    counts, names = dict[str, int](), dict[Node, str]()
    for n in sorted(nodes, key=place):
        if n not in names:
            base = n.name.rpartition(":")[0]
            names[n] = f"{base}{counts.setdefault(base, 0)}"
            counts[base] += 1
    return names
