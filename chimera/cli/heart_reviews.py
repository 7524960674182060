"""Patches that wait for a person: shown, and answered through a file that the node's process looks for.

The node alone applies patches, in its own process. An answer that is given while none runs is heeded by the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from string import hexdigits
from typing import Literal

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.heal_run import diff_of
from chimera.cli.settings import read_settings
from chimera.core.errors import InputError, Overloaded
from chimera.system.heart import HeartNode
from chimera.system.proposals import Asked, Proposal

DONE = 0

EVERY_S = 0.5
"""Between two looks for answers."""

MIN_CHARS, MAX_CHARS = 4, 32
"""Of an id, that are to be given."""

Answer = Literal["agree", "refuse"]


def execute_list(home: Path | None, *, as_json: bool) -> int:
    """Print the patches that wait, and return the exit code."""
    return command.run(_list(home, as_json), as_json=as_json)


def execute_answer(home: Path | None, patch: str, answer: Answer) -> int:
    """Leave the answer for the node, and return the exit code."""
    return command.run(_answer(home, patch, answer), as_json=False)


async def _list(home: Path | None, as_json: bool) -> int:
    asked = Asked(_folder(home) / "reviews")
    for patch_id in (ids := asked.ids()):
        _show(patch_id, asked.read(patch_id), as_json=as_json)
    if not ids:
        render.note("no patch waits for a person")
    return DONE


async def _answer(home: Path | None, patch: str, answer: Answer) -> int:
    folder = _folder(home)
    asked = Asked(folder / "reviews")
    proposal = asked.read(the_one(patch, asked.ids()))
    answers = folder / "answers"
    try:
        answers.mkdir(exist_ok=True)
        (answers / f"{proposal.patch.id}.{answer}").touch()
    except OSError as error:
        raise InputError(f"{answers} cannot be written: {error.strerror}") from None
    render.note(f"{answer}: {proposal.patch.summary}; the node in {folder} heeds it at once, or when it runs again")
    return DONE


def the_one(beginning: str, ids: Sequence[str]) -> str:
    """The id that begins so, of those that wait. Raises InputError unless it is one, and so much is given that it is
    meant: an empty variable of a shell must agree to nothing."""
    if not MIN_CHARS <= len(beginning) <= MAX_CHARS or set(beginning.lower()) - set(hexdigits):
        raise InputError(
            f"{beginning!a:.100} is no id of a patch: give at least {MIN_CHARS} of its 32 hex digits, as "
            "`chimera heart reviews` shows them"
        )
    found = [patch_id for patch_id in ids if patch_id.startswith(beginning.lower())]
    if len(found) > 1:
        raise InputError(f"{len(found)} patches begin with {beginning}: {', '.join(found)}; give more of the id")
    if not found:
        raise InputError(f"no patch whose id begins with {beginning} waits: {', '.join(ids) or 'none does'}")
    return found[0]


def _folder(home: Path | None) -> Path:
    folder = home or read_settings().home / "heart"
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: --home names that of a node that has run")
    return folder


def _show(patch_id: str, proposal: Proposal, *, as_json: bool) -> None:
    olds = {path: None if text is None else text.encode() for path, text in proposal.before.items()}
    diff = "".join(diff_of(path, olds.get(path), text.encode()) for path, text in sorted(proposal.changes.items()))
    summary = proposal.patch.summary
    told = {"patch": patch_id, "subject": proposal.decision.subject, "confidence": proposal.confidence}
    if as_json:
        render.line(render.to_line(told | {"summary": summary, "failure": proposal.failure.text, "diff": diff}))
        return
    subject = command.one_line(proposal.decision.subject)
    render.say((patch_id, "bold"), f"  {subject}, confidence {proposal.confidence:.2f}: {command.one_line(summary)}")
    for line in diff.splitlines():
        render.say(f"    {line.expandtabs()}")


async def heed(node: HeartNode, home: Path) -> None:
    """Give the node the answers that people leave, as they come, until cancelled. One that fits nothing is told."""
    methods = {".agree": node.agree, ".refuse": node.refuse}
    while True:
        for path in sorted(path for path in (home / "answers").glob("*") if path.suffix in methods):
            try:
                methods[path.suffix](path.stem)
            except Overloaded as error:
                render.note(f"{path.name} waits: {error}")
                continue
            except Exception as error:  # whatever lies there, the node goes on
                render.note(f"{path.name} came to nothing: {error}")
            with suppress(OSError):
                path.unlink()
        await asyncio.sleep(EVERY_S)
