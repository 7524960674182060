"""From a post that is made to the posts' ledger: by the policy of review, or by a person who decides on it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue, ValidationError

from chimera.content.accounts import Account
from chimera.content.create.item import Item
from chimera.content.media.store import MediaFolder
from chimera.content.publish.types import Post, PostState, outputs
from chimera.core.errors import NotThere, OutputBlocked
from chimera.review.types import Item as Reviewed
from chimera.review.types import Proposal, Route, State
from chimera.review.types import Refused as ReviewRefused
from chimera.security.safety.findings import Attachment, Finding, Severity
from chimera.system.content_parts import FLAGGED, Parts
from chimera.system.content_record import Piece, Stage

NEW_AUDIENCE: Final = "audience.new"
BEHIND: Final = "it waits for the first post to this audience"


@dataclass(frozen=True, slots=True)
class Looked:
    """What the gateway says of a post: the rules that stop it, and those that ask for a person."""

    blocked: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


def post_of(item: Item, account: Account, media: MediaFolder) -> Post:
    """The item as a post of the account, with its pictures."""
    pictures = tuple(
        Attachment(path=media.path(one).resolve(), sha256=one.sha256, media_type=one.media_type, alt=one.alt)
        for one in item.media
    )
    return Post(
        account=account.name,
        parts=item.parts,
        media=pictures,
        language=account.language,
        item_id=item.id,
        audience=account.audience,
    )


class HandIn:
    """Brings pieces from `made` to `handed`, or ends them, and says why. All of it can be done again."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def made(self) -> int:
        """Hand in what is made, or ask a person first; how many have moved. The surest goes first.

        An audience that is new to an account is asked for once: what is behind the first post waits for it.
        """
        pieces = sorted(self._pieces(Stage.MADE), key=lambda one: (-one.confidence, one.made_s, one.id))
        return sum([await self._hand_in(piece) for piece in pieces])

    async def decided(self) -> int:
        """Take up what people have decided, and what the ledger gave back; how many have moved."""
        await self._parts.queue.tick()
        moved = 0
        for piece in self._pieces(Stage.WAITING):
            try:
                reviewed = await self._parts.queue.by_key(piece.question)
            except NotThere:  # the queue is another than it was: ask there
                self._put(piece.to(Stage.MADE))
                continue
            if reviewed.state.ended:
                await self._take_up(piece, reviewed)
                moved += 1
        for piece in self._pieces(Stage.HANDED):
            entry = self._parts.ledger.entry(piece.key)
            if entry.state is PostState.DRAFT and entry.reason:
                self._put(piece.to(Stage.MADE, f"held when it was due: {entry.reason}", asked=piece.asked + 1))
                moved += 1
        return moved

    async def reply(self, piece: Piece) -> Piece:
        """Hand in a reply; where it stands then. A second time: as it stands."""
        known = self._parts.record.add(piece.to(Stage.MADE))
        if known.stage is Stage.MADE:
            await self._hand_in(known)
        return self._parts.record.piece(piece.id)

    async def _hand_in(self, piece: Piece) -> bool:
        post = _post(piece)
        new = self._parts.ledger.new_audience(post.account, post.audience)
        if new and piece.reason == BEHIND and self._somebody_is_before(piece):
            return False
        looked = await self._looked(post)
        if looked.blocked:
            self._put(piece.to(Stage.REFUSED, f"stopped by {', '.join(looked.blocked)}", rules=looked.blocked))
            self._note(piece, "refused", looked.blocked)
            return True
        if new and self._somebody_is_before(piece):
            self._put(piece.to(Stage.MADE, BEHIND))
            return False
        reviewed = await self._asked(piece, looked, new=new)
        if isinstance(reviewed, ReviewRefused):
            self._put(piece.to(Stage.MADE, reviewed.message))
            return False
        person = piece.person or reviewed.routing.route is Route.PERSON
        piece = piece.model_copy(update={"rules": looked.held, "person": person})
        self._note(piece, reviewed.routing.route.value, looked.held)
        if reviewed.may_go_on:
            await self._submit(piece, post, by="")
        elif reviewed.state.ended:
            await self._take_up(piece, reviewed)
        else:
            held = f" ({', '.join(looked.held)})" if looked.held else ""
            self._put(piece.to(Stage.WAITING, f"{reviewed.routing.why}{held}"))
        return True

    def _somebody_is_before(self, piece: Piece) -> bool:
        """Whether a post to the same new audience waits for a person, or has a person's yes and is not out yet."""
        before = [*self._pieces(Stage.WAITING), *self._pieces(Stage.HANDED)]
        post = _post(piece)
        return any(
            other.account == piece.account
            and _post(other).audience == post.audience
            and not (other.key and self._parts.ledger.entry(other.key).ended)
            for other in before
        )

    async def _asked(self, piece: Piece, looked: Looked, *, new: bool) -> Reviewed | ReviewRefused:
        try:
            return await self._parts.queue.by_key(piece.question)
        except NotThere:
            pass
        post = _post(piece)
        flagged = [rule for rule in looked.held if rule != NEW_AUDIENCE]
        sources = [] if piece.brief is None else [source.url for source in piece.brief.sources]
        payload: dict[str, JsonValue] = {
            "account": post.account,
            "audience": post.audience,
            "parts": list(post.parts),
            "alts": [one.alt for one in post.media],
            "pictures": [str(one.path) for one in post.media],
            "sources": list(sources),
            "rules": list(looked.held),
        }
        about = piece.brief.topic if piece.brief else "a reply"
        held = f" ({', '.join(flagged)})" if flagged else ""
        return await self._parts.queue.ask(
            Proposal(
                key=piece.question,
                kind=FLAGGED if flagged else "reply" if piece.kind == "reply" else "publish",
                summary=f"{post.account}: {about}{held}"[:500],
                payload=payload,
                confidence=float(piece.confidence),
                asker="content",
                subject="content",
                audience="new" if new else "known",
            )
        )

    async def _take_up(self, piece: Piece, reviewed: Reviewed) -> None:
        """Do what a person decided."""
        ending = reviewed.ending
        by = (ending.by if ending else "") or ", ".join(reviewed.approvers) or "the policy"
        if reviewed.state not in (State.APPROVED, State.EDITED):
            reason = f"{reviewed.state.value} by {by}" + (f": {ending.reason}" if ending and ending.reason else "")
            changed = reviewed.state is State.REJECTED
            self._put(piece.to(Stage.REFUSED, reason, person=True, changed=changed))
            self._note(piece, reviewed.state.value, (), by=by)
            return
        post = _post(piece)
        if reviewed.state is State.EDITED:
            edited = reviewed.payload.get("parts") if isinstance(reviewed.payload, dict) else None
            try:
                post = Post.model_validate(post.model_dump() | {"parts": edited})
            except ValidationError as error:
                why = f"what {by} wrote is no post: {error.errors()[0]['msg']}"
                self._put(piece.to(Stage.REFUSED, why, person=True, changed=True))
                return
            piece = piece.model_copy(update={"post": post, "changed": True})
            await asyncio.to_thread(self._parts.registry.record, post.item_id, post.account, texts=post.parts)
        await self._submit(piece.model_copy(update={"person": True}), post, by=by)

    async def _submit(self, piece: Piece, post: Post, *, by: str) -> None:
        """Hand it to the ledger; `by` has agreed to the rules that the piece bears."""
        handed = await self._parts.sender.submit(post)
        if handed.held and by and set(handed.rules) <= {*piece.rules, NEW_AUDIENCE}:
            handed = await self._parts.sender.approve(handed.key, by=by)
        if handed.held:
            self._put(piece.to(Stage.MADE, f"held by {', '.join(handed.rules)}", asked=piece.asked + 1))
        elif handed.state is PostState.FAILED:
            self._put(piece.to(Stage.REFUSED, handed.message or "refused", key=handed.key, rules=handed.rules))
        else:
            self._put(piece.to(Stage.HANDED, key=handed.key))

    async def _looked(self, post: Post) -> Looked:
        """What the gateway says of all its parts; the gateway writes it down."""
        found: set[Finding] = set()
        for output in outputs(post, self._parts.ledger.account(post.account)):
            try:
                cleared = await asyncio.to_thread(self._parts.gateway.review, output)
                found.update(cleared.findings)
            except OutputBlocked as error:
                found.update(one for one in error.findings if isinstance(one, Finding))
        by = {severity: tuple(sorted({one.rule for one in found if one.severity is severity})) for severity in Severity}
        blocked = by[Severity.BLOCK] + tuple(rule for rule in by[Severity.REDACT] if rule not in by[Severity.BLOCK])
        return Looked(blocked, by[Severity.REVIEW])

    def _pieces(self, stage: Stage) -> tuple[Piece, ...]:
        return self._parts.record.pieces(stage, campaign=self._parts.campaign.name)

    def _put(self, piece: Piece) -> None:
        self._parts.record.put(piece)

    def _note(self, piece: Piece, outcome: str, rules: tuple[str, ...], by: str = "") -> None:
        detail: dict[str, JsonValue] = {"rules": list(rules), "confidence": piece.confidence}
        self._parts.audit.append(by or "content", "piece.review", f"piece/{piece.id}", outcome, detail)


def _post(piece: Piece) -> Post:
    if piece.post is None:
        raise NotThere(f"piece {piece.id} has no post yet")
    return piece.post
