"""Patches that wait for a person: shown, and answered through a file that the node's process looks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import hexdigits

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.settings import read_settings
from chimera.core.errors import InputError
from chimera.system.reviews import Answer, PatchReviews, Review

DONE = 0

MIN_CHARS, MAX_CHARS = 4, 32
"""Of an id, that are to be given."""


def execute_list(home: Path | None, *, as_json: bool) -> int:
    """Print the patches that wait, and return the exit code."""
    return command.run(_list(home, as_json), as_json=as_json)


def execute_answer(home: Path | None, patch: str, answer: Answer) -> int:
    """Leave the answer for the node, and return the exit code."""
    return command.run(_answer(home, patch, answer), as_json=False)


async def _list(home: Path | None, as_json: bool) -> int:
    reviews = PatchReviews(_folder(home))
    for each in (found := reviews.waiting()):
        _show(reviews.read(each.id), as_json=as_json)
    if not found:
        render.note("no patch waits for a person")
    return DONE


async def _answer(home: Path | None, patch: str, answer: Answer) -> int:
    folder = _folder(home)
    reviews = PatchReviews(folder)
    found = reviews.answer(the_one(patch, [each.id for each in reviews.waiting()]), answer)
    render.note(f"{answer}: {found.summary}; the node in {folder} heeds it at once, or when it runs again")
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


def _show(review: Review, *, as_json: bool) -> None:
    diff = "".join(each.diff for each in review.diffs)
    told = {"patch": review.id, "subject": review.module, "confidence": review.confidence}
    if as_json:
        render.line(render.to_line(told | {"summary": review.summary, "failure": review.failure, "diff": diff}))
        return
    subject = command.one_line(review.module)
    render.say(
        (review.id, "bold"), f"  {subject}, confidence {review.confidence:.2f}: {command.one_line(review.summary)}"
    )
    for line in diff.splitlines():
        render.say(f"    {line.expandtabs()}")
