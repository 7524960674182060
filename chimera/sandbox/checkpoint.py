"""What a training has on disk: a ledger and a checkpoint, which go together or not at all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from chimera.core.errors import InputError, StorageError
from chimera.sandbox.model import unpacked
from chimera.sandbox.privacy.kept import KeptLedger
from chimera.sandbox.privacy.ledger import PrivacyLedger, Release
from chimera.sandbox.schema import Table
from chimera.sandbox.settings import GanSettings


def open_ledger(folder: Path | None, settings: GanSettings) -> PrivacyLedger:
    """The ledger in `folder`, made where there is none; without a folder one that ends with this process."""
    if folder is None:
        return PrivacyLedger(delta=settings.delta, budget=settings.epsilon)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return KeptLedger(folder / "ledger.jsonl", delta=settings.delta, budget=settings.epsilon)


def read_checkpoint(
    path: Path | None, *, table: Table, settings: GanSettings, ledger: PrivacyLedger
) -> dict[str, Any] | None:
    """The checkpoint at `path`, or None where nothing has begun.

    Raises InputError where it is of other data or settings, and StorageError where checkpoint and ledger do not belong
    together: what was spent would be forgotten.
    """
    if path is None:
        return None
    if not path.exists():
        if ledger.releases:
            raise StorageError(
                f"{path.parent}: its ledger has spent epsilon {ledger.epsilon():.4g}, and there is no checkpoint: the "
                "process died before it wrote one, or it was lost. Start in another folder, and count both"
            )
        return None
    state = unpacked(path)
    try:
        then, releases = GanSettings.model_validate_json(state["settings"]), [*map(_release, state["releases"])]
        same = {
            "schema": state["schema"] == table.schema.model_dump_json(),
            "settings": _what_matters(then) == _what_matters(settings),
            "data": state["data"] == data_digest(table),
        }
    except (KeyError, ValueError, TypeError) as error:
        raise StorageError(f"{path} is no checkpoint of a training: {error}") from error
    for what, as_before in same.items():
        if not as_before:
            raise InputError(f"{path.parent} holds a training with other {what}: give the same, or another folder")
    if missing := _steps_of(releases) - _steps_of(ledger.releases):
        told = ", ".join(f"{steps} of {what}" for (what, *_), steps in missing.items())
        raise StorageError(
            f"{path.parent}: the ledger lacks what its checkpoint has spent ({told}): lost, or replaced by an older "
            "one. Restore it: without it nobody knows what is spent"
        )
    return state


def data_digest(table: Table) -> str:
    """Tells whether it is the same table, to whoever holds it. Not to be shown: it is computed from the records."""
    labels = b"" if table.labels is None else table.labels.tobytes()
    return hashlib.blake2b(table.values.tobytes() + labels, digest_size=16).hexdigest()


def _release(text: str) -> Release:
    return Release.model_validate_json(text)


def _steps_of(releases: Iterable[Release]) -> Counter[tuple[str, float, float]]:
    """Steps of each kind of release; a difference of two keeps what the second lacks."""
    steps: Counter[tuple[str, float, float]] = Counter()
    for release in releases:
        steps[release.what, release.noise_multiplier, release.sample_rate] += release.steps
    return steps


def _what_matters(settings: GanSettings) -> GanSettings:
    """Settings without the device: a training may go on elsewhere."""
    return settings.model_copy(update={"device": "auto"})
