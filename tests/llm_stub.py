"""A stub, and no language model: a server on a free port of 127.0.0.1 that says what a test has written for it.

For what no real server can be made to say when it is wanted: 429, 529, 401, no money, silence, an answer that breaks
off or never ends, Ollama's native interface, answers by Anthropic's tools. Shapes: the providers' API references.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class Scripted:
    """One answer. With `pieces` it is sent in those, one `every_s`, and the connection closed after them; `breaks`
    closes it before the body's end. Nothing is said before `waits` is set, and only one piece before `holds` is."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    pieces: tuple[bytes, ...] = ()
    every_s: float = 0.0
    breaks: bool = False
    waits: threading.Event | None = None
    holds: threading.Event | None = None


@dataclass(frozen=True)
class Asked:
    """One request that came. The names of its headers are in lower case."""

    path: str
    headers: dict[str, str]
    body: Any


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Who asked has gone: nothing for the tests' standard error."""


class LlmStub:
    """Answers each request with the next of `script`, and with 500 when there is none left. `asked` has all of them."""

    def __init__(self, *script: Scripted) -> None:
        self.script = list(script)
        self.asked: list[Asked] = []
        self.gone = threading.Event()
        """Set when somebody closed a connection on which it was answering."""
        self._http = _Quiet(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                stub.asked.append(Asked(self.path, headers, body))
                said = stub.script.pop(0) if stub.script else Scripted(500, b"the script has ended")
                if said.waits is not None:
                    said.waits.wait(60)
                try:
                    self._say(said)
                except OSError:
                    self.close_connection = True
                    stub.gone.set()

            def _say(self, said: Scripted) -> None:
                self.send_response(said.status)
                for name, value in {"Content-Type": "application/json", **said.headers}.items():
                    self.send_header(name, value)
                if said.pieces or said.breaks:
                    self._say_pieces(said)
                    return
                self.send_header("Content-Length", str(len(said.body)))
                self.end_headers()
                self.wfile.write(said.body)

            def _say_pieces(self, said: Scripted) -> None:
                self.send_header("Transfer-Encoding", "chunked")
                self.send_header("Connection", "close")
                self.end_headers()
                for number, piece in enumerate(said.pieces or (said.body,)):
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    self.wfile.flush()
                    if number == 0 and said.holds is not None:
                        said.holds.wait(60)
                    time.sleep(said.every_s)
                if not said.breaks:
                    self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *_: object) -> None:
                """Nothing on the tests' standard error."""

        return Handler


def plain(body: Any, status: int = 200, **headers: str) -> Scripted:
    """JSON. `retry_after="3"` is the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Scripted(status, json.dumps(body).encode(), named)


def events(bodies: Iterable[Mapping[str, Any]], *, breaks: bool = False) -> Scripted:
    """Server-sent events, as Anthropic streams them."""
    pieces = tuple(f"event: {body['type']}\ndata: {json.dumps(body)}\n\n".encode() for body in bodies)
    return Scripted(headers={"Content-Type": "text/event-stream"}, pieces=pieces, breaks=breaks)


def ndjson(bodies: Iterable[Mapping[str, Any]], *, breaks: bool = False) -> Scripted:
    """A line of JSON for each part, as Ollama streams them."""
    pieces = tuple(json.dumps(body).encode() + b"\n" for body in bodies)
    return Scripted(headers={"Content-Type": "application/x-ndjson"}, pieces=pieces, breaks=breaks)


def anthropic_message(*blocks: Mapping[str, Any], stop: str = "end_turn", **usage: int) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-served",
        "content": list(blocks),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "output_tokens": 7, **usage},
    }


def anthropic_error(kind: str, message: str, **details: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message, "details": details}}


def ollama_part(text: str = "", *, done: bool = False, **fields: Any) -> dict[str, Any]:
    """A part of a chat; with `done`, the last, or a whole answer."""
    message = {"role": "assistant", "content": text, **fields.pop("message", {})}
    end = {"done_reason": "stop", "prompt_eval_count": 11, "eval_count": 7} if done else {}
    return (
        {"model": "qwen-served", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": done} | end | fields
    )
