"""Every kind of edit of an audit log is found; what a crash or retention leaves is none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chimera.core.clock import ManualClock
from chimera.core.errors import AuditError
from chimera.security.audit_entry import (
    GENESIS,
    Anchor,
    AuditEntry,
    anchors_folder,
    hash_of,
    removed_path,
    segments,
    sign,
)
from chimera.security.audit_verify import entries, verify
from tests.unit.security.audited import DAY_S, KEY, NOON_S, OTHER_KEY, checked, kind, open_log, write

ENTRIES = 23


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "log"
    write(folder, ENTRIES)
    assert len(segments(folder)) > 3
    report = checked(folder)
    assert (report.ok, report.entries, report.anchored_seq, report.unanchored) == (True, ENTRIES, ENTRIES, 0)
    return folder


@pytest.fixture
def log(original: Path, tmp_path: Path) -> Path:
    return copy(original, tmp_path)


def copy(original: Path, to: Path) -> Path:
    folder = to / "log"
    for source, target in ((original, folder), (anchors_folder(original), anchors_folder(folder))):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    return folder


def whole(folder: Path) -> list[tuple[Path, bytes]]:
    return [(path, path.read_bytes()) for _, path in segments(folder)]


def lines_of(folder: Path) -> list[tuple[Path, int]]:
    return [(path, number) for path, data in whole(folder) for number in range(data.count(b"\n"))]


def put(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(lines))


@settings(max_examples=200, deadline=None)
@given(where=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_any_changed_byte_is_found(
    original: Path, tmp_path_factory: pytest.TempPathFactory, where: int, flip: int
) -> None:
    log = copy(original, tmp_path_factory.getbasetemp())
    files = whole(log)
    where %= sum(len(data) for _, data in files)
    for path, data in files:
        if where < len(data):
            path.write_bytes(data[:where] + bytes([data[where] ^ flip]) + data[where + 1 :])
            break
        where -= len(data)
    assert kind(checked(log)) in {"changed", "unreadable", "missing", "order", "rewritten", "truncated"}


def test_any_deleted_line_is_found(log: Path, original: Path, tmp_path: Path) -> None:
    for path, number in lines_of(log):
        lines = path.read_bytes().splitlines(keepends=True)
        put(path, lines[:number] + lines[number + 1 :])
        assert kind(checked(log)) in {"missing", "truncated"}
        copy(original, tmp_path)


@settings(max_examples=60, deadline=None)
@given(first=st.integers(0, ENTRIES - 1), second=st.integers(0, ENTRIES - 1), over=st.booleans())
def test_any_swap_and_any_copy_is_found(
    original: Path, tmp_path_factory: pytest.TempPathFactory, first: int, second: int, over: bool
) -> None:
    log = copy(original, tmp_path_factory.getbasetemp())
    assume(first != second)
    at = lines_of(log)
    lines = {path: data.splitlines(keepends=True) for path, data in whole(log)}
    (path, line), (other_path, other_line) = at[first], at[second]
    one, two = lines[path][line], lines[other_path][other_line]
    lines[path][line] = two
    if not over:
        lines[other_path][other_line] = one
    for target, content in lines.items():
        put(target, content)
    assert kind(checked(log)) in {"missing", "order"}


def test_truncation_at_any_point_is_found(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write(log, 6)
    for path, data in reversed(whole(log)):
        for size in reversed(range(len(data))):
            os.truncate(path, size)
            assert kind(checked(log)) == "truncated"
        path.unlink()
        assert kind(checked(log)) == "truncated"


def test_a_removed_file_is_found(log: Path, original: Path, tmp_path: Path) -> None:
    for _, path in segments(log):
        path.unlink()
        assert kind(checked(log)) in {"missing", "truncated"}
        copy(original, tmp_path)


def test_an_emptied_or_renamed_or_doubled_file_is_found(log: Path, original: Path, tmp_path: Path) -> None:
    (_, first), (_, second), *_ = segments(log)
    first.write_bytes(b"")
    assert kind(checked(log)) == "missing"
    copy(original, tmp_path)
    second.rename(log / "audit-000000000999.jsonl")
    assert kind(checked(log)) == "missing"
    copy(original, tmp_path)
    shutil.copy(first, log / "audit-000000000003.jsonl")
    assert kind(checked(log)) == "order"
    copy(original, tmp_path)
    (log / "audit-000000000999.jsonl").touch()
    assert kind(checked(log)) == "missing"


def rewritten(folder: Path, change: int) -> None:
    """Every line from `change` on is made anew, with right hashes: what somebody does who knows the format."""
    last = GENESIS
    for path, data in whole(folder):
        made = []
        for line in data.splitlines():
            entry = AuditEntry.model_validate_json(line).model_copy(update={"prev": last})
            if entry.seq == change:
                entry = entry.model_copy(update={"actor": "mallory"})
            made.append(entry.line() + b"\n")
            last = hash_of(entry.line())
        put(path, made)


@pytest.mark.parametrize("change", range(1, ENTRIES + 1))
def test_a_rewritten_chain_is_found(log: Path, change: int) -> None:
    rewritten(log, change)
    assert kind(checked(log)) == "rewritten"


def test_anchors_of_another_key_do_not_help_a_rewritten_log(log: Path) -> None:
    rewritten(log, 3)
    last = list(entries(log))[-1]
    forged = sign(OTHER_KEY, "head", last.seq, hash_of(last.line()), NOON_S)
    assert kind(verify(log, [forged], KEY.public_key())) == "anchor"
    genuine = verify(log, anchors_folder(log), OTHER_KEY.public_key())
    assert kind(genuine) == "anchor"


@pytest.mark.parametrize("field", ["seq", "hash", "at_s", "kind"])
def test_a_signature_is_for_all_of_an_anchor(log: Path, field: str) -> None:
    anchor = sign(KEY, "head", 3, "a" * 64, 1.0)
    other = {"seq": 4, "hash": "b" * 64, "at_s": 2.0, "kind": "removed"}[field]
    assert anchor.is_signed_by(KEY.public_key())
    assert not anchor.model_copy(update={field: other}).is_signed_by(KEY.public_key())


def test_a_log_without_its_anchors_is_not_vouched_for(log: Path) -> None:
    assert kind(verify(log, [], KEY.public_key())) == "unanchored"
    shutil.rmtree(anchors_folder(log))
    assert kind(checked(log)) == "anchor"


def test_an_older_copy_is_found_though_older_anchors_are_gone(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write(folder, 9)
    older = copy(folder, tmp_path / "older")
    write(folder, 9)
    newest = anchors_folder(folder) / "newest"
    anchors = [anchor for path in anchors_folder(folder).glob("*.jsonl") for anchor in read(path)]
    assert not newest.exists() and anchors[-1].seq == 18
    assert kind(verify(older, anchors[-1:], KEY.public_key())) == "truncated"


def read(path: Path) -> list[Anchor]:
    return [Anchor.model_validate_json(line) for line in path.read_bytes().splitlines()]


def test_two_signed_heads_that_contradict_each_other_are_found(log: Path) -> None:
    heads = [anchor for path in anchors_folder(log).glob("*.jsonl") for anchor in read(path)]
    again = sign(KEY, "head", heads[-1].seq, "a" * 64, NOON_S)
    assert kind(verify(log, [*heads, again], KEY.public_key())) == "rewritten"


def test_an_older_copy_that_went_on_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write(folder, 9)
    older = copy(folder, tmp_path / "older")
    write(folder, 12)
    shutil.rmtree(folder)
    shutil.copytree(older, folder)
    with pytest.raises(AuditError, match="put back"):
        open_log(folder)
    later: list[Anchor] = []
    write(folder, 12, actor="mallory", anchors=later.append)  # by a writer that is not told of the old ones
    assert kind(verify(folder, later, KEY.public_key())) == ""
    assert kind(checked(folder)) == "rewritten"


def test_log_and_anchors_put_back_together_need_a_number_noted_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write(folder, 9)
    older = copy(folder, tmp_path / "older")
    write(folder, 9)
    assert checked(older).ok  # as the docs say
    assert kind(checked(older, at_least=18)) == "truncated"


def test_what_is_not_anchored_yet_is_whole_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = open_log(folder, anchor_entries=10**9)
    assert checked(folder).ok and checked(folder).entries == 0
    for _ in range(5):
        log.append("a", "b", "c", "ok")
    log.flush()
    report = checked(folder)
    assert (report.ok, report.entries, report.unanchored) == (True, 5, 5)
    log.close()
    assert checked(folder).unanchored == 0


def test_a_torn_last_line_is_told_apart(log: Path) -> None:
    last = segments(log)[-1][1]
    with last.open("ab") as file:
        file.write(b'{"seq":24,"at_s":18000')
    report = checked(log)
    assert (report.ok, report.torn, report.entries) == (True, True, ENTRIES)
    with last.open("ab") as file:
        file.write(b"\n")
    assert kind(checked(log)) == "unreadable"
    os.truncate(last, last.stat().st_size - 1)
    write(log, 2)  # cuts it off, and says so
    report = checked(log)
    assert (report.ok, report.torn, report.entries) == (True, False, ENTRIES + 3)
    repair = list(entries(log))[ENTRIES]
    assert (repair.action, repair.detail) == ("audit.repair", {"cut_bytes": 22})


def test_a_torn_line_in_the_midst_is_none(log: Path) -> None:
    path = segments(log)[1][1]
    os.truncate(path, path.stat().st_size - 1)
    assert kind(checked(log)) == "changed"


@pytest.fixture
def aged(tmp_path: Path) -> Path:
    """A log of a file a day, of which the first are too old."""
    clock = ManualClock(NOON_S)
    log = open_log(tmp_path / "log", clock=clock, retention_days=90)
    for _ in range(10):
        for _ in range(3):
            log.append("a", "b", "c", "ok")
        log.flush()
        clock.advance(12 * DAY_S)
    log.close()
    return tmp_path / "log"


def test_retention_removes_days_and_signs_for_them(aged: Path) -> None:
    report = checked(aged)
    assert (report.ok, report.first_seq, report.last_seq) == (True, 7, 30)
    assert report.removed_seq == 6 and report.entries == 24


def test_what_was_removed_without_a_signature_is_found(aged: Path) -> None:
    anchors = [anchor for path in sorted(anchors_folder(aged).glob("*.jsonl")) for anchor in read(path)]
    heads = [anchor for anchor in anchors if anchor.kind == "head"]
    key = KEY.public_key()
    assert verify(aged, heads, key).ok  # the log has the statements too
    statements = removed_path(aged).read_bytes()
    removed_path(aged).unlink()
    assert verify(aged, anchors, key).ok  # and so have the anchors
    assert kind(verify(aged, heads, key)) == "missing"
    forged = sign(OTHER_KEY, "removed", heads[-1].seq, heads[-1].hash, NOON_S)
    removed_path(aged).write_bytes(forged.line())
    assert kind(verify(aged, heads, key)) == "anchor"
    removed_path(aged).write_bytes(sign(KEY, "removed", 6, "a" * 64, NOON_S).line())
    assert kind(verify(aged, heads, key)) == "missing"
    removed_path(aged).write_bytes(statements)
    segments(aged)[0][1].unlink()
    assert kind(checked(aged)) == "missing"


def test_a_crash_between_statement_and_removal_is_no_problem(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write(folder, ENTRIES)
    (first, _), (second, _), *_ = segments(folder)
    last = list(entries(folder))[second - 2]
    removed_path(folder).write_bytes(sign(KEY, "removed", last.seq, hash_of(last.line()), NOON_S).line())
    assert checked(folder).ok and first == 1
    removed_path(folder).write_bytes(removed_path(folder).read_bytes() + b'{"kind":"rem')
    assert checked(folder).ok


@pytest.mark.parametrize("line", [0, -1])
def test_what_was_tampered_with_is_not_removed(tmp_path: Path, line: int) -> None:
    folder = tmp_path / "log"
    write(folder, ENTRIES)
    first = segments(folder)[0][1]
    lines = first.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b"alice", b"mallo")
    put(first, lines)
    open_log(folder, clock=ManualClock(NOON_S + 1_000 * DAY_S), kept=1, retention_days=90).close()
    assert first.exists() and kind(checked(folder)) in {"changed", "rewritten"}


def test_less_than_90_days_are_not_to_be_had(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write(folder, ENTRIES)
    open_log(folder, clock=ManualClock(NOON_S + 89 * DAY_S), retention_days=1).close()
    assert checked(folder).first_seq == 1
    open_log(folder, clock=ManualClock(NOON_S + 91 * DAY_S), retention_days=1).close()
    assert checked(folder).ok and checked(folder).first_seq > 1


def test_a_log_whose_end_was_tampered_with_is_not_gone_on_with(log: Path) -> None:
    last = segments(log)[-1][1]
    last.write_bytes(last.read_bytes().replace(b"alice", b"mallo", 1))
    with pytest.raises(AuditError, match="evidence"):
        open_log(log)
    last.write_bytes(b"x" * 300_000 + b"\n")
    with pytest.raises(AuditError, match="evidence"):
        open_log(log)
