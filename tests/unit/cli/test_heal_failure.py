"""What people have of a failure is read for what it is, and refused in words that help."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.cli.heal_failure import MAX_BYTES, STDIN, read_failure
from chimera.cli.watch.tell import document
from chimera.core.errors import InputError
from chimera.core.watching import Alert, AnomalyDetected, AnomalyKind, FailurePredicted
from chimera.healing.failure import MAX_TEXT_CHARS, Failure, failure_of

TRACEBACK = 'Traceback (most recent call last):\n  File "till.py", line 3, in total\nIndexError: list index\n'
PYTEST = f"=== FAILURES ===\n___ test_total ___\n{TRACEBACK}E   IndexError: list index\n"

ANOMALY = AnomalyDetected(
    metric="m", timestamp=9.0, value=5.0, kind=AnomalyKind.SPIKE, score=7.0, since=8.0, expected=1.0
)
COMING = FailurePredicted(
    metric="m", timestamp=9.0, value=5.0, limit=9.0, side="above", in_s=60.0, earliest_s=50.0, forecast=9.5
)


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "failure"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("text", "kind"),
    [(TRACEBACK, "traceback"), (PYTEST, "test"), ("FAILED test_a.py::test_b", "test"), ("it is slow", "description")],
)
def test_the_kind_is_found_by_what_the_text_looks_like(tmp_path: Path, text: str, kind: str) -> None:
    found = read_failure(written(tmp_path, text), "shop.till")
    assert (found.kind, found.text, found.module) == (kind, text, "shop.till")


@pytest.mark.parametrize("alert", [ANOMALY, COMING])
def test_an_alert_is_read_as_the_watch_prints_it(tmp_path: Path, alert: Alert) -> None:
    line = json.dumps(document(alert, 7.0))
    assert read_failure(written(tmp_path, line + "\n"), "till") == failure_of(alert, "till")


def test_a_failure_as_json_keeps_its_readings(tmp_path: Path) -> None:
    failure = Failure(kind="anomaly", module="till", text="odd", metric="m", readings=((1.0, 2.0),))
    assert read_failure(written(tmp_path, failure.model_dump_json()), "till") == failure
    without = json.dumps(failure.model_dump(mode="json", exclude={"module"}))
    assert read_failure(written(tmp_path, without), "till") == failure


@given(extra=st.integers(1, 5_000))
def test_of_a_long_text_the_end_is_told(tmp_path_factory: pytest.TempPathFactory, extra: int) -> None:
    text = "x" * extra + "y" * (MAX_TEXT_CHARS - 5) + "error"
    found = read_failure(written(tmp_path_factory.mktemp("long"), text), "till")
    assert found.text == text[-MAX_TEXT_CHARS:] and found.text.endswith("error")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"a\0b", "zero byte"),
        (b"x" * (MAX_BYTES + 1), "larger than"),
        (b'{"kind": ', "is none"),
        (b'{"event": "anomaly_detected"}\n{"event": "anomaly_detected"}', "give one line"),
        (b'{"event": "tea_time"}', "no event of chimera watch"),
        (b'{"event": "anomaly_detected", "metric": "m"}', "timestamp"),
        (b'{"kind": "test"}', "text"),
        (b'{"kind": "rumour", "text": "x"}', "kind"),
        (b'{"kind": "test", "text": "x", "module": "other"}', "blames other"),
        (b"{" * 100_000, "is none"),
    ],
)
def test_what_is_no_failure_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_failure(written(tmp_path, content), "till")


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_failure(tmp_path / "none", "till")
    with pytest.raises(InputError, match="directory"):
        read_failure(tmp_path, "till")


def test_standard_input_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def stdin(content: bytes) -> Any:
        return io.TextIOWrapper(io.BytesIO(content))

    monkeypatch.setattr("sys.stdin", stdin(b"it is slow"))
    assert read_failure(STDIN, "till").text == "it is slow"
    monkeypatch.setattr("sys.stdin", stdin(b"x" * (MAX_BYTES + 1)))
    with pytest.raises(InputError, match="standard input is larger"):
        read_failure(STDIN, "till")
