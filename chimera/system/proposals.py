"""A patch that was accepted, with all that is needed to apply it, to watch it and to take it back, and where it waits.

It lies in a file of its own while a person is asked about it, and in another while it is on probation. A process that
is killed finds there what it was about.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic import ValidationError

from chimera.core.errors import HealingError, InputError, PatchInvalid
from chimera.core.types import Frozen, Share
from chimera.core.watching import Alert
from chimera.healing.failure import Failure
from chimera.healing.judge import Verdict
from chimera.healing.patch import CodePatch, edited
from chimera.storage.whole_file import write_whole
from chimera.system.metacognition import Decision

MAX_ASKED = 100
"""Patches that wait for a person."""

_ID = re.compile(r"[0-9a-f]{32}")


class Proposal(Frozen):
    """`before` and `changes` are the texts of its files without it and with it; None is no file.

    `confidence` says how far it is to be trusted by itself, `alert` what told of the failure, if a metric did.
    """

    decision: Decision
    failure: Failure
    alert: Alert | None
    signature: str
    patch: CodePatch
    verdict: Verdict
    confidence: Share
    before: dict[str, str | None]
    changes: dict[str, str]


class Asked:
    """The patches that wait for a person, each in `PATCHID.json` in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, proposal: Proposal) -> None:
        """Raises HealingError where too many wait, OSError."""
        path = self._path(proposal.patch.id)
        if not path.exists() and len(self.ids()) >= MAX_ASKED:
            raise HealingError(f"{MAX_ASKED} patches wait for a person already: agree to some, or refuse them")
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, proposal.model_dump_json(indent=2).encode())

    def ids(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.json") if _ID.fullmatch(path.stem))

    def read(self, patch_id: str) -> Proposal:
        """Raises InputError where none of that id waits."""
        path = self._path(patch_id)
        if (found := read_proposal(path)) is None:
            raise InputError(f"no patch {patch_id} waits for a person: {', '.join(self.ids()) or 'none does'}")
        if (flaw := flaw_of(found, patch_id)) is not None:
            raise InputError(f"{path} {flaw}: look at it, and delete it")
        return found

    def drop(self, patch_id: str) -> None:
        remove(self._path(patch_id))

    def _path(self, patch_id: str) -> Path:
        if not _ID.fullmatch(patch_id):
            raise InputError(f"{patch_id!a:.100} is no id of a patch: those are 32 hex digits")
        return self._folder / f"{patch_id}.json"


def flaw_of(proposal: Proposal, patch_id: str) -> str | None:
    """What is wrong with it, where its file was changed: its id follows from its edits, and its texts from both."""
    before = {path: text for path, text in proposal.before.items() if text is not None}
    try:
        if proposal.patch.id == patch_id and edited(before, proposal.patch) == proposal.changes:
            return None
    except PatchInvalid as error:
        return f"holds a patch that does not fit: {error}"
    return "holds another patch than its name says"


def read_proposal(path: Path) -> Proposal | None:
    """What is in a file; None where there is none. Raises InputError where it is something else."""
    try:
        return Proposal.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise InputError(f"{path} is no patch that waits: {error!s:.300}") from error


def remove(path: Path) -> None:
    """It is gone, durably. One that is not there is so already. Raises OSError."""
    path.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    if not folder.is_dir():
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
