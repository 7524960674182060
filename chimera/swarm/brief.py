"""The brief: a cited answer that several agents agreed on, and everything needed to doubt it.

Pure functions from the replies of the extraction tasks to the answer. Each voter's finds over all shards make its
ballot for a part of the question; the mission's consensus decides between the ballots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from pydantic import Field, JsonValue, ValidationError

from chimera.core.hashing import canonical_json
from chimera.core.types import Alternative, Consensus, Decision, Frozen, Outcome, Quote, Reply, Share, Vote
from chimera.swarm.attempt import Settled
from chimera.swarm.consensus import ConsensusEngine

BALLOT_SIZE = 10
"""Quotes that a voter's ballot holds after the judge: as many as it found best over all shards."""

MAX_QUOTES = 3


class Find(Frozen):
    """A quote and how sure its voter is of it."""

    quote: Quote
    confidence: Share


class Ballot(Frozen):
    """What one voter found for one part of the question, best first."""

    voter: str
    finds: tuple[Find, ...]


class Part(Frozen):
    """A part of the question with its ballots, as the judge passes them on."""

    question: str
    ballots: tuple[Ballot, ...]


class Silence(Frozen):
    """A voter that had nothing to say on a shard, and why."""

    task: str
    voter: str
    why: str


class Skipped(Frozen):
    """A file that could not be read."""

    file: str
    cause: str


class Rejected(Frozen):
    """A reply that the judge did not let through."""

    voter: str
    why: str
    quote: JsonValue = None


class Evidence(Frozen):
    """The judge's reply: what stands word for word in the sources, and what was left out."""

    parts: tuple[Part, ...]
    rejected: tuple[Rejected, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    silent: tuple[Silence, ...] = ()


class Dissent(Frozen):
    """A voter whose first choice was not the decision's."""

    part: str
    voter: str
    quote: Quote | None
    confidence: Share
    why: str = ""


class PartAnswer(Frozen):
    """One part of the question, decided (or not)."""

    question: str
    decision: Decision
    quote: Quote | None
    confidence: Share


class Brief(Frozen):
    """The answer to a question. `quotes[0]` is the decision's; further ones answer further parts or came close.

    `confidence` is the mean over the electorate of each voter's confidence in the quote that was decided on, and of
    the least certain part. `decision` is that part's.
    """

    question: str
    answer: str
    quotes: tuple[Quote, ...]
    confidence: Share
    decision: Decision
    dissent: tuple[Dissent, ...] = ()
    parts: tuple[PartAnswer, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    silent: tuple[Silence, ...] = ()
    model: str = "offline"
    note: str = Field(default="")

    @property
    def agreed(self) -> bool:
        return self.decision.agreed


OFFLINE_NOTE = "The offline model extracts and does not write: the answer is quotes, word for word."


def gather(upstream: Mapping[str, Settled], stands: Callable[[Quote, Settled], bool]) -> Evidence:
    """The judge's work: each voter's best finds over all shards that `stands` confirms in their source."""
    found: dict[int, dict[str, list[tuple[Find, Settled]]]] = {}
    questions: dict[int, str] = {}
    names: dict[str, str] = {}
    rejected: list[Rejected] = []
    skipped: dict[str, Skipped] = {}
    silent: list[Silence] = []
    for task, settled in upstream.items():
        for vote in settled.votes:
            for entry in _entries(vote.reply.details.get("skipped") if vote.reply else None):
                skipped[entry.file] = entry
        item = settled.inputs.get("item")
        if not isinstance(item, dict):
            continue  # the plan itself
        part, question = item.get("part"), item.get("question")
        if not isinstance(part, int) or not isinstance(question, str):
            continue
        questions[part] = question
        for vote in settled.votes:
            if vote.reply is None:
                silent.append(Silence(task=task, voter=vote.policy or vote.voter, why=f"{vote.failure}: {vote.detail}"))
                continue
            finds, refused = _finds(vote)
            rejected += refused
            names[vote.voter] = vote.policy or vote.voter
            found.setdefault(part, {}).setdefault(vote.voter, []).extend((find, settled) for find in finds)
    parts = []
    for part, question in sorted(questions.items()):
        ballots = []
        for voter, finds_there in sorted(found.get(part, {}).items()):
            alone = list(names.values()).count(names[voter]) == 1
            name = names[voter] if alone else f"{names[voter]} ({voter})"
            kept, refused = _confirm(name, finds_there, stands)
            rejected += refused
            ballots.append(Ballot(voter=name, finds=tuple(kept)))
        parts.append(Part(question=question, ballots=tuple(ballots)))
    return Evidence(
        parts=tuple(parts),
        rejected=tuple(sorted(rejected, key=lambda r: (r.voter, r.why, canonical_json(r.quote)))[:100]),
        skipped=tuple(skipped[file] for file in sorted(skipped)),
        silent=tuple(sorted(silent, key=lambda s: (s.task, s.voter))[:100]),
    )


def compose(
    question: str, evidence: Evidence, *, method: Consensus, threshold: float | None, electorate: int
) -> tuple[Brief, tuple[Quote, ...]]:
    """The brief without its answer's wording, and the quotes that the wording must rest on."""
    answers: list[PartAnswer] = []
    runners_up: list[Quote] = []
    dissent: list[Dissent] = []
    for part in evidence.parts:
        answer, ranked = _decide_part(part, method, threshold, electorate)
        answers.append(answer)
        runners_up += [quote for quote in ranked if quote != answer.quote]
        dissent += _dissent(part, answer)
    chosen = tuple(dict.fromkeys(answer.quote for answer in answers if answer.quote))
    quotes = tuple(dict.fromkeys([*chosen, *runners_up]))[: max(MAX_QUOTES, len(chosen))]
    weakest = min(answers, key=lambda a: (a.decision.agreed, a.confidence), default=None)
    nothing = Decision(
        outcome=Outcome.NO_QUORUM, method=method, electorate=electorate, counted=0, explanation="nothing was asked"
    )
    brief = Brief(
        question=question,
        answer="",
        quotes=quotes,
        confidence=weakest.confidence if weakest else 0.0,
        decision=weakest.decision if weakest else nothing,
        dissent=tuple(dissent),
        parts=tuple(answers),
        rejected=evidence.rejected,
        skipped=evidence.skipped,
        silent=evidence.silent,
    )
    return brief, chosen


def _decide_part(
    part: Part, method: Consensus, threshold: float | None, electorate: int
) -> tuple[PartAnswer, list[Quote]]:
    engine = ConsensusEngine(method=method, electorate=electorate, threshold=threshold, early_stop=False)
    weighed = ConsensusEngine(method=Consensus.WEIGHTED, electorate=electorate, early_stop=False)
    for ballot in part.ballots[:electorate]:
        vote = Vote(voter=ballot.voter, policy=ballot.voter, reply=_as_reply(ballot))
        engine.add(vote)
        weighed.add(vote)
    decision = engine.close()
    ranked = [Quote.model_validate(c.value) for c in weighed.candidates if c.value is not None]
    if decision.agreed:
        quote = Quote.model_validate(decision.value) if decision.value is not None else None
    else:
        quote = ranked[0] if ranked else None  # the partial result: the best that there is
    if quote is None and decision.agreed:
        nothing = sum(not ballot.finds for ballot in part.ballots)
        why = f"{nothing} of {electorate} found nothing to quote"
        decision = decision.model_copy(update={"outcome": Outcome.NO_QUORUM, "explanation": why})
        quote = ranked[0] if ranked else None
    confidence = _mean_confidence(part, quote, electorate)
    return PartAnswer(question=part.question, decision=decision, quote=quote, confidence=confidence), ranked


def _mean_confidence(part: Part, quote: Quote | None, electorate: int) -> float:
    if quote is None or electorate == 0:
        return 0.0
    total = sum(max((f.confidence for f in b.finds if f.quote == quote), default=0.0) for b in part.ballots)
    return round(min(1.0, total / electorate), 6)


def _dissent(part: Part, answer: PartAnswer) -> Iterable[Dissent]:
    for ballot in part.ballots:
        first = ballot.finds[0] if ballot.finds else None
        if first is None:
            yield Dissent(part=part.question, voter=ballot.voter, quote=None, confidence=0.0, why="found nothing")
        elif first.quote != answer.quote:
            yield Dissent(part=part.question, voter=ballot.voter, quote=first.quote, confidence=first.confidence)


def _as_reply(ballot: Ballot) -> Reply:
    if not ballot.finds:
        return Reply(value=None, confidence=0.0)
    first, *rest = ballot.finds
    return Reply(
        value=_as_json(first.quote),
        confidence=first.confidence,
        alternatives=tuple(Alternative(value=_as_json(f.quote), confidence=f.confidence) for f in rest),
    )


def _as_json(quote: Quote) -> JsonValue:
    return quote.model_dump(mode="json")


def _finds(vote: Vote) -> tuple[list[Find], list[Rejected]]:
    """A vote's quotes, best first; what is no quote at all is rejected."""
    finds: list[Find] = []
    rejected: list[Rejected] = []
    reply = vote.reply
    if reply is None or (reply.value is None and not reply.alternatives):
        return finds, rejected
    for value, confidence in [(reply.value, reply.confidence), *((a.value, a.confidence) for a in reply.alternatives)]:
        try:
            finds.append(Find(quote=Quote.model_validate(value), confidence=confidence))
        except ValidationError:
            rejected.append(Rejected(voter=vote.policy, why="not a quote", quote=_shortened(value)))
    return finds, rejected


def _confirm(
    voter: str, finds: Sequence[tuple[Find, Settled]], stands: Callable[[Quote, Settled], bool]
) -> tuple[list[Find], list[Rejected]]:
    kept: list[Find] = []
    rejected: list[Rejected] = []
    ordered = sorted(finds, key=lambda pair: (-pair[0].confidence, pair[0].quote.file, pair[0].quote.line))
    for find, settled in ordered:
        if len(kept) == BALLOT_SIZE:
            break
        if any(find.quote == other.quote for other in kept):
            continue
        if stands(find.quote, settled):
            kept.append(find)
        else:
            why = "does not stand word for word in its source"
            rejected.append(Rejected(voter=voter, why=why, quote=_shortened(_as_json(find.quote))))
    return kept, rejected


def _shortened(value: JsonValue) -> JsonValue:
    text = canonical_json(value)
    return value if len(text) <= 500 else text[:500] + "..."


def _entries(value: JsonValue) -> list[Skipped]:
    entries = []
    for entry in value if isinstance(value, list) else []:
        try:
            entries.append(Skipped.model_validate(entry))
        except ValidationError:
            continue
    return entries
