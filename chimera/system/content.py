"""A campaign from its feeds to its outbox: trends, briefs, items, their review, and what goes out.

    async with open_parts(settings, load_campaign(Path("campaign.yaml"))) as parts:
        done = await Newsroom(parts).run()

Each step of a piece is written down before the next, and each can be taken again without doing anything twice: people
are asked under a key, posts are handed in under a key, and the posts' ledger finds what it has sent. So a run that was
killed anywhere goes on where it was when it is run again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pydantic import JsonValue

from chimera.content.create.brief import Brief
from chimera.content.create.budget import ItemBudget
from chimera.content.create.create import Created, Refused
from chimera.content.publish.types import Handed, PostState
from chimera.core.errors import OutputBlocked
from chimera.core.types import Frozen
from chimera.security.safety.findings import Finding, Output, Severity
from chimera.system.content_briefs import CANDIDATES, brief_of, find_trends, is_told, read_feeds
from chimera.system.content_hand_in import HandIn, post_of
from chimera.system.content_made import Making, Recipe, make_here
from chimera.system.content_parts import SOURCES, Parts
from chimera.system.content_record import Piece, Stage

ROUNDS: Final = 3
"""Of handing in and sending: the first post to an audience makes room for those behind it."""
FAULTS: Final = frozenset({"plan", "drafts"})
"""Reasons for which there is no item that are nobody's decision."""
STOPPING: Final = frozenset({Severity.BLOCK, Severity.REDACT})

Tell = Callable[[str], None]
"""Is told, in one line, how far it is."""


class Ran(Frozen):
    """What a run did, and where the campaign's pieces stand after it."""

    read: int = 0
    new: int = 0
    trends: int = 0
    planned: int = 0
    made: int = 0
    sent: int = 0
    waiting: int = 0
    scheduled: int = 0
    refused: int = 0
    failed: int = 0
    cost_usd: float = 0.0
    problems: tuple[str, ...] = ()


class Newsroom:
    """Runs a campaign with its open parts. `making` makes the items; `tell` is told how far it is."""

    def __init__(
        self, parts: Parts, *, model: str = "offline", making: Making = make_here, tell: Tell = lambda line: None
    ) -> None:
        self._parts = parts
        self._campaign = parts.campaign
        self._recipe = Recipe(
            model=parts.campaign.file.model or model,
            prices=parts.campaign.file.prices,
            item_usd=parts.campaign.file.item_usd,
            members=parts.campaign.file.members,
        )
        self._making = making
        self._tell = tell
        self._hand_in = HandIn(parts)

    async def run(self) -> Ran:
        """All of it once: what people decided, what is new, and what is due. Raises what its parts raise."""
        before = self._sent()
        await self.publish()
        read, new, problems = await self._read()
        trends, planned = await self._plan()
        made, cost_usd = await self._make()
        await self.publish()
        stages = [piece.stage for piece in self._pieces()]
        return Ran(
            read=read,
            new=new,
            trends=trends,
            planned=planned,
            made=made,
            sent=len(self._sent() - before),
            waiting=stages.count(Stage.WAITING),
            scheduled=sum(self._state(piece) is PostState.SCHEDULED for piece in self._pieces(Stage.HANDED)),
            refused=stages.count(Stage.REFUSED),
            failed=stages.count(Stage.FAILED),
            cost_usd=cost_usd,
            problems=tuple(problems),
        )

    async def publish(self) -> tuple[Handed, ...]:
        """Take up what people decided, hand in what is made, and send what is due; what came of each post."""
        done: list[Handed] = []
        for _ in range(ROUNDS):
            moved = await self._hand_in.decided()
            moved += await self._hand_in.made()
            sent = await self._parts.sender.tick()
            done += sent
            if not moved and not sent:
                break
        for handed in done:
            self._tell(f"post {handed.key[:12]}: {handed.state.value}")
        return tuple(done)

    async def _read(self) -> tuple[int, int, list[str]]:
        items, problems = await read_feeds(self._campaign, clock=self._parts.clock, secret=self._parts.secret)
        new = self._parts.record.read(self._campaign.name, items)
        self._tell(f"{len(items)} items read, {new} of them new")
        return len(items), new, problems

    async def _plan(self) -> tuple[int, int]:
        """Write briefs for the strongest trends that were not spoken of; how many trends, how many briefs."""
        file = self._campaign.file
        pieces = self._pieces()
        told = [frozenset(source.id for source in piece.brief.sources) for piece in pieces if piece.brief]
        said = ["\n".join(piece.post.parts) for piece in pieces if piece.post and piece.key]
        now = self._parts.clock.now() if file.as_of == "now" else None
        items = self._parts.record.items(self._campaign.name)
        trends = find_trends(items, CANDIDATES * file.items, now=now, options=file.trends, published=said)
        by_id = {item.id: item for item in items}
        planned = 0
        for trend in trends:
            if planned == file.items:
                break
            if trend.novelty < file.least_novelty or is_told(trend, told):
                continue
            brief = brief_of(trend, by_id, self._campaign)
            if brief is None:
                continue
            told.append(frozenset(source.id for source in brief.sources))
            piece = Piece(id=brief.id, campaign=self._campaign.name, account=self._campaign.account.name, brief=brief)
            self._parts.record.add(piece)
            planned += 1
            self._tell(f"planned: {brief.topic}")
        return len(trends), planned

    async def _make(self) -> tuple[int, float]:
        """Make the items of the briefs, as far as the money of a run goes; how many, and what they cost."""
        file = self._campaign.file
        pieces = {piece.id: piece for piece in reversed(self._pieces(Stage.PLANNED))}
        briefs = []
        for piece in list(pieces.values())[: int(file.run_usd / file.item_usd + 1e-9)]:
            assert piece.brief is not None
            screened = self._screened(piece.brief)
            if screened is None:
                reason = "nothing of its evidence may be used"
                self._parts.record.put(piece.to(Stage.REFUSED, reason))
                self._note(piece.id, "refused", reason)
            else:
                briefs.append(screened)
        made, cost_usd = 0, 0.0
        async for brief, came in self._making(briefs, self._recipe):
            piece = await self._kept(pieces[brief.id], brief, came)
            made += piece.stage is Stage.MADE
            cost_usd += piece.cost_usd
            self._tell(f"{piece.stage.value}: {brief.topic}{f' ({piece.reason})' if piece.reason else ''}")
        return made, cost_usd

    async def _kept(self, piece: Piece, brief: Brief, came: Created | Refused) -> Piece:
        for source in came.left_out:
            self._left_out(source, piece.id, ("injected.source",))
        if isinstance(came, Refused):
            stage = Stage.FAILED if came.reason in FAULTS else Stage.REFUSED
            reason = "; ".join((came.message, *came.details[:3]))
            self._note(piece.id, stage.value, reason)
            return self._parts.record.put(piece.to(stage, reason, brief=brief, cost_usd=came.cost_usd))
        file = self._campaign.file
        left_usd = file.item_usd - came.item.cost_usd
        # What the drafts cost is spent: only the rest is there for a picture.
        budget = ItemBudget(
            brief.id, prices=self._campaign.prices, clock=self._parts.clock, cap_usd=max(left_usd, 1e-9)
        )
        shown = await self._parts.studio().illustrate(came, brief, budget=budget)
        cost_usd = came.item.cost_usd + budget.spent_usd
        item = shown.item.model_copy(update={"cost_usd": cost_usd})
        post = post_of(item, self._campaign.account, self._parts.media)
        self._note(piece.id, "made", shown.note)
        return self._parts.record.put(
            piece.to(
                Stage.MADE,
                shown.note,
                brief=brief,
                item=item,
                post=post,
                confidence=item.confidence,
                cost_usd=cost_usd,
            )
        )

    def _screened(self, brief: Brief) -> Brief | None:
        """The brief without sources that hold what must not go out: personal data, secrets.

        None where nothing is left, or where its very topic does.
        """
        if rules := self._stopping("\n".join((brief.topic, *brief.terms)), brief.id):
            self._left_out("topic", brief.id, rules)
            return None
        kept = []
        for source in brief.sources:
            if rules := self._stopping(f"{source.title}\n{source.quote}", source.id):
                self._left_out(source.id, brief.id, rules)
            else:
                kept.append(source)
        if not kept:
            return None
        ids = {source.id for source in kept}
        chart = brief.chart if brief.chart and brief.chart.source_id in ids else None
        return brief.model_copy(update={"sources": tuple(kept), "chart": chart})

    def _stopping(self, text: str, key: str) -> tuple[str, ...]:
        """The rules that keep a text of others from being used."""
        output = Output(text=text, channel=SOURCES, audience="content", author="feeds", key=key)
        try:
            findings: tuple[object, ...] = self._parts.sources.review(output).findings
        except OutputBlocked as error:
            findings = error.findings
        return tuple(sorted({o.rule for o in findings if isinstance(o, Finding) and o.severity in STOPPING}))

    def _left_out(self, source: str, piece: str, rules: tuple[str, ...]) -> None:
        detail: dict[str, JsonValue] = {"piece": piece, "rules": list[JsonValue](rules)}
        self._parts.audit.append("content", "source.left_out", f"source/{source}", "refused", detail)

    def _note(self, piece: str, outcome: str, why: str) -> None:
        detail = {"account": self._campaign.account.name, "why": why[:300]}
        self._parts.audit.append("content", "item.create", f"piece/{piece}", outcome, {**detail})

    def _pieces(self, *stages: Stage) -> tuple[Piece, ...]:
        return self._parts.record.pieces(*stages, campaign=self._campaign.name)

    def _state(self, piece: Piece) -> PostState:
        return self._parts.ledger.entry(piece.key).state

    def _sent(self) -> set[str]:
        return {piece.id for piece in self._pieces(Stage.HANDED) if self._state(piece) is PostState.SENT}
