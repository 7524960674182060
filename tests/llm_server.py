"""A real server of chat completions for tests, as OpenAI's, on a free port of 127.0.0.1: it does as it is told.

Source of the shapes: OpenAI's API reference, "Create chat completion".
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Reply = Callable[[Mapping[str, Any]], str]


@dataclass
class Said:
    """One answer. `body` stands for the whole of it, instead of a completion with the text `reply` gives."""

    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    waits: threading.Event | None = None
    """Says nothing before it is set."""


class LlmServer:
    """Answers with what `reply` makes of a request; but first, in their order, with what stands in `script`.

    `requests` are the bodies that came, `headers` what came with them.
    """

    def __init__(self, reply: Reply | None = None, *, headers: Mapping[str, str] | None = None) -> None:
        self.reply = reply or (lambda body: f"you said: {body['messages'][-1]['content']}")
        self.answer_headers = dict(headers or {})
        self.script: list[Said] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Its base address, for `compatible:MODEL@URL`."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def completion(self, request: Mapping[str, Any]) -> bytes:
        message = {"role": "assistant", "content": self.reply(request)}
        body = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        }
        return json.dumps(body).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(request)
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                server.paths.append(self.path)
                said = server.script.pop(0) if server.script else Said()
                if said.waits is not None:
                    said.waits.wait(60)
                body = server.completion(request) if said.body is None else said.body
                try:
                    self.send_response(said.status)
                    headers = {"Content-Type": "application/json", **server.answer_headers, **said.headers}
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # who asked has gone

            def log_message(self, *_: object) -> None:
                """Nothing on the tests' standard error."""

        return Handler
