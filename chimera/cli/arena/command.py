"""What all commands of the arena have in common: how they run, how they end, and how a table looks."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from rich.cells import cell_len

from chimera.cli import render
from chimera.cli.settings import explain
from chimera.core.errors import InputError, MissingExtra, SwarmError

BAD_INPUT, FAULT, INTERRUPTED, TERMINATED = 2, 3, 130, 143


def run(work: Coroutine[Any, Any, int], *, as_json: bool) -> int:
    """Run a command to its end, and return the exit code: its own, or that of what went wrong, in one clear line."""
    with render.results_only():
        try:
            return asyncio.run(_until_terminated(work))
        except (InputError, MissingExtra) as error:
            render.error(error, as_json=as_json)
            return BAD_INPUT
        except KeyboardInterrupt:
            return INTERRUPTED
        except asyncio.CancelledError:
            return TERMINATED
        except SystemExit as error:  # an environment's, or a python: miner's, whose code runs here
            render.error(SwarmError(f"code of a package ended the command: SystemExit({error})"), as_json=as_json)
            return FAULT
        except Exception as error:
            render.error(error, as_json=as_json)
            return FAULT


async def _until_terminated(work: Coroutine[Any, Any, int]) -> int:
    cancel_on_sigterm()
    return await work


def cancel_on_sigterm() -> None:
    """From now on SIGTERM cancels the task that calls this, which so leaves through every `finally`."""
    this = asyncio.current_task()
    if this is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)


@contextmanager
def options() -> Iterator[None]:
    """While options become data: what pydantic refuses is bad input, in one line."""
    try:
        yield
    except ValidationError as error:
        raise InputError(explain(error)) from error


def one_line(text: str) -> str:
    """In one line, and nothing in it that a terminal obeys."""
    return render.plain(text).replace("\n", "\\n")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns as wide as their widest cell: nothing is cut, so that a pipe gets it all."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(heads, *cells, strict=True)]
    for row, style in ((heads, "dim"), *((row, "") for row in cells)):
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        render.say(("  ".join(padded).rstrip(), style))


def ago(seconds: float) -> str:
    """A span of time in its largest unit, such as `3 h`."""
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length_s:
            return f"{int(seconds // length_s)} {unit}"
    return f"{max(0, int(seconds))} s"
