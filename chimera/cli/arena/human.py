"""A person as a miner: is shown what the environment says, and types the replies."""

from __future__ import annotations

import signal
import sys

from chimera.arena.miners.miner import Answer, Miner, Turn
from chimera.arena.types import MAX_TEXT_CHARS
from chimera.cli import render
from chimera.core.errors import InputError


class HumanMiner(Miner):
    """Reads a line of standard input for each reply, from a terminal or a pipe. Raises InputError when it ends."""

    miner_id = "human"

    async def reply(self, turn: Turn) -> Answer:
        render.note(turn.messages[-1].content)
        return Answer(text=_line())


def _line() -> str:
    """The next line, without its end. Ctrl-C ends the wait at once: asyncio's own handler would wait for the line."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.stderr.write("> ")
        sys.stderr.flush()
        line = sys.stdin.readline(MAX_TEXT_CHARS + 2)
    except UnicodeDecodeError as error:
        raise InputError("a reply is text in UTF-8") from error
    finally:
        signal.signal(signal.SIGINT, before)
    if not line:
        raise InputError("the input ended before the play did")
    return line.removesuffix("\n")
