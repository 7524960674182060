"""A server of chat completions and responses for tests, as OpenAI's, on a free port of 127.0.0.1: a stub, real HTTP.

Source of the shapes: OpenAI's API reference, "Create chat completion", "Create a model response", "Create embeddings".
"""

from __future__ import annotations

import contextlib
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
    cut: bool = False
    """Closes the connection before the end that it announced."""


class LlmServer:
    """Answers with what `reply` makes of a request; but first, in their order, with what stands in `script`.

    `requests` are the bodies that came, `headers` what came with them, `peers` the connections they came over. Asked
    for a stream it tells each word by itself; asked for vectors it gives each text its length, and 1.
    """

    def __init__(self, reply: Reply | None = None, *, headers: Mapping[str, str] | None = None) -> None:
        self.reply = reply or (lambda body: f"you said: {asked(body)[-1]['content']}")
        self.answer_headers = dict(headers or {})
        self.script: list[Said] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.peers: list[tuple[str, int]] = []
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

    def streamed(self, request: Mapping[str, Any]) -> bytes:
        words = self.reply(request).split(" ")
        deltas = [{"content": word if n == 0 else f" {word}"} for n, word in enumerate(words)]
        choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        events: list[dict[str, Any]] = [{"model": request["model"], "choices": [choice]} for choice in choices]
        if request.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": 11, "completion_tokens": 7}
            events.append({"model": request["model"], "choices": [], "usage": usage})
        return sse(*events, "[DONE]")

    def response(self, request: Mapping[str, Any]) -> dict[str, Any]:
        content = [{"type": "output_text", "text": self.reply(request), "annotations": []}]
        return {
            "id": "resp_1",
            "object": "response",
            "status": "completed",
            "model": request["model"],
            "output": [
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"type": "message", "id": "msg_1", "role": "assistant", "content": content},
            ],
            "usage": {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18},
        }

    def answer(self, path: str, request: Mapping[str, Any]) -> bytes:
        if path.endswith("/embeddings"):
            data = [{"index": n, "embedding": [len(text), 1.0]} for n, text in enumerate(request["input"])]
            usage = {"prompt_tokens": len(request["input"])}
            return json.dumps({"model": request["model"], "data": data[::-1], "usage": usage}).encode()
        if path.endswith("/responses"):
            whole = self.response(request)
            if not request.get("stream"):
                return json.dumps(whole).encode()
            told = [
                {"type": "response.output_text.delta", "delta": part} for part in self.reply(request).partition(" ")
            ]
            return sse({"type": "response.created"}, *told, {"type": "response.completed", "response": whole})
        return self.streamed(request) if request.get("stream") else self.completion(request)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # who asked has gone
                    super().handle()

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(request)
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                server.paths.append(self.path)
                server.peers.append(self.client_address)
                said = server.script.pop(0) if server.script else Said()
                if said.waits is not None:
                    said.waits.wait(60)
                body = server.answer(self.path, request) if said.body is None else said.body
                try:
                    self.send_response(said.status)
                    headers = {"Content-Type": "application/json", **server.answer_headers, **said.headers}
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body) + said.cut))
                    self.end_headers()
                    self.wfile.write(body)
                    self.close_connection |= said.cut
                except OSError:
                    self.close_connection = True  # who asked has gone

            def log_message(self, *_: object) -> None:
                """Nothing on the tests' standard error."""

        return Handler


def asked(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conversation in a request, of either interface."""
    return list(body.get("messages") or body["input"])


def sse(*events: dict[str, Any] | str) -> bytes:
    """Server-sent events, as JSON or as they are."""
    told = (event if isinstance(event, str) else json.dumps(event) for event in events)
    return "".join(f"data: {data}\n\n" for data in told).encode()
