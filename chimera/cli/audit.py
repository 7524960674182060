"""The commands `chimera audit`. They import what they need when they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from chimera.security.audit_entry import AuditEntry

WHOLE, TAMPERED, BAD_INPUT, FAULT = 0, 1, 2, 3

audit = typer.Typer(name="audit", help="Who did what: verify the log, and look into it.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The log's folder.", metavar="FOLDER")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
When = Annotated[str | None, typer.Option(help="A time, as 2026-01-31, 2026-01-31T12:00Z or seconds since 1970.")]


@audit.callback()
def audits() -> None:
    """Who did what: verify the log, and look into it."""


@audit.command("verify")
def audit_verify(
    folder: Folder,
    anchors: Annotated[
        Path | None, typer.Option(help="The folder of its signed heads (default FOLDER-anchors).", metavar="DIR")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="The public key, PEM (default: the one in FOLDER).", metavar="FILE")
    ] = None,
    at_least: Annotated[
        int, typer.Option(min=0, help="An entry that is known to have been there, by its number.", metavar="N")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Say whether a log is whole: nothing removed, changed, put in another order, cut off or written anew.

    Exit codes: **0** it is whole, **1** it is not (the first problem is printed), **2** bad input, **3** a fault.

    Example: `chimera audit verify audit --anchors /mnt/elsewhere/anchors --key audit.pub`
    """
    from chimera.cli import render
    from chimera.security.audit_entry import anchors_folder, public_key_path, read_public_key
    from chimera.security.audit_verify import verify

    def work() -> int:
        public_key = read_public_key(key or public_key_path(_there(folder)))
        report = verify(folder, anchors or anchors_folder(folder.absolute()), public_key, at_least=at_least)
        if as_json:
            render.line(render.to_line(report.model_dump(mode="json")))
        else:
            _tell(report.ok, f"{report.entries} entries, {report.first_seq} to {report.last_seq}")
            if problem := report.first_problem:
                where = f"{problem.file}, line {problem.line}: " if problem.file else ""
                render.say((problem.kind, "red"), f"  {where}{problem.what}")
            signed = datetime.fromtimestamp(report.anchored_at_s, UTC).isoformat(timespec="seconds")
            render.say((f"{report.anchors} anchors, the last for entry {report.anchored_seq}, made at {signed}", "dim"))
            if report.torn:
                render.say(("the last line is half a line, as a writer that was killed leaves it", "dim"))
            if key is None:
                render.note("the key is the log's own: name the one you noted with --key, to be sure whose it is")
        return WHOLE if report.ok else TAMPERED

    _run(work, as_json=as_json)


@audit.command("tail")
def audit_tail(
    folder: Folder,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="So many.", metavar="N")] = 20,
    as_json: AsJson = False,
) -> None:
    """Print the last entries, the oldest first. It does not verify them.

    Example: `chimera audit tail audit --lines 5`
    """
    from chimera.security.audit_verify import tail

    _run(lambda: _show(tail(_there(folder), lines)[-lines:], as_json), as_json=as_json)


@audit.command("query")
def audit_query(
    folder: Folder,
    actor: Annotated[str | None, typer.Option(help="Who.")] = None,
    action: Annotated[str | None, typer.Option(help="What was done.")] = None,
    outcome: Annotated[str | None, typer.Option(help="What came of it.")] = None,
    since: When = None,
    until: When = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 100,
    after: Annotated[
        int | None, typer.Option(help="The first ones after this entry; without it, the last.", metavar="N")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the entries that have all that is given, the oldest first. It does not verify them.

    Example: `chimera audit query audit --actor alice --outcome forbidden --json`
    """
    from chimera.security.audit import Wanted, choose
    from chimera.security.audit_verify import entries

    def work() -> int:
        wanted = Wanted(actor, action, outcome, _time(since), _time(until))
        return _show(choose(entries(_there(folder)), wanted, limit=limit, after=after), as_json)

    _run(work, as_json=as_json)


def _run(work: Callable[[], int], *, as_json: bool) -> None:
    from chimera.cli import render
    from chimera.core.errors import AuditError, InputError, MissingExtra

    with render.results_only():
        try:
            code = work()
        except (AuditError, InputError, MissingExtra) as error:
            render.error(error, as_json=as_json)
            code = BAD_INPUT
        except Exception as error:
            render.error(error, as_json=as_json)
            code = FAULT
    raise typer.Exit(code)


def _there(folder: Path) -> Path:
    from chimera.core.errors import InputError

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name that of an audit log")
    return folder


def _time(text: str | None) -> float | None:
    """Seconds since the epoch; a time without a zone is UTC."""
    from chimera.core.errors import InputError

    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!a:.100} is no time: write 2026-01-31, 2026-01-31T12:00Z or seconds") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _tell(ok: bool, what: str) -> None:
    from chimera.cli import render

    render.say(("whole" if ok else "NOT WHOLE", "green" if ok else "red"), f"  {what}")


def _show(entries: Sequence[AuditEntry], as_json: bool) -> int:
    from chimera.cli import render

    for entry in entries:
        if as_json:
            render.line(render.to_line(entry.model_dump(mode="json")))
            continue
        at = datetime.fromtimestamp(entry.at_s, UTC).isoformat(timespec="milliseconds")
        words = " ".join(word.replace("\n", " ") for word in (entry.actor, entry.action, entry.resource) if word)
        detail = f"  {render.to_line(entry.detail)}" if entry.detail else ""
        render.say((f"{entry.seq} {at}", "dim"), f"  {words}  ", (entry.outcome, "bold"), (detail, "dim"))
    if not entries:
        render.note("no entry")
    return WHOLE
