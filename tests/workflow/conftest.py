"""Shared by the tests of workflows."""

from __future__ import annotations

import threading

import pytest
from fake_server import KEY, Server

from thalweg.workflow import LanguageModel


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    servers = []

    def start(*answers, **options):
        server = Server(answers)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        waits = []
        options = {"backoff": 0.01, "timeout": 5.0, **options}
        model = LanguageModel("m", f"http://127.0.0.1:{server.server_port}/v1", sleep=waits.append, **options)
        return model, server, waits

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
