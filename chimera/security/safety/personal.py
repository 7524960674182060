"""Personal data, by Presidio's pattern recognisers: without its engine, a language model or a network.

Its own e-mail recogniser would fetch the list of public suffixes; here the list that tldextract ships is read. Texts
are read in windows, so that no expression meets a text whose length somebody else chooses.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from chimera.core.errors import InputError, MissingExtra
from chimera.security.safety.policy import PersonalData
from chimera.security.safety.views import View

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer

WINDOW_CHARS = 4_096
OVERLAP_CHARS = 384
"""More than the longest of what is looked for: an e-mail address has at most 320 characters (RFC 3696)."""

MIN_SCORE = 0.4

_MAY_HOLD = {
    PersonalData.EMAIL: re.compile(r"@"),
    PersonalData.PHONE: re.compile(r"(?:\d[^\w\n]{0,4}){6}\d"),
    PersonalData.CARD: re.compile(r"(?:\d[- ]?){11}\d"),
    PersonalData.IBAN: re.compile(r"[A-Z]{2}\d\d"),
    PersonalData.IP: re.compile(r"\d\.\d|[0-9a-fA-F]:"),
    PersonalData.US_SSN: re.compile(r"\d{3}\D?\d\d\D?\d{4}"),
    PersonalData.CRYPTO: re.compile(r"(?:bc1|[13]|0x)[a-zA-Z0-9]{25}"),
}
_NO_NLP: Any = None
"""Patterns need no language model's artifacts."""

_NO_DIGIT = re.compile(r"\(0\)|\D")


class PersonalDataFinder:
    """Finds `kinds` of personal data in views, but not the brand's `own` contacts.

    Raises MissingExtra without Presidio, InputError for a region that is not one.
    """

    def __init__(
        self, kinds: Iterable[PersonalData], *, own: Iterable[str] = (), phone_regions: Sequence[str] = ("US",)
    ) -> None:
        self._recognizers = _recognizers(frozenset(kinds), phone_regions)
        contacts = tuple(own)
        self._own = frozenset(contact.strip().casefold() for contact in contacts)
        self._own_numbers = frozenset(
            digits for contact in contacts if "@" not in contact and len(digits := _NO_DIGIT.sub("", contact)) >= 7
        )

    def search(self, view: View, tick: Callable[[], None]) -> Iterator[tuple[PersonalData, int, int]]:
        """Each kind found, and its place in the original. `tick` is called between windows."""
        found: list[tuple[PersonalData, int, int]] = []
        for first in range(0, max(1, len(view.text)), WINDOW_CHARS - OVERLAP_CHARS):
            last = min(len(view.text), first + WINDOW_CHARS)
            found += self._in_window(view.text, first, last, tick)
            if last == len(view.text):
                break
        own = [(start, end) for kind, start, end in found if self._is_own(kind, view.text[start:end])]
        for kind, start, end in found:
            if not any(first <= start and end <= last for first, last in own):
                yield (kind, *view.span(start, end))

    def _in_window(
        self, text: str, first: int, last: int, tick: Callable[[], None]
    ) -> Iterator[tuple[PersonalData, int, int]]:
        window = text[first:last]
        for kind, recognizer in self._recognizers:
            tick()
            if not _MAY_HOLD[kind].search(window):
                continue
            for result in recognizer.analyze(window, [kind.value], _NO_NLP):
                start, end = result.start, result.end
                cut = (start == 0 and first > 0) or (end == len(window) and last < len(text))
                if result.score < MIN_SCORE or (cut and end - start < OVERLAP_CHARS):
                    continue  # what a window cuts is whole in the next one
                if kind is PersonalData.IP and not _is_somebodys(window[start:end]):
                    continue
                yield kind, first + start, first + end

    def _is_own(self, kind: PersonalData, found: str) -> bool:
        if found.strip().casefold() in self._own:
            return True
        digits = _NO_DIGIT.sub("", found)
        return kind is PersonalData.PHONE and any(
            digits == own or (len(digits) >= 9 and own.endswith(digits.lstrip("0"))) for own in self._own_numbers
        )


def _is_somebodys(address: str) -> bool:
    """Whether an address is one of the internet's: those of a loopback or a private network name nobody."""
    try:
        return ipaddress.ip_interface(address.partition("%")[0]).ip.is_global
    except ValueError:
        return False


def _recognizers(kinds: frozenset[PersonalData], regions: Sequence[str]) -> list[tuple[PersonalData, EntityRecognizer]]:
    if not kinds:
        return []
    try:
        import phonenumbers
        import tldextract
        from presidio_analyzer import Pattern, PatternRecognizer, predefined_recognizers
    except ImportError as error:
        raise MissingExtra("presidio-analyzer", "security") from error
    if unknown := set(regions) - phonenumbers.SUPPORTED_REGIONS:
        raise InputError(f"phone_regions: no such region: {', '.join(sorted(unknown))}")
    logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL)  # it logs what it could not validate
    suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    class OfflineEmailRecognizer(predefined_recognizers.EmailRecognizer):  # type: ignore[misc,unused-ignore]
        def validate_result(self, pattern_text: str) -> bool:
            return bool(suffixes(pattern_text.rpartition("@")[2]).fqdn)

    ether = Pattern("Ethereum", r"\b0x[a-fA-F0-9]{40}\b", 0.5)
    make: list[tuple[PersonalData, Callable[[], Any]]] = [
        (PersonalData.EMAIL, OfflineEmailRecognizer),
        (
            PersonalData.PHONE,
            lambda: predefined_recognizers.PhoneRecognizer(supported_regions=tuple(regions)),
        ),
        (PersonalData.CARD, predefined_recognizers.CreditCardRecognizer),
        (PersonalData.IBAN, predefined_recognizers.IbanRecognizer),
        (PersonalData.IP, predefined_recognizers.IpRecognizer),
        (PersonalData.US_SSN, predefined_recognizers.UsSsnRecognizer),
        (PersonalData.CRYPTO, predefined_recognizers.CryptoRecognizer),
        (PersonalData.CRYPTO, lambda: PatternRecognizer(supported_entity="CRYPTO", patterns=[ether])),
    ]
    return [(kind, maker()) for kind, maker in make if kind in kinds]
