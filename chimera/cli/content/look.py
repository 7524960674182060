"""What the commands `chimera content` do that only look."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from chimera.cli import render
from chimera.cli.arena.command import one_line, table
from chimera.cli.settings import read_settings
from chimera.content.accounts import load_accounts
from chimera.content.feeds.files import read_file
from chimera.content.kpi import Figure, Report
from chimera.content.provenance.c2pa import MAX_BYTES, State, Verified
from chimera.content.provenance.c2pa import verify as verify_credentials
from chimera.content.provenance.certificates import read_credentials
from chimera.content.provenance.registry import Made, Registry
from chimera.content.trends.trend import TrendOptions
from chimera.core.clock import SystemClock
from chimera.core.errors import InputError
from chimera.system.content_briefs import file_origin, find_trends
from chimera.system.content_parts import Places
from chimera.system.content_report import Standing, read_metrics, standing, standings
from chimera.system.content_report import report as content_report

DONE, NO = 0, 1
ID_CHARS: Final = 12
OUT: Final = frozenset({"scheduled", "sending", "sent", "taken_down"})
_TYPES: Final = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


async def trends(files: Sequence[Path], most: int, *, last: bool, as_json: bool) -> int:
    clock = SystemClock()
    parsed = [read_file(path, file_origin(path.stem, clock=clock)) for path in files]
    items = [item for one in parsed for item in one.items]
    now = None if last else clock.now()
    found = await asyncio.to_thread(find_trends, items, most, now=now, options=TrendOptions())
    if as_json:
        render.line(render.to_line({"items": len(items), "trends": [one.model_dump(mode="json") for one in found]}))
    elif not found:
        render.note(f"no trend in {len(items)} items; --last looks at feeds from the past")
    else:
        rows = [
            (
                ", ".join(one.terms),
                f"{one.strength:.1f}",
                str(one.documents),
                str(one.sources),
                f"{one.novelty:.2f}",
                _moment(one.since_s),
                one.evidence[0].url,
            )
            for one in found
        ]
        table(("TERMS", "STRENGTH", "ITEMS", "SOURCES", "NOVELTY", "SINCE", "FIRST"), rows)
    return DONE if found else NO


async def drafts(home: Path | None, campaign: str, *, as_json: bool) -> int:
    found = standings(read_settings(home=home).home, campaign=campaign)
    _list([one for one in found if one.state not in OUT], as_json=as_json)
    return DONE


async def schedule(home: Path | None, campaign: str, *, as_json: bool) -> int:
    found = standings(read_settings(home=home).home, campaign=campaign)
    planned = sorted((one for one in found if one.state in OUT), key=lambda one: one.entry.due_s if one.entry else 0.0)
    _list(planned, as_json=as_json)
    return DONE


async def show(home: Path | None, beginning: str, *, as_json: bool) -> int:
    found = standing(read_settings(home=home).home, beginning)
    if as_json:
        render.line(render.to_line(_document(found)))
        return DONE
    piece = found.piece
    render.say((found.state, "bold"), f"  {piece.id}  {piece.kind} of {piece.account}, campaign {piece.campaign}")
    if piece.reason:
        render.say((one_line(piece.reason), "yellow"))
    for part in piece.post.parts if piece.post else ():
        render.say("")
        for line in part.splitlines():
            render.say("    ", line)
    for picture in piece.post.media if piece.post else ():
        render.say((f"picture {picture.path}: ", "dim"), one_line(picture.alt))
    for source in piece.brief.sources if piece.brief else ():
        render.say(("source ", "dim"), one_line(source.url))
    if piece.item:
        for opinion in piece.item.judged.opinions:
            score = f"{opinion.score.overall:.2f} {opinion.score.reason}" if opinion.score else opinion.failure
            render.say((f"{opinion.judge}: ", "dim"), one_line(score))
    render.say((f"confidence {piece.confidence:.2f}, cost ${piece.cost_usd:.4f}", "dim"))
    return DONE


async def report(home: Path | None, campaign: str, metrics: Path | None, *, as_json: bool) -> int:
    known = None if metrics is None else read_metrics(metrics)
    found = content_report(read_settings(home=home).home, campaign=campaign, metrics=known)
    if as_json:
        render.line(render.to_line({**found.model_dump(mode="json"), "reached": found.items.reached}))
        return DONE
    _figures("items", found.items)
    if found.replies.items:
        _figures("replies", found.replies)
    return DONE


async def verify(home: Path | None, file: Path, *, as_json: bool) -> int:
    places = Places(home=read_settings(home=home).home)
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from error
    media_type = _TYPES.get(file.suffix.lower())
    said = None
    if media_type:
        signer = places.credentials / "signer.pem"
        anchors = read_credentials(signer).anchor if signer.exists() else ""
        said = verify_credentials(data, media_type, anchors=anchors)
    made = _registered(places, data, text=media_type is None)
    ours = bool(made) and (said is None or said.state is not State.INVALID)
    if as_json:
        credentials = None if said is None else said.model_dump(mode="json")
        render.line(
            render.to_line(
                {"ours": ours, "credentials": credentials, "registry": [one.model_dump(mode="json") for one in made]}
            )
        )
    else:
        _tell_verified(said, made, ours=ours)
    return DONE if ours else NO


async def accounts(file: Path, *, as_json: bool) -> int:
    found = load_accounts(file)
    if as_json:
        render.line(render.to_line({"accounts": [one.model_dump(mode="json") for one in found.values()]}))
        return DONE
    rows = [
        (
            one.name,
            one.identity,
            one.operator.name,
            one.operator.contact,
            one.disclosure,
            f"{one.caps.per_hour}/h, {one.caps.per_day}/day",
        )
        for one in found.values()
    ]
    table(("ACCOUNT", "IDENTITY", "OPERATOR", "CONTACT", "DISCLOSURE", "AT MOST"), rows)
    return DONE


def _registered(places: Places, data: bytes, *, text: bool) -> tuple[Made, ...]:
    if not places.made.exists():
        return ()
    registry = Registry(places.made, clock=SystemClock())
    try:
        return registry.find_text(data.decode("utf-8", "replace")) if text else registry.find(data)
    finally:
        registry.close()


def _tell_verified(said: Verified | None, made: Sequence[Made], *, ours: bool) -> None:
    render.say(("made here" if ours else "not made here, or changed since", "green" if ours else "red"))
    if said is not None:
        whose = f", by {said.identity.account} of {said.identity.operator}" if said.identity else ""
        why = f" ({', '.join(said.failures)})" if said.failures else ""
        render.say(("credentials: ", "dim"), f"{said.state.value}{one_line(whose)}{one_line(why)}")
    for one in made:
        how = "the same" if one.how == "same" else f"alike but for {one.bits} of 256 bits"
        render.say(("registry: ", "dim"), f"{how}, item {one.item_id[:ID_CHARS]} of {one.account}, {_moment(one.at_s)}")


def _list(found: Sequence[Standing], *, as_json: bool) -> None:
    if as_json:
        render.line(render.to_line({"pieces": [_document(one) for one in found]}))
        return
    if not found:
        render.note("nothing is there")
        return
    rows = []
    for one in found:
        when = one.entry.sent_s or one.entry.due_s if one.entry else one.piece.made_s
        words = one.piece.post.parts[0] if one.piece.post else one.piece.brief.topic if one.piece.brief else ""
        rows.append(
            (one.piece.id[:ID_CHARS], one.state, _moment(when), one.piece.account, one.piece.reason[:60], words[:60])
        )
    table(("ID", "STATE", "AT", "ACCOUNT", "REASON", "WORDS"), rows)


def _document(one: Standing) -> dict[str, object]:
    return {"state": one.state, **one.model_dump(mode="json")}


def _figures(name: str, found: Report) -> None:
    render.say((name, "bold"), f": {found.items}, of which {found.published} published, {found.refused} refused")
    reached = {None: "", True: "  (more than 90 % are wanted: reached)", False: "  (more than 90 % are wanted)"}
    rows = [
        ("needed no person", _share(found.without_person) + reached[found.reached]),
        ("interventions", _share(found.interventions)),
        ("errors", _share(found.errors)),
        ("engagement", _share(found.engagement)),
        ("reactions each", _number(found.reactions_each, "")),
        ("cost each", _number(found.cost_usd, "$")),
        ("cost of all", f"${found.cost_usd_total:.4f}"),
    ]
    table(("FIGURE", "VALUE (95 % INTERVAL)"), rows)


def _share(figure: Figure) -> str:
    if figure.value is None or figure.low is None or figure.high is None:
        return "not known"
    return f"{figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%})"


def _number(figure: Figure, unit: str) -> str:
    if figure.value is None or figure.low is None or figure.high is None:
        return "not known"
    return f"{unit}{figure.value:.4g} ({unit}{figure.low:.4g} to {unit}{figure.high:.4g})"


def _moment(at_s: float) -> str:
    return datetime.fromtimestamp(min(max(at_s, 0.0), time.time() + 1e9), UTC).strftime("%Y-%m-%d %H:%M")
