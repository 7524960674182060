"""Passwords: argon2id in a few threads of their own, the same work for whoever is asked about.

Parameters: OWASP's Password Storage Cheat Sheet, m = 19,456 KiB, t = 2, p = 1 (RFC 9106 explains them). Length rules:
NIST SP 800-63B, section 3.1.1: long rather than odd, and Unicode normalised (NFKC) before it is hashed.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from chimera.core.errors import InputError, MissingExtra, RateLimited

if TYPE_CHECKING:
    from argon2 import PasswordHasher

T = TypeVar("T")

MIN_CHARS = 12
MAX_CHARS = 256
MIN_DIFFERENT = 5
MEMORY_KIB = 19_456
PASSES = 2

_COMMON = re.compile(
    "password|passwort|passw0rd|p@ssw[o0]rd|qwert[yz](?:uiop)?|azerty(?:uiop)?|asdfgh(?:jkl)?|zxcvbnm?|1q2w3e4r(?:5t)?"
    "|iloveyou|letmein|welcome|administrator|admin|changeme|secret|chimera|abcd(?:ef)?|(?:19|20)[0-9]{2}|1?2345?6?7?8?9?0?"
)
"""Of what the lists of leaked passwords that are long enough are put together."""


def refuse_weak(name: str, password: str) -> None:
    """Raises InputError for a password that is too short, too long, or that lists of leaked passwords would have.

    That is one of few characters, with the user's name, a row or a repetition, or nothing besides well-known words.
    """
    if not isinstance(password, str) or not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise InputError(f"a password has {MIN_CHARS} to {MAX_CHARS} characters")
    if len(set(password)) < MIN_DIFFERENT:
        raise InputError(f"a password has at least {MIN_DIFFERENT} different characters")
    if len(name) > 3 and name.casefold() in password.casefold():
        raise InputError("a password does not hold the user's name")
    folded = password.casefold()
    repeats = (folded + folded).find(folded, 1) < min(len(folded), MIN_CHARS)
    turns = sum(abs(ord(after) - ord(before)) > 1 for before, after in pairwise(folded))
    if repeats or turns < MIN_DIFFERENT - 1 or len(set(_COMMON.sub("", folded))) < MIN_DIFFERENT:
        raise InputError("a password is no row, no repetition, and more than well-known words: use a few of your own")


def one_time_password() -> str:
    """A random password of 120 bits that a person can copy from a terminal."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(alphabet) for _ in range(5)) for _ in range(5))


class Passwords:
    """Hashes and checks, `threads` at a time, each with 19 MiB. At most `max_waiting` may wait: more are RateLimited.

    `runs` counts argon2's runs, which is what an answer's time is made of.
    """

    def __init__(self, *, threads: int = 2, max_waiting: int = 64) -> None:
        if not 1 <= threads <= 64 or not 1 <= max_waiting <= 10_000:
            raise InputError(f"{threads=}, {max_waiting=}: give 1 to 64 threads and 1 to 10,000 that may wait")
        self._hasher = _hasher()
        self._nobody = self._hasher.hash(secrets.token_urlsafe(32))
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="chimera-passwords")
        self._room = threads + max_waiting
        self._lock = threading.Lock()
        self.runs = 0

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The hash to keep, in PHC's format, salted."""
        return await self._run(lambda: self._hasher.hash(_bytes(password)))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether this is the password. None, for a user there is not, is never right and takes as long."""
        usable = isinstance(password, str) and len(password) <= MAX_CHARS
        given = _bytes(password) if usable else b""
        right = await self._run(lambda: self._is(self._nobody if password_hash is None else password_hash, given))
        return right and usable and password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Whether it was made with other parameters than these."""
        return self._hasher.check_needs_rehash(password_hash)

    def _is(self, password_hash: str, given: bytes) -> bool:
        from argon2.exceptions import VerifyMismatchError

        try:
            return self._hasher.verify(password_hash, given)
        except VerifyMismatchError:
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        with self._lock:
            if self._room <= 0:
                raise RateLimited("too many log in at once: try again", retry_after_s=1.0)
            self._room -= 1
        try:
            future = self._pool.submit(self._count, work)
        except BaseException:
            self._leave()
            raise
        future.add_done_callback(lambda _: self._leave())
        return await asyncio.wrap_future(future)

    def _leave(self) -> None:
        with self._lock:
            self._room += 1

    def _count(self, work: Callable[[], T]) -> T:
        with self._lock:
            self.runs += 1
        return work()


def _bytes(password: str) -> bytes:
    return unicodedata.normalize("NFKC", password).encode(errors="surrogatepass")


def _hasher() -> PasswordHasher:
    try:
        from argon2 import PasswordHasher
    except ImportError:
        raise MissingExtra("argon2-cffi", "security") from None
    return PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=1)
