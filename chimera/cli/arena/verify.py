"""`af verify`: a stranger's audit. It needs the blocks, and no wallet, no network, no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chimera.arena.validators.audit import ChainAudit, ChainReport, Fault, audit_block, audit_sample
from chimera.arena.validators.blocks import block_hash, block_key, read_block
from chimera.arena.validators.proof import check_proof, prove, read_proof
from chimera.arena.validators.reading import read_chain
from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.arena.places import Place, block_file, opened, read_file
from chimera.core.errors import EvidenceError, InputError, ObjectMissing, ObjectTooLarge, StorageError

VALID, FAULTY, UNREAD = 0, 1, 3

MAX_SHOWN = 20
"""Faults of a chain that are printed. `--json` has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one `af verify`."""

    places: tuple[str, ...]
    hotkeys: tuple[str, ...]
    proof: tuple[str, int] | None
    check_proof: Path | None
    as_json: bool


def execute(options: Options) -> int:
    """Audit, print what was found, and return VALID if there is no fault."""
    return command.run(_execute(options), as_json=options.as_json)


async def _execute(options: Options) -> int:
    if options.check_proof:
        if options.places or options.proof:
            raise InputError("--check-proof takes its file alone: leave out the places and --proof")
        return _check_proof(options.check_proof, as_json=options.as_json)
    if not options.places:
        raise InputError("name a block, a folder of blocks or their URL; or --check-proof FILE")
    if options.proof:
        return await _prove(options.places, *options.proof)
    found = {VALID}
    for where in options.places:
        if path := block_file(where):
            found.add(_one_block(path, as_json=options.as_json))
            continue
        try:
            async with opened(where, options.hotkeys) as place:
                for hotkey in place.hotkeys:
                    found.add(await _chain(place, hotkey, as_json=options.as_json))
        except StorageError as error:
            render.error(error, as_json=options.as_json)
            found.add(UNREAD)
    return FAULTY if FAULTY in found else max(found)


async def _chain(place: Place, hotkey: str, *, as_json: bool) -> int:
    """Audit one validator's chain. One that cannot be read does not keep the others from being audited."""
    audit, unread, large = ChainAudit(hotkey), "", ""
    with render.waiting(f"auditing {hotkey}", shown=not as_json):
        try:
            async for data in read_chain(place.store, hotkey):
                audit.add(data)
        except ObjectTooLarge as error:
            large = f"{error}; what follows was not audited"
        except StorageError as error:
            unread = str(error)
    report = audit.report()
    if large:
        fault = Fault(kind="limit", block_index=report.blocks, message=large)
        report = replace(report, faults=(*report.faults, fault), fault_count=report.fault_count + 1)
    if not report.blocks and not unread and report.ok:
        raise InputError(f"there are no blocks of {hotkey} in {place.name}")
    if as_json:
        render.line(render.to_line(_document(place, report, unread)))
    else:
        _print(report, unread)
    if not report.ok:
        return FAULTY  # which stands, whatever could not be read after it
    return UNREAD if unread else VALID


def _document(place: Place, report: ChainReport, unread: str) -> dict[str, Any]:
    return {
        "place": place.name,
        "hotkey": report.hotkey,
        "valid": report.ok and not unread,
        "blocks": report.blocks,
        "samples": report.samples,
        "head_hash": report.head_hash,
        "fault_count": report.fault_count,
        "faults": [
            {"kind": fault.kind, "block_index": fault.block_index, "message": fault.message} for fault in report.faults
        ],
        "unread": unread,
    }


def _print(report: ChainReport, unread: str) -> None:
    render.say((report.hotkey, "bold"))
    render.say(f"  {report.blocks:,} blocks, {report.samples:,} samples, head {report.head_hash or 'none'}")
    for fault in report.faults[:MAX_SHOWN]:
        render.say("  ", (fault.kind, "red"), f" in block {fault.block_index}: {command.one_line(fault.message)}")
    if report.fault_count > MAX_SHOWN:
        render.say(f"  and {report.fault_count - MAX_SHOWN:,} more")
    if unread:
        render.say("  ", ("could not be read further", "red"), f": {command.one_line(unread)}")
    elif report.ok:
        render.say("  ", ("valid", "green"), ": every signature, link, Merkle root, count and verdict")


def _one_block(path: Path, *, as_json: bool) -> int:
    """A block by itself: whether it follows another, and left nothing out, only its chain can tell."""
    data, document = read_file(path), dict[str, Any](place=str(path), valid=True)
    try:
        block = read_block(data)
        header = block.header
        document |= {"hotkey": header.validator_hotkey, "block_index": header.block_index}
        document |= {"samples": len(block.samples), "hash": block_hash(header)}
        audit_block(block)
    except EvidenceError as error:
        document |= {"valid": False, "fault": {"kind": error.reason, "message": error.message}}
    if as_json:
        render.line(render.to_line(document))
        return VALID if document["valid"] else FAULTY
    render.say((command.one_line(str(path)), "bold"))
    if "hash" in document:
        said = "block {block_index} of {hotkey}: {samples} samples, hash {hash}".format_map(document)
        render.say(f"  {said}")
    if fault := document.get("fault"):
        render.say("  ", (fault["kind"], "red"), f": {command.one_line(fault['message'])}")
        return FAULTY
    render.say("  ", ("valid", "green"), " by itself; give its folder to audit the chain")
    return VALID


async def _prove(places: Sequence[str], name: str, number: int) -> int:
    """Print the proof of one sample."""
    hotkey, _, index = name.rpartition("/")
    if not (index.isascii() and index.isdigit() and len(index) <= 12):
        raise InputError(f"{name!a:.100} names no block: use HOTKEY/INDEX")
    if len(places) > 1:
        raise InputError("a proof is made from one folder or URL")
    async with opened(places[0], [hotkey]) as place:
        try:
            block = read_block(await place.store.get(block_key(hotkey, int(index))))
        except ObjectMissing:
            raise InputError(f"there is no block {index} of {hotkey} in {place.name}") from None
    proof = prove(block, number)
    render.line(render.to_line(proof.model_dump(mode="json"), indent=2))
    return VALID


def _check_proof(path: Path, *, as_json: bool) -> int:
    """Whether a validator signed a block that holds the sample, and whether the sample's verdict is right."""
    document: dict[str, Any] = {"place": str(path), "valid": True}
    try:
        proof = read_proof(read_file(path))
        header, sample = proof.header, proof.sample
        document |= {"hotkey": header.validator_hotkey, "block_index": header.block_index}
        document |= {"env_id": sample.env_id, "challenge_id": sample.challenge_id, "miner_id": sample.miner_id}
        check_proof(proof)
        audit_sample(sample)
    except EvidenceError as error:
        document |= {"valid": False, "fault": {"kind": error.reason, "message": error.message}}
    if as_json:
        render.line(render.to_line(document))
    elif fault := document.get("fault"):
        render.say((fault["kind"], "red"), f": {command.one_line(fault['message'])}")
    else:
        said = "{hotkey} signed block {block_index}, which holds this sample of {miner_id} on {challenge_id}"
        render.say(("valid", "green"), f": {command.one_line(said.format_map(document))}; its verdict is right")
    return VALID if document["valid"] else FAULTY
