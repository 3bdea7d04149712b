"""Criticism that goes back node by node, and parameters that are rewritten by what came to them.

Yuksekgonul et al. (2024), "TextGrad: automatic differentiation via text", arXiv 2406.07496, sections 2.1 to 2.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from thalweg.workflow import _primitives as ops
from thalweg.workflow.constraints import described
from thalweg.workflow.nodes import CLONE, Node
from thalweg.workflow.optimizers.optimizer import Proposal
from thalweg.workflow.optimizers.optoprime import ChatModel, ModelOptimizer, named, shown
from thalweg.workflow.parameters import ParameterNode
from thalweg.workflow.propagate import TraceGraph

CRITICISM = """One step of a program took the values in #Inputs and made the value in #Output. #Feedback says what is
thought of that output. Say in a few sentences how the input {name} should change so that the output becomes better
by #Feedback. Speak of {name} alone, and do not write its new value. If it should stay as it is, answer NOTHING."""

REWRITE = """You improve one value of a program. #Criticism says what should become better; each line comes from one
place where the value was used. Give {name} a new value that meets all of it and keeps #Constraints.
Answer with JSON only: {{"reasoning": "<why>", "suggestion": {{"{name}": <new value>}}}}
The value of code is a whole function, as text. If it should stay as it is, answer "TERMINATE" instead."""

#: What makes a value of its arguments as they are: its criticism is theirs, and no model need be asked.
PASSED = (CLONE, ops.LIST, ops.TUPLE, ops.SET, ops.DICT)


class TextGrad(ModelOptimizer):
    """A model criticises each node's inputs by the criticism of the node, from the output back to the parameters.

    Use it where a program has several steps by models or code and few links: each parameter is rewritten by what
    was said where it was used, and not by one look at the whole trace as in `OptoPrime`, which asks once a step.
    Where numbers come out of long arithmetic it is slow and dear: take a search, or `OptoPrime`.

    Args: as of `OptoPrime`; ``memory_size`` counts past values and criticisms of each parameter.

    ``gradients`` holds the criticism of each parameter from the last step. A new value that does not fit is refused
    with the reason, and the model is asked once more.

    Cost per step: one request for each link between the parameters and the outputs, less the links of containers, and
    one or two for each parameter.

    >>> from thalweg.workflow import node
    >>> class Echo:
    ...     def complete(self, messages, temperature=0.0, max_tokens=4096, sample=0):
    ...         asks = "#Criticism" in messages[0]["content"]
    ...         return '{"suggestion": {"prompt0": "Be brief."}}' if asks else "Ask for fewer words."
    >>> prompt = node("Tell all.", trainable=True, name="prompt")
    >>> optimizer = TextGrad([prompt], Echo())
    >>> optimizer.backward(prompt + " What is a thalweg?", "too long")
    >>> optimizer.step()[prompt], optimizer.gradients[prompt]
    ('Be brief.', ['Ask for fewer words.'])
    """

    def __init__(
        self,
        parameters: Iterable[ParameterNode],
        model: ChatModel,
        memory_size: int = 0,
        max_tokens: int = 4096,
        ignore_extraction_error: bool = True,
    ) -> None:
        super().__init__(parameters, model, memory_size, max_tokens, ignore_extraction_error)
        self.gradients: dict[ParameterNode, list[str]] = {}
        self._past: dict[ParameterNode, list[str]] = {}

    def propose(self) -> Proposal:
        """New values of the parameters that criticism came to."""
        graph = self.heard()
        names = named([*graph.inputs, *graph.nodes])
        self.gradients = self._criticised(graph, names)
        found: Proposal = {}
        for p, words in self.gradients.items():
            found |= self._suggested(self._rewrite(p, names[p], words), {names[p]: p}, self.temperature, 0)
            line = f"{shown(names[p], p)}\nCriticism: {' '.join(words)}"
            self._past.setdefault(p, []).append(line)
        return found

    def _criticised(self, graph: TraceGraph, names: dict[Node, str]) -> dict[ParameterNode, list[str]]:
        """Criticism of each of the optimizer's parameters: what its children sent, each text once."""
        held = {output: [str(f) for f in said] for output, said in graph.feedback.items()}
        mine, needed = set(self.parameters), _leading(graph, self.parameters)
        found: dict[ParameterNode, list[str]] = {}
        for n in reversed(graph.nodes):
            words = list(dict.fromkeys(held.pop(n, [])))
            if not words:
                continue
            if isinstance(n, ParameterNode):
                if n in mine:
                    found[n] = words
                continue
            for parent in dict.fromkeys(n.parents):
                if parent in needed:
                    held.setdefault(parent, []).extend(self._sent(n, parent, words, names))
        return dict(reversed(found.items()))

    def _sent(self, n: Node, parent: Node, words: Sequence[str], names: dict[Node, str]) -> list[str]:
        """What a node sends to one of its parents."""
        operator = n.operator
        assert operator is not None  # noqa: S101
        if operator in PASSED:
            return list(words)
        pairs = zip(n.argument_names, n.parents, strict=True)
        arguments = ", ".join(f"{a}={names[p]}" if a else names[p] for a, p in pairs)
        sections = {
            "Instruction": CRITICISM.format(name=names[parent]),
            "Code": f"{names[n]} = {operator.name}({arguments})\n{operator.name}: {operator.description}",
            "Inputs": "\n".join(shown(names[p], p) for p in dict.fromkeys(n.parents)),
            "Output": shown(names[n], n),
            "Feedback": "\n".join(words),
        }
        prompt = _text(sections)
        reply = self.model.complete(
            [{"role": "user", "content": prompt}], self.temperature, self.max_tokens, 0
        ).strip()
        self.log.append({"prompt": prompt, "reply": reply})
        return [] if reply.strip("\"'.` ") == "NOTHING" else [reply]

    def _rewrite(self, p: ParameterNode, name: str, words: Sequence[str]) -> str:
        sections = {
            "Instruction": REWRITE.format(name=name),
            "Variable": shown(name, p),
            "Constraints": " ".join([p.description, described(p.constraint)]).strip(),
            "Criticism": "\n".join(f"- {w}" for w in words),
        }
        past = self._past.get(p, [])[-self.memory_size :] if self.memory_size else []
        if past:
            sections["Past values, the last is the newest"] = "\n---\n".join(past)
        return _text(sections)


def _text(sections: dict[str, str]) -> str:
    return "\n\n".join(f"#{title}\n{text}" for title, text in sections.items())


def _leading(graph: TraceGraph, parameters: Iterable[ParameterNode]) -> set[Node]:
    """The nodes of a graph that come from one of the parameters, or are one: others need no criticism."""
    found: set[Node] = set(parameters)
    for n in graph.nodes:
        if not found.isdisjoint(n.parents):
            found.add(n)
    return {n for n in found if n in graph}
