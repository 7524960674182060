"""Rules over words: a small language that anybody can read, and that cannot be made slow.

A rule has an id, a severity and phrases. A phrase is a row of slots:

    (i|we) will <2> (hurt|kill*) you very?

`(a|b c)` is a choice, `word*` any word that begins so, `very?` may be absent, `<2>` up to two words of any kind, and
`{name}` one of the policy's protected names. Phrases meet whole words only, in any case, with contractions written out
(`we'll` is `we will`), in every view of the text. They become regular expressions over words without nested
repetition, so that a match costs at most a constant for each word.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from chimera.core.types import Frozen, Name
from chimera.security.safety.findings import Severity
from chimera.security.safety.views import View

MAX_RULES = 500
MAX_PHRASES = 200
MAX_SLOTS = 16
MAX_GAPS = 3
MAX_GAP_WORDS = 6

_SLOT = re.compile(r"(?:\(([^()]+)\)|([^\s()<>{}?*]+\*?))(\?)?|<([1-6])>|\{(name)\}")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_CHOICE = re.compile(r"[a-z0-9]+\*?(?: [a-z0-9]+\*?)*")
_REPEATED = re.compile(r"(.)\1{2,}")
_ENDINGS = {"ll": "will", "re": "are", "m": "am", "ve": "have", "d": "would", "s": "s"}
_NEGATED = {"won't": ("will", "not"), "can't": ("can", "not"), "shan't": ("shall", "not")}

Phrase = Annotated[str, Field(min_length=2, max_length=600)]


class Rule(Frozen):
    """What must not be said: any of the phrases `any`, where none of `unless` overlaps it."""

    id: Name
    severity: Literal[Severity.BLOCK, Severity.REVIEW, Severity.WARN]
    advice: Annotated[str, Field(min_length=1, max_length=300)]
    any: tuple[Phrase, ...] = Field(min_length=1, max_length=MAX_PHRASES)
    unless: tuple[Phrase, ...] = Field(default=(), max_length=MAX_PHRASES)

    @model_validator(mode="after")
    def _phrases_can_be_read(self) -> Self:
        for phrase in (*self.any, *self.unless):
            _slots(phrase)
        return self


@dataclass(frozen=True, slots=True)
class Slot:
    """One place of a phrase: choices (each a row of words), or a gap of up to `gap` words, or a protected name."""

    choices: tuple[tuple[str, ...], ...] = ()
    optional: bool = False
    gap: int = 0
    name: bool = False


def _slots(phrase: str) -> tuple[Slot, ...]:
    slots: list[Slot] = []
    at = 0
    for match in _SLOT.finditer(phrase):
        if phrase[at : match.start()].strip() or (match.end() < len(phrase) and phrase[match.end()] != " "):
            break
        at = match.end()
        choice, word, optional, gap, name = match.groups()
        if gap or name:
            slots.append(Slot(gap=int(gap or 0), name=bool(name)))
            continue
        choices = [one.strip() for one in (choice or word).split("|")]
        if not all(_CHOICE.fullmatch(one) for one in choices):
            break
        slots.append(Slot(tuple(tuple(one.split()) for one in choices), optional=bool(optional)))
    else:
        if not phrase[at:].strip() and 1 <= len(slots) <= MAX_SLOTS and _sound(slots):
            return tuple(slots)
    raise ValueError(
        f"{phrase!r}: a phrase is up to {MAX_SLOTS} of word, word*, word?, (a|b c), <1> to <{MAX_GAP_WORDS}> and"
        f" {{name}}, in small letters and digits; its ends are words, and it has at most {MAX_GAPS} gaps"
    )


def _sound(slots: list[Slot]) -> bool:
    firm = [not slot.gap and not slot.optional for slot in slots]
    return firm[0] and firm[-1] and sum(bool(slot.gap) for slot in slots) <= MAX_GAPS


@dataclass(frozen=True, slots=True)
class Words:
    """A view's words. `text` is ` one two `; word `i` begins at `offsets[i]` of it and stood at `spans[i]`."""

    text: str
    offsets: list[int]
    spans: list[tuple[int, int]]
    known: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Compiled:
    pattern: re.Pattern[str]
    needs: tuple[frozenset[str], ...]
    """Of each of these, a word must be there."""

    def finditer(self, words: Words) -> Iterator[re.Match[str]]:
        if all(not need.isdisjoint(words.known) for need in self.needs):
            yield from self.pattern.finditer(words.text)


class RuleBook:
    """The rules, ready to be looked for."""

    def __init__(self, rules: Iterable[Rule], names: Iterable[str] = ()) -> None:
        spelt = tuple(tuple(word.lower() for word in re.findall(r"[^\W_]+", name)) for name in names)
        self._names = tuple(name for name in spelt if name)
        self._vocabulary: set[str] = {"i", "a"}
        self._rules = tuple((rule, self._all(rule.any), self._all(rule.unless)) for rule in rules)
        self._longest = max(map(len, self._vocabulary))

    def _all(self, phrases: Iterable[str]) -> tuple[_Compiled, ...]:
        read = (_slots(phrase) for phrase in phrases)
        return tuple(self._compiled(slots) for slots in read if self._names or not any(slot.name for slot in slots))

    def _compiled(self, slots: tuple[Slot, ...]) -> _Compiled:
        parts, needs = [], []
        for slot in slots:
            if slot.gap:
                parts.append(f"(?:[^ ]+ ){{0,{slot.gap}}}?")
                continue
            choices = self._names if slot.name else slot.choices
            self._vocabulary.update(word.rstrip("*") for choice in choices for word in choice)
            spelt = sorted((" ".join(choice) for choice in choices), key=len, reverse=True)
            body = "|".join(re.escape(one).replace(r"\*", "[^ ]{0,24}").replace(r"\ ", " ") for one in spelt)
            parts.append(f"(?:(?:{body}) )" + ("?" if slot.optional else ""))
            firsts = {choice[0] for choice in choices}
            if not slot.optional and not any(first.endswith("*") for first in firsts):
                needs.append(frozenset(firsts))
        return _Compiled(re.compile("(?<= )" + "".join(parts)), tuple(needs))

    def search(self, view: View, tick: Callable[[], None]) -> Iterator[tuple[Rule, int, int]]:
        """Each rule that the view breaks, and where it stood in the original. `tick` is called between phrases."""
        words = self.words(view)
        for rule, phrases, excuses in self._rules:
            found = []
            for phrase in phrases:
                tick()
                found += [match.span() for match in phrase.finditer(words)]
            if not found:
                continue
            excused = [match.span() for phrase in excuses for match in phrase.finditer(words)]
            for start, end in found:
                if not any(first < end and start < last for first, last in excused):
                    begins = bisect_right(words.offsets, start) - 1
                    ends = bisect_right(words.offsets, end - 1) - 1
                    yield rule, words.spans[begins][0], words.spans[ends][1]

    def words(self, view: View) -> Words:
        """The view's words in small letters, contractions written out."""
        text = " "
        pieces: list[str] = []
        offsets: list[int] = []
        spans: list[tuple[int, int]] = []
        at = len(text)
        for word, start, end in self._spoken(view):
            span = view.span(start, end)
            pieces.append(word)
            offsets.append(at)
            spans.append(span)
            at += len(word) + 1
        return Words(" " + "".join(piece + " " for piece in pieces), offsets, spans, frozenset(pieces))

    def _spoken(self, view: View) -> Iterator[tuple[str, int, int]]:
        runs = iter(view.runs)
        run = next(runs, None)
        for match in _WORD.finditer(view.text):
            start, end = match.span()
            word = match[0].lower()
            while run is not None and run[1] <= start:
                run = next(runs, None)
            if run is not None and run[0] < end and word not in self._vocabulary:
                yield from self._parted(word, start)
            elif "'" in word:
                yield from ((part, start, end) for part in _written_out(word))
            else:
                yield self._settled(word), start, end

    def _parted(self, word: str, start: int) -> Iterator[tuple[str, int, int]]:
        """Words out of letters that were set apart: the longest that the rules know, or single letters."""
        at = 0
        while at < len(word):
            length = min(self._longest, len(word) - at)
            while length > 1 and word[at : at + length] not in self._vocabulary:
                length -= 1
            yield word[at : at + length], start + at, start + min(at + length, len(word))
            at += length

    def _settled(self, word: str) -> str:
        """`killll` is `kill`, where the rules know that word."""
        if word in self._vocabulary or not _REPEATED.search(word):
            return word
        for instead in (r"\1", r"\1\1"):
            if (shorter := _REPEATED.sub(instead, word)) in self._vocabulary:
                return shorter
        return word


def _written_out(word: str) -> tuple[str, ...]:
    if word in _NEGATED:
        return _NEGATED[word]
    if word.endswith("n't"):
        return word[:-3], "not"
    stem, _, ending = word.partition("'")
    if ending in _ENDINGS:
        return stem, _ENDINGS[ending]
    return tuple(word.split("'"))
