"""Answers to people who write to an account: read from a file, dealt with at the desk, and sent as any post is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from chimera.content.create.brief import Source
from chimera.content.create.budget import ItemBudget
from chimera.content.engage.desk import Desk
from chimera.content.engage.mention import MAX_MENTION_CHARS, Mention
from chimera.content.engage.policy import Decision
from chimera.content.publish.types import Post
from chimera.core.errors import BudgetExceeded, InputError, Overloaded
from chimera.core.hashing import digest
from chimera.core.types import Frozen
from chimera.llm.models import open_model
from chimera.review.types import Proposal, Refused
from chimera.system.content_briefs import file_origin
from chimera.system.content_hand_in import HandIn
from chimera.system.content_parts import Parts
from chimera.system.content_record import Piece, Stage

MAX_FILE_BYTES: Final = 64 << 20
MAX_LINES: Final = 100_000
CONFIDENCE: Final = 0.9
"""In an answer that quotes the brand: it goes on, and people are told."""
WAIT_S: Final = 60.0
"""After which a queue that took no question is asked again."""


class Answered(Frozen):
    """What became of the mentions of a run, by what was done. `old` were dealt with before."""

    read: int = 0
    old: int = 0
    did: dict[str, int] = Field(default_factory=dict)
    cost_usd: float = 0.0
    problems: tuple[str, ...] = ()


class _Hands:
    """What the desk does: replies go the way of every post, and questions into the review queue."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._hand_in = HandIn(parts)

    async def say(self, post: Post) -> str:
        piece = Piece(
            id=f"reply-{post.key}",
            campaign=self._parts.campaign.name,
            account=post.account,
            kind="reply",
            post=post,
            confidence=CONFIDENCE,
        )
        handed = await self._hand_in.reply(piece)
        return "" if handed.stage is Stage.REFUSED else post.key

    async def hand_over(self, mention: Mention, decision: Decision) -> None:
        asked = await self._parts.queue.ask(
            Proposal(
                key=f"mention/{mention.account}/{mention.id}",
                kind="answer",
                summary=f"{mention.account}: somebody is to be answered by a person ({decision.rule})",
                payload={"account": mention.account, "wrote": mention.text, "reference": mention.reference},
                confidence=0.0,
                asker="content",
                subject="content",
            )
        )
        if isinstance(asked, Refused):
            raise Overloaded(f"nobody can be asked: {asked.message}", WAIT_S)


async def answer_mentions(parts: Parts, mentions: Iterable[Mention], *, model: str = "offline") -> Answered:
    """Deal with each once. Nothing is sent here: `Newsroom.publish` sends what is due.

    Stops, with a problem, where the money of a run is spent. Raises Overloaded where nobody can be asked.
    """
    campaign, hands = parts.campaign, _Hands(parts)
    read = old = 0
    did: Counter[str] = Counter()
    problems: list[str] = []
    cap_usd = campaign.file.run_usd
    budget = ItemBudget("answers", prices=campaign.prices, clock=parts.clock, cap_usd=min(cap_usd, 100.0))
    async with open_model(campaign.file.model or model) as opened:
        desk = Desk(
            campaign.account,
            sources=_brand_texts(parts),
            model=budget.over(opened),
            mentions=parts.mentions,
            say=hands.say,
            hand_over=hands.hand_over,
            clock=parts.clock,
            policy=campaign.file.engage,
        )
        for mention in mentions:
            read += 1
            known = parts.mentions.known(mention)
            if known is not None and known.done:
                old += 1
                continue
            try:
                with budget.charged():
                    handled = await desk.handle(mention)
            except BudgetExceeded as error:
                problems.append(f"the money of a run is spent, and the rest waits for the next: {error}")
                break
            did[handled.decision.do] += 1
            detail = {"did": handled.decision.do, "rule": handled.decision.rule, "key": handled.key}
            resource = f"mention/{mention.account}/{mention.id}"
            parts.audit.append("content", "mention.handle", resource[:200], handled.decision.do, {**detail})
    return Answered(read=read, old=old, did=dict(did), cost_usd=budget.spent_usd, problems=tuple(problems))


def read_mentions(path: Path, parts: Parts) -> list[Mention]:
    """The mentions in a JSONL file: `id`, `author`, `text`, `reference`, `conversation` and `at` (a date or seconds).

    Authors are kept as keyed hashes. Raises InputError for a file that is none; a line that is none is left out.
    """
    account = parts.campaign.account.name
    origin = file_origin("mentions", clock=parts.clock, secret=parts.secret)
    found = []
    for row in _rows(path):
        text = str(row.get("text") or "")[:MAX_MENTION_CHARS]
        name = str(row.get("id") or "") or digest([account, text, str(row.get("reference"))])
        author = row.get("author")
        at = row.get("at", row.get("at_s"))
        try:
            mention = Mention(
                id=name,
                account=account,
                author=origin.author(str(author or name)),
                text=text,
                reference=str(row.get("reference") or ""),
                conversation=str(row.get("conversation") or ""),
                at_s=origin.moment(at if isinstance(at, str | int | float) else None),
            )
        except ValidationError:
            continue
        found.append(mention)
    return found


def _brand_texts(parts: Parts) -> list[Source]:
    place = parts.campaign.file.brand_texts
    if place is None:
        return []
    found = []
    for number, row in enumerate(_rows(parts.campaign.path(place)), 1):
        try:
            found.append(
                Source(
                    id=f"brand-{number}",
                    url=str(row.get("url") or ""),
                    title=str(row.get("title") or parts.campaign.account.brand),
                    quote=str(row.get("text") or ""),
                )
            )
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise InputError(f"{place}, text {number}: {first['loc'][0]}: {first['msg']}") from None
    return found


def _rows(path: Path) -> Iterable[dict[str, object]]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path} has more than {MAX_FILE_BYTES:,} bytes: cut it in pieces")
        lines = path.read_bytes().splitlines()[:MAX_LINES]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    for line in lines:
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row
