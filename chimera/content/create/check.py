"""What every draft has to pass before a judge sees it, whoever wrote it."""

from __future__ import annotations

import re
from typing import Final

from chimera.content.create.brief import Brief
from chimera.content.create.claims import unsourced
from chimera.content.create.length import length, links
from chimera.content.create.team import Draft, Plan
from chimera.content.create.written import most_parts

MAX_HASHTAGS: Final = 3

_MENTION: Final = re.compile(r"(?<![\w/.])@[A-Za-z0-9_]")
_BARE_LINK: Final = re.compile(
    r"(?<![\w@/.-])(?:www\.|(?:[a-z0-9-]+\.)+(?:com|net|org|io|xyz|ru|info|biz|app|dev|ly|me|co)/?)(?![\w-])", re.I
)
_HASHTAG: Final = re.compile(r"(?<!\w)#\w+")


def refusal_of(draft: Draft, brief: Brief, plan: Plan) -> str | None:
    """Why the draft is none: too long, a link or a mention that it must not have, no link to a source, a claim without
    a source. None: it passes."""
    most, room = most_parts(brief, plan.kind), brief.limits.room_chars
    if len(draft.parts) > most:
        return f"{len(draft.parts)} parts; a {plan.kind} has at most {most} here"
    for part in draft.parts:
        if (size := length(part, brief.limits.link_chars)) > room:
            return f"a part of {size} characters; {brief.limits.channel} has room for {room}"
        if not part.strip() or any(ord(c) < 32 and c != "\n" for c in part):
            return "a part is empty, or holds control characters"
    text = "\n".join(draft.parts)
    urls = {source.url for source in brief.sources if source.id in plan.source_ids}
    found = links(text)
    if foreign := [link for link in found if link not in {url.rstrip(".,;:!?)]}'’") for url in urls}]:
        return f"the link {foreign[0][:200]!r} is none of its sources'"
    without = text
    for link in (*urls, *(f"Source: {source.title}" for source in brief.sources)):
        without = without.replace(link, " ")
    if bare := _BARE_LINK.search(without):
        return f"{bare.group()!r} reads like a link, and is none of its sources'"
    if _MENTION.search(without):
        return "it mentions an account: nobody is addressed who did not ask"
    if len(_HASHTAG.findall(text)) > MAX_HASHTAGS:
        return f"more than {MAX_HASHTAGS} hashtags"
    if not found:
        return "it names no link of its sources"
    unused = {id for claim in draft.claims for id in claim.source_ids} - set(plan.source_ids)
    if unused:
        return f"it rests on {sorted(unused)[0]!r}, which the plan leaves out"
    return unsourced(draft.parts, draft.claims, brief.sources)
