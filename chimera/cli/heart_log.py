"""Steps of a node, as it takes them or as they stand in its `heart.jsonl`."""

from __future__ import annotations

from collections import deque
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.settings import read_settings
from chimera.cli.watch import tell
from chimera.core.errors import InputError
from chimera.system.heart import HeartEvent

SHOWN = 0

FILES = ("heart.1.jsonl", "heart.jsonl")
"""The older one first."""

MAX_LINE_BYTES = 100_000
"""Of one step: a longer line was not written by a node."""

STYLES = {
    "asked": "magenta",
    "applied": "yellow",
    "kept": "green",
    "rejected": "red",
    "rolled_back": "red",
    "failed": "bold red",
}


def show(event: HeartEvent, *, as_json: bool) -> None:
    """A line for a person, or an object on a line."""
    if as_json:
        render.line(render.to_line(event.model_dump(mode="json")))
        return
    patch = f"  (patch {event.patch[:8]})" if event.patch else ""
    step = (f"{event.step:<11}", STYLES.get(event.step, ""))
    at, subject, detail = tell.moment(event.at_s), command.one_line(event.subject), command.one_line(event.detail)
    render.say(f"{at}  ", step, f"  {subject}  {detail}", (patch, "dim"))


def execute(home: Path | None, *, limit: int, as_json: bool) -> int:
    """Print the last steps, the oldest first, and return the exit code."""
    return command.run(_execute(home, limit, as_json), as_json=as_json)


async def _execute(home: Path | None, limit: int, as_json: bool) -> int:
    path = home or read_settings().home / "heart"
    found, unread = read_steps(path, limit)
    for event in found:
        show(event, as_json=as_json)
    if unread:
        render.note(f"{tell.many(unread, 'line')} of {path} could not be read: no step of a node, or cut off")
    if not found and not unread:
        render.note(f"{path} holds no steps yet")
    return SHOWN


def read_steps(home: Path, limit: int) -> tuple[list[HeartEvent], int]:
    """The last `limit` steps, the oldest first, and how many of the last lines are none. Raises InputError."""
    lines: deque[bytes] = deque(maxlen=limit)
    found = [path for name in FILES if (path := home / name).exists()]
    if not found:
        raise InputError(f"there is no {home / FILES[-1]}: --home names the folder of a node that has run")
    for path in found:
        try:
            with path.open("rb") as file:
                lines.extend(iter(partial(file.readline, MAX_LINE_BYTES), b""))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
    steps: list[HeartEvent] = []
    for line in lines:
        try:
            steps.append(HeartEvent.model_validate_json(line))
        except ValidationError:
            continue
    return steps, len(lines) - len(steps)
