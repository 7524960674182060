"""The audit log, attacked: other keys, files in the way, folders where one may only append, secrets in odd places."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import AuditError
from chimera.security.audit import AuditLog
from chimera.security.audit_anchors import FileAnchors
from chimera.security.audit_entry import public_key_path, public_pem, segment_path, sign
from chimera.security.redaction import clean, clean_detail
from tests.unit.security.audited import DAY_S, KEY, NOON_S, OTHER_KEY, checked, open_log, write

JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
API_KEY = "chim_" + "a" * 16 + "_" + "B" * 49


@pytest.mark.parametrize("there", ["audit.pub", "anchors"])
def test_a_log_does_not_go_on_under_another_key(tmp_path: Path, there: str) -> None:
    folder = tmp_path / "log"
    write(folder, 9)
    if there == "anchors":
        public_key_path(folder).unlink()
    with pytest.raises(AuditError, match="another key"):
        AuditLog(folder, OTHER_KEY, clock=ManualClock(NOON_S))
    if there == "audit.pub":
        assert public_key_path(folder).read_bytes() == public_pem(KEY.public_key())
    open_log(folder).close()
    assert checked(folder).ok


def test_a_public_key_that_a_full_disk_left_empty_is_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write(folder, 3)
    public_key_path(folder).write_bytes(b"")
    open_log(folder).close()
    assert public_key_path(folder).read_bytes() == public_pem(KEY.public_key())


def test_a_writer_that_cannot_go_on_takes_no_more_entries(tmp_path: Path) -> None:
    folder, clock = tmp_path / "log", ManualClock(NOON_S)
    log = open_log(folder, clock=clock, retention_days=90)
    log.append("alice", "swarm:task", "missions/1", "ok")
    log.flush()
    segment_path(folder, 0).mkdir()  # retention reads the oldest file first
    clock.advance(DAY_S)
    log.append("alice", "swarm:task", "missions/2", "ok")
    with pytest.raises(AuditError, match="cannot be written"):
        log.flush()
    with pytest.raises(AuditError, match="cannot be written"):
        log.append("alice", "swarm:task", "missions/3", "ok")
    log.close()


def test_anchors_go_where_one_may_only_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `chattr +a` has it: no writing but at the end, no cutting, no removal."""
    anchors = FileAnchors(tmp_path / "anchors", keep_days=1)
    opened = os.open

    def open_append_only(path: Any, flags: int, *more: Any, **rest: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and not flags & os.O_APPEND:
            raise PermissionError(1, "Operation not permitted")
        return opened(path, flags, *more, **rest)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "open", open_append_only)
    monkeypatch.setattr(os, "ftruncate", refuse)
    monkeypatch.setattr(os, "unlink", refuse)
    for day in range(3):
        for n in range(2):
            anchors(sign(KEY, "head", 2 * day + n + 1, "0" * 64, NOON_S + day * DAY_S))
    assert [anchor.seq for anchor in anchors.read()] == [1, 2, 3, 4, 5, 6]


SECRET = "hunter2-correct-horse"


@pytest.mark.parametrize(
    "detail",
    [
        {"headers": [["Authorization", SECRET], ["x-api-key", SECRET]]},
        {"headers": [("Cookie", SECRET)]},
        {"headers": [{"name": "cookie", "value": SECRET}]},
        {"form": {"key": "Password", "value": SECRET}},
        {"ｐａｓｓｗｏｒｄ": SECRET},
        {"pásswörd": SECRET},
        {"wallet": {"mnemonic": SECRET, "seed phrase": SECRET}},
        {"q": f"password%3D{SECRET}"},
        {"q": f"%22password%22%3A%22{SECRET}%22"},
        {"q": f"password[]={SECRET}&password%5B0%5D={SECRET}"},
        {"q": f"Authorization: {SECRET} {SECRET}"},
        {"q": f"Authorization%3A%20Bearer%20{SECRET}"},
        {"q": f"Bearer%20{SECRET}"},
        {"q": f"Cookie: a=1; b={SECRET}"},
    ],
)
def test_a_secret_in_an_odd_place_is_taken_out(detail: dict[str, Any]) -> None:
    assert "hunter2" not in repr(clean_detail(detail))


@pytest.mark.parametrize("before", ["", "x_", "key-", "a%3D", "next=%2Fcb%3Ft%3d", '"', "%22"])
@pytest.mark.parametrize("secret", [JWT, API_KEY, "sk_live_0123456789abcdefABCD", "hf_" + "a" * 30])
def test_a_secret_begins_after_any_sign(before: str, secret: str) -> None:
    assert secret[:12] not in clean(f"GET /x?{before}{secret} HTTP/1.1")


@pytest.mark.parametrize("text", ["keyjournal_entries", "task-0123456789abcdef01", "monkeyjumped_overthewall"])
def test_a_shape_within_a_word_is_none(text: str) -> None:
    assert clean(text) == text
