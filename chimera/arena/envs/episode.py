"""One miner plays one challenge, and what came of it goes on record."""

from __future__ import annotations

from chimera.arena.envs import challenge as rules
from chimera.arena.envs.challenge import MAX_TURNS, Challenge
from chimera.arena.miners.miner import Miner, Turn
from chimera.arena.randomness import Stream, seed_of
from chimera.arena.types import MAX_TEXT_CHARS, Role, Sample
from chimera.core.clock import Clock
from chimera.core.errors import EvidenceError, InputError
from chimera.llm.chat import ChatMessage

MAX_REQUEST_ID_CHARS = 200

MAX_SAMPLING_SEED = 2**31 - 1
"""The greatest that every model server takes."""

_ROOM = len(',""')
"""Characters that a reply takes at least in a response of several."""


async def play(kind: type[Challenge], challenge_id: str, miner: Miner, *, role: Role, clock: Clock) -> Sample:
    """Ask the miner, turn by turn, until the play is over.

    A reply that no evidence can hold (a lone surrogate, too long) is recorded as the empty one, which always fails.
    `elapsed_ms` is the time that the miner took. The verdict is computed from the record, as anyone would. Raises
    MinerError for a fault that is not the miner's, InputError for what is no challenge's id or never ends.
    """
    challenge = rules.deal(kind, challenge_id)
    prompt, info = challenge.prompt(), rules.info_of(challenge, challenge_id)
    seed = Stream(f"{kind.env_id} sampling", seed_of(challenge_id)).below(MAX_SAMPLING_SEED + 1)
    messages = [ChatMessage(role="user", content=prompt)]
    replies: list[str] = []
    waited_s, request_id = 0.0, None
    while challenge.verdict is None:
        if len(replies) == MAX_TURNS:
            raise InputError(f"{kind.env_id} is broken: {challenge_id} is not over after {MAX_TURNS} replies")
        turn = Turn(
            messages=tuple(messages),
            seed=seed,
            challenge_id=challenge_id,
            challenge=_again(kind, challenge_id, replies),
        )
        began_s = clock.monotonic()
        answer = await miner.reply(turn)
        waited_s += clock.monotonic() - began_s
        request_id = answer.request_id
        replies.append(_recorded(kind, replies, answer.text))
        said = challenge.reply(replies[-1])
        messages += [ChatMessage(role="assistant", content=replies[-1]), ChatMessage(role="user", content=said)]
    response = rules.response_of(kind, replies)
    return Sample(
        env_id=kind.env_id,
        challenge_id=challenge_id,
        miner_id=miner.miner_id,
        role=role,
        prompt=prompt,
        response=response,
        info=info,
        verdict=rules.verify(kind, prompt, response, info),
        request_id=request_id if request_id and _fits(request_id, MAX_REQUEST_ID_CHARS) else None,
        elapsed_ms=max(0, round(waited_s * 1_000)),
    )


def _again(kind: type[Challenge], challenge_id: str, replies: list[str]) -> Challenge:
    """The challenge as it stands, made anew: what a policy does to it changes nothing."""
    challenge = rules.deal(kind, challenge_id)
    for reply in replies:
        challenge.reply(reply)
    return challenge


def _recorded(kind: type[Challenge], replies: list[str], text: str) -> str:
    """The reply as evidence holds it."""
    if not _fits(text, MAX_TEXT_CHARS):
        return ""
    try:
        response = rules.response_of(kind, [*replies, text])
    except EvidenceError:
        return ""
    return text if not kind.multi_turn or len(response) + _ROOM <= MAX_TEXT_CHARS else ""


def _fits(text: str, most_chars: int) -> bool:
    try:
        text.encode()
    except UnicodeError:
        return False
    return len(text) <= most_chars
