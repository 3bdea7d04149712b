"""A language model behind any endpoint that speaks the chat protocol of OpenAI, over plain HTTP."""

from __future__ import annotations

import email.utils
import hashlib
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from thalweg.core import InvalidParameter
from thalweg.core.files import write_text
from thalweg.core.validation import is_real, is_whole, require
from thalweg.workflow.errors import BudgetSpent, ModelError

Messages = Sequence[Mapping[str, str]]
_MOST_BYTES = 16 * 2**20


@dataclass
class LanguageModel:
    """A chat model at ``base_url``: OpenAI's, or any server with the same protocol.

    No package is needed: requests are made by the standard library. Replies can be kept in a folder, and played back
    from it without a network. Without an endpoint use the searches of `thalweg.workflow.optimizers`, which need none.

    Args:
        model: its name at the endpoint.
        base_url: such as ``http://localhost:8000/v1``; ``OPENAI_BASE_URL`` of the environment by default.
        key_variable: the environment's variable with the key; the key is read at each call and neither kept nor shown.
        timeout: seconds for a whole reply, however slowly it comes.
        retries: further tries after 408, 409, 429, 5xx, a timeout, or a reply that is cut or no JSON.
        backoff: seconds before the first retry, doubled each time, with jitter; ``Retry-After`` counts where it is
            longer, up to ``longest_wait``.
        calls, tokens: most requests made, and most tokens used, by this object.
        cache: a folder of replies by request; equal requests are made once.
        replay: answer from ``cache`` alone.

    Raises:
        InvalidParameter: no endpoint, or options out of range.
        ModelError: no usable reply. BudgetSpent: no more calls or tokens.
    """

    model: str
    base_url: str = ""
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 60.0
    retries: int = 4
    backoff: float = 0.5
    longest_wait: float = 60.0
    calls: int = 1000
    tokens: int = 1_000_000
    cache: str | Path | None = None
    replay: bool = False
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    used_calls: int = field(default=0, init=False)
    used_tokens: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.base_url = (self.base_url or os.environ.get("OPENAI_BASE_URL", "")).rstrip("/")
        fits = is_real(self.timeout) and self.timeout > 0 and is_whole(self.retries) and self.retries >= 0
        require(fits, "LanguageModel needs timeout > 0 and retries >= 0", got=(self.timeout, self.retries))
        budget = is_real(self.calls) and is_real(self.tokens) and self.calls >= 1 and self.tokens >= 1
        require(budget, "LanguageModel needs calls, tokens >= 1", got=(self.calls, self.tokens))
        named = isinstance(self.model, str) and bool(self.model)
        require(named, "LanguageModel needs a model's name", got=self.model)
        require(
            self.backoff >= 0 and self.longest_wait >= 0, "LanguageModel needs backoff, longest_wait >= 0"
        )
        require(
            not self.replay or self.cache is not None,
            "LanguageModel: replay needs cache=, a folder of replies",
        )
        parts = urlsplit(self.base_url)
        if not self.replay and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise InvalidParameter(
                f"LanguageModel has no endpoint: base_url={self.base_url!r}. Pass base_url='http://host/v1' or set "
                "OPENAI_BASE_URL; PatternSearch, BayesSearch, ChoiceBandit and CodeEdits need no model."
            )
        if parts.username or parts.password:
            self.base_url = ""
            raise InvalidParameter(
                f"LanguageModel: no key in base_url; set {self.key_variable} in the environment."
            )

    def __getstate__(self) -> dict[str, object]:
        if not self.replay:
            raise InvalidParameter(
                "LanguageModel counts its calls and tokens in one process and is not sent to others. Keep the program "
                "here (workers=1), or play its replies back (replay=True)."
            )
        return dict(vars(self))

    def complete(
        self, messages: Messages, temperature: float = 0.0, max_tokens: int = 4096, sample: int = 0
    ) -> str:
        """The text of a reply; another ``sample`` is another reply to the same words."""
        request: dict[str, object] = {
            "model": self.model,
            "messages": [dict(m) for m in messages],
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        kept = self._kept(request, sample)
        if kept is not None and kept.exists():
            return str(json.loads(kept.read_text(encoding="utf-8"))["reply"])
        if self.replay:
            raise ModelError(f"No reply to this request is kept in {self.cache}, and replay=True makes none.")
        reply = self._tried(json.dumps(request).encode())
        if kept is not None:
            write_text(kept, json.dumps({"request": request, "reply": reply}, indent=1))
        return reply

    def _kept(self, request: Mapping[str, object], sample: int) -> Path | None:
        if self.cache is None:
            return None
        text = json.dumps([request, sample], sort_keys=True)
        return Path(self.cache) / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def _tried(self, body: bytes) -> str:
        for turn in range(self.retries + 1):
            if self.used_calls >= self.calls or self.used_tokens >= self.tokens:
                raise BudgetSpent(
                    f"LanguageModel has used {self.used_calls} of {self.calls} calls and {self.used_tokens} of "
                    f"{self.tokens} tokens."
                )
            self.used_calls += 1
            try:
                return self._asked(body)
            except _Passing as trouble:
                if turn == self.retries:
                    raise ModelError(
                        f"{self.base_url}: {trouble}, {turn + 1} times; no more retries."
                    ) from None
                wait = self.backoff * 2**turn * (0.5 + random.random())  # noqa: S311
                self.sleep(min(max(wait, trouble.after), self.longest_wait))
        raise AssertionError

    def _asked(self, body: bytes) -> str:
        """One request; `_Passing` where another may do better."""
        key = os.environ.get(self.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ModelError(f"{self.key_variable} holds characters that no key has, such as a line break.")
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        url, until = f"{self.base_url}/chat/completions", time.monotonic() + self.timeout
        try:
            request = urllib.request.Request(url, body, headers)  # noqa: S310
            with _OPENER.open(request, timeout=self.timeout) as response:
                answer = json.loads(_read(cast(HTTPResponse, response), until))
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode(errors="replace")
            said = " ".join((said.replace(key, "***") if key else said).split())[:300]
            if error.code in (408, 409, 429) or error.code >= 500:
                raise _Passing(f"HTTP {error.code}", _seconds(error.headers.get("Retry-After"))) from None
            mend = f" Set {self.key_variable}." if error.code in (401, 403) else ""
            raise ModelError(f"{self.base_url}: HTTP {error.code}: {said}.{mend}") from None
        except (OSError, HTTPException) as error:
            raise _Passing(f"{type(error).__name__}: {error}") from None
        except ValueError:
            raise _Passing("a reply that is no JSON") from None
        return self._text(answer)

    def _text(self, answer: object) -> str:
        try:
            held = cast("dict[str, dict[str, int]]", answer)
            self.used_tokens += int(held.get("usage", {}).get("total_tokens", 0))
            choice = cast("dict[str, list[dict[str, dict[str, object]]]]", answer)["choices"][0]
            text = choice["message"]["content"]
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise _Passing("a reply without a choice") from None
        if not isinstance(text, str) or not text.strip():
            raise _Passing("an empty reply")
        if cast("dict[str, object]", choice).get("finish_reason") == "length":
            raise ModelError(f"{self.base_url}: the reply was cut at max_tokens; allow more.")
        return text


class _Passing(Exception):
    """Trouble that may be gone at the next try, after some seconds."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Another host gets no key."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _read(response: HTTPResponse, until: float) -> bytes:
    parts = bytearray()
    while part := response.read1(1 << 16):
        parts += part
        if time.monotonic() > until:
            raise TimeoutError("the reply came too slowly")
        if len(parts) > _MOST_BYTES:
            raise ModelError(f"The reply is longer than {_MOST_BYTES} bytes.")
    return bytes(parts)


def _seconds(text: str | None) -> float:
    """The seconds of a ``Retry-After``: a number, or a date."""
    if not text:
        return 0.0
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
