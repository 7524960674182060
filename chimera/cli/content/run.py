"""What the commands `chimera content` do that change something."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from pathlib import Path

from chimera.cli import render
from chimera.cli.settings import read_settings
from chimera.content.publish.types import PostState
from chimera.core.config import Settings
from chimera.core.errors import InputError
from chimera.system.content import Newsroom, Ran
from chimera.system.content_campaign import load_campaign
from chimera.system.content_engage import Answered, answer_mentions, read_mentions
from chimera.system.content_made import Making, make_here
from chimera.system.content_parts import Parts, open_parts

DONE, NOT_ALL = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What the commands have in common."""

    campaign: Path
    home: Path | None = None
    model: str | None = None
    as_json: bool = False

    def settings(self, **options: str | None) -> Settings:
        return read_settings(home=self.home, model=self.model, **options)


async def campaign(where: Where, *, on_ray: bool, address: str | None) -> int:
    settings = where.settings(address=address)
    loaded = load_campaign(where.campaign)
    making: Making = make_here
    if on_ray:
        from chimera.cli.content.on_swarm import MakeOnSwarm  # Ray takes most of a second to import

        making = MakeOnSwarm(settings)
    async with open_parts(settings, loaded) as parts:
        room = Newsroom(parts, model=_model(where, parts, settings), making=making, tell=render.note)
        ran = await room.run()
    _tell_ran(ran, as_json=where.as_json)
    return NOT_ALL if ran.waiting or ran.problems else DONE


async def publish(where: Where) -> int:
    settings = where.settings()
    async with open_parts(settings, load_campaign(where.campaign)) as parts:
        done = await Newsroom(parts, tell=render.note).publish()
    sent = [one for one in done if one.state is PostState.SENT]
    failed = [one for one in done if one.state is PostState.FAILED]
    if where.as_json:
        render.line(render.to_line({"posts": [one.model_dump(mode="json") for one in done]}))
    else:
        render.say(f"{len(sent)} sent, {len(failed)} failed")
    return NOT_ALL if failed else DONE


async def take_down(where: Where, beginning: str, *, by: str | None, why: str) -> int:
    settings = where.settings()
    async with open_parts(settings, load_campaign(where.campaign)) as parts:
        piece = parts.record.piece(beginning)
        if not piece.key:
            raise InputError(f"piece {piece.id} was not handed in yet: `chimera review reject` refuses it")
        handed = await parts.sender.take_down(piece.key, by=by or getpass.getuser(), why=why)
    if where.as_json:
        render.line(render.to_line({"piece": piece.id, "state": handed.state.value}))
    else:
        render.say(f"{piece.id}: {handed.state.value.replace('_', ' ')}")
    return DONE


async def answer(where: Where, mentions: Path | None) -> int:
    settings = where.settings()
    async with open_parts(settings, load_campaign(where.campaign)) as parts:
        found = read_mentions(mentions or parts.places.inbox(parts.campaign.account.name), parts)
        done = await answer_mentions(parts, found, model=_model(where, parts, settings))
        await Newsroom(parts, tell=render.note).publish()
    _tell_answered(done, as_json=where.as_json)
    return NOT_ALL if done.problems else DONE


def _model(where: Where, parts: Parts, settings: Settings) -> str:
    """The one that was named on the command line, else the campaign's, else the settings'."""
    return where.model or parts.campaign.file.model or settings.model


def _tell_ran(ran: Ran, *, as_json: bool) -> None:
    if as_json:
        render.line(render.to_line(ran.model_dump(mode="json")))
        return
    render.say(f"{ran.new} new of {ran.read} items, {ran.trends} trends, {ran.planned} briefs, {ran.made} items made")
    rest = f", {ran.scheduled} scheduled, {ran.refused} refused, {ran.failed} failed"
    render.say((f"{ran.sent} sent", "green"), rest)
    if ran.waiting:
        render.say((f"{ran.waiting} wait for a person", "yellow"), ": chimera review list")
    render.say((f"${ran.cost_usd:.4f} spent on models", "dim"))
    for problem in ran.problems:
        render.note(problem)


def _tell_answered(done: Answered, *, as_json: bool) -> None:
    if as_json:
        render.line(render.to_line(done.model_dump(mode="json")))
        return
    told = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in sorted(done.did.items())) or "nothing new"
    render.say(f"{done.read} mentions, {done.old} known: {told}")
    for problem in done.problems:
        render.note(problem)
