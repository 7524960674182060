from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.mcp.config import MAX_FILE_BYTES, MAX_SERVERS, ServerConfig, load_servers, parse_servers
from chimera.security.gateway.guard import Effect

KEY = "sk-live-0123456789"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
FIELDS = ("command", "args", "env", "cwd", "url", "headers", "type", "disabled", "chimera")
secret_texts = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=12, max_size=40)


def one(entry: Any, **environ: str) -> ServerConfig:
    return parse_servers({"mcpServers": {"it": entry}}, environ=environ)["it"]


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_as_other_clients_have_it_is_read(tmp_path: Path) -> None:
    document = {
        "mcpServers": {
            "files": {"command": "npx", "args": ["-y", "files", "/tmp"], "env": {"LEVEL": 3}, "autoApprove": ["x"]},
            "web": {"serverUrl": "https://${HOST:-example.com}/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}},
            "off": {"command": "x", "disabled": True},
        }
    }
    path = written(tmp_path / "mcp.json", json.dumps(document))
    servers = load_servers(path, environ={"TOKEN": KEY})
    files, web, off = servers["files"], servers["web"], servers["off"]
    assert (files.transport, files.command) == ("stdio", "npx")
    assert [argument.get_secret_value() for argument in files.args] == ["-y", "files", "/tmp"]
    assert files.env["LEVEL"].get_secret_value() == "3"
    assert files.notes == ("autoApprove means nothing here",)
    assert (web.transport, web.place) == ("http", "https://example.com")
    assert web.headers["Authorization"].get_secret_value() == f"Bearer {KEY}"
    assert off.disabled
    assert not any(server.problem for server in servers.values())


def test_the_form_of_vs_code_is_read_too() -> None:
    servers = parse_servers({"servers": {"a": {"type": "stdio", "command": "x"}}}, environ={})
    assert servers["a"].command == "x"


def test_our_own_section_sets_limits_and_effects() -> None:
    server = one({"command": "x", "chimera": {"timeout_s": 5, "idempotent": ["get"], "effects": {"pay": ["pays"]}}})
    assert (server.timeout_s, server.idempotent) == (5.0, frozenset({"get"}))
    assert server.effects == {"pay": frozenset({Effect.PAYS})}


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"command": "x", "env": {"KEY": "${NOT_SET}"}}, "NOT_SET is not set"),
        ({"command": "x", "args": ["${input:key}"]}, "that is no variable"),
        ({"type": "sse", "url": "https://x/sse"}, "streamable HTTP"),
        ({"type": "carrier-pigeon", "command": "x"}, "type is one of"),
        ({"url": "ftp://x/"}, "does not begin with http"),
        ({"url": "http://[::1"}, "not a URL"),
        ({"url": "http://x:99999/"}, "not a URL"),
        ({"url": "http://x/", "headers": {"A": "b\r\nHost: evil"}}, "cannot be sent"),
        ({"url": "http://x/", "headers": {"A b": "c"}}, "cannot be sent"),
        ({"command": "x", "args": "-y"}, "args is a list"),
        ({"command": "x", "args": ["a\0b"]}, "NUL"),
        ({"command": "x", "env": {"A=B": "c"}}, "no variable can have"),
        ({"command": "x", "chimera": {"timeout_s": -1}}, "chimera.timeout_s"),
        ({"command": "x", "chimera": {"effect": {}}}, "chimera.effect"),
        ({}, "it needs a command"),
        ([], "no object"),
    ],
)
def test_an_entry_that_cannot_be_used_says_why_and_spoils_no_other(entry: Any, why: str) -> None:
    servers = parse_servers({"mcpServers": {"bad": entry, "good": {"command": "x"}}}, environ={})
    assert why in servers["bad"].problem
    assert not servers["good"].problem


def test_variables_are_expanded_once_and_in_four_places_only() -> None:
    environ = {"A": "${B}", "B": "never", "EMPTY": ""}
    server = one({"command": "${A}", "cwd": "/${A}", "args": ["${A}", "${EMPTY}", "${EMPTY:-x}"]}, **environ)
    assert (server.command, server.cwd) == ("${A}", "/${A}")
    assert [argument.get_secret_value() for argument in server.args] == ["${B}", "", "x"]


@given(secret_texts)
def test_a_secret_is_in_no_repr_no_dump_and_no_message(secret: str) -> None:
    entries: dict[str, Any] = {
        "a": {"command": "x", "args": ["--key=${KEY}"], "env": {"K": "${KEY}"}},
        "b": {"url": "https://user:${KEY}@x/mcp?key=${KEY}", "headers": {"Authorization": "Bearer ${KEY}"}},
        "c": {"command": "x", "args": ["${KEY}", "${NOT_SET}"]},
        "d": {"url": "${KEY}"},
    }
    for server in parse_servers({"mcpServers": entries}, environ={"KEY": secret}).values():
        shown = f"{server!r} {server} {server.model_dump()} {server.model_dump_json()} {server.place} {server.problem}"
        assert secret not in shown
        if not server.problem:
            assert secret not in server.scrub(f"denied: {secret}!")


def test_short_values_are_not_taken_out_of_what_servers_say() -> None:
    assert one({"command": "x", "env": {"DEBUG": "1"}}).scrub("line 1") == "line 1"


def test_names_are_made_fit_and_two_that_become_one_are_refused() -> None:
    servers = parse_servers({"mcpServers": {"Figma Dev": {"command": "x"}, "@org/y": {"command": "y"}}}, environ={})
    assert list(servers) == ["Figma-Dev", "org/y"]
    with pytest.raises(InputError, match="rename"):
        parse_servers({"mcpServers": {"a b": {"command": "x"}, "a-b": {"command": "y"}}}, environ={})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[]", "mcpServers"),
        ('{"mcpServers": []}', "mcpServers"),
        ('{"mcpServers": {"a": {}, "a": {}}}', "twice"),
        ("[" * 100_000, "not JSON"),
        (" " * (MAX_FILE_BYTES + 1), "larger than"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        load_servers(written(tmp_path / "mcp.json", text), environ={})


def test_a_missing_file_and_too_many_servers_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_servers(tmp_path / "none.json")
    with pytest.raises(InputError, match="at most"):
        parse_servers({"mcpServers": {str(n): {} for n in range(MAX_SERVERS + 1)}}, environ={})


@given(st.dictionaries(st.text(max_size=10), st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=5)))
def test_no_entry_raises_anything_but_an_input_error(entries: dict[str, Any]) -> None:
    try:
        servers = parse_servers({"mcpServers": entries}, environ={})
    except InputError:
        return
    assert len(servers) == len(entries)
