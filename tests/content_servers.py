"""Stubs of the platforms, for faults that no real server makes when they are wanted; each on a free port of 127.0.0.1.

A stub of Mastodon with its idempotency keys, and one of a personal data server of the AT Protocol that creates a record
once. What they hold is kept on both sides of a fault: a `Fault` may strike before or after the post is there.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

Fault = Literal["", "refuse", "limit", "break_before", "break_after", "error_after", "out"]


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Who asked has gone."""


class _Platform:
    """What both have in common. `posts` is how often something was really made public."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.posted = threading.Event()
        self.lock = threading.RLock()
        self.made = 0
        self.asked: list[tuple[str, str]] = []
        self.url = ""

    def fault(self) -> Fault:
        with self.lock:
            return self.faults.pop(0) if self.faults else ""

    def answer(self, handler: _Handler, method: str, path: str, query: dict[str, str], body: bytes) -> None:
        raise NotImplementedError


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    platform: _Platform

    def log_message(self, *_: object) -> None: ...

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.platform.asked.append((self.command, url.path))
        self.platform.answer(self, self.command, url.path, query, body)

    do_GET = do_POST = do_DELETE = _any

    def say(self, status: int, value: Any, **headers: str) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, said in headers.items():
            self.send_header(name.replace("_", "-"), said)
        self.end_headers()
        self.wfile.write(data)

    def cut(self) -> None:
        """End the connection with no answer."""
        self.close_connection = True
        self.connection.close()


class MastodonStub(_Platform):
    """`keys_last` says whether idempotency keys are still known: a real server forgets them after an hour."""

    def __init__(self, acct: str = "acme", *, bot: bool = True) -> None:
        super().__init__()
        self.acct, self.bot = acct, bot
        self.statuses: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}
        self.media: dict[str, str] = {}

    def forget(self) -> None:
        self.keys.clear()

    def answer(self, handler: _Handler, method: str, path: str, query: dict[str, str], body: bytes) -> None:
        if path == "/api/v1/instance/":
            handler.say(200, {"uri": "stub", "title": "stub", "version": "4.4.0", "urls": {}})
        elif path == "/api/v2/instance/":
            handler.say(200, {"domain": "stub", "version": "4.4.0", "api_versions": {"mastodon": 6}})
        elif path == "/api/v1/accounts/verify_credentials":
            handler.say(200, {"id": "1", "acct": self.acct, "username": self.acct, "bot": self.bot})
        elif path == "/api/v1/accounts/1/statuses":
            shown = sorted(self.statuses.values(), key=lambda one: -int(one["id"]))
            older = [one for one in shown if "max_id" not in query or int(one["id"]) < int(query["max_id"])]
            handler.say(200, older[: int(query.get("limit", "20"))])
        elif method == "POST" and path in ("/api/v1/media", "/api/v2/media"):
            head = b"content-type: " + handler.headers["content-type"].encode() + b"\r\n\r\n"
            parts = BytesParser().parsebytes(head + body).get_payload()
            named = {str(part.get_param("name", header="content-disposition")): part for part in parts}  # type: ignore[union-attr]
            known = str(len(self.media) + 1)
            told = named["description"].get_payload(decode=True) if "description" in named else b""  # type: ignore[union-attr]
            self.media[known] = told.decode()  # type: ignore[union-attr]
            handler.say(200, {"id": known, "type": "image", "url": "http://stub/1", "description": self.media[known]})
        elif method == "POST" and path == "/api/v1/statuses":
            self._post(handler, {name: values[0] for name, values in parse_qs(body.decode()).items()})
        elif method == "DELETE" and path.startswith("/api/v1/statuses/"):
            gone = self.statuses.pop(path.rpartition("/")[2], None)
            handler.say(200 if gone else 404, gone or {"error": "Record not found"})
        else:
            handler.say(404, {"error": f"no {method} {path}"})

    def _post(self, handler: _Handler, form: dict[str, str]) -> None:
        fault = self.fault()
        if fault == "limit":
            return handler.say(429, {"error": "Too many requests"})
        if fault == "refuse":
            return handler.say(422, {"error": "Validation failed: text is too long"})
        if fault == "out":
            return handler.say(503, {"error": "down"})
        if fault == "break_before":
            return handler.cut()
        with self.lock:
            key = handler.headers.get("Idempotency-Key", "")
            known = self.keys.get(key, "") if key else ""
            if not known:
                self.made += 1
                known = str(100 + self.made)
                self.keys[key] = known
                lines = html.escape(form["status"]).replace("\n", "<br>")
                linked = re.sub(r"(https://)(\S+)", r"<a><span>\1</span>\2</a>", lines)
                self.statuses[known] = {
                    "id": known,
                    "content": f"<p>{linked}</p>",
                    "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                    "in_reply_to_id": form.get("in_reply_to_id"),
                    "language": form.get("language"),
                    "text": form["status"],
                    "media": form.get("media_ids[]"),
                }
        self.posted.set()
        if fault == "break_after":
            return handler.cut()
        if fault == "error_after":
            return handler.say(500, {"error": "internal"})
        return handler.say(200, self.statuses[known])


class PdsStub(_Platform):
    """A personal data server with one account, whose records are made once."""

    did = "did:plc:stubstubstubstubstubstub"

    def __init__(self, handle: str = "acme.test") -> None:
        super().__init__()
        self.handle = handle
        self.records: dict[str, dict[str, Any]] = {}

    def answer(self, handler: _Handler, method: str, path: str, query: dict[str, str], body: bytes) -> None:
        name = path.rpartition("/")[2].rpartition(".")[2]
        if name == "createSession":
            token = _jwt(self.did)
            handler.say(200, {"did": self.did, "handle": self.handle, "accessJwt": token, "refreshJwt": token})
        elif name == "getSession":
            handler.say(200, {"did": self.did, "handle": self.handle})
        elif name == "uploadBlob":
            link = {"$link": f"bafkrei{hashlib.sha256(body).hexdigest()[:52]}"}
            mime = handler.headers.get("content-type", "")
            handler.say(200, {"blob": {"$type": "blob", "ref": link, "mimeType": mime, "size": len(body)}})
        elif name == "getRecord":
            record = self.records.get(query["rkey"])
            missing = {"error": "RecordNotFound", "message": "Could not locate record"}
            handler.say(200 if record else 400, record or missing)
        elif name == "deleteRecord":
            self.records.pop(json.loads(body)["rkey"], None)
            handler.say(200, {})
        elif name == "createRecord":
            self._create(handler, json.loads(body))
        else:
            handler.say(501, {"error": "MethodNotImplemented", "message": name})

    def _create(self, handler: _Handler, asked: dict[str, Any]) -> None:
        fault = self.fault()
        if fault == "limit":
            return handler.say(429, {"error": "RateLimitExceeded", "message": "slow down"}, retry_after="120")
        if fault == "refuse":
            return handler.say(400, {"error": "InvalidRequest", "message": "Record/text must not be longer"})
        if fault == "out":
            return handler.say(503, {"error": "NotEnoughResources", "message": "down"})
        if fault == "break_before":
            return handler.cut()
        with self.lock:
            if asked["rkey"] in self.records:
                return handler.say(400, {"error": "InvalidRequest", "message": "Record already exists"})
            self.made += 1
            uri = f"at://{self.did}/app.bsky.feed.post/{asked['rkey']}"
            self.records[asked["rkey"]] = {"uri": uri, "cid": f"bafyrei{self.made:052d}", "value": asked["record"]}
        self.posted.set()
        if fault == "break_after":
            return handler.cut()
        if fault == "error_after":
            return handler.say(500, {"error": "InternalServerError", "message": "internal"})
        made = self.records[asked["rkey"]]
        return handler.say(200, {"uri": made["uri"], "cid": made["cid"]})


def _jwt(did: str) -> str:
    """A token that never ends, which nobody checks."""
    import base64

    def coded(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{coded({'typ': 'JWT', 'alg': 'none'})}.{coded({'sub': did, 'exp': 4_000_000_000, 'iat': 0})}.c2lnbmVk"


@contextmanager
def served(platform: MastodonStub | PdsStub) -> Iterator[str]:
    """The platform at an address of 127.0.0.1."""
    http = _Quiet(("127.0.0.1", 0), type("Handler", (_Handler,), {"platform": platform}))
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    platform.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield platform.url
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
