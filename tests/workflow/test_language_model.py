"""The client against a server on this machine that does all that servers do wrong; and the optimizers that ask it."""

from __future__ import annotations

import json
import time

import pytest
from fake_server import KEY, reply

from thalweg.core import InvalidParameter
from thalweg.workflow import Bounds, BudgetSpent, LanguageModel, ModelError, bundle, node
from thalweg.workflow.optimizers import OPRO, OptoPrime, OptoPrimeMulti
from thalweg.workflow.replies import extract, fitted

ASK = [{"role": "user", "content": "hello"}]


def dribble(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    try:
        for _ in range(200):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.02)
    except OSError:
        pass


def silent(handler):
    time.sleep(0.5)


def cut(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices"')
    handler.close_connection = True


class TestClient:
    def test_a_reply_comes_with_the_key_in_the_header_only(self, serve):
        model, server, _ = serve((200, {}, reply("hi")))
        assert model.complete(ASK) == "hi"
        assert server.keys == [f"Bearer {KEY}"]
        assert KEY not in json.dumps(server.asked)
        assert KEY not in repr(model) + str(vars(model))
        assert (model.used_calls, model.used_tokens) == (1, 7)

    @pytest.mark.parametrize(
        "trouble",
        [
            (500, {}, "oops"),
            (429, {}, "slow down"),
            (200, {}, "{not json"),
            (200, {}, '{"choices": []}'),
            (200, {}, "[1]"),
            (200, {}, reply("")),
            cut,
        ],
        ids=["500", "429", "malformed", "no choice", "list", "empty", "cut"],
    )
    def test_passing_trouble_is_tried_again(self, serve, trouble):
        model, server, waits = serve(trouble, (200, {}, reply("hi")))
        assert model.complete(ASK) == "hi"
        assert len(server.asked) == 2
        assert len(waits) == 1

    def test_retry_after_is_kept_to(self, serve):
        model, _, waits = serve((429, {"Retry-After": "3"}, ""), (429, {"Retry-After": "900"}, ""))
        model.complete(ASK)
        assert waits == [3.0, 60.0]

    def test_waits_double(self, serve):
        model, _, waits = serve(*[(500, {}, "")] * 4, backoff=1.0)
        model.complete(ASK)
        assert all(0.5 * 2**i <= wait <= 1.5 * 2**i for i, wait in enumerate(waits))

    @pytest.mark.parametrize("slow", [silent, dribble])
    def test_slow_replies_end_at_the_timeout(self, serve, slow):
        model, _, _ = serve(slow, (200, {}, reply("hi")), timeout=0.2)
        assert model.complete(ASK) == "hi"

    def test_lasting_trouble_ends(self, serve):
        model, server, _ = serve(*[(503, {}, "")] * 9, retries=2)
        with pytest.raises(ModelError, match="HTTP 503, 3 times"):
            model.complete(ASK)
        assert len(server.asked) == 3

    def test_what_will_not_pass_is_told_at_once_without_the_key(self, serve):
        model, server, _ = serve((401, {}, f"bad key {KEY}"))
        with pytest.raises(ModelError, match="HTTP 401") as caught:
            model.complete(ASK)
        assert KEY not in str(caught.value)
        assert "OPENAI_API_KEY" in str(caught.value)
        assert len(server.asked) == 1

    def test_a_redirect_is_not_followed(self, serve):
        other, target, _ = serve()
        model, _, _ = serve((302, {"Location": f"{other.base_url}/chat/completions"}, ""))
        with pytest.raises(ModelError, match="HTTP 302"):
            model.complete(ASK)
        assert target.keys == []

    def test_a_truncated_reply_is_an_error(self, serve):
        model, _, _ = serve((200, {}, reply("half", finish="length")))
        with pytest.raises(ModelError, match="cut at max_tokens"):
            model.complete(ASK)

    def test_budgets_of_calls_and_tokens_end_it(self, serve):
        model, _, _ = serve(calls=1)
        model.complete(ASK)
        with pytest.raises(BudgetSpent, match="1 of 1 calls"):
            model.complete(ASK)
        model, _, _ = serve((200, {}, reply("a", tokens=50)), tokens=40)
        model.complete(ASK)
        with pytest.raises(BudgetSpent, match="50 of 40 tokens"):
            model.complete(ASK)

    def test_replies_are_kept_and_played_back(self, serve, tmp_path):
        model, server, _ = serve((200, {}, reply("one")), (200, {}, reply("two")), cache=tmp_path)
        assert [model.complete(ASK), model.complete(ASK), model.complete(ASK, sample=1)] == [
            "one",
            "one",
            "two",
        ]
        assert len(server.asked) == 2
        assert KEY not in "".join(p.read_text() for p in tmp_path.iterdir())
        played = LanguageModel("m", cache=tmp_path, replay=True)
        assert played.complete(ASK) == "one"
        with pytest.raises(ModelError, match="is kept"):
            played.complete(ASK, temperature=1.0)

    def test_no_endpoint_names_the_way_without_one(self, monkeypatch):
        monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
        with pytest.raises(InvalidParameter, match="PatternSearch"):
            LanguageModel("m")
        with pytest.raises(InvalidParameter, match="no key in base_url") as caught:
            LanguageModel("m", "https://user:pass@host/v1")
        assert "pass" not in str(caught.value)

    def test_what_is_no_key_and_what_is_no_option_is_told_at_once(self, serve, monkeypatch):
        model, server, _ = serve()
        monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nX-Evil: two")
        with pytest.raises(ModelError, match="characters that no key has") as caught:
            model.complete(ASK)
        assert "sk-one" not in str(caught.value)
        assert server.asked == []
        for options in ({"timeout": "a"}, {"retries": 1.5}, {"calls": -1}, {"model": None}):
            with pytest.raises(InvalidParameter, match="LanguageModel needs"):
                LanguageModel(**{"model": "m", "base_url": "http://localhost/v1", **options})


class Said:
    """A model that says what it is told to."""

    def __init__(self, *replies):
        self.replies, self.asked = list(replies), []

    def complete(self, messages, temperature=0.0, max_tokens=4096, sample=0):
        self.asked.append(([dict(m) for m in messages], temperature))
        return self.replies.pop(0)


class TestExtraction:
    @pytest.mark.parametrize(
        ("text", "values"),
        [
            ('{"suggestion": {"x": 1}}', {"x": 1}),
            ('```json\n{"suggestion": {"x": 1}}\n```', {"x": 1}),
            ('I think {"reasoning": "r", "suggestion": {"x": [1, 2]}} will do.', {"x": [1, 2]}),
            (
                '{"suggestion": {"x": 1, "f": "def f():\\n    return 1"',
                {"x": 1, "f": "def f():\n    return 1"},
            ),
            ('{"reasoning": "a", "answer": "b"}', {}),
            ("nothing", None),
            ("", None),
            ("[1, 2]", None),
        ],
    )
    def test_values_are_found(self, text, values):
        assert extract(text) == values

    def test_kinds_are_kept(self):
        flag, items, number = (
            node(True, trainable=True),
            node(["a"], trainable=True),
            node(1.0, trainable=True),
        )
        names = {"flag": flag, "items": items, "number": number}
        found, reasons = fitted({"flag": "False", "items": "['b']", "number": 3}, names)
        assert (found[flag], found[items], found[number]) == (False, ["b"], 3.0)
        assert reasons == []
        found, reasons = fitted({"flag": "maybe", "items": "abc", "number": "x", "input0": 1}, names)
        assert found == {}
        assert len(reasons) == 4


@bundle("adds the offset")
def shifted(x, offset):
    return x + offset


class TestOptoPrime:
    @pytest.fixture
    def run(self):
        offset = node(1.0, trainable=True, name="offset", constraint=Bounds(-9, 9))

        def once(optimizer, feedback="too small"):
            y = shifted(node(2.0, name="x"), offset)
            optimizer.zero_feedback()
            optimizer.backward(y, feedback)
            return optimizer.step()

        return offset, once

    def test_the_prompt_has_all_sections_and_the_suggestion_is_set(self, run):
        offset, once = run
        model = Said('{"suggestion": {"offset0": 4.5}}')
        optimizer = OptoPrime([offset], model)
        once(optimizer)
        assert offset.data == 4.5
        prompt = model.asked[0][0][0]["content"]
        for part in ("#Code\nshifted0 = shifted(x0, offset0)", "#Documentation\nshifted: adds the offset",
                     "#Variables\noffset0 = 1.0", "#Constraints\noffset0: a number between -9 and 9",
                     "#Inputs\nx0 = 2.0", "#Others", "#Outputs\nshifted0 = 3.0", "#Feedback\ntoo small"):  # fmt: skip
            assert part in prompt

    def test_equal_runs_make_equal_words(self, run):
        offset, once = run
        model = Said(*['{"suggestion": {}}'] * 2)
        optimizer = OptoPrime([offset], model)
        once(optimizer)
        once(optimizer)
        assert model.asked[0] == model.asked[1]

    def test_what_does_not_fit_is_refused_with_the_reason_once(self, run):
        offset, once = run
        model = Said('{"suggestion": {"offset0": 40}}', '{"suggestion": {"offset0": 5}}')
        once(OptoPrime([offset], model))
        assert offset.data == 5.0
        assert "must lie between -9 and 9" in model.asked[1][0][-1]["content"]
        once(OptoPrime([offset], Said("no", "no")))
        assert offset.data == 5.0
        with pytest.raises(ModelError, match="could not be read"):
            once(OptoPrime([offset], Said("no", "no"), ignore_extraction_error=False))

    def test_terminate_changes_nothing(self, run):
        offset, once = run
        assert once(OptoPrime([offset], Said('{"answer": "TERMINATE"}'))) == {}

    def test_memory_tells_the_past(self, run):
        offset, once = run
        model = Said('{"suggestion": {"offset0": 2}}', "{}")
        optimizer = OptoPrime([offset], model, memory_size=1)
        once(optimizer, "first words")
        once(optimizer, "second words")
        assert "first words" in model.asked[1][0][0]["content"]

    def test_several_candidates_go_from_wild_to_sober(self, run):
        offset, once = run
        replies = [f'{{"suggestion": {{"offset0": {i}}}}}' for i in range(5)]
        model = Said(*replies)
        once(OptoPrimeMulti([offset], model))
        assert [t for _, t in model.asked] == pytest.approx([1.3, 0.975, 0.65, 0.325, 0.0])
        assert offset.data == 4.0
        once(OptoPrimeMulti([offset], Said(*replies), select=lambda found: found[1]))
        assert offset.data == 1.0

    def test_opro_sees_values_and_feedback_only(self, run):
        offset, once = run
        model = Said('{"suggestion": {"offset0": 2}}')
        once(OPRO([offset], model))
        prompt = model.asked[0][0][0]["content"]
        assert "offset0 = 1.0\nFeedback: too small" in prompt
        assert "shifted" not in prompt

    def test_five_steps_by_a_server_that_follows_a_rule(self, serve, run):
        offset, once = run

        def better(handler):
            prompt = handler.server.asked[-1]["messages"][0]["content"]
            now = float(prompt.split("offset0 = ")[1].split("\n")[0])
            return 200, {}, reply(json.dumps({"suggestion": {"offset0": now + 1}}))

        model, server, _ = serve((500, {}, ""), *[better] * 5)
        optimizer = OptoPrime([offset], model)
        for _ in range(5):
            once(optimizer)
        assert offset.data == 6.0
        assert len(server.asked) == 6
