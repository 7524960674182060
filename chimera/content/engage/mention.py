"""What somebody wrote to one of our accounts, and what they seem to want.

It is a stranger's text: data, whatever it says. Reading it decides who answers, and never what is done.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from chimera.content.rules.phrases import Phrases
from chimera.core.errors import InputError
from chimera.core.types import Frozen, Name
from chimera.security.gateway.gateway import SecurityGateway
from chimera.security.gateway.normal import fold
from chimera.security.gateway.taint import Tainted
from chimera.security.safety.findings import Severity
from chimera.security.safety.rules import Rule

MAX_MENTION_CHARS: Final = 5_000
MAX_LINKS: Final = 2
"""In one mention that is answered; more are an advertisement."""


class Mention(Frozen):
    """A mention of `account`. `author` is a keyed hash of who wrote it, as in a `FeedItem`: no name is kept.

    `reference` is what the platform calls it, as in `Post.reply_to`; `conversation` what it calls the whole thread.
    """

    id: Name
    account: Annotated[str, Field(min_length=1, max_length=64)]
    author: Annotated[str, Field(pattern=r"^[0-9a-f]{24}$")]
    text: Annotated[str, Field(min_length=1, max_length=MAX_MENTION_CHARS, repr=False)]
    reference: Annotated[str, Field(max_length=900)] = ""
    conversation: Annotated[str, Field(max_length=300)] = ""
    at_s: Annotated[float, Field(ge=0.0, le=1e11, allow_inf_nan=False)]

    def tainted(self) -> Tainted:
        """The text for a prompt, marked as somebody else's."""
        return Tainted(self.text, frozenset({f"mention:{self.account}"}))


class Want(StrEnum):
    """What a mention is taken for, the one that is decisive first."""

    STOP = "stop"
    """They want no answers from us, ever."""
    PERSON = "person"
    ANGER = "anger"
    ATTACK = "attack"
    """It instructs machines."""
    SPAM = "spam"
    THANKS = "thanks"
    QUESTION = "question"
    OTHER = "other"


class Reading(Frozen):
    """What a mention is taken for, and by which rule."""

    want: Want
    rule: str


_ADVICE: Final = "a person is to look"
_RULES: Final = tuple(
    Rule(id=f"{want}.words", severity=Severity.REVIEW, advice=_ADVICE, any=phrases)
    for want, phrases in (
        (
            Want.STOP,
            (
                "(stop|quit|cease) <2> (replying|answering|messaging|contacting|writing|tagging|mentioning|spamming)",
                "stop sending",
                "(do not|dont|never) <2> (reply|answer|message|contact|write|tag|respond) <2> (me|us|again|this|here)",
                "(do not|dont|never) <2> (want|need|like|wish) <4> (replies|reply|answers|answer|messages|bots|bot)",
                "leave (me|us) alone",
                "(unsubscribe|opt out|optout|remove me|block me|mute me|go away|get lost|shut up)",
                "(no more|no further|no) (replies|answers|messages|bots)",
                "(lass|lasst) (mich|uns) in ruhe",
                "(keine|kein) <1> (antworten|nachrichten|bots) mehr",
                "(hor|hoer|hore) auf",
                "(laisse|laissez) <1> (tranquille|moi)",
                "(arrete|arretez)",
                "(dejame|dejenme) en paz",
                "no <2> (respondas|escribas|contestes)",
                "(smettila|basta|lasciami in pace)",
                "(pare|para) de (responder|escrever)",
            ),
        ),
        (
            Want.PERSON,
            (
                "(talk|speak|chat|write|get|connect|pass) <3> (to|with|through) <2>"
                " (human|person|someone|somebody|agent|representative|manager|staff|employee|team)",
                "(real|actual|living) (human|person|people|someone)",
                "(human|person) please",
                "(want|need|get|give|is there|are there) <3> (human|person)",
                "(someone|somebody|anybody|anyone) <2> (real|human|call me|contact me|help me)",
                "(are you|is this|am i talking to) <2> (a|an)? (bot|robot|machine|ai|human|real person)",
                "(lawyer|solicitor|attorney|legal action|sue you|suing|gdpr|data protection|privacy request"
                "|delete my data|my personal data)",
                "(suicide|suicidal|kill myself|hurt myself|self harm|emergency|ambulance)",
                "(want to die|end my life|go on anymore)",
                "(hablar|parler|sprechen|reden|parlare|falar) <3> (persona|personne|mensch*|mitarbeiter|pessoa)",
            ),
        ),
        (
            Want.ANGER,
            (
                "(angry|furious|outraged|outrageous|disgusted|disgusting|disgrace|disgraceful|unacceptable|appalling"
                "|ridiculous|pathetic|shame|shameful|scam|scammers|fraud|liars|lying|ripped off|rip off|refund)",
                "(worst|terrible|horrible|awful) <3> (service|company|product|experience|support|ever|app|brand)",
                "(fed up|sick of|tired of|had enough|waste of|fuck*|shit|wtf|bullshit|idiots|useless|garbage|crap)",
                "(complain|complaint|complaints|complaining)",
                "(still|again|third time|second time) <3> (not|broken|waiting|no answer|no reply|nothing)",
                "(how dare|never again|i hate)",
            ),
        ),
        (
            Want.SPAM,
            (
                "(follow me|follow back|check out my|visit my|click here|dm me|promo code|free money|giveaway|airdrop"
                "|onlyfans|casino|crypto signals|work from home|earn money)",
                "(buy|get|cheap) <2> (followers|likes|viagra|pills)",
            ),
        ),
        (
            Want.THANKS,
            ("(thanks|thank you|thx|cheers|great work|good job|well done|love this|love it|congrats|congratulations)",),
        ),
    )
)
_ASKING: Final = Rule(
    id="question.words",
    severity=Severity.REVIEW,
    advice=_ADVICE,
    any=(
        "(what|when|where|who|why|how|which|whose|is|are|do|does|did|can|could|will|would|should|has|have) <1>"
        " (the|a|an|is|are|do|does|did|can|could|will|would|should|you|your|i|we|it|this|that|there|much|many|long|to)",
        "(tell me|explain|any idea|i wonder|wondering|please share|looking for)",
    ),
)


class Reader:
    """Tells what mentions want. `screen` finds orders to machines; with none, that of the house."""

    def __init__(self, screen: SecurityGateway | None = None) -> None:
        self._phrases = Phrases((*_RULES, _ASKING))
        self._screen = screen or SecurityGateway()

    def read(self, mention: Mention) -> Reading:
        """What it is taken for; the first of `Want` that fits. In doubt somebody wants a person."""
        found = {rule.id for rule, _, _ in self._phrases.search(mention.text)}
        try:
            attack = self._screen.screen(mention.text, f"mention:{mention.account}").suspicious
        except InputError:  # over a limit of the gateway: nothing that an automatic answer is for
            return Reading(want=Want.SPAM, rule="spam.unreadable")
        if attack:
            found.add("attack.suspected")
        if mention.text.count("://") > MAX_LINKS:
            found.add("spam.links")
        if _STOP.search(fold(mention.text)):
            found.add("stop.alone")
        if _shouts(mention.text):
            found.add("anger.shouting")
        if mention.text.rstrip().endswith("?"):
            found.add("question.mark")
        for want in Want:
            for rule in sorted(found):
                if rule.startswith(f"{want}."):
                    return Reading(want=want, rule=rule)
        return Reading(want=Want.OTHER, rule="other.none")


_STOP: Final = re.compile(
    r"^\W*(?:please |just |pls )?(?:stop|quit|enough|remove|mute)\b(?: it| this| now| please)?\s*(?:[.!,;:\n]|$)"
)
"""The word by itself, with which many begin and say no more."""


def _shouts(text: str) -> bool:
    """Mostly in capitals, or more exclamation marks than anybody needs."""
    words = [word for word in text.split() if len(word) > 2 and word.isalpha()]
    loud = sum(word.isupper() for word in words)
    return "!!!" in text or (loud >= 4 and loud * 2 > len(words))
