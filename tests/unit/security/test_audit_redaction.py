"""Secrets are never in the audit log, wherever they were hidden; and what is written is bounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.security.audit_entry import segments
from chimera.security.redaction import (
    CUT,
    MAX_ALL_TEXT,
    MAX_DEPTH,
    MAX_MEMBERS,
    MAX_TEXT,
    REDACTED,
    clean,
    clean_detail,
    is_secret_name,
)
from tests.unit.security.audited import open_log

HIDDEN = "Zq9xK3vL7mPw2RtY8sDf"
"""Part of each secret: it must be nowhere."""

SHAPES = {
    "jwt": f"eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ{HIDDEN}.{HIDDEN}_-",
    "jwt, cut off": f"eyJhbGciOiJFZERTQSJ9.{HIDDEN}",
    "api key": f"chim_live_{HIDDEN}",
    "sk": f"sk-ant-{HIDDEN}",
    "aws": "AKIA" + HIDDEN.upper(),
    "github": f"ghp_{HIDDEN}{HIDDEN}",
    "slack": f"xoxb-{HIDDEN}",
    "pem": f"-----BEGIN PRIVATE KEY-----\nMC4CAQ{HIDDEN}\n-----END PRIVATE KEY-----",
    "pem, cut off": f"-----BEGIN RSA PRIVATE KEY-----\n{HIDDEN}",
    "url": f"redis://user:{HIDDEN}@127.0.0.1:6379/0",
    "bearer": f"Bearer {HIDDEN}",
    "basic": f"basic {HIDDEN}==",
    "query": f"/x?api_key={HIDDEN}&y=1",
    "password": f"password: {HIDDEN}",
    "json": json.dumps({"password": f"{HIDDEN} and more {HIDDEN}"}),
    "json in json": json.dumps(json.dumps({"access_token": f"{HIDDEN} {HIDDEN}"})),
    "long": f"{HIDDEN}" * 5,
}

NAMES = (
    "password PASSWORD db_password passwd passphrase token access-token refreshToken X-Auth-Token secret clientSecret"
    " authorization Proxy-Authorization api_key apiKey X-API-Key cookie Set-Cookie credentials private_key"
    " aws_access_key"
)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("around", ["{}", "before {} after", "({}),", "x\n{}\ny"])
def test_a_secret_is_known_by_its_shape(shape: str, around: str) -> None:
    secret = SHAPES[shape]
    cleaned = clean(around.format(secret))
    assert HIDDEN.casefold() not in cleaned.casefold() and REDACTED in cleaned


@pytest.mark.parametrize("name", NAMES.split())
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert clean_detail({"a": [{name: HIDDEN}]}) == {"a": [{name: REDACTED}]}
    assert clean_detail({name: {"value": [HIDDEN]}}) == {name: REDACTED}


@pytest.mark.parametrize(
    "text",
    [
        "missions/mission-0123456789ab",
        "/api/swarm/missions?limit=10",
        "a" * 64,
        "the tokens of a sentence, basically",
        "alice@example.org",
        "http://127.0.0.1:8700/api",
        "task: write a risk-based plan",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert clean(text) == text


def test_counts_and_ids_of_tokens_stay() -> None:
    detail: dict[str, Any] = {
        "tokens": 12,
        "max_tokens": 5.5,
        "token_id": "abc",
        "actor": "bob",
        "ok": True,
        "none": None,
    }
    assert clean_detail(detail) == detail
    assert is_secret_name("tokens", "a,b")


@pytest.mark.parametrize("shape", SHAPES)
def test_no_field_of_an_entry_lets_one_through(tmp_path: Path, shape: str) -> None:
    secret = SHAPES[shape]
    log = open_log(tmp_path / "log")
    detail: dict[str, Any] = {"a": {"b": [{"c": secret}, secret]}, secret: 1, "token": {"x": [HIDDEN]}}
    entry = log.append(secret, secret, secret, secret, detail)
    log.close()
    written = segments(tmp_path / "log")[0][1].read_text()
    assert HIDDEN.casefold() not in written.casefold()
    assert HIDDEN.casefold() not in repr(entry).casefold()


def test_a_secret_across_the_cut_is_not_cut_into_harmlessness() -> None:
    for start in range(MAX_TEXT - 40, MAX_TEXT + 1):
        assert HIDDEN[:8] not in clean("x " * (start // 2) + SHAPES["sk"])
    beyond = clean("x " * ((MAX_ALL_TEXT - 30) // 2) + SHAPES["jwt"], 10**6)
    assert HIDDEN[:8] not in beyond


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner, max_size=5),
    max_leaves=30,
)


@settings(deadline=None)
@given(detail=st.dictionaries(st.text(max_size=200), JSON, max_size=8))
def test_any_detail_is_json_and_can_be_read_again(detail: dict[str, Any]) -> None:
    cleaned = clean_detail(detail)
    assert json.loads(json.dumps(cleaned, allow_nan=False)) == cleaned
    assert clean_detail(cleaned).keys() == cleaned.keys()


def test_detail_is_bounded(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    inner = deep
    for _ in range(5_000):
        inner["d"] = inner = {}
    cleaned = clean_detail({"deep": deep})
    for _ in range(MAX_DEPTH - 1):
        cleaned = cleaned["deep" if "deep" in cleaned else "d"]  # type: ignore[assignment]
    assert cleaned == {"d": CUT}
    wide = clean_detail({str(n): n for n in range(100_000)})
    assert len(wide) == MAX_MEMBERS + 1 and wide[CUT] == 100_000 - MAX_MEMBERS
    many = clean_detail({"a": [[1] * 150] * 150})
    assert json.dumps(many).count("1") <= MAX_MEMBERS
    long = clean_detail({f"k{n}": "words " * 100_000 for n in range(150)})
    assert len(json.dumps(long)) < MAX_ALL_TEXT + 150 * 20
    log = open_log(tmp_path / "log")
    entry = log.append(
        "\ud800" * 9_999, "\x00" * 9_999, "é" * 9_999, "x" * 9_999, {"\ud800": ["\U0001f600" * 99_999] * 99}
    )
    log.close()
    assert len(entry.line()) < 200_000
    assert [json.loads(line)["seq"] for _, path in segments(tmp_path / "log") for line in path.open()] == [1]
