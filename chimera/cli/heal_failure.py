"""A failure as people have it: a traceback, what pytest printed, an alert of the watch, or words."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from chimera.cli import render
from chimera.cli.model import decoded, read_text
from chimera.cli.settings import explain
from chimera.core.errors import InputError
from chimera.core.watching import AnomalyDetected, FailurePredicted
from chimera.healing.failure import MAX_TEXT_CHARS, Failure, failure_of
from chimera.storage import strict_json

STDIN = Path("-")

MAX_BYTES = 4_000_000

_PYTEST = re.compile(
    r"^(=+ (FAILURES|ERRORS|short test summary info) =+|(FAILED|ERROR) \S+::\S+|E   .*)$", re.MULTILINE
)
_TRACEBACK = "Traceback (most recent call last)"

ALERTS: dict[str, type[AnomalyDetected] | type[FailurePredicted]] = {
    "anomaly_detected": AnomalyDetected,
    "failure_predicted": FailurePredicted,
}

WATCH_ADDS = frozenset({"kind", "score"})
"""Fields that `chimera watch --json` gives every alert, also one that has none of its own."""


def read_failure(path: Path, module: str) -> Failure:
    """The failure in a file, or from standard input for `-`. Raises InputError.

    JSON is a Failure, or an alert of `chimera watch --json`. Of other text the kind is found by what it looks like, and
    the end is taken where it is long: there the error is.
    """
    if path == STDIN:
        text = decoded(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input", MAX_BYTES)
    else:
        text = read_text(path, MAX_BYTES)
    name = "standard input" if path == STDIN else str(path)
    if not text.strip():
        raise InputError(f"{name} is empty: give a traceback, the output of pytest, an alert, or say what is wrong")
    if "\0" in text:
        raise InputError(f"{name} is no text: it holds a zero byte")
    if text.lstrip().startswith("{"):
        return _of_json(text, name, module)
    if len(text) > MAX_TEXT_CHARS:
        render.note(f"{name} has {len(text):,} characters: the last {MAX_TEXT_CHARS:,} are told")
    return Failure(kind=_kind(text), module=module, text=text[-MAX_TEXT_CHARS:])


def _kind(text: str) -> Literal["test", "traceback", "description"]:
    """pytest first: what it prints may hold tracebacks."""
    if _PYTEST.search(text):
        return "test"
    return "traceback" if _TRACEBACK in text else "description"


def _of_json(text: str, name: str, module: str) -> Failure:
    try:
        document: Any = strict_json.loads(text)
    except (ValueError, RecursionError) as error:
        one = "; of several alerts, one a line, give one line" if "Extra data" in str(error) else ""
        raise InputError(f"{name} begins as JSON and is none: {error}{one}") from None
    try:
        if "event" in document:
            return _of_alert(document, name, module)
        return _blamed(Failure.model_validate({"module": module} | document), name, module)
    except ValidationError as error:
        raise InputError(f"{name} is neither a failure nor an alert of chimera watch: {explain(error)}") from None


def _of_alert(document: dict[str, Any], name: str, module: str) -> Failure:
    kind = ALERTS.get(str(document["event"]))
    if kind is None:
        raise InputError(f"{name}: {document['event']!a:.100} is no event of chimera watch: {', '.join(ALERTS)} are")
    known = {key: value for key, value in document.items() if key in kind.model_fields or key not in WATCH_ADDS}
    return failure_of(kind.model_validate(known), module)


def _blamed(failure: Failure, name: str, module: str) -> Failure:
    if failure.module != module:
        raise InputError(f"{name} blames {failure.module}, and --module says {module}: name one")
    return failure
