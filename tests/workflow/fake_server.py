"""A server on this machine that speaks the chat protocol, and answers as it is told to."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-secret-0123456789"


def reply(text, finish="stop", tokens=7):
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": {"total_tokens": tokens}})


class Server(ThreadingHTTPServer):
    """Answers by a list of (status, headers, body) or functions of the handler; notes what it was asked."""

    def __init__(self, answers):
        self.answers, self.asked, self.keys = list(answers), [], []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.keys.append(self.headers.get("Authorization"))
        answer = self.server.answers.pop(0) if self.server.answers else (200, {}, reply("{}"))
        if callable(answer):
            answer = answer(self)
            if answer is None:
                return
        status, headers, text = answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass
