"""The desk that mentions come to: each is read, decided on, written down, and then answered or handed to a person."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from chimera.content.accounts import Account
from chimera.content.create.brief import Source
from chimera.content.engage.answer import A_PERSON_WILL, THANKS, Answer, answer
from chimera.content.engage.handled import Handled, Mentions
from chimera.content.engage.mention import Mention, Reader
from chimera.content.engage.passages import Passages
from chimera.content.engage.policy import Decision, EngagePolicy, decide
from chimera.content.publish.types import Post
from chimera.core.clock import Clock
from chimera.core.errors import InputError
from chimera.llm.chat import ChatModel

Say = Callable[[Post], Awaitable[str]]
"""Hands a reply in for review and publishing, as any post; "" is refused. Twice the same is once."""

HandOver = Callable[[Mention, Decision], Awaitable[None]]
"""Asks a person to answer a mention. Twice the same is once."""


class Desk:
    """Answers the mentions of one account. `sources` are the brand's own texts: nothing else is ever said.

    `say` and `hand_over` are asked again after a crash, with the same key. One process at a time handles an account.
    """

    def __init__(
        self,
        account: Account,
        *,
        sources: Sequence[Source],
        model: ChatModel,
        mentions: Mentions,
        say: Say,
        hand_over: HandOver,
        clock: Clock,
        policy: EngagePolicy | None = None,
        reader: Reader | None = None,
    ) -> None:
        self._account, self._model, self._mentions, self._clock = account, model, mentions, clock
        self._say, self._hand_over = say, hand_over
        self._policy = policy or EngagePolicy()
        self._reader = reader or Reader()
        self._passages = Passages(sources)

    async def handle(self, mention: Mention) -> Handled:
        """Deal with a mention, once: one that was dealt with is left as it is.

        Raises InputError for one of another account, and what asking a person or the model raises.
        """
        if mention.account != self._account.name:
            raise InputError(f"this is {self._account.name}'s desk, and the mention is of {mention.account}")
        handled = self._mentions.known(mention)
        if handled is None:
            reading = self._reader.read(mention)
            past = self._mentions.past(mention)
            decision = decide(mention, reading, past, self._policy, self._clock.now())
            handled = self._mentions.begin(mention, reading, decision)
        if handled.done:
            return handled
        key = await self._carry_out(mention, handled.decision, handled.text)
        self._mentions.done(mention, key)
        found = self._mentions.known(mention)
        assert found is not None
        return found

    async def _carry_out(self, mention: Mention, decision: Decision, text: str = "") -> str:
        """Do it; returns the key of the post that says something, if one does. `text` is an answer made before."""
        if decision.do in ("ignore", "stop"):
            return ""
        if decision.do == "hand_over":
            await self._hand_over(mention, decision)
            return await self._say(self._post(mention, A_PERSON_WILL)) if decision.tell else ""
        if decision.do == "thank":
            return await self._say(self._post(mention, THANKS))
        rule = "answer.refused"
        if not text:
            fitting = [one for one in self._passages.search(mention.text) if one.covered >= self._policy.least_covered]
            made = await answer(mention, fitting, self._model)
            if isinstance(made, Answer):
                text = f"{made.text}\n\n{made.url}"
                self._mentions.made(mention, text)
            else:
                rule = made.rule
        if text and (key := await self._say(self._post(mention, text))):
            return key
        instead = Decision(do="hand_over", rule=rule)
        self._mentions.instead(mention, instead)
        return await self._carry_out(mention, instead)

    def _post(self, mention: Mention, text: str) -> Post:
        """A reply to the mention: it never goes to anybody who has not written."""
        return Post(
            account=self._account.name,
            parts=(text,),
            reply_to=mention.reference,
            language="en",
            item_id=f"reply:{mention.id}"[:128],
            audience=self._account.audience,
        )
