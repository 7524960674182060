"""The answers are those of the story as it is told: a second reader, who knows only the text, comes to the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.envs import challenge as rules
from chimera.arena.envs.ledger import EVENTS, MAX_TEXT_CHARS, PEOPLE, TURNS, Ledger, LedgerEnv


class Reader:
    """Keeps count of a story, sentence by sentence, from its words alone."""

    def __init__(self) -> None:
        self.has: dict[str, int] = {}
        self.events = 0

    def tell(self, text: str) -> int:
        """Take a part in; the answer to its question."""
        self.events = 0
        *told, question = re.findall(r"[A-Z][^.?]*[.?]", text)
        for sentence in told:
            self._event(sentence.rstrip("."))
            assert min(self.has.values()) >= 0
        return self._answer(question)

    def _event(self, sentence: str) -> None:
        words = sentence.split()
        if words[1] == "has":
            assert words[0] not in self.has
            self.has[words[0]] = int(words[2])
            return
        self.events += 1
        if words[1] == "and":
            self.has[words[0]], self.has[words[2]] = self.has[words[2]], self.has[words[0]]
        elif "already" in words:
            moved = self.has[words[2]]
            self.has[words[0]] -= moved
            self.has[words[2]] += moved
        elif words[1] == "gives":
            self.has[words[0]] -= int(words[3])
            self.has[words[2]] += int(words[3])
        else:
            self.has[words[0]] += int(words[2]) * {"finds": 1, "loses": -1}[words[1]]

    def _answer(self, question: str) -> int:
        people = [word for word in re.findall(r"\w+", question) if word in self.has]
        if "together" in question:
            return sum(self.has.values())
        if "more" in question:
            return self.has[people[0]] - self.has[people[1]]
        return self.has[people[0]]


def dealt(seed: int) -> Ledger:
    play = rules.deal(Ledger, f"seed:{seed}")
    assert isinstance(play, Ledger)
    return play


@given(st.integers(0, 10**9))
def test_a_reader_of_the_text_alone_answers_every_question(seed: int) -> None:
    play, reader, parts = dealt(seed), Reader(), 0
    text = play.prompt().split("\n\n")[1]
    while play.verdict is None:
        answer = reader.tell(text)
        assert EVENTS[0] <= reader.events <= EVENTS[1]
        assert answer >= 0 and str(answer) == play.gold()
        text = play.reply(str(answer))
        parts += 1
    assert play.verdict.ok and play.score == 1
    assert TURNS[0] <= parts <= TURNS[1] and parts == play.public()["turns"]
    assert PEOPLE[0] <= len(reader.has) <= PEOPLE[1] and list(reader.has) == play.people


def test_every_kind_of_sentence_is_told() -> None:
    told = " ".join(turn.text for seed in range(200) for turn in dealt(seed)._turns)
    for words in ("gives", "finds", "loses", "swap all", "as many", "together", "How many more"):
        assert words in told


@given(st.integers(0, 10**6), st.integers(0, 5), st.integers(0, 500) | st.text(max_size=8))
def test_the_first_wrong_reply_ends_it(seed: int, turn: int, wrong: int | str) -> None:
    play = dealt(seed)
    for _ in range(min(turn, len(play._turns) - 1)):
        play.reply(play.gold())
    gold, at = play.gold(), play._at
    assert play.verdict is None
    play.reply(str(wrong))
    if str(wrong).strip(" \t\r\n") == gold:
        assert play.verdict is None or play.verdict.ok
        return
    assert play.verdict is not None and not play.verdict.ok and play.score == 0
    assert play.verdict.reason.startswith(f"the reply to part {at + 1} ")
    with pytest.raises(ValueError, match="over"):
        play.reply(gold)


def test_who_forgets_the_beginning_is_found_out() -> None:
    """The question of a later part cannot be answered from that part alone: its numbers are not in it."""
    hidden = sum(
        str(turn.answer) not in re.findall(r"\d+", turn.text) for seed in range(200) for turn in dealt(seed)._turns[1:]
    )
    parts = sum(len(dealt(seed)._turns) - 1 for seed in range(200))
    assert hidden / parts > 0.9


def test_what_is_told_fits_the_space() -> None:
    env = LedgerEnv()
    for seed in range(300):
        observed, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            assert observed in env.observation_space and 0 < len(observed) < MAX_TEXT_CHARS
            observed, reward, ended, _, _ = env.step(env.challenge.gold())
        assert observed == "" and observed in env.observation_space and reward == 1.0
