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
    settings, hotkey = read_settings(), _checked(options.hotkey)
    never = not settings.state_url and not (settings.home / "state.db").exists()  # reading would make it
    record = None if never else await read_throne(settings, options.netuid, hotkey)
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


def _document(options: Options, record: Record, now_s: float) -> dict[str, Any]:
    throne = record.throne
    return {
        "hotkey": options.hotkey,
        "netuid": options.netuid,
        "champion": throne.champion,
        "since_s": throne.since_s,
        "round": throne.round,
        "ratio_to_beat": record.p0,
        "ratio_of_new_duels": throne.ratchet.ratio_at(now_s),
        "duels_since_s": record.opened_s,
        "duels_ended": len(record.ended),
        "settled_s": record.settled_s,
        "weights_set": record.weights_set,
        "weights": {throne.champion: 1.0},
        "heads": {hotkey: head.model_dump() for hotkey, head in sorted(record.heads.items())},
    }


def _print(record: Record, now_s: float) -> None:
    throne, opened_s = record.throne, record.opened_s
    began = f"began {command.ago(now_s - opened_s)} ago" if opened_s else "are the first"
    held = f"held for {command.ago(now_s - throne.since_s)}" if throne.since_s else "held from the beginning"
    render.say(
        ("throne   ", "dim"),
        (command.one_line(throne.champion), "bold"),
        f", {held}, after {throne.round} ruling{'s' * (throne.round != 1)}",
    )
    render.say(("ratio    ", "dim"), f"{record.p0:.4g} to beat in the duels that are on, which {began}")
    render.say(("         ", "dim"), f"{throne.ratchet.ratio_at(now_s):.4g} in duels that would begin now")
    taken = "taken" if record.weights_set else "not taken yet"
    said = f"1.0 {command.one_line(throne.champion)}, 0.0 everybody else; {taken} by the chain"
    render.say(("weights  ", "dim"), said)
    for hotkey, head in sorted(record.heads.items()):
        render.say(("seen     ", "dim"), f"{hotkey} up to block {head.index}, {head.hash[:16]}")
