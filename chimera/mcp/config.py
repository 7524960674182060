"""Which servers there are: the `mcpServers` file that people have already, read with care."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, JsonValue, SecretStr, ValidationError

from chimera.core.errors import InputError
from chimera.core.types import Frozen, Name, Seconds
from chimera.security.gateway.guard import Effect

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_SERVERS = 1_000
MAX_VALUES = 1_000
"""Arguments, variables or headers of one server."""
MAX_VALUE = 64 * 1024
"""Characters of one of them, expanded."""
MAX_NOTES = 16
SHORT_SECRET = 6
"""Values that are shorter (`1`, `true`, `info`) are no secrets, and stand in ordinary words."""

KINDS: Final[dict[str, Literal["stdio", "http"]]] = {
    "stdio": "stdio",
    "http": "http",
    "streamable-http": "http",
    "streamableHttp": "http",
}
FIELDS: Final = frozenset("command args env cwd url serverUrl headers type disabled chimera".split())

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_NAMED = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_UNFIT = re.compile(r"[^A-Za-z0-9_.\-\[\]/:]")


class Limits(Frozen):
    """What a server may cost, and what its tools do: the `chimera` section of its entry.

    `max_calls_per_s` and `effects` are for who makes the calls; the hub enforces `connect_s`, `at_once` and
    `max_output_bytes`. A tool in `idempotent` may be called again after a failure.
    """

    timeout_s: Seconds = 60.0
    connect_s: Seconds = 10.0
    max_calls_per_s: Annotated[float, Field(gt=0.0, le=10_000.0)] = 10.0
    at_once: Annotated[int, Field(ge=1, le=1_000)] = 16
    max_output_bytes: Annotated[int, Field(ge=1_024, le=64 * 1024 * 1024)] = 1024 * 1024
    idempotent: Annotated[frozenset[str], Field(max_length=MAX_VALUES)] = frozenset()
    effects: Annotated[dict[str, frozenset[Effect]], Field(max_length=MAX_VALUES)] = Field(default_factory=dict)


class ServerConfig(Limits):
    """How one server is reached, and what it may cost.

    Whatever a variable can be expanded into (`args`, `env`, `url`, `headers`) is secret: neither `repr` nor a dump
    shows it. `problem` says why the server cannot be used (a variable is not set, SSE only ...), and is empty if it
    can. `notes` are what was tolerated in its entry.
    """

    name: Name
    transport: Literal["stdio", "http"]
    command: str = ""
    args: tuple[SecretStr, ...] = ()
    env: dict[str, SecretStr] = Field(default_factory=dict)
    cwd: str | None = None
    url: SecretStr = SecretStr("")
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    disabled: bool = False
    problem: str = ""
    notes: tuple[str, ...] = ()
    secrets: tuple[SecretStr, ...] = ()
    """What `scrub` takes out of a text: longest first."""

    @property
    def place(self) -> str:
        """Where the server is, for people to read: its command, or its host. A path may hold a key."""
        if self.transport == "stdio":
            return self.command
        parts = urlsplit(self.url.get_secret_value())
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def scrub(self, text: str) -> str:
        """The text without the server's secrets: a server's own words may repeat them."""
        for secret in self.secrets:
            text = text.replace(secret.get_secret_value(), "***")
        return text


def load_servers(path: Path, *, environ: Mapping[str, str] | None = None) -> dict[str, ServerConfig]:
    """Read a file of servers: `{"mcpServers": {NAME: {...}}}`, or VS Code's `{"servers": {...}}`.

    An entry that cannot be used stays in the answer, with its `problem`: one broken server breaks no other. Raises
    InputError if the file as a whole cannot be read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"the servers' file {path} cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_FILE_BYTES:
        raise InputError(f"the servers' file {path} is larger than {MAX_FILE_BYTES // 2**20} MB")
    try:
        document = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the servers' file {path} is not JSON: {error}") from error
    return parse_servers(document, environ=os.environ if environ is None else environ)


def parse_servers(document: JsonValue, *, environ: Mapping[str, str]) -> dict[str, ServerConfig]:
    """The same, of a document that has been read. Variables are looked up in `environ` only."""
    entries = document.get("mcpServers", document.get("servers")) if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise InputError('a file of servers is {"mcpServers": {"NAME": {"command": ...} or {"url": ...}}}')
    if len(entries) > MAX_SERVERS:
        raise InputError(f"there are {len(entries)} servers, and at most {MAX_SERVERS} can be used")
    servers: dict[str, ServerConfig] = {}
    for given, entry in entries.items():
        name = _fit(given)
        if name in servers:
            raise InputError(f"two servers are called {name}: rename one of them")
        server = _server(name, entry, environ)
        if name != given:
            server = server.model_copy(update={"notes": ("its name was made fit for use", *server.notes)})
        servers[name] = server
    return servers


def _no_twins(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _fit(name: str) -> Name:
    """The name with what a `Name` cannot hold replaced: `Figma Dev` becomes `Figma-Dev`, `@org/name` `org/name`."""
    return _UNFIT.sub("-", name).lstrip("_.-[]/:")[:128] or "server"


class _Unusable(Exception):
    """An entry cannot be used; the message says why, and repeats no value of it."""


def _server(name: Name, entry: JsonValue, environ: Mapping[str, str]) -> ServerConfig:
    try:
        return _parsed(name, entry, environ)
    except _Unusable as why:
        disabled = isinstance(entry, dict) and entry.get("disabled") is True
        return ServerConfig(name=name, transport="stdio", problem=str(why), disabled=disabled)


def _parsed(name: Name, entry: JsonValue, environ: Mapping[str, str]) -> ServerConfig:
    if not isinstance(entry, dict):
        raise _Unusable("its entry is no object")
    secrets: set[str] = set()

    def expand(text: str) -> str:
        expanded = _expand(text, environ)
        if expanded != text:
            secrets.add(expanded)
        return expanded

    transport = _transport(entry)
    limits = _limits(entry.get("chimera", {}))
    notes = _notes(entry)
    args = tuple(_checked("args", expand(text)) for text in _texts(entry, "args"))
    env = {key: _checked("env", expand(text)) for key, text in _pairs(entry, "env").items()}
    headers = {key: _checked("headers", expand(text)) for key, text in _pairs(entry, "headers").items()}
    if any("=" in key or "\0" in key or not key for key in env):
        raise _Unusable("env: a variable has a name that no variable can have")
    if not all(_HEADER.fullmatch(key) for key in headers) or any(set(v) & set("\r\n") for v in headers.values()):
        raise _Unusable("headers: a header's name or value cannot be sent")
    url = _url(entry, expand) if transport == "http" else ""
    secrets.update(env.values(), _words(headers.values()), _hidden(url))
    return ServerConfig(
        **limits.model_dump(),
        name=name,
        transport=transport,
        command=_checked("command", _text(entry, "command")),
        args=tuple(map(SecretStr, args)),
        env={key: SecretStr(value) for key, value in env.items()},
        cwd=_text(entry, "cwd") or None,
        url=SecretStr(url),
        headers={key: SecretStr(value) for key, value in headers.items()},
        disabled=entry.get("disabled") is True,
        notes=notes,
        secrets=tuple(SecretStr(s) for s in sorted(secrets, key=len, reverse=True) if len(s) >= SHORT_SECRET),
    )


def _transport(entry: Mapping[str, JsonValue]) -> Literal["stdio", "http"]:
    has_url = bool(entry.get("url") or entry.get("serverUrl"))
    kind = entry.get("type", "http" if has_url else "stdio")
    if kind == "sse":
        raise _Unusable("HTTP+SSE is not supported: give the server's streamable HTTP address, as type http")
    if not isinstance(kind, str) or kind not in KINDS:
        raise _Unusable("type is one of stdio, http and streamable-http")
    if KINDS[kind] == "http" and not has_url:
        raise _Unusable("a server of type http needs a url")
    if KINDS[kind] == "stdio" and not entry.get("command"):
        raise _Unusable("it needs a command (stdio) or a url (streamable HTTP)")
    return KINDS[kind]


def _limits(section: JsonValue) -> Limits:
    try:
        return Limits.model_validate(section)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(("chimera", *map(str, first["loc"])))[:200]
        raise _Unusable(f"{where}: {first['msg'][:200]}") from None


def _notes(entry: Mapping[str, JsonValue]) -> tuple[str, ...]:
    unknown = sorted(set(entry) - FIELDS)
    notes = [f"{name[:64]} means nothing here" for name in unknown[:MAX_NOTES]]
    if len(unknown) > MAX_NOTES:
        notes.append(f"nor do {len(unknown) - MAX_NOTES} other fields")
    return tuple(notes)


def _expand(text: str, environ: Mapping[str, str]) -> str:
    """The text with `${VAR}` and `${VAR:-default}` replaced, once: a value that holds `${...}` stays as it is."""

    def value(found: re.Match[str]) -> str:
        named = _NAMED.fullmatch(found[1])
        if named is None:
            raise _Unusable("there is a ${...} that is no variable: use ${NAME} or ${NAME:-default}")
        name, default = named[1], named[2]
        if (found_value := environ.get(name) or default) is not None:
            return found_value
        if name in environ:
            return ""
        raise _Unusable(f"the variable {name[:64]} is not set: set it, or write ${{{name[:64]}:-default}}")

    return _VARIABLE.sub(value, text)


def _url(entry: Mapping[str, JsonValue], expand: Callable[[str], str]) -> str:
    url = _checked("url", expand(_text(entry, "url") or _text(entry, "serverUrl")))
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise _Unusable("url: it is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _Unusable("url: it does not begin with http:// or https:// and a host")
    return url


def _hidden(url: str) -> list[str]:
    """What is secret of a URL: its user, its password, the values of its query."""
    parts = urlsplit(url)
    return [parts.username or "", parts.password or "", *(value for _, value in parse_qsl(parts.query))]


def _words(values: Iterable[str]) -> set[str]:
    """The values and their words, so that `Bearer KEY` hides KEY too."""
    return {word for value in values for word in (value, *value.split()) if word.lower() not in ("bearer", "basic")}


def _text(entry: Mapping[str, JsonValue], field: str) -> str:
    value = entry.get(field) or ""
    if not isinstance(value, str):
        raise _Unusable(f"{field} is a text")
    return value


def _texts(entry: Mapping[str, JsonValue], field: str) -> list[str]:
    values = entry.get(field) or []
    if not isinstance(values, list) or len(values) > MAX_VALUES or not all(isinstance(v, str) for v in values):
        raise _Unusable(f"{field} is a list of at most {MAX_VALUES} texts")
    return [str(value) for value in values]


def _pairs(entry: Mapping[str, JsonValue], field: str) -> dict[str, str]:
    values = entry.get(field) or {}
    if not isinstance(values, dict) or len(values) > MAX_VALUES:
        raise _Unusable(f"{field} is an object of at most {MAX_VALUES} texts")
    if not all(isinstance(value, str | int | float) for value in values.values()):
        raise _Unusable(f"{field} has a value that is no text")
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def _checked(field: str, text: str) -> str:
    if len(text) > MAX_VALUE or "\0" in text:
        raise _Unusable(f"{field}: a text is longer than {MAX_VALUE} characters, or holds a NUL")
    return text
