"""Criticism goes back along each link that leads to a parameter, once, and nowhere else."""

from __future__ import annotations

import json

import pytest
from fake_server import reply

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.workflow import Bounds, ExecutionError, LanguageModel, ModelError, bundle, node
from thalweg.workflow.optimizers import TextGrad


class Critic:
    """Criticises by naming the step and the input; rewrites by a table. Notes both."""

    def __init__(self, values=(), silent=()):
        self.values, self.silent, self.links, self.rewritten = dict(values), set(silent), [], []

    def complete(self, messages, temperature=0.0, max_tokens=4096, sample=0):
        prompt = messages[0]["content"]
        if "#Criticism\n" in prompt:
            name = prompt.split("#Variable\n")[1].split(" = ")[0]
            self.rewritten.append((name, prompt.split("#Criticism\n")[1], len(messages)))
            value = self.values[name]
            return json.dumps(
                {"suggestion": {name: value[len(messages) // 2] if isinstance(value, list) else value}}
            )
        step = prompt.split("#Code\n")[1].split(" = ")[0]
        source = prompt.split("how the input ")[1].split(" should")[0]
        self.links.append((source, step))
        return (
            "NOTHING."
            if source in self.silent
            else f"{source} at {step} [{prompt.split('#Feedback')[-1].strip()}]"
        )


@bundle("answers a question by a prompt")
def answer(prompt, question):
    return f"{prompt} {question}"


@bundle("shortens a text by a rule")
def shorten(rule, text):
    return f"{rule}: {text}"


@pytest.fixture
def pipeline():
    prompt = node("Tell all.", trainable=True, name="prompt", description="starts the answer")
    rule = node("keep it", trainable=True, name="rule")
    return prompt, rule, lambda: shorten(rule, answer(prompt, node("Why?", name="question")))


def stepped(optimizer, output, feedback="too long"):
    optimizer.zero_feedback()
    optimizer.backward(output, feedback)
    return optimizer.step()


def test_each_link_is_criticised_once_by_what_came_to_its_node(pipeline):
    prompt, rule, program = pipeline
    critic = Critic({"prompt0": "Be brief.", "rule0": "cut it"})
    optimizer = TextGrad([prompt, rule], critic)
    stepped(optimizer, program())
    assert critic.links == [("rule0", "shorten0"), ("answer0", "shorten0"), ("prompt0", "answer0")]
    assert optimizer.gradients[prompt] == ["prompt0 at answer0 [answer0 at shorten0 [too long]]"]
    assert optimizer.gradients[rule] == ["rule0 at shorten0 [too long]"]
    assert (prompt.data, rule.data) == ("Be brief.", "cut it")
    assert len(optimizer.log) == 5


def test_parameters_of_others_and_inputs_cost_no_request(pipeline):
    prompt, rule, program = pipeline
    critic = Critic({"rule0": "cut it"})
    stepped(TextGrad([rule], critic), program())
    assert critic.links == [("rule0", "shorten0")]
    assert prompt.data == "Tell all."


def test_a_value_used_twice_hears_from_both_places_and_from_all_runs():
    x = node("a", trainable=True, name="x")
    critic = Critic({"x0": "b"})
    optimizer = TextGrad([x], critic)
    optimizer.backward(answer(x, x), "one")
    optimizer.backward(shorten(x, "t"), "two")
    optimizer.step()
    assert sorted(critic.links) == [("x0", "answer0"), ("x0", "shorten0")]
    assert sorted(optimizer.gradients[x]) == ["x0 at answer0 [one]", "x0 at shorten0 [two]"]
    (_, words, _) = critic.rewritten[0]
    assert words == "\n".join(f"- {w}" for w in optimizer.gradients[x])


def test_containers_and_copies_pass_criticism_on_as_it_is():
    x = node("a", trainable=True, name="x")
    critic = Critic({"x0": "b"})
    optimizer = TextGrad([x], critic)
    stepped(optimizer, node([x.clone(), "b"]), "too few")
    assert critic.links == []
    assert optimizer.gradients[x] == ["too few"]


def test_where_nothing_is_to_change_the_way_ends(pipeline):
    prompt, rule, program = pipeline
    critic = Critic({"rule0": "cut it"}, silent={"answer0"})
    optimizer = TextGrad([prompt, rule], critic)
    assert list(stepped(optimizer, program())) == [rule]
    assert ("prompt0", "answer0") not in critic.links
    assert prompt not in optimizer.gradients


def test_an_error_is_criticised_like_a_value():
    divisor = node(0.0, trainable=True, name="divisor")
    critic = Critic({"divisor0": 2.0})
    with pytest.raises(ExecutionError) as caught:
        1 / divisor
    stepped(TextGrad([divisor], critic), caught.value.node, "it must not fail")
    assert divisor.data == 2.0
    assert critic.links == [("divisor0", "divide0")]


def test_a_value_out_of_bounds_is_refused_with_the_reason_once():
    x = node(1.0, trainable=True, name="x", constraint=Bounds(0, 9))
    critic = Critic({"x0": [40, 5]})
    stepped(TextGrad([x], critic), x + 1)
    assert x.data == 5.0
    assert [turn for _, _, turn in critic.rewritten] == [1, 3]


def test_the_past_is_told_where_it_is_asked_for(pipeline):
    prompt, rule, program = pipeline
    critic = Critic({"prompt0": "Be brief.", "rule0": "cut it"})
    optimizer = TextGrad([prompt, rule], critic, memory_size=1)
    stepped(optimizer, program(), "first words")
    stepped(optimizer, program(), "second words")
    told = next(words for name, words, _ in critic.rewritten[2:] if name == "prompt0")
    assert "prompt0 = 'Tell all.'" in told
    assert "first words" in told


def test_equal_runs_ask_equal_words_and_are_played_back_without_a_network(serve, pipeline, tmp_path):
    prompt, rule, program = pipeline

    def served(handler):
        messages = handler.server.asked[-1]["messages"]
        return 200, {}, reply(Critic({"prompt0": "Be brief.", "rule0": "cut it"}).complete(messages))

    model, server, _ = serve((500, {}, ""), *[served] * 10, cache=tmp_path)
    stepped(TextGrad([prompt, rule], model), program())
    assert len(server.asked) == 6  # three links, two values, one more try
    found, played = (prompt.data, rule.data), LanguageModel("m", cache=tmp_path, replay=True)
    prompt.set("Tell all.")
    rule.set("keep it")
    stepped(TextGrad([prompt, rule], played), program())
    assert (prompt.data, rule.data) == found == ("Be brief.", "cut it")
    assert len(server.asked) == 6
    with pytest.raises(ModelError, match="is kept"):
        stepped(TextGrad([prompt, rule], played), program())  # other values are other words


def test_bad_input_is_refused(pipeline):
    prompt, _, program = pipeline
    with pytest.raises(InvalidProblem, match="no feedback came"):
        TextGrad([prompt], Critic()).step()
    with pytest.raises(InvalidParameter, match="TextGrad needs memory_size >= 0"):
        TextGrad([prompt], Critic(), memory_size=-1)

    class Mumbling(Critic):
        def complete(self, messages, *options, **named):
            return "mm"

    assert stepped(TextGrad([prompt], Mumbling()), program()) == {}
    with pytest.raises(ModelError, match="TextGrad: two replies could not be read"):
        stepped(TextGrad([prompt], Mumbling(), ignore_extraction_error=False), program())
