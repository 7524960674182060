"""What `chimera sandbox verify` does: it needs a file and a key, and neither data nor torch."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from chimera.cli import render
from chimera.cli.arena import command
from chimera.core.errors import InputError, ProofError, StorageError
from chimera.sandbox.batch_files import Batch, Unproved, check_opened, read_batch, read_opening
from chimera.sandbox.proofs.batch import verify
from chimera.sandbox.proofs.claim import what_is_not, what_is_proved
from chimera.sandbox.proofs.keys import read_verifying_key
from chimera.sandbox.proofs.system import NOTICE, VerifyingKey

PROVED, REFUSED = 0, 1


def execute(path: Path, *, key: Path | None, opening: Path | None, data: Path | None, as_json: bool) -> int:
    return command.run(_verify(path, key, opening, data, as_json=as_json), as_json=as_json)


async def _verify(path: Path, key: Path | None, opening: Path | None, data: Path | None, *, as_json: bool) -> int:
    if key is None:
        raise InputError(
            "say with --key which verifying key to use: one from a set-up that you, or somebody you trust, ran. A key "
            "that comes from the prover proves nothing: whoever runs the set-up can forge"
        )
    if data is not None and opening is None:
        raise InputError("--data goes with --opening: without its salts nobody can tell what was committed")
    verifying = _read_key(key)
    try:
        batch = read_batch(path)
        await asyncio.to_thread(_check, batch, verifying, opening, data)
    except ProofError as error:
        if as_json:
            render.line(render.to_line({"proved": False, "why": str(error), "notice": NOTICE}))
        else:
            render.say(("refused: ", "red"), command.one_line(str(error)))
        return REFUSED
    _say(batch, verifying, opening, data, as_json=as_json)
    return PROVED


def _check(batch: Batch, verifying: VerifyingKey, opening: Path | None, data: Path | None) -> None:
    if isinstance(batch, Unproved):
        raise ProofError("there is no proof in this batch: it was made without a proving key")
    verify(batch, verifying)
    if opening is not None:
        check_opened(batch, read_opening(opening), data)


def _read_key(path: Path) -> VerifyingKey:
    """Raises InputError for what is no verifying key."""
    try:
        return read_verifying_key(path)
    except (ProofError, StorageError) as error:
        raise InputError(str(error)) from error


def _say(batch: Batch, key: VerifyingKey, opening: Path | None, data: Path | None, *, as_json: bool) -> None:
    claim = batch.claim
    shown, hidden = list(what_is_proved(claim)), list(what_is_not(claim))
    if opening is not None:
        whose = f"The columns of the records in {data.name} are" if data else "The opening is"
        shown.append(f"{whose} the committed batch, record by record.")
        hidden = [line for line in hidden if "takes the opening" not in line]
    if as_json:
        found: dict[str, Any] = {"proved": True, "notice": NOTICE, "commitment": batch.commitment}
        found |= {"set_up_by": key.made_by, "says": claim.about, "what_is_proved": shown, "what_is_not": hidden}
        render.line(render.to_line(found))
        return
    render.say(("proved", "bold green"), f" ({NOTICE}), under the key of {key.made_by!r}")
    render.say(f"  commitment {batch.commitment}")
    for line in shown:
        render.say(f"  + {command.one_line(line)}")
    render.say(("not proved", "bold yellow"))
    for line in hidden:
        render.say(f"  - {command.one_line(line)}")
    if claim.about:
        render.say("said by whoever made it, and bound to the proof, but not proved:")
        for name, value in claim.about.items():
            render.say(f"    {command.one_line(name)}: {command.one_line(value)}")
