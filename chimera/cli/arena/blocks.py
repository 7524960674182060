"""`af blocks`: what a folder or store of evidence holds, block by block. To audit it is `af verify`'s."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chimera.arena.types import Block, Sample
from chimera.arena.validators.blocks import block_hash, block_key, read_block
from chimera.arena.validators.reading import read_chain
from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.arena.places import Place, block_file, opened, read_file
from chimera.cli.settings import read_settings
from chimera.core.errors import EvidenceError, InputError, ObjectMissing, ObjectTooLarge

LISTED, UNREADABLE = 0, 1

MAX_NAMED = 4
"""Environments, or miners, that a line names. `--json` has all."""

LATEST_S = 253_402_300_799
"""The last second of the year 9999: what calendars end with. A block may say anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one `af blocks`."""

    place: str | None
    hotkeys: tuple[str, ...]
    show: int | None
    as_json: bool


def execute(options: Options) -> int:
    """Print the blocks, or the samples of one; UNREADABLE if there is one that is none."""
    return command.run(_execute(options), as_json=options.as_json)


async def _execute(options: Options) -> int:
    where = options.place or str(read_settings().home / "arena" / "blocks")
    if path := block_file(where):
        return _show(_read(read_file(path), where), as_json=options.as_json)
    async with opened(where, options.hotkeys) as place:
        if options.show is not None:
            return _show(await _block(place, options.show), as_json=options.as_json)
        worst = LISTED
        for hotkey in place.hotkeys:
            worst = max(worst, await _list(place, hotkey, as_json=options.as_json))
        return worst


async def _list(place: Place, hotkey: str, *, as_json: bool) -> int:
    """A line for each block, as it is read: a chain may be long."""
    worst = LISTED
    if not as_json:
        render.say((hotkey, "bold"))
    try:
        async for data in read_chain(place.store, hotkey):
            try:
                fields = _fields(read_block(data))
            except EvidenceError as error:
                worst = UNREADABLE
                fields = _faulty(hotkey, error.reason, error.message)
            _tell(fields, as_json=as_json)
    except ObjectTooLarge as error:
        worst = UNREADABLE
        _tell(_faulty(hotkey, "limit", f"{error}; what follows was not read"), as_json=as_json)
    return worst


def _faulty(hotkey: str, kind: str, message: str) -> dict[str, Any]:
    return {"hotkey": hotkey, "fault": {"kind": kind, "message": message}}


def _tell(fields: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        render.line(render.to_line(fields))
    elif fault := fields.get("fault"):
        render.say("  ", (str(fault["kind"]), "red"), f": {command.one_line(str(fault['message']))}")
    else:
        _line(fields)


def _fields(block: Block) -> dict[str, Any]:
    header = block.header
    return {
        "hotkey": header.validator_hotkey,
        "block_index": header.block_index,
        "timestamp": header.timestamp,
        "samples": len(block.samples),
        "hash": block_hash(header),
        "env_ids": sorted({sample.env_id for sample in block.samples}),
        "champions": sorted({sample.miner_id for sample in block.samples if sample.role == "champion"}),
        "contenders": sorted({sample.miner_id for sample in block.samples if sample.role == "contender"}),
    }


def _line(fields: dict[str, Any]) -> None:
    who = f"{_named(fields['champions'])} against {_named(fields['contenders'])} in {_named(fields['env_ids'])}"
    what = f"{_time(fields['timestamp'])}  {fields['samples']:5} samples  {fields['hash'][:16]}  {who}"
    render.say((f"{fields['block_index']:6}", "bold"), f"  {command.one_line(what)}")


def _named(names: list[str]) -> str:
    more = [f"{len(names) - MAX_NAMED} more"] if len(names) > MAX_NAMED else []
    return ", ".join([*names[:MAX_NAMED], *more])


def _time(timestamp: int) -> str:
    if timestamp > LATEST_S:
        return f"{timestamp} s"
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S")


async def _block(place: Place, index: int) -> Block:
    if len(place.hotkeys) > 1:
        raise InputError(f"{place.name} has blocks of {len(place.hotkeys)} validators: choose one with --hotkey")
    [hotkey] = place.hotkeys
    try:
        return _read(await place.store.get(block_key(hotkey, index)), f"block {index}")
    except ObjectMissing:
        raise InputError(f"there is no block {index} of {hotkey} in {place.name}") from None


def _read(data: bytes, name: str) -> Block:
    try:
        return read_block(data)
    except EvidenceError as error:
        raise InputError(f"{name}: {error} ({error.reason})") from error


def _show(block: Block, *, as_json: bool) -> int:
    """Every sample of a block. With JSON, the block as it is."""
    if as_json:
        render.line(render.to_line(block.model_dump(mode="json"), indent=2))
        return LISTED
    _line(_fields(block))
    for number, sample in enumerate(block.samples):
        _sample(number, sample)
    return LISTED


def _sample(number: int, sample: Sample) -> None:
    ok, reason = sample.verdict.ok, sample.verdict.reason
    said = ("right", "green") if ok else (f"wrong: {command.one_line(reason)}", "yellow")
    who = f"{sample.env_id}  {sample.challenge_id}  {sample.role} {sample.miner_id}"
    render.say((f"\n{number:5}", "bold"), f"  {command.one_line(who)}  ", said, f"  {sample.elapsed_ms} ms")
    for name, text in (("prompt", sample.prompt), ("response", sample.response)):
        render.say("       ", (name, "dim"), f"  {command.one_line(text)}")
