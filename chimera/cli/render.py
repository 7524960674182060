"""What a person or a script sees of a result."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from chimera.core.errors import ChimeraError
from chimera.core.events import Event, EventKind
from chimera.core.types import MissionState, TaskResult
from chimera.swarm.brief import Brief

BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

_out = Console(highlight=False, soft_wrap=True, emoji=False)
_err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


Part = str | tuple[str, str]
"""A piece of what is said: text, or text and a style."""


def plain(text: str) -> str:
    """Text of unknown origin, safe to print: control characters are shown and not obeyed.

    Documents and their names are written by strangers. A terminal obeys C0 and C1 controls, and bidirectional controls
    make it show another text than there is (CVE-2021-42574).
    """
    return "".join(c if c == "\n" or not _obeyed(c) else f"\\x{ord(c):02x}" for c in text)


def say(*parts: Part, console: Console | None = None) -> None:
    """Print a line. No part is read as markup, so that what stands in a document is printed as it stands there."""
    pieces = [(plain(part), "") if isinstance(part, str) else (plain(part[0]), part[1]) for part in parts]
    (console or _out).print(Text.assemble(*pieces))


def _obeyed(character: str) -> bool:
    return unicodedata.category(character) == "Cc" or character in BIDI_CONTROLS


def brief_of(result: TaskResult) -> Brief | None:
    """The brief of a mission over documents; None for other missions and for one that ended before it had one."""
    try:
        return Brief.model_validate(result.value)
    except ValidationError:
        return None


def exit_code(result: TaskResult) -> int:
    """0 answered, 1 undecided or out of time, 3 an internal fault."""
    if result.state is MissionState.FAILED:
        return 3
    return 0 if result.state is MissionState.ANSWERED else 1


def as_json(question: str, result: TaskResult) -> dict[str, Any]:
    """One JSON document for a result: the brief's fields first, the same for every state."""
    brief = brief_of(result)
    common: dict[str, Any] = {
        "elapsed_s": round(result.elapsed_s, 4),
        "cost_usd": result.cost_usd,
        "state": result.state.value,
        "mission_id": result.mission_id,
        "attempts": result.attempts,
        "explanation": result.explanation,
    }
    if result.error:
        common["error"] = result.error
    if brief:
        document = brief.model_dump(mode="json", exclude_none=True)
        document["decision"].setdefault("value", None)
        if result.state is MissionState.ANSWERED:
            common["explanation"] = brief.decision.explanation
        return document | common
    decision = result.decision.model_dump(mode="json") if result.decision else None
    dissent = [vote.model_dump(mode="json") for vote in result.replies if vote.voter not in result.supporters]
    answer = result.value if isinstance(result.value, str) else json.dumps(result.value, ensure_ascii=False)
    return {
        "question": question,
        "answer": "" if result.value is None else answer,
        "value": result.value,
        "quotes": [],
        "confidence": result.confidence,
        "decision": decision,
        "dissent": dissent,
    } | common


def result(question: str, result: TaskResult) -> None:
    """The whole result for a person."""
    brief = brief_of(result)
    if brief is None:
        _headline(question, str(as_json(question, result)["answer"]) or "no answer", agreed=exit_code(result) == 0)
    else:
        _brief(brief)
    if exit_code(result):
        say((result.state.value, "yellow"), f": {result.explanation}")
    spent = f"{result.elapsed_s:.2f} s, {result.attempts} attempts, ${result.cost_usd:.4f}, {result.mission_id}"
    say((spent, "dim"))


def _headline(question: str, answer: str, *, agreed: bool) -> None:
    say((question, "bold"), "\n")
    for answered in answer.splitlines() or [""]:
        say("  ", (answered, "green" if agreed else "yellow"))
    say("")


def _brief(brief: Brief) -> None:
    _headline(brief.question, brief.answer, agreed=brief.agreed)
    decision = brief.decision
    how = f", {decision.method.value}: {decision.outcome.value} ({decision.explanation})"
    say("confidence ", (f"{brief.confidence:.2f}", "bold"), how)
    for quote in brief.quotes:
        if quote.citation not in brief.answer:
            say("  ", ("also found:", "dim"), f" {quote.text} {quote.citation}")
    for dissent in brief.dissent:
        said = f"{dissent.quote.text} {dissent.quote.citation}" if dissent.quote else dissent.why
        say("  ", (f"{dissent.voter} dissents ({dissent.confidence:.2f}):", "dim"), f" {said}")
    for rejected in brief.rejected:
        say("  ", ("rejected", "red"), f" a reply of {rejected.voter}: {rejected.why}")
    for skipped in brief.skipped:
        say("  ", ("skipped", "yellow"), f" {skipped.file}: {skipped.cause}")
    for silent in brief.silent:
        say("  ", ("no reply", "yellow"), f" from {silent.voter} on {silent.task}: {silent.why}")
    if brief.note:
        say((brief.note, "dim"))


def short(question: str, result: TaskResult) -> None:
    """Two lines for one question of a batch."""
    brief = brief_of(result)
    say((question, "bold"))
    answer = brief.answer.splitlines()[0] if brief and brief.answer else result.explanation
    mark = "" if exit_code(result) == 0 else f" ({result.state.value}, not agreed)"
    say(f"  {answer}", (f" ({brief.confidence if brief else 0.0:.2f})", "dim"), (mark, "yellow"))


def error(error: Exception, *, as_json: bool, traceback: bool = False, question: str = "") -> None:
    """An error for a person on standard error; with `as_json` also a document on standard output."""
    message = str(error) if isinstance(error, ChimeraError) else f"{type(error).__name__}: {error}"
    if traceback:
        _err.print_exception()
    say(("error:", "red"), f" {message}", console=_err)
    if as_json:
        document: dict[str, Any] = {"question": question} if question else {}
        line(to_line(document | {"error": {"kind": type(error).__name__, "message": message}}))


def is_terminal() -> bool:
    """Whether results go to a terminal."""
    return _out.file.isatty()


@contextmanager
def results_only() -> Iterator[None]:
    """Keep standard output for results: what else this process prints meanwhile (Ray does) goes to standard error."""
    _out.file = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _out.file = None  # type: ignore[assignment]


def to_line(document: dict[str, Any], indent: int | None = None) -> str:
    """A document as JSON in ASCII: what a stranger wrote is escaped, and a terminal has nothing to obey."""
    return json.dumps(document, ensure_ascii=True, indent=indent)


def line(text: str) -> None:
    """A line of the result, as it is, at once: a reader of a pipe must not wait for a full buffer."""
    try:
        _out.file.write(text + "\n")
        _out.file.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), _out.file.fileno())  # the reader has had enough: that is its right


def note(text: str) -> None:
    """A line beside the result, on standard error."""
    say((text, "dim"), console=_err)


@contextmanager
def waiting(what: str, *, shown: bool) -> Iterator[None]:
    """A spinner on standard error while the block runs, when that is a terminal."""
    if shown and sys.stderr.isatty():
        with _err.status(what):
            yield
    else:
        yield


async def progress(events: AsyncIterator[Event]) -> None:
    """Follow a mission's events with a bar: tasks decided of those known, the last thing that happened beside it."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_err, transient=True) as bar:
        row = bar.add_task("planning", total=None)
        known = done = replies = 0
        async for event in events:
            match event.kind:
                case EventKind.MISSION_ADMITTED:
                    graph = event.data.get("graph")
                    nodes = graph.get("nodes") if isinstance(graph, dict) else None
                    known = len(nodes) if isinstance(nodes, list) else 0
                case EventKind.GRAPH_EXPANDED:
                    tasks = event.data.get("tasks")
                    known += (tasks if isinstance(tasks, int) else 0) - 1
                case EventKind.REPLY_ACCEPTED:
                    replies += 1
                case EventKind.TASK_DECIDED:
                    done += 1
            what = f"{event.task_id or 'mission'}: {event.kind.value.replace('_', ' ')} ({replies} replies)"
            bar.update(row, total=known, completed=done, description=escape_markup(plain(what)))
