"""What a person or a script sees of a result."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from chimera.core.errors import ChimeraError
from chimera.core.events import Event, EventKind
from chimera.core.types import MissionState, TaskResult
from chimera.swarm.brief import Brief

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


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
    brief = brief_of(result)
    agreed = result.state is MissionState.ANSWERED and (brief is None or brief.agreed)
    return 0 if agreed else 1


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
        _out.print(f"[yellow]{result.state.value}[/]: {escape(result.explanation)}")
    _out.print(
        f"[dim]{result.elapsed_s:.2f} s, {result.attempts} attempts, ${result.cost_usd:.4f}, {result.mission_id}[/]"
    )


def _headline(question: str, answer: str, *, agreed: bool) -> None:
    _out.print(f"[bold]{escape(question)}[/]\n")
    for answered in answer.splitlines() or [""]:
        _out.print(f"  [{'green' if agreed else 'yellow'}]{escape(answered)}[/]")
    _out.print()


def _brief(brief: Brief) -> None:
    _headline(brief.question, brief.answer, agreed=brief.agreed)
    decision = brief.decision
    _out.print(
        f"confidence [bold]{brief.confidence:.2f}[/], {decision.method.value}: {decision.outcome.value} "
        f"({escape(decision.explanation)})"
    )
    further = [quote for quote in brief.quotes if quote.citation not in brief.answer]
    for quote in further:
        _out.print(f"  [dim]also found:[/] {escape(quote.text)} {escape(quote.citation)}")
    for dissent in brief.dissent:
        said = f"{dissent.quote.text} {dissent.quote.citation}" if dissent.quote else dissent.why
        _out.print(f"  [dim]{escape(dissent.voter)} dissents ({dissent.confidence:.2f}):[/] {escape(said)}")
    for rejected in brief.rejected:
        _out.print(f"  [red]rejected[/] a reply of {escape(rejected.voter)}: {escape(rejected.why)}")
    for skipped in brief.skipped:
        _out.print(f"  [yellow]skipped[/] {escape(skipped.file)}: {escape(skipped.cause)}")
    for silent in brief.silent:
        _out.print(f"  [yellow]no reply[/] from {escape(silent.voter)} on {escape(silent.task)}: {escape(silent.why)}")
    if brief.note:
        _out.print(f"[dim]{escape(brief.note)}[/]")


def short(question: str, result: TaskResult) -> None:
    """Two lines for one question of a batch."""
    brief = brief_of(result)
    _out.print(f"[bold]{escape(question)}[/]")
    answer = brief.answer.splitlines()[0] if brief and brief.answer else result.explanation
    mark = "" if exit_code(result) == 0 else f" [yellow]({result.state.value}, not agreed)[/]"
    _out.print(f"  {escape(answer)} [dim]({brief.confidence if brief else 0.0:.2f})[/]{mark}")


def error(error: Exception, *, as_json: bool, traceback: bool = False) -> None:
    """An error for a person on standard error; with `as_json` also a document on standard output."""
    message = str(error) if isinstance(error, ChimeraError) else f"{type(error).__name__}: {error}"
    if traceback:
        _err.print_exception()
    _err.print(f"[red]error:[/] {escape(message)}")
    if as_json:
        line(json.dumps({"error": {"kind": type(error).__name__, "message": message}}, ensure_ascii=False))


def line(text: str) -> None:
    """A line on standard output, as it is, at once: a reader of a pipe must not wait for a full buffer."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line beside the result, on standard error."""
    _err.print(f"[dim]{escape(text)}[/]")


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
            bar.update(row, total=known, completed=done, description=escape(what))
