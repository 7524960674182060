"""`af weights`: who has the throne, as a validator of this machine remembers it, and what that gives the miners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bittensor_core import Keypair

from chimera.arena.validators.record import Record
from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.settings import read_settings
from chimera.core.clock import SystemClock
from chimera.core.errors import InputError
from chimera.system.validation import read_throne

KNOWN, UNKNOWN = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one `af weights`."""

    hotkey: str
    netuid: int
    as_json: bool


def execute(options: Options) -> int:
    """Print the throne and the weights; UNKNOWN where this validator has never settled a round."""
    return command.run(_execute(options), as_json=options.as_json)


async def _execute(options: Options) -> int:
    record = await read_throne(read_settings(), options.netuid, _checked(options.hotkey))
    if record is None:
        if options.as_json:
            render.line(render.to_line({"hotkey": options.hotkey, "netuid": options.netuid, "champion": None}))
        else:
            render.note(f"{options.hotkey} has settled no round of subnet {options.netuid} on this machine")
        return UNKNOWN
    now_s = SystemClock().now()
    if options.as_json:
        render.line(render.to_line(_document(options, record, now_s), indent=2))
    else:
        _print(record, now_s)
    return KNOWN


def _checked(hotkey: str) -> str:
    try:
        Keypair(ss58_address=hotkey)
    except ValueError:
        raise InputError(f"{hotkey!a:.100} is not a hotkey's SS58 address: `af blocks` shows those there are") from None
    return hotkey
