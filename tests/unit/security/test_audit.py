"""The audit log: what is appended is there, on the disk and for queries, or the caller is told."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.core.clock import ManualClock, SystemClock
from chimera.core.errors import AuditBusy, AuditError, InputError, Overloaded
from chimera.security.audit import AuditLog, Wanted, choose
from chimera.security.audit_anchors import FileAnchors
from chimera.security.audit_entry import (
    GENESIS,
    Anchor,
    AuditEntry,
    anchors_folder,
    hash_of,
    public_key_path,
    read_public_key,
    segments,
    sign,
    signing_key,
)
from chimera.security.audit_verify import entries
from chimera.security.audit_writer import AuditLimits
from tests.conftest import ROOT
from tests.unit.security.audited import DAY_S, KEY, NOON_S, checked, open_log


def test_what_is_appended_is_on_the_disk_and_in_memory(tmp_path: Path) -> None:
    clock = ManualClock(NOON_S)
    log = open_log(tmp_path / "log", clock=clock)
    first = log.append("alice", "login", "", "ok")
    clock.advance(1.5)
    second = log.append("bob", "keys:create", "keys/1", "forbidden", {"role": "observer", "n": [1, None, 2.5]})
    assert (first.seq, first.prev, first.at_s) == (1, GENESIS, NOON_S)
    assert (second.seq, second.prev, second.at_s) == (2, hash_of(first.line()), NOON_S + 1.5)
    log.flush()
    assert list(entries(tmp_path / "log")) == [first, second] == list(log.query())
    log.close()
    assert segments(tmp_path / "log")[0][1].stat().st_mode & 0o777 == 0o600
    again = open_log(tmp_path / "log", clock=clock)
    assert again.query() == (first, second)
    assert again.append("a", "b", "c", "ok").seq == 3
    again.close()
    assert checked(tmp_path / "log").ok


def test_ten_thousand_entries_are_kept_for_queries_and_all_on_disk(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log", anchor_entries=10**9)
    for number in range(10_500):
        log.append("a", "b", str(number), "ok")
    assert [entry.seq for entry in log.query(limit=10_000)] == list(range(501, 10_501))
    log.close()
    assert sum(1 for _ in entries(tmp_path / "log")) == 10_500
    again = open_log(tmp_path / "log")
    assert len(again.query(limit=10_000)) == 10_000
    again.close()


ROWS = [
    AuditEntry(seq=n, at_s=float(n // 2), prev=GENESIS, actor=a, action=b, resource="", outcome=c)
    for n, (a, b, c) in enumerate([("x", "p", "ok"), ("y", "p", "no"), ("x", "q", "no"), ("y", "q", "ok")] * 5, 1)
]


@settings(deadline=None)
@given(
    actor=st.sampled_from([None, "x", "z"]),
    action=st.sampled_from([None, "q"]),
    outcome=st.sampled_from([None, "no"]),
    since=st.sampled_from([None, 2.0, 3.5]),
    until=st.sampled_from([None, 1.0, 6.0]),
    limit=st.integers(1, 30),
    after=st.none() | st.integers(0, 25),
)
def test_a_query_gives_what_was_asked_for(
    actor: str | None,
    action: str | None,
    outcome: str | None,
    since: float | None,
    until: float | None,
    limit: int,
    after: int | None,
) -> None:
    fits = [
        row
        for row in ROWS
        if actor in (None, row.actor)
        and action in (None, row.action)
        and outcome in (None, row.outcome)
        and (since is None or row.at_s >= since)
        and (until is None or row.at_s <= until)
    ]
    wanted = fits[-limit:] if after is None else [row for row in fits if row.seq > after][:limit]
    assert list(choose(ROWS, Wanted(actor, action, outcome, since, until), limit=limit, after=after)) == wanted


@pytest.mark.parametrize("limit", [0, 10_001])
def test_a_query_is_bounded(tmp_path: Path, limit: int) -> None:
    log = open_log(tmp_path / "log")
    with pytest.raises(InputError):
        log.query(limit=limit)
    log.close()


def test_threads_append_side_by_side(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log", segment_bytes=20_000)

    def work(name: str) -> None:
        for number in range(200):
            log.append(name, "b", str(number), "ok")

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert checked(tmp_path / "log").ok
    written = list(entries(tmp_path / "log"))
    assert len(written) == 1_200
    for name in ("t0", "t5"):
        assert [entry.resource for entry in written if entry.actor == name] == [str(n) for n in range(200)]


def test_a_new_day_and_a_full_file_begin_a_new_one(tmp_path: Path) -> None:
    clock = ManualClock(NOON_S)
    log = open_log(tmp_path / "log", clock=clock, segment_bytes=2_000)
    for _ in range(3):
        log.append("a", "b", "c", "ok")
    clock.advance(DAY_S / 2)
    log.append("a", "b", "next day", "ok")
    log.append("a", "b", "c", "ok", {"text": "words " * 300})
    log.append("a", "b", "c", "ok")
    log.close()
    assert [first for first, _ in segments(tmp_path / "log")] == [1, 4, 5, 6]
    assert checked(tmp_path / "log").ok


def test_there_is_one_writer(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log")
    with pytest.raises(AuditBusy):
        open_log(tmp_path / "log")
    child = multiprocessing.get_context("fork").Process(target=_append_as_child, args=(log,))
    child.start()
    child.join()
    assert child.exitcode == 0
    log.close()
    log.close()
    with pytest.raises(AuditError, match="closed"):
        log.append("a", "b", "c", "ok")
    open_log(tmp_path / "log").close()
    assert checked(tmp_path / "log").entries == 0


def _append_as_child(log: AuditLog) -> None:
    with pytest.raises(AuditError, match="fork"):
        log.append("a", "b", "c", "ok")
    log.close()  # which is not its to close
    os._exit(0)


def fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)


def test_what_cannot_be_written_down_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(tmp_path / "log")
    log.append("a", "b", "c", "ok")
    log.flush()
    with monkeypatch.context() as patch:
        fail(patch)
        log.append("a", "b", "lost", "ok")
        with pytest.raises(AuditError, match="No space"):
            log.flush()
    with pytest.raises(AuditError, match="No space"):
        log.append("a", "b", "never", "ok")
    assert log.lost == 1 and log.failure is not None
    log.close()
    assert checked(tmp_path / "log").ok


def test_or_goes_on_in_memory_and_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(tmp_path / "log", KEY, clock=ManualClock(NOON_S), on_failure="go_on")
    with monkeypatch.context() as patch:
        fail(patch)
        log.append("a", "b", "1", "ok")
        with pytest.raises(AuditError):
            log.flush()
    log.append("a", "b", "2", "ok")
    assert log.lost == 2 and len(log.query()) == 2
    log.close()
    assert checked(tmp_path / "log").ok


def test_a_disk_that_hangs_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(tmp_path / "log", waiting_entries=3, wait_s=0.05)
    held, real = threading.Event(), os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: held.wait(30) and real(file))
        for _ in range(3):
            log.append("a", "b", "c", "ok")
        with pytest.raises(Overloaded):
            log.append("a", "b", "c", "ok")
        held.set()
        log.flush()
        log.append("a", "b", "c", "ok")
        log.close()
    assert checked(tmp_path / "log").entries == 4


def test_heads_are_signed_by_number_and_at_the_end_and_after_a_failure(tmp_path: Path) -> None:
    told: list[Anchor] = []
    broken = True

    def store(anchor: Anchor) -> None:
        if broken:
            raise ConnectionError("out of reach")
        told.append(anchor)

    limits = AuditLimits(anchor_entries=5, anchor_s=3_600.0)
    log = AuditLog(tmp_path / "log", KEY, clock=ManualClock(NOON_S), anchors=store, limits=limits)
    assert str(log.anchor_error) == "out of reach"
    broken = False
    for count in (5, 4, 1):
        for _ in range(count):
            last = log.append("a", "b", "c", "ok")
        log.flush()
    log.append("a", "b", "c", "ok")
    log.close()
    assert [anchor.seq for anchor in told][-1] == 11 and {5, 10} <= {anchor.seq for anchor in told}
    assert [anchor.hash for anchor in told if anchor.seq == last.seq] == [hash_of(last.line())]
    assert not log.anchor_error
    assert all(anchor.is_signed_by(KEY.public_key()) for anchor in told)


def test_heads_are_signed_by_time(tmp_path: Path) -> None:
    told: list[int] = []
    limits = AuditLimits(anchor_s=0.05)
    log = AuditLog(tmp_path / "log", KEY, clock=SystemClock(), anchors=lambda a: told.append(a.seq), limits=limits)
    log.append("a", "b", "c", "ok")
    deadline = time.monotonic() + 20
    while 1 not in told and time.monotonic() < deadline:
        time.sleep(0.01)
    assert told[:2] == [0, 1]
    log.close()


def test_anchors_are_kept_by_day_and_not_for_ever(tmp_path: Path) -> None:
    store = FileAnchors(tmp_path / "anchors", keep_days=2)
    for day in range(4):
        store(sign(KEY, "head", day, "a" * 64, NOON_S + day * DAY_S))
        store(sign(KEY, "head", day, "a" * 64, NOON_S + day * DAY_S))
    assert [anchor.seq for anchor in store.read()] == [2, 2, 3, 3]
    newest = sorted((tmp_path / "anchors").iterdir())[-1]
    with newest.open("ab") as file:
        file.write(b'{"kind":"he')  # by a writer that was killed
    assert len(store.read()) == 4
    store(sign(KEY, "head", 4, "a" * 64, NOON_S + 3 * DAY_S))
    assert [anchor.seq for anchor in store.read()] == [2, 2, 3, 3, 4]
    newest.write_bytes(b"garbage\n" + newest.read_bytes())
    with pytest.raises(AuditError, match="line 1"):
        store.read()


def test_keys_are_made_once_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key.pem"
    key = signing_key(path)
    assert path.stat().st_mode & 0o777 == 0o600 and [*path.parent.iterdir()] == [path]
    assert signing_key(path).private_bytes_raw() == key.private_bytes_raw()
    AuditLog(tmp_path / "log", key, clock=SystemClock()).close()
    assert read_public_key(public_key_path(tmp_path / "log")) == key.public_key()
    for bad in (b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        path.write_bytes(bad)
        with pytest.raises(AuditError):
            signing_key(path)
        with pytest.raises(AuditError):
            read_public_key(path)
    with pytest.raises(AuditError):
        read_public_key(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AuditError):
        open_log(tmp_path / "file")


WRITER = """
import sys
from pathlib import Path
from chimera.core.clock import SystemClock
from chimera.security.audit import AuditLog
from chimera.security.audit_writer import AuditLimits
from tests.unit.security.audited import KEY

limits = AuditLimits(anchor_entries=20, anchor_s=0.01, segment_bytes=20_000)
log = AuditLog(Path(sys.argv[1]), KEY, clock=SystemClock(), limits=limits)
while True:
    for _ in range(10):
        entry = log.append("a", "b", "c" * 100, "ok", {"n": 1})
    log.flush()
    print(entry.seq, flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_good_log(tmp_path: Path) -> None:
    """kill -9 again and again, at any moment: what `flush` had promised is there, and nothing looks tampered."""
    folder = tmp_path / "log"
    for pause_s in (0.0, 0.004, 0.011, 0.027, 0.05):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, cwd=ROOT)
        try:
            assert child.stdout is not None
            promised = int(child.stdout.readline())
            time.sleep(pause_s)
        finally:
            child.send_signal(signal.SIGKILL)
            promised = max([promised, *map(int, child.communicate()[0].decode().split("\n")[:-1])])
        report = checked(folder)
        assert report.ok, report
        assert report.last_seq >= promised
    assert anchors_folder(folder).is_dir()
