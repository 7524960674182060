"""How an installation's content does, and where each piece of it stands: read from its ledgers, and nothing is changed.

For the command line, the API and the console.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, ValidationError

from chimera.content.kpi import Record, Report
from chimera.content.kpi import report as figures
from chimera.content.publish.ledger import PostLedger
from chimera.content.publish.types import Entry, PostState
from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import InputError, NotThere
from chimera.core.types import Frozen
from chimera.system.content_parts import Places
from chimera.system.content_record import CampaignRecord, Piece, Stage

MAX_METRICS: Final = 100_000
MAX_METRICS_BYTES: Final = 64 << 20


class Metric(Frozen):
    """What a platform says of a post: how many saw it, and what they did (likes, reposts and replies together)."""

    key: str
    seen: Annotated[int, Field(ge=0)] | None = None
    reactions: Annotated[int, Field(ge=0)] = 0


class ContentReport(Frozen):
    """The figures of what an account says by itself, and of what it answers."""

    items: Report
    replies: Report


class Standing(Frozen):
    """A piece, and its post in the ledger once it is there."""

    piece: Piece
    entry: Entry | None = None

    @property
    def state(self) -> str:
        """In one word: the post's state if there is one, else the piece's stage."""
        if self.entry is None:
            return self.piece.stage.value
        return "held" if self.entry.state is PostState.DRAFT else self.entry.state.value


def report(
    home: Path, *, campaign: str = "", metrics: Mapping[str, Metric] | None = None, clock: Clock | None = None
) -> ContentReport:
    """The figures of the installation at `home`, or of one campaign. `metrics` are by the posts' keys.

    Raises StorageError for ledgers that cannot be read, InputError for more pieces than a report is over.
    """
    found = standings(home, campaign=campaign, clock=clock)
    known = metrics or {}
    items = [_record(one, known) for one in found if one.piece.kind == "item"]
    replies = [_record(one, known) for one in found if one.piece.kind == "reply"]
    return ContentReport(items=figures(items), replies=figures(replies))


def standings(
    home: Path, *, campaign: str = "", limit: int = 100_000, clock: Clock | None = None
) -> tuple[Standing, ...]:
    """The last `limit` pieces and where they stand, the newest first."""
    places = Places(home=home)
    if not places.record.exists():
        return ()
    with ExitStack() as stack:
        record, ledger = _opened(places, clock or SystemClock(), stack)
        pieces = record.pieces(campaign=campaign, limit=limit)
        return tuple(_standing(piece, ledger) for piece in pieces)


def standing(home: Path, beginning: str, *, clock: Clock | None = None) -> Standing:
    """The piece whose id begins so. Raises NotThere, InputError where several do."""
    places = Places(home=home)
    if not places.record.exists():
        raise NotThere(f"nothing was made in {places.folder} yet: `chimera content run` makes something")
    with ExitStack() as stack:
        record, ledger = _opened(places, clock or SystemClock(), stack)
        return _standing(record.piece(beginning), ledger)


def read_metrics(path: Path) -> dict[str, Metric]:
    """What platforms say, from a JSONL file of `key`, `seen` and `reactions`. Raises InputError, naming the line."""
    try:
        if path.stat().st_size > MAX_METRICS_BYTES:
            raise InputError(f"{path} has more than {MAX_METRICS_BYTES:,} bytes")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: {error}") from error
    found: dict[str, Metric] = {}
    for number, line in enumerate(lines[:MAX_METRICS], 1):
        if line.strip():
            try:
                metric = Metric.model_validate(json.loads(line))
            except (ValidationError, ValueError, RecursionError):
                raise InputError(f"{path}, line {number}: give a JSON object with key, seen and reactions") from None
            found[metric.key] = metric
    return found


def _opened(places: Places, clock: Clock, stack: ExitStack) -> tuple[CampaignRecord, PostLedger]:
    record = CampaignRecord(places.record, clock=clock)
    stack.callback(record.close)
    ledger = PostLedger(places.posts, (), clock=clock)
    stack.callback(ledger.close)
    return record, ledger


def _standing(piece: Piece, ledger: PostLedger) -> Standing:
    try:
        return Standing(piece=piece, entry=ledger.entry(piece.key) if piece.key else None)
    except NotThere:
        return Standing(piece=piece)


def _record(one: Standing, metrics: Mapping[str, Metric]) -> Record:
    piece, entry = one.piece, one.entry
    metric = metrics.get(piece.key, Metric(key=piece.key))
    fault = piece.stage is Stage.FAILED or (entry is not None and entry.state is PostState.FAILED)
    refused = piece.stage is Stage.REFUSED
    return Record(
        item=piece.id,
        cost_usd=piece.cost_usd,
        person=piece.person,
        changed=piece.changed,
        published=entry is not None and entry.sent_s > 0,
        refused=refused,
        failed=fault and not refused,
        seen=metric.seen,
        reactions=metric.reactions,
    )
